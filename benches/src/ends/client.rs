//! A client that drains: closed loops over a number of connections, every answer checked to the last byte, latencies in nanoseconds.
//!
//! It speaks with who started it in lines: it says `ready` when all are logged in, runs at `go`, says what came of it, and keeps its
//! connections until standard input ends, so that the sessions' memory and CPU time can be read meanwhile.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weir_tds::build::RpcBuf;
use weir_tds::build::{ColumnType, Value};
use weir_tds::message::write_message;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::RequestOptions;
use weir_tds::request::all_headers::AllHeaders;
use weir_tds::request::rpc::ProcId;
use weir_tds::version::TdsVersion;

use super::drain::Drain;
use super::encryption::{CertificateFiles, Encryption};
use super::login::Door;
use super::wire::Wire;
use crate::answer::{Answer, Ask};
use crate::failure::{Failure, Trying};

/// Bytes of a read when answers are long.
const LONG_READ: usize = 256 * 1024;
/// The same for answers of a packet or two: many connections share the core's cache.
const SHORT_READ: usize = 16 * 1024;
/// Longest login.
const LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// From `go` to the last answer. One timer for all: a timer for each answer would be measured with it.
const RUN_WITHIN: Duration = Duration::from_secs(300);

/// What a client is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Where.
    pub to: SocketAddr,
    /// How.
    pub encryption: Encryption,
    /// Trusted in TLS.
    pub certificate: CertificateFiles,
    /// Who.
    pub login: String,
    /// Packet size to ask for.
    pub packet_size: u16,
    /// Connections that work.
    pub connections: usize,
    /// Connections that log in, ask once and rest.
    pub idle: usize,
    /// What each asks for, again from the start at the end.
    pub asks: Vec<Ask>,
    /// For how long.
    pub until: Until,
    /// Each statement on a connection of its own.
    pub churn: bool,
}

/// When a connection has done its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// After this many statements.
    Count(u64),
    /// With the first answer that ends after so many milliseconds.
    Millis(u64),
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Statements whose answers were whole and right.
    pub statements: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes in them, packet headers included.
    pub bytes: u64,
    /// From `go` to the last answer, nanoseconds.
    pub nanos: u64,
    /// Latency of a statement (churn: with its connection), nanoseconds: median, 99 %, 99.9 %.
    pub p50: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// Statements and rows before `go`, which are charged as well.
    pub before: (u64, u64),
}

/// A question as it is sent, and the answer that must come.
struct Question {
    request: Vec<u8>,
    answer: Answer,
    /// A batch ends with its count of rows.
    counted: bool,
}

impl Question {
    fn new(ask: Ask, packet_size: u16) -> Result<Self, Failure> {
        let prepared = Ask::PREPARED.iter().position(|of| *of == ask);
        Ok(Self {
            request: match prepared {
                Some(at) => execute(at as i64 + 1)?,
                None => packet(PacketType::SqlBatch, &batch(&ask.text())),
            },
            answer: Answer::new(ask, packet_size),
            counted: prepared.is_none(),
        })
    }
}

fn packet(kind: PacketType, body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    let size = weir_tds::packet::DEFAULT_PACKET_SIZE;
    write_message(&mut out, kind, PacketStatus::EOM, size, 0, 1, body);
    out.to_vec()
}

fn batch(text: &str) -> Vec<u8> {
    let mut body = AllHeaders::encode(0).to_vec();
    body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    body
}

fn execute(handle: i64) -> Result<Vec<u8>, Failure> {
    let mut rpc = RpcBuf::new(RequestOptions::new(TdsVersion::V7_4), 0);
    rpc.call(ProcId::Execute, 0);
    for value in [handle, 42] {
        rpc.parameter("", 0, &ColumnType::IntN(4), &Value::Int(value))
            .trying("sp_execute")?;
    }
    Ok(packet(PacketType::Rpc, &rpc.finish()))
}

