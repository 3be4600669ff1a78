//! Plays a script: matches requests, makes the bytes as they are sent, keeps to the order of the steps.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rusqlite::types::{Value as Held, ValueRef};
use weir_tds::build::{ColumnDef, TokenBuf, Value};
use weir_tds::packet::PacketType;
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::RpcReader;
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::version::TdsVersion;

use super::{ColumnSpec, DoneToken, RequestKind, Scenario, Step, When};
use crate::backend::{LoginAnswer, Serve};
use crate::config::Config;
use crate::conn::reply::{Out, Reply, Stopped};
use crate::conn::{LoginInfo, Request};
use crate::sql::{Column, SqlType, cast, to_wire};
use crate::tokens::{Message, command, status};

/// Bytes gathered before they are handed on.
const GATHER: usize = 16 * 1024;
/// Longest wait of a DelayMs, and the length of one turn of an endless wait.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Depth of Repeat inside Repeat.
const DEPTH_MAX: u32 = 16;

impl Scenario {
    pub(crate) fn connection(self: &Arc<Self>, info: &LoginInfo, config: &Config) -> Box<dyn Serve> {
        Box::new(Player {
            scenario: Arc::clone(self),
            version: info.version,
            server: config.server_name.clone(),
            requests: 0,
            played: vec![0; self.rules.len()],
        })
    }

    pub(crate) fn acknowledges_attention(&self) -> bool {
        !self.ignore_attention
    }

    pub(crate) fn login_answer(&self, info: &LoginInfo, server: &str) -> LoginAnswer {
        if self.login.never {
            return LoginAnswer::Never;
        }
        match &self.login.answer {
            None => LoginAnswer::Usual {
                extra: encode(&self.login.extra, info.version, server),
            },
            Some(steps) => LoginAnswer::Tokens {
                tokens: encode(steps, info.version, server),
                close: self.login.close,
            },
        }
    }

    pub(crate) fn feature_acks(&self) -> Vec<(u8, Vec<u8>)> {
        self.login
            .feature_acks
            .iter()
            .map(|ack| (ack.id, unhex(&ack.data)))
            .collect()
    }
}

/// The steps that make tokens, as bytes.
fn encode(steps: &[Step], version: TdsVersion, server: &str) -> BytesMut {
    let mut stage = Stage::new(version, server);
    for step in steps {
        stage.token(step);
    }
    stage.tokens.take()
}

struct Player {
    scenario: Arc<Scenario>,
    version: TdsVersion,
    server: String,
    requests: u64,
    played: Vec<u64>,
}

/// What of a request rules look at.
struct Asked {
    kind: Option<RequestKind>,
    text: String,
    procedure: String,
    nth: u64,
}

impl Player {
    fn asked(&self, request: &Request) -> Asked {
        let options = RequestOptions::new(self.version);
        let mut asked = Asked {
            kind: None,
            text: String::new(),
            procedure: String::new(),
            nth: self.requests,
        };
        match request.kind {
            PacketType::SqlBatch => {
                asked.kind = Some(RequestKind::Batch);
                asked.text = SqlBatch::parse(&request.body, options)
                    .map(|b| b.text())
                    .unwrap_or_default();
            }
            PacketType::Rpc => {
                asked.kind = Some(RequestKind::Rpc);
                if let Ok(mut reader) = RpcReader::new(&request.body, options)
                    && let Ok(Some(call)) = reader.next_call()
                {
                    asked.procedure = call.procedure.name();
                    let wanted = call.procedure.id().and_then(|id| id.text_parameter());
                    let mut at = 0;
                    while let Ok(Some(parameter)) = reader.next_parameter() {
                        if wanted == Some(at) {
                            asked.text = parameter.text().unwrap_or_default();
                        }
                        at += 1;
                    }
                }
            }
            PacketType::TransactionManager => asked.kind = Some(RequestKind::Transaction),
            PacketType::BulkLoad => asked.kind = Some(RequestKind::BulkLoad),
            _ => {}
        }
        asked
    }
}

impl When {
    fn fits(&self, asked: &Asked) -> bool {
        self.kind.is_none_or(|kind| asked.kind == Some(kind))
            && self.text_is.as_ref().is_none_or(|text| asked.text == *text)
            && self
                .text_contains
                .as_ref()
                .is_none_or(|text| asked.text.contains(text.as_str()))
            && self
                .procedure
                .as_ref()
                .is_none_or(|name| asked.procedure.eq_ignore_ascii_case(name))
            && self.nth.is_none_or(|nth| asked.nth == nth)
    }
}

impl Serve for Player {
    fn serve(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Stopped> {
        self.requests += 1;
        let mut stage = Stage::new(self.version, &self.server);
        reply.begin();
        if request.ignored {
            stage.tokens.done(status::ERROR, command::NONE, 0);
            return stage.finish(reply);
        }
        let asked = self.asked(request);
        let scenario = Arc::clone(&self.scenario);
        let found = scenario
            .rules
            .iter()
            .zip(&mut self.played)
            .find(|(rule, played)| rule.when.fits(&asked) && rule.times.is_none_or(|times| **played < times));
        let steps = match found {
            Some((rule, played)) => {
                *played += 1;
                rule.steps.as_slice()
            }
            None => scenario.otherwise.as_slice(),
        };
        if steps.is_empty() {
            stage.tokens.done(status::FINAL, command::NONE, 0);
            return stage.finish(reply);
        }
        match stage.play(steps, reply, 0) {
            Ok(End::Message) => stage.finish(reply),
            Ok(End::Nothing) => Ok(()),
            Err(Stopped::Cancelled) => {
                stage.tokens.done(status::ERROR, command::NONE, 0);
                stage.finish(reply)
            }
            Err(Stopped::Gone) => Err(Stopped::Gone),
        }
    }
}

/// How a script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The message is to be ended.
    Message,
    /// Nothing more is to be sent.
    Nothing,
}

/// The answer in the making.
struct Stage<'p> {
    tokens: TokenBuf,
    server: &'p str,
    defs: Vec<ColumnDef>,
    kinds: Vec<SqlType>,
    split: Vec<usize>,
    split_at: usize,
    /// An ATTENTION was waited for: the script answers it itself.
    deaf: bool,
}

impl<'p> Stage<'p> {
    fn new(version: TdsVersion, server: &'p str) -> Self {
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

    fn play(&mut self, steps: &[Step], reply: &mut Reply, depth: u32) -> Result<End, Stopped> {
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
    fn token(&mut self, step: &Step) {
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

    fn finish(mut self, reply: &mut Reply) -> Result<(), Stopped> {
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
fn unhex(text: &str) -> Vec<u8> {
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
