//! What was recorded: clients' bytes, and the answers that were recorded with them.

use std::fs;
use std::path::Path;

use weir_protocol_tests::pcap::{self, Direction};
use weir_protocol_tests::vectors::{self, Vector};
use weir_tds::build::{ColumnDef, ColumnType, TokenBuf, Value};
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::RpcReader;
use weir_tds::version::TdsVersion;

use super::client::packets;
use super::server::{Message, next_message};

/// Rows of an answer that was not recorded.
const ROWS: i64 = 3;

/// MORE and COUNT in a DONE.
const MORE_COUNT: u16 = 0x11;
/// COUNT in a DONE.
const COUNT: u16 = 0x10;
/// SELECT, and a procedure's end, as DONE's command.
const SELECT: u16 = 0xC1;
const PROCEDURE: u16 = 0xE0;

/// One client's traffic behind its login.
pub(super) struct Recording {
    pub(super) name: String,
    pub(super) version: TdsVersion,
    /// The messages as they were sent, packet headers and all.
    pub(super) sent: Vec<Vec<u8>>,
    /// Each is sent when the one before it has reached the server; else all at once.
    pub(super) one_by_one: bool,
    pub(super) messages: Vec<Message>,
    /// The bodies that answer each message.
    pub(super) answers: Vec<Vec<Vec<u8>>>,
}

pub(super) fn vector(name: &str) -> Vector {
    let all = vectors::load();
    let found = all.into_iter().find(|vector| vector.name == name);
    found.unwrap_or_else(|| panic!("no vector {name}"))
}

/// The messages in a client's bytes.
pub(super) fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some(message) = next_message(&mut bytes).expect("whole packets") {
        all.push(message);
    }
    all
}

/// A client's bytes, cut behind each message.
fn apart(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut left = bytes;
    let mut all = Vec::new();
    while !left.is_empty() {
        let before = left;
        next_message(&mut left).expect("whole packets");
        all.push(before[..before.len() - left.len()].to_vec());
    }
    all
}

/// Every client of a capture whose login was not captured, with the server's side where that was.
pub(super) fn captured(name: &str) -> Vec<Recording> {
    const SERVER: u16 = 1433;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures").join(name);
    let file = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let streams = pcap::streams(&file);
    let clients = streams.iter().filter(|stream| stream.direction.to.1 == SERVER);
    clients
        .map(|client| {
            let back = Direction {
                from: client.direction.to,
                to: client.direction.from,
            };
            let server = streams.iter().find(|stream| stream.direction == back);
            let sent = messages(&client.bytes);
            let modern = sent.iter().any(|message| headers_of(&message.body));
            let version = if modern {
                TdsVersion::V7_4
            } else {
                TdsVersion::V7_1
            };
            let recorded = server.map(|server| messages(&server.bytes)).unwrap_or_default();
            let answers = sent.iter().enumerate().map(|(at, message)| {
                let body = recorded.get(at).map(|answer| answer.body.clone());
                vec![body.unwrap_or_else(|| made(message, version, false))]
            });
            Recording {
                name: format!("{name}, port {}", client.direction.from.1),
                version,
                answers: answers.collect(),
                messages: sent.clone(),
                sent: apart(&client.bytes),
                one_by_one: false,
            }
        })
        .collect()
}

/// ALL_HEADERS, which came with 7.2, at the head of a request.
fn headers_of(body: &[u8]) -> bool {
    body.starts_with(&[0x16, 0, 0, 0, 0x12, 0, 0, 0])
}

/// A request's body from a vector, as one message.
pub(super) fn request(name: &str, kind: PacketType, column_encryption: bool) -> Recording {
    let vector = vector(name);
    let bytes = packets(kind, &vector.bytes);
    let sent = messages(&bytes);
    Recording {
        name: vector.name,
        version: vector.version,
        answers: sent
            .iter()
            .map(|message| vec![made(message, vector.version, column_encryption)])
            .collect(),
        messages: sent,
        sent: vec![bytes],
        one_by_one: false,
    }
}

/// Vectors of packets in the order of their conversation: a client's, and the server's that answer it.
pub(super) fn conversation(name: &str, turns: &[(&str, &[&str])]) -> Recording {
    let mut recording = Recording {
        name: name.to_owned(),
        version: TdsVersion::V7_4,
        sent: Vec::new(),
        one_by_one: false,
        messages: Vec::new(),
        answers: Vec::new(),
    };
    for (client, server) in turns {
        let bytes = vector(client).bytes;
        let sent = messages(&bytes);
        let answers: Vec<Vec<u8>> = server
            .iter()
            .flat_map(|name| messages(&vector(name).bytes))
            .map(|message| message.body)
            .collect();
        // What was sent together is answered behind its last message.
        recording.answers.extend(sent.iter().skip(1).map(|_| Vec::new()));
        recording.answers.push(answers);
        recording.messages.extend(sent);
        recording.sent.extend(apart(&bytes));
    }
    recording
}

/// An answer for a request whose own was not recorded. With column encryption every COLMETADATA has a table of keys.
pub(super) fn made(to: &Message, version: TdsVersion, column_encryption: bool) -> Vec<u8> {
    let mut tokens = TokenBuf::new(version);
    if to
        .first
        .intersects(PacketStatus::RESET.with(PacketStatus::RESET_SKIP_TRAN))
    {
        tokens.env_reset_ack();
    }
    let columns = [ColumnDef::new("id", ColumnType::Int)];
    let metadata = if column_encryption {
        tokens.col_metadata_encrypted(&columns, &[])
    } else {
        tokens.col_metadata(&columns)
    };
    metadata.expect("a column");
    for id in 1..=ROWS {
        tokens.row(&columns, &[Value::Int(id)]).expect("a row");
    }
    let rows = ROWS.unsigned_abs();
    if to.kind == PacketType::Rpc {
        tokens.done_in_proc(MORE_COUNT, SELECT, rows);
        tokens.return_status(0).done_proc(0, PROCEDURE, 0);
    } else {
        tokens.done(COUNT, SELECT, rows);
    }
    tokens.take().to_vec()
}

/// What the server is to get for a message: fNoMetaData is cleared in every call, for the gate must see the columns; the
/// rest is untouched.
pub(super) fn passed_on(message: &Message, version: TdsVersion) -> Message {
    const NO_METADATA: u8 = 0x02;
    let mut wanted = message.clone();
    if message.kind == PacketType::Rpc {
        let options = RequestOptions::new(version);
        let mut calls = RpcReader::new(&message.body, options).expect("a call");
        while let Some(call) = calls.next_call().expect("a whole call") {
            wanted.body[call.flags_at] &= !NO_METADATA;
        }
    }
    wanted
}