/// sp_prepexec of a prepared statement: handle out, the parameter's declaration, the text, the parameter.
fn prepare(ask: Ask) -> Result<Vec<u8>, Failure> {
    let mut rpc = RpcBuf::new(RequestOptions::new(TdsVersion::V7_4), 0);
    let text = ColumnType::NVarChar(8000, weir_tds::build::Collation::LATIN1);
    rpc.call(ProcId::PrepExec, 0)
        .parameter("", 1, &ColumnType::IntN(4), &Value::Null)
        .and_then(|rpc| rpc.parameter("", 0, &text, &Value::Str("@id int")))
        .and_then(|rpc| rpc.parameter("", 0, &text, &Value::Str(&ask.text())))
        .and_then(|rpc| rpc.parameter("@id", 0, &ColumnType::IntN(4), &Value::Int(42)))
        .trying("sp_prepexec")?;
    Ok(packet(PacketType::Rpc, &rpc.finish()))
}

/// What all connections of a client share.
struct Shared {
    door: Door,
    questions: Vec<Question>,
    /// Sent once on each connection, answered like a point select.
    preparing: Vec<Question>,
    order: Order,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    outcome: Outcome,
    latencies: Vec<u64>,
}

/// Runs an order; see the module for the lines.
///
/// # Errors
/// Of a connection; or an answer that is not the one that was asked for.
pub async fn run(order: Order) -> Result<(), Failure> {
    let shared = Arc::new(Shared::new(order)?);
    let order = &shared.order;
    let mut working = Vec::new();
    let mut before = (0, 0);
    let mut resting = Vec::new();
    for at in 0..order.idle + if order.churn { 0 } else { order.connections } {
        let mut wire = shared.enter().await?;
        let (preparing, first) = (shared.preparing.iter(), shared.questions.first());
        for question in preparing.chain(first.filter(|_| at < order.idle)) {
            ask(
                &mut wire,
                question,
                &mut vec![0; SHORT_READ],
                &mut Drain::default(),
            )
            .await?;
            before = (before.0 + 1, before.1 + question.answer.rows);
        }
        if at < order.idle {
            resting.push(wire);
        } else {
            working.push(wire);
        }
    }
    say("ready")?;
    heard("go")?;
    let began = Instant::now();
    let mut tasks = Vec::new();
    if order.churn {
        for _ in 0..order.connections {
            tasks.push(tokio::spawn(churn(Arc::clone(&shared), began)));
        }
    } else {
        for wire in working {
            tasks.push(tokio::spawn(closed_loop(Arc::clone(&shared), wire, began)));
        }
    }
    let (mut outcome, mut latencies) = (Outcome::default(), Vec::new());
    let mut wires = Vec::new();
    let end = tokio::time::Instant::from_std(began + RUN_WITHIN);
    for task in tasks {
        let done = tokio::time::timeout_at(end, task).await;
        let (seen, wire) = done.trying("no answer in time")?.trying("client")??;
        outcome.statements += seen.outcome.statements;
        outcome.rows += seen.outcome.rows;
        outcome.bytes += seen.outcome.bytes;
        latencies.extend(seen.latencies);
        wires.extend(wire);
    }
    outcome.nanos = began.elapsed().as_nanos() as u64;
    outcome.before = before;
    latencies.sort_unstable();
    [outcome.p50, outcome.p99, outcome.p999] = [500, 990, 999].map(|of| quantile(&latencies, of));
    say(&serde_json::to_string(&outcome).trying("outcome")?)?;
    heard("end")?;
    drop(resting);
    for wire in wires {
        wire.close().await.trying("close")?;
    }
    Ok(())
}

/// The value below which so many thousandths lie; `sorted` by size.
fn quantile(sorted: &[u64], thousandths: usize) -> u64 {
    let at = (sorted.len() * thousandths / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}

fn say(line: &str) -> Result<(), Failure> {
    println!("{line}");
    io::stdout().flush().trying("standard output")
}

/// Blocks the only thread: nothing else is to run meanwhile.
fn heard(word: &str) -> Result<(), Failure> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).trying("standard input")?;
    if line.trim_end() == word || (line.is_empty() && word == "end") {
        return Ok(());
    }
    Err(Failure(format!(
        "the client was told '{}', not {word}",
        line.trim_end()
    )))
}

