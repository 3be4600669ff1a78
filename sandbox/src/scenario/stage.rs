//! The steps of a script, played one by one onto the wire.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rusqlite::types::{Value as Held, ValueRef};
use weir_tds::build::{ColumnDef, TokenBuf, Value};
use weir_tds::version::TdsVersion;

use super::{ColumnSpec, DoneToken, Step};
use crate::conn::reply::{Out, Reply, Stopped};
use crate::sql::{Column, SqlType, cast, to_wire};
use crate::tokens::Message;

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
    server: &'p str,
    defs: Vec<ColumnDef>,
    kinds: Vec<SqlType>,
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
            defs: Vec::new(),
            kinds: Vec::new(),
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
            Step::Rows { values, times } => {
                let row = self.row(values);
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

    /// A step that only makes tokens.
    pub(super) fn token(&mut self, step: &Step) {
        match step {
            Step::Columns(columns) => self.columns(columns),
            Step::Rows { values, .. } => {
                let row = self.row(values);
                self.tokens.raw(&row);
            }
            Step::RowStart => {
                self.tokens.begin_row();
            }
            Step::Cell { column, value } => self.cell(*column, value),
            Step::Hex(hex) => {
                self.tokens.raw(&unhex(hex));
            }
            Step::Made(made) => (made.0)(&mut self.tokens),
            Step::Error {
                number,
                class,
                state,
                text,
            } => {
                Message::new(*number, *class, *state, text.as_str()).put(&mut self.tokens, self.server);
            }
            Step::Done {
                kind,
                status,
                command,
                rows,
            } => {
                let kind = match kind {
                    DoneToken::Done => weir_tds::build::DoneKind::Done,
                    DoneToken::Proc => weir_tds::build::DoneKind::Proc,
                    DoneToken::InProc => weir_tds::build::DoneKind::InProc,
                };
                self.tokens.done_of(kind, *status, *command, *rows);
            }
            Step::ReturnStatus(status) => {
                self.tokens.return_status(*status);
            }
            Step::Routing { server, port } => {
                self.tokens.env_routing(*port, server);
            }
            Step::EnvText { kind, new, old } => {
                self.tokens.env_text(*kind, new, old);
            }
            Step::EnvBytes { kind, new, old } => {
                self.tokens.env_bytes(*kind, &unhex(new), &unhex(old));
            }
            _ => {}
        }
    }

    fn columns(&mut self, columns: &[ColumnSpec]) {
        let made: Vec<Column> = columns
            .iter()
            .map(|c| Column {
                name: c.name.clone(),
                kind: SqlType::from_declared(&c.kind).unwrap_or(SqlType::TEXT),
                nullable: !c.not_null,
                identity: false,
            })
            .collect();
        let version = self.tokens.version();
        self.defs = made.iter().map(|c| c.to_def(version)).collect();
        self.kinds = made.iter().map(|c| c.kind.for_version(version)).collect();
        if let Err(error) = self.tokens.col_metadata(&self.defs) {
            tracing::warn!(%error, "a script's columns cannot be sent");
        }
    }

    fn cell(&mut self, column: usize, value: &serde_json::Value) {
        let (Some(def), Some(kind)) = (self.defs.get(column), self.kinds.get(column)) else {
            return;
        };
        let (held, mut scratch) = (held(value, *kind), String::new());
        let value = to_wire(ValueRef::from(&held), *kind, &mut scratch).unwrap_or(Value::Null);
        if let Err(error) = self.tokens.value(&def.ty, &value) {
            tracing::warn!(%error, column, "a script's value cannot be sent");
        }
    }

    /// A whole row, encoded once.
    fn row(&self, values: &[serde_json::Value]) -> BytesMut {
        let mut inner = Stage::new(self.tokens.version(), self.server);
        inner.defs.clone_from(&self.defs);
        inner.kinds.clone_from(&self.kinds);
        inner.tokens.begin_row();
        for (column, value) in values.iter().enumerate() {
            inner.cell(column, value);
        }
        inner.tokens.take()
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

/// A script's value in the form that SQLite would hold.
fn held(value: &serde_json::Value, kind: SqlType) -> Held {
    let held = match value {
        serde_json::Value::Null => Held::Null,
        serde_json::Value::Bool(b) => Held::Integer(i64::from(*b)),
        serde_json::Value::Number(n) => n
            .as_i64()
            .map_or_else(|| Held::Real(n.as_f64().unwrap_or(0.0)), Held::Integer),
        serde_json::Value::String(s) => match s.strip_prefix("0x") {
            Some(hex) if !kind.is_text() => Held::Blob(unhex(hex)),
            _ => Held::Text(s.clone()),
        },
        other => Held::Text(other.to_string()),
    };
    cast(&held, kind, 0).unwrap_or(held)
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
