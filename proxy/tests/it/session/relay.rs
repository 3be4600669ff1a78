//! Requests and answers that pass.

use std::sync::atomic::Ordering;

use weir_contracts::entry::Outcome;
use weir_proxy::ports::billing::Mode;
use weir_tds::{
    build::{ColumnDef, ColumnType, TokenBuf, Value},
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    walker::{Budget, Walker, WalkerOptions},
};

use super::bench::{Bench, ROW, V, batch, message};

/// A result set of `rows` rows of an int and a text.
pub(crate) fn result(rows: u32) -> Vec<u8> {
    let columns = [
        ColumnDef::new("id", ColumnType::IntN(4)),
        ColumnDef::new("name", ColumnType::nvarchar(40)),
    ];
    let mut tokens = TokenBuf::new(V);
    tokens.col_metadata(&columns).unwrap();
    for id in 0..rows {
        let name = "x".repeat(id as usize % 40);
        tokens
            .row(&columns, &[Value::Int(i64::from(id)), Value::Str(&name)])
            .unwrap();
    }
    tokens.done(0x10, 0xC1, u64::from(rows));
    tokens.as_bytes().to_vec()
}

/// Rows that begin in what the client has, packet by packet.
fn rows_received(mut packets: &[u8]) -> u64 {
    let mut walker = Walker::new(WalkerOptions::new(V));
    while let Ok(Some(header)) = PacketHeader::parse(packets) {
        let (packet, rest) = packets.split_at(usize::from(header.length));
        let mut body = &packet[HEADER_LEN..];
        while !body.is_empty() {
            let consumed = walker
                .walk(body, &mut Budget { ..Budget::UNLIMITED })
                .unwrap()
                .consumed;
            body = &body[consumed..];
        }
        packets = rest;
    }
    walker.rows()
}

#[test]
fn an_answer_arrives_as_it_came_and_every_row_is_paid() {
    let mut bench = Bench::ready(1000 * ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    assert_eq!(bench.server_message(), batch("select * from t"));
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(600));
    bench.feed_server(&sent);
    assert_eq!(bench.to_client, sent, "byte for byte");
    assert_eq!(bench.purse.nanos.load(Ordering::SeqCst), 400 * ROW);
    assert_eq!(
        bench.purse.out.load(Ordering::SeqCst),
        0,
        "no slice outlives its pass"
    );
    let record = &bench.records[0];
    assert_eq!(
        (record.rows, record.result_sets, record.outcome),
        (600, 1, Outcome::Completed)
    );
    assert_eq!(record.cost_nanos, 600 * ROW);
    assert_eq!(record.bytes_out, result(600).len() as u64);
    assert!(!record.drift);
    assert_eq!(record.lease.unwrap().number, 1);
}

#[test]
fn any_split_of_the_servers_stream_gives_the_same() {
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(120));
    for at in 0..=sent.len() {
        let mut bench = Bench::ready(1000 * ROW);
        bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
        bench.feed_server(&sent[..at]);
        bench.feed_server(&sent[at..]);
        assert_eq!(bench.to_client, sent, "split at {at}");
        assert_eq!(bench.records[0].rows, 120);
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_server_not_the_memory() {
    let mut bench = Bench::ready(i64::MAX / 2);
    bench.unread_limit = 10_000;
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(60_000));
    let mut fed = 0;
    for piece in sent.chunks(16 * 1024) {
        if !bench.core.wants_server() {
            break;
        }
        bench.feed_server(piece);
        fed += piece.len();
    }
    assert!(fed < 400_000, "the server is not read any more: {fed}");
    assert!(
        bench.core.client().out.len() <= 64 * 1024 + 4096,
        "one chunk waits at most"
    );
    assert!(bench.records.is_empty());
    bench.unread_limit = usize::MAX;
    for piece in sent[fed..].chunks(16 * 1024) {
        bench.feed_server(piece);
    }
    assert_eq!(bench.to_client, sent);
    assert_eq!(bench.records[0].rows, 60_000);
}

#[test]
fn journaled_rows_are_never_behind_what_the_client_has() {
    let mut bench = Bench::ready(1_000_000 * ROW);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(20_000));
    for piece in sent.chunks(10_000) {
        bench.feed_server(piece);
        let received = rows_received(&bench.to_client);
        assert!(
            bench.journaled_rows >= received,
            "{} journaled, {received} received",
            bench.journaled_rows
        );
    }
    assert_eq!(bench.journaled_rows, 20_000);
}

