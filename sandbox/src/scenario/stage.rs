//! The steps of a script, played one by one onto the wire.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use weir_tds::build::TokenBuf;
use weir_tds::version::TdsVersion;

use super::Step;
use super::kinds::Kind;
use crate::conn::reply::{Out, Reply, Stopped};

/// Bytes gathered before they are handed on.
const GATHER: usize = 16 * 1024;
/// Longest wait of a DelayMs, and the length of one turn of an endless wait.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Depth of Repeat inside Repeat.
const DEPTH_MAX: u32 = 16;

/// How a script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The message is to be ended.
    Message,
    /// Nothing more is to be sent.
    Nothing,
}

/// The answer in the making.
pub(super) struct Stage<'p> {
    pub(super) tokens: TokenBuf,
    pub(super) server: &'p str,
    pub(super) kinds: Vec<Kind>,
    /// Types of the computed columns, by the id of their ALTMETADATA.
    pub(super) alternates: HashMap<u16, Vec<Kind>>,
    split: Vec<usize>,
    split_at: usize,
    /// An ATTENTION was waited for: the script answers it itself.
    deaf: bool,
}

impl<'p> Stage<'p> {
    pub(super) fn new(version: TdsVersion, server: &'p str) -> Self {
        Self {
            tokens: TokenBuf::new(version),
            server,
            kinds: Vec::new(),
            alternates: HashMap::new(),
            split: Vec::new(),
            split_at: 0,
            deaf: false,
        }
    }

    pub(super) fn play(&mut self, steps: &[Step], reply: &mut Reply, depth: u32) -> Result<End, Stopped> {
        for step in steps {
            if !self.deaf && reply.cancel().is_cancelled() && !matches!(step, Step::AwaitAttention) {
                return Err(Stopped::Cancelled);
            }
            if self.step(step, reply, depth)? == End::Nothing {
                return Ok(End::Nothing);
            }
            if self.tokens.len() >= GATHER {
                self.hand_on(reply)?;
            }
        }
        Ok(End::Message)
    }

    fn step(&mut self, step: &Step, reply: &mut Reply, depth: u32) -> Result<End, Stopped> {
        match step {
            Step::Rows { values, times } | Step::NbcRows { values, times } => {
                let row = self.row(values, matches!(step, Step::NbcRows { .. }));
                for _ in 0..*times {
                    self.tokens.raw(&row);
                    self.handed(reply)?;
                }
            }
            Step::Plp {
                length,
                known,
                chunk,
                fill,
            } => self.plp(*length, *known, *chunk, *fill, reply)?,
            Step::Repeat { times, steps } if depth < DEPTH_MAX => {
                for _ in 0..*times {
                    if self.play(steps, reply, depth + 1)? == End::Nothing {
                        return Ok(End::Nothing);
                    }
                }
            }
            Step::DelayMs(ms) => {
                self.hand_on(reply)?;
                reply.cancel().wait(Duration::from_millis(*ms).min(WAIT_MAX));
            }
            Step::Flush => {
                self.hand_on(reply)?;
                reply.flush()?;
            }
            Step::Split(sizes) => {
                self.hand_on(reply)?;
                self.split.clone_from(sizes);
                self.split_at = 0;
            }
            Step::EndMessage => {
                self.hand_on(reply)?;
                reply.finish()?;
                reply.begin();
            }
            Step::RawPackets(hex) => {
                self.hand_on(reply)?;
                reply.flush()?;
                reply.raw(Bytes::from(unhex(hex)))?;
            }
            Step::AwaitAttention => {
                self.hand_on(reply)?;
                reply.flush()?;
                while !reply.cancel().wait(WAIT_MAX) {}
                self.deaf = true;
            }
            Step::Never => {
                self.hand_on(reply)?;
                reply.flush()?;
                reply.wait_gone();
                return Err(Stopped::Gone);
            }
            Step::Close | Step::Reset => {
                self.hand_on(reply)?;
                reply.flush()?;
                reply.send(if matches!(step, Step::Close) {
                    Out::Close
                } else {
                    Out::Reset
                })?;
                return Ok(End::Nothing);
            }
            token => self.token(token),
        }
        Ok(End::Message)
    }

    /// A value of any length: at most one chunk of it is held at a time.
    ///
    /// A cancelled value of unknown length is ended early, a stated length is kept: the stream stays well formed.
    fn plp(
        &mut self,
        length: u64,
        known: bool,
        chunk: u32,
        fill: u8,
        reply: &mut Reply,
    ) -> Result<(), Stopped> {
        self.tokens.begin_plp(known.then_some(length));
        let chunk = u64::from(chunk.max(1));
        let bytes = vec![fill; usize::try_from(chunk.min(length)).unwrap_or(GATHER)];
        let mut left = length;
        while left > 0 {
            let now = left.min(chunk);
            self.tokens
                .plp_chunk(bytes.get(..usize::try_from(now).unwrap_or(0)).unwrap_or(&bytes));
            left -= now;
            if self.tokens.len() >= GATHER {
                self.hand_on(reply)?;
            }
            if !known && !self.deaf && reply.cancel().is_cancelled() {
                left = 0;
            }
        }
        self.tokens.end_plp();
        Ok(())
    }

    fn handed(&mut self, reply: &mut Reply) -> Result<(), Stopped> {
        if self.tokens.len() < GATHER {
            return Ok(());
        }
        if !self.deaf && reply.cancel().is_cancelled() {
            self.tokens.clear();
            return Err(Stopped::Cancelled);
        }
        self.hand_on(reply)
    }

    fn hand_on(&mut self, reply: &mut Reply) -> Result<(), Stopped> {
        if self.split.is_empty() {
            return reply.push(&mut self.tokens);
        }
        let mut rest = self.tokens.take();
        while !rest.is_empty() {
            let size = self
                .split
                .get(self.split_at % self.split.len())
                .copied()
                .unwrap_or(1)
                .max(1);
            self.split_at += 1;
            self.tokens.raw(&rest.split_to(size.min(rest.len())));
            reply.push(&mut self.tokens)?;
            // The last packet of a message is not flushed: EOM must stand on it.
            if !rest.is_empty() {
                reply.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, reply: &mut Reply) -> Result<(), Stopped> {
        self.hand_on(reply)?;
        reply.finish()
    }
}

/// Bytes of hex digits; anything else between them is skipped.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|b| char::from(b).to_digit(16))
        .filter_map(|d| u8::try_from(d).ok())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |n, d| (n << 4) | d))
        .collect()
}