impl Shared {
    fn new(order: Order) -> Result<Self, Failure> {
        let mut known = BTreeMap::new();
        for ask in &order.asks {
            known.insert(ask.text(), *ask);
        }
        let prepared = Ask::PREPARED.into_iter().filter(|ask| order.asks.contains(ask));
        let preparing = prepared.map(|ask| {
            Ok(Question {
                request: prepare(ask)?,
                answer: Answer::new(Ask::Point, order.packet_size),
                counted: false,
            })
        });
        let preparing = preparing.collect::<Result<_, Failure>>()?;
        let questions = order
            .asks
            .iter()
            .map(|ask| Question::new(*ask, order.packet_size));
        Ok(Self {
            door: Door {
                to: order.to,
                encryption: order.encryption,
                tls: match order.encryption {
                    Encryption::Plain => None,
                    _ => Some(order.certificate.client(order.encryption)?),
                },
                login: order.login.clone(),
                packet_size: order.packet_size,
            },
            questions: questions.collect::<Result<_, _>>()?,
            preparing,
            order,
        })
    }

    async fn enter(&self) -> Result<Wire, Failure> {
        let entering = tokio::time::timeout(LOGIN_WITHIN, self.door.enter()).await;
        entering
            .trying("login")?
            .trying(format!("login at {}", self.door.to))
    }

    fn is_done(&self, statements: u64, began: Instant) -> bool {
        match self.order.until {
            Until::Count(count) => statements >= count,
            Until::Millis(millis) => began.elapsed() >= Duration::from_millis(millis),
        }
    }

    fn scratch(&self) -> Vec<u8> {
        let longest = self
            .questions
            .iter()
            .map(|question| question.answer.payload)
            .max();
        let long = longest.is_some_and(|payload| payload > SHORT_READ as u64);
        vec![0; if long { LONG_READ } else { SHORT_READ }]
    }
}

async fn closed_loop(
    shared: Arc<Shared>,
    mut wire: Wire,
    began: Instant,
) -> Result<(Seen, Option<Wire>), Failure> {
    let mut seen = Seen::default();
    let (mut scratch, mut drain) = (shared.scratch(), Drain::default());
    let mut questions = shared.questions.iter().cycle();
    while let Some(question) = questions
        .next()
        .filter(|_| !shared.is_done(seen.outcome.statements, began))
    {
        let asked = Instant::now();
        ask(&mut wire, question, &mut scratch, &mut drain).await?;
        seen.count(asked, question, &drain);
    }
    Ok((seen, Some(wire)))
}

async fn churn(shared: Arc<Shared>, began: Instant) -> Result<(Seen, Option<Wire>), Failure> {
    let mut seen = Seen::default();
    let (mut scratch, mut drain) = (shared.scratch(), Drain::default());
    let mut questions = shared.questions.iter().cycle();
    while let Some(question) = questions
        .next()
        .filter(|_| !shared.is_done(seen.outcome.statements, began))
    {
        let asked = Instant::now();
        let mut wire = shared.enter().await?;
        ask(&mut wire, question, &mut scratch, &mut drain).await?;
        wire.close().await.trying("close")?;
        seen.count(asked, question, &drain);
    }
    Ok((seen, None))
}

impl Seen {
    fn count(&mut self, asked: Instant, question: &Question, drain: &Drain) {
        self.latencies.push(asked.elapsed().as_nanos() as u64);
        self.outcome.statements += 1;
        self.outcome.rows += question.answer.rows;
        self.outcome.bytes += drain.wire;
    }
}

/// Asks and drains the answer, which must be the right one.
async fn ask(
    wire: &mut Wire,
    question: &Question,
    scratch: &mut [u8],
    drain: &mut Drain,
) -> Result<(), Failure> {
    drain.begin();
    wire.send(&question.request).await.trying("request")?;
    while !drain.ended {
        wire.receive(scratch, |bytes| drain.take(bytes))
            .await
            .trying("answer")?;
    }
    let answer = &question.answer;
    let rows = drain
        .done_count()
        .filter(|_| question.counted)
        .unwrap_or(answer.rows);
    if drain.payload == answer.payload && rows == answer.rows {
        return Ok(());
    }
    Err(Failure(format!(
        "the answer had {} bytes of tokens and {rows} rows, and should have {} and {}",
        drain.payload, answer.payload, answer.rows
    )))
}