#[test]
fn observe_mode_measures_and_refuses_nothing() {
    let mut bench = Bench::ready_in(0, Mode::Observe);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(50));
    bench.feed_server(&sent);
    assert_eq!(bench.to_client, sent);
    assert_eq!((bench.records[0].rows, bench.records[0].lease), (50, None));
    assert_eq!(bench.records[0].cost_nanos, 50 * ROW);
}

#[test]
fn observe_mode_forwards_what_it_cannot_read_and_says_so() {
    let mut bench = Bench::ready_in(0, Mode::Observe);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let mut tokens = result(5);
    tokens.extend_from_slice(&[0x42, 1, 2, 3]);
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &tokens);
    bench.feed_server(&sent);
    assert_eq!(bench.to_client, sent);
    assert!(bench.records[0].unparsed);
    bench.to_client.clear();
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 2"));
    bench.server_says(&result(3));
    assert_eq!((bench.records[1].rows, bench.records[1].unparsed), (3, false));
}

#[test]
fn a_closing_lease_is_left_by_an_interim_record() {
    let mut bench = Bench::ready(1_000_000 * ROW);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(2000));
    let middle = sent.len() / 2;
    bench.feed_server(&sent[..middle]);
    bench.purse.lease.store(1, Ordering::SeqCst);
    bench.feed_server(&sent[middle..]);
    assert_eq!(bench.to_client, sent);
    let [part, rest] = bench.records.as_slice() else {
        panic!("{:?}", bench.records);
    };
    assert_eq!(
        (part.outcome, rest.outcome),
        (Outcome::Continued, Outcome::Completed)
    );
    assert_eq!(part.rows + rest.rows, 2000);
    assert_eq!(part.bytes_out + rest.bytes_out, result(2000).len() as u64);
    assert_eq!((part.requests, rest.requests), (1, 0));
    assert_eq!((part.lease.unwrap().number, rest.lease.unwrap().number), (1, 2));
    assert!(!rest.drift, "the DONE count covers both parts");
}

#[test]
fn a_pipelined_request_waits_and_an_attention_does_not() {
    let mut bench = Bench::ready(1000 * ROW);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    bench.server_message();
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    assert_eq!(bench.server_message_kind(), PacketType::Attention);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 2"));
    assert!(bench.to_server.is_empty());
    let mut cancelled = TokenBuf::new(V);
    cancelled.done(0x02, 0xFD, 0);
    bench.server_says(cancelled.as_bytes());
    let mut ack = TokenBuf::new(V);
    ack.done(0x20, 0xFD, 0);
    bench.server_says(ack.as_bytes());
    assert_eq!(bench.client_message(), cancelled.as_bytes());
    assert_eq!(bench.client_message(), ack.as_bytes());
    assert_eq!(bench.records[0].outcome, Outcome::Cancelled);
    assert_eq!(bench.server_message(), batch("select 2"));
}

#[test]
fn an_idle_attention_is_acknowledged_by_the_server() {
    let mut bench = Bench::ready(0);
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    assert_eq!(bench.server_message_kind(), PacketType::Attention);
    let mut ack = TokenBuf::new(V);
    ack.done(0x20, 0xFD, 0);
    bench.server_says(ack.as_bytes());
    assert_eq!(bench.client_message(), ack.as_bytes());
    assert!(bench.records.is_empty(), "a cancellation alone is not a request");
}

#[test]
fn what_leads_elsewhere_in_the_middle_of_a_session_ends_it() {
    let mut bench = Bench::ready(1000 * ROW);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let mut tokens = TokenBuf::new(V);
    tokens.env_routing(1433, "elsewhere").done(0, 0xFD, 0);
    bench.server_says(tokens.as_bytes());
    assert!(bench.end.is_some());
    let elsewhere: Vec<u8> = "elsewhere".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(!bench.to_client.windows(elsewhere.len()).any(|w| w == elsewhere));
}

#[test]
fn a_call_that_wants_no_metadata_gets_it_all_the_same() {
    use weir_tds::{
        build::RpcBuf,
        request::RequestOptions,
        request::rpc::{ProcId, RpcReader},
    };
    let options = RequestOptions::new(V);
    let mut rpc = RpcBuf::new(options, 0);
    rpc.call(ProcId::Execute, 0x0002);
    let body = rpc.finish().to_vec();
    let mut bench = Bench::ready(10 * ROW);
    bench.client_says(PacketType::Rpc, PacketStatus::NORMAL, &body);
    let sent = bench.server_message();
    let mut reader = RpcReader::new(&sent, options).unwrap();
    assert!(!reader.next_call().unwrap().unwrap().flags.no_metadata());
    assert_eq!(sent.len(), body.len());
}
