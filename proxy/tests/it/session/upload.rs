//! Uploads: bulk loads, long requests and messages of many calls, paid while they come in.

use std::sync::atomic::Ordering;

use weir_contracts::{entry::Outcome, tariff::Tariff};
use weir_proxy::ports::billing::Mode;
use weir_tds::{
    build::{ColumnDef, ColumnType, RpcBuf, TokenBuf, Value},
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    request::{
        RequestOptions,
        rpc::{CallFlags, ProcId},
    },
};

use super::{
    bench::{Bench, ROW, V, batch, message, settings, tariff},
    login::error_in,
};

/// Price of a row brought in.
const BULK_ROW: i64 = 1000;

fn by_upload() -> Tariff {
    Tariff {
        per_row_nanos: 0,
        per_bulk_row_nanos: BULK_ROW,
        ..Tariff::clone(&tariff())
    }
}

/// A bulk load's body of `rows` rows.
fn bulk(rows: i64) -> Vec<u8> {
    let columns = [
        ColumnDef::new("id", ColumnType::IntN(4)),
        ColumnDef::new("name", ColumnType::nvarchar(40)),
    ];
    let mut tokens = TokenBuf::new(V);
    tokens.bulk_metadata(&columns).unwrap();
    for id in 0..rows {
        tokens
            .row(&columns, &[Value::Int(id), Value::Str("some forty bytes here")])
            .unwrap();
    }
    tokens.done(0, 0, 0);
    tokens.as_bytes().to_vec()
}

fn done(status: u16, rows: u64) -> Vec<u8> {
    TokenBuf::new(V).done(status, 0xF0, rows).as_bytes().to_vec()
}

/// INSERT BULK, acknowledged.
fn announce(bench: &mut Bench, text: &str) {
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch(text));
    bench.server_message();
    bench.server_says(&done(0, 0));
    bench.client_message();
    bench.records.clear();
}

/// Headers and joined bodies of what the server was sent.
fn at_server(bench: &Bench) -> (Vec<PacketHeader>, Vec<u8>) {
    let (mut headers, mut body, mut rest) = (Vec::new(), Vec::new(), &bench.to_server[..]);
    while let Some(header) = PacketHeader::parse(rest).unwrap() {
        let (packet, later) = rest.split_at(header.length.into());
        body.extend_from_slice(&packet[HEADER_LEN..]);
        headers.push(header);
        rest = later;
    }
    (headers, body)
}

fn rows_begun(body: &[u8]) -> u64 {
    use weir_tds::{
        request::bulk_load::{BulkKind, BulkWalker},
        walker::WalkerOptions,
    };
    let mut walker = BulkWalker::new(WalkerOptions::new(V), BulkKind::Rows);
    walker.walk(body).unwrap();
    walker.rows()
}

#[test]
fn a_bulk_load_is_stopped_within_its_credit_and_nothing_is_loaded() {
    for credit_rows in [1, 80, 81, 500, 999] {
        let mut bench = Bench::priced(credit_rows * BULK_ROW, by_upload());
        announce(&mut bench, "INSERT BULK t (id int, name nvarchar(40))");
        let sent = message(PacketType::BulkLoad, PacketStatus::NORMAL, &bulk(1000));
        let mut denied = false;
        for piece in sent.chunks(3000) {
            bench.feed_client(piece);
            if !denied && !bench.actions.is_empty() {
                bench.deny();
                denied = true;
                if !bench.to_server.is_empty() {
                    bench.server_says(&done(2, 0));
                }
                // The pause that a client may make in its request is all that is left.
                let cut = bench.now + settings().cut_deadline;
                assert!(bench.core.deadline().is_none_or(|at| at > cut));
            }
            assert!(bench.to_client.is_empty() || bench.core.client().buffered() == 0);
        }
        assert!(denied, "{credit_rows}");
        let (headers, body) = at_server(&bench);
        let got = if body.is_empty() { 0 } else { rows_begun(&body) };
        assert!(
            got <= u64::try_from(credit_rows).unwrap(),
            "{got} of {credit_rows}"
        );
        assert!(
            got + 90 > u64::try_from(credit_rows).unwrap(),
            "a packet has some 70 rows"
        );
        if !headers.is_empty() {
            assert_eq!(headers.last().unwrap().status.0, 3, "EOM and IGNORE");
            let record = &bench.records[0];
            assert_eq!((record.bulk_rows, record.outcome), (got, Outcome::CutOff));
            assert_eq!(record.cost_nanos, i64::try_from(got).unwrap() * BULK_ROW);
            assert_eq!(record.cost_nanos, by_upload().cost_nanos(&record.quantity()));
        }
        assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
        assert!(bench.to_client.is_empty() && bench.end.is_none());
        assert!(
            bench.purse.nanos.load(Ordering::SeqCst) >= 0,
            "nothing beyond the credit"
        );
        bench.to_server.clear();
        bench.purse.nanos.store(1_000_000 * ROW, Ordering::SeqCst);
        bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
        assert_eq!(bench.server_message(), batch("select 1"), "it stays usable");
    }
}

#[test]
fn the_answer_to_a_stopped_upload_waits_for_its_end() {
    let mut bench = Bench::priced(100 * BULK_ROW, by_upload());
    announce(&mut bench, "INSERT BULK t (id int, name nvarchar(40))");
    let sent = message(PacketType::BulkLoad, PacketStatus::NORMAL, &bulk(1000));
    let (head, tail) = sent.split_at(sent.len() - 100);
    bench.feed_client(head);
    bench.deny();
    bench.server_says(&done(2, 0));
    assert!(bench.to_client.is_empty());
    bench.feed_client(tail);
    assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
}

#[test]
fn credit_that_comes_in_the_middle_lets_the_upload_go_on_as_it_came() {
    let mut bench = Bench::priced(10 * BULK_ROW, by_upload());
    announce(&mut bench, "INSERT BULK t (id int, name nvarchar(40))");
    let sent = message(PacketType::BulkLoad, PacketStatus::NORMAL, &bulk(1000));
    bench.feed_client(&sent);
    while !bench.actions.is_empty() {
        assert!(
            !bench.core.is_runnable(bench.now),
            "it waits for credit, not for nothing"
        );
        bench.grant(200 * BULK_ROW);
    }
    assert_eq!(bench.to_server, sent);
    bench.server_says(&done(0x10, 1000));
    let record = &bench.records[0];
    assert_eq!((record.bulk_rows, record.cost_nanos), (1000, 1000 * BULK_ROW));
    assert_eq!(record.bulk_bytes, bulk(1000).len() as u64);
    assert!(!record.drift);
}

#[test]
fn a_client_that_cancels_while_its_upload_waits_is_heard_once() {
    let mut bench = Bench::priced(100 * BULK_ROW, by_upload());
    announce(&mut bench, "INSERT BULK t (id int, name nvarchar(40))");
    let sent = message(PacketType::BulkLoad, PacketStatus::NORMAL, &bulk(300));
    bench.feed_client(&sent[..2 * 4096]);
    assert_eq!(bench.actions.len(), 1);
    // What waits is still in front of the ATTENTION: credit decides first.
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    bench.deny();
    let (headers, _) = at_server(&bench);
    assert_eq!(headers.last().unwrap().status.0, 3);
    bench.server_says(&done(2, 0));
    assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
    assert_eq!(
        bench.client_message(),
        done(0x20, 0).as_slice().to_vec().with_curcmd(0xFD)
    );
    assert!(bench.to_client.is_empty() && bench.end.is_none());
}

trait WithCurCmd {
    fn with_curcmd(self, command: u8) -> Self;
}

impl WithCurCmd for Vec<u8> {
    fn with_curcmd(mut self, command: u8) -> Self {
        self[3] = command;
        self
    }
}

#[test]
fn an_upload_that_ends_on_the_border_of_a_packet_ends_with_an_empty_one() {
    let body = bulk(100);
    let mut bench = Bench::priced(1000 * BULK_ROW, by_upload());
    announce(&mut bench, "INSERT BULK t (id int, name nvarchar(40))");
    let mut sent = message(PacketType::BulkLoad, PacketStatus::NORMAL, &body);
    let packets: Vec<usize> = at_packets(&sent);
    let last = *packets.last().unwrap();
    sent[last + 1] = 0;
    sent.extend_from_slice(&[7, 1, 0, 8, 0, 0, 9, 0]);
    bench.feed_client(&sent);
    let (headers, got) = at_server(&bench);
    assert_eq!(got, body);
    assert!(headers.last().unwrap().status.is_eom());
    bench.server_says(&done(0x10, 100));
    assert_eq!(bench.records[0].bulk_rows, 100);
}

fn at_packets(bytes: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while let Some(header) = PacketHeader::parse(&bytes[at..]).unwrap() {
        starts.push(at);
        at += usize::from(header.length);
    }
    starts
}

#[test]
fn request_bytes_with_a_price_are_paid_while_they_come() {
    let prices = Tariff {
        per_kib_in_nanos: 1024,
        ..tariff().as_ref().clone()
    };
    let mut bench = Bench::priced(300_000, prices.clone());
    let body = batch(&"x".repeat(400_000));
    let sent = message(PacketType::SqlBatch, PacketStatus::NORMAL, &body);
    bench.feed_client(&sent);
    bench.deny();
    bench.server_says(&done(2, 0));
    let (_, got) = at_server(&bench);
    assert!(got.len() <= 300_000 && got.len() > 280_000, "{}", got.len());
    assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
    let record = &bench.records[0];
    assert_eq!(record.bytes_in, got.len() as u64);
    assert_eq!(record.cost_nanos, prices.cost_nanos(&record.quantity()));
    assert!(bench.purse.nanos.load(Ordering::SeqCst) >= 0);
}

fn calls(count: usize) -> Vec<u8> {
    let mut rpc = RpcBuf::new(RequestOptions::new(V), 0);
    for _ in 0..count {
        rpc.call(ProcId::Execute, CallFlags::NO_METADATA);
        rpc.parameter("", 0, &ColumnType::IntN(4), &Value::Int(1))
            .unwrap();
    }
    rpc.finish().to_vec()
}

#[test]
fn every_call_of_a_message_is_a_request() {
    let prices = Tariff {
        per_request_nanos: 500,
        ..tariff().as_ref().clone()
    };
    for count in [1, 2, 700, 5000, 20_000] {
        let mut bench = Bench::priced(i64::MAX / 4, prices.clone());
        let body = calls(count);
        bench.client_says(PacketType::Rpc, PacketStatus::NORMAL, &body);
        assert_eq!(bench.server_message().len(), body.len());
        bench.server_says(TokenBuf::new(V).done_proc(0, 0xE0, 0).as_bytes());
        assert_eq!(
            bench.records.iter().map(|r| r.requests).sum::<u64>(),
            count as u64
        );
        let cost: i64 = bench.records.iter().map(|r| r.cost_nanos).sum();
        assert_eq!(cost, 500 * i64::try_from(count).unwrap());
        for record in &bench.records {
            assert_eq!(record.cost_nanos, prices.cost_nanos(&record.quantity()));
        }
        assert_eq!(
            bench.records.iter().map(|r| r.bytes_in).sum::<u64>(),
            body.len() as u64
        );
        assert!(bench.records.iter().all(|r| r.requests <= 2048));
    }
}

#[test]
fn a_value_of_writetext_bulk_is_no_row_and_a_load_of_rows_is_never_taken_for_one() {
    let value = [&3u32.to_le_bytes()[..], &[0x81, 1, 0]].concat();
    let mut bench = Bench::priced(1000 * BULK_ROW, by_upload());
    announce(
        &mut bench,
        "writetext bulk db..t.c 0x0123 timestamp=0x01 with log",
    );
    bench.client_says(PacketType::BulkLoad, PacketStatus::NORMAL, &value);
    assert_eq!(bench.server_message(), value);
    bench.server_says(&done(0, 0));
    assert_eq!((bench.records[0].bulk_rows, bench.records[0].bulk_bytes), (0, 7));
    bench.client_message();
    for text in [
        "INSERT BULK t (id int)",
        "writetext bulk t.c 0x01 insert bulk t (id int)",
        "select 1 writetext bulk t.c 0x01",
    ] {
        announce(&mut bench, text);
        bench.client_says(PacketType::BulkLoad, PacketStatus::NORMAL, &bulk(20));
        assert_eq!(bench.server_message(), bulk(20));
        bench.server_says(&done(0x10, 20));
        bench.client_message();
        assert_eq!(bench.records[0].bulk_rows, 20, "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place_or_flagged_and_counted() {
    for (mode, kind) in [
        (Mode::Enforce, PacketType::BulkLoad),
        (Mode::Observe, PacketType::BulkLoad),
        (Mode::Enforce, PacketType::Rpc),
        (Mode::Observe, PacketType::Rpc),
    ] {
        for broken_at in [0usize, 10_000] {
            let mut bench = Bench::ready_in(1_000_000 * ROW, mode);
            let mut body = match kind {
                PacketType::BulkLoad => bulk(1000),
                _ => calls(9000),
            };
            let rows_before = if broken_at == 0 { 0 } else { 100 };
            body = match (kind, broken_at) {
                (PacketType::BulkLoad, 0) => vec![0x42; 50],
                (PacketType::BulkLoad, _) => {
                    let mut whole = bulk(rows_before);
                    whole.truncate(whole.len() - 13);
                    whole.push(0x42);
                    whole.extend(body);
                    whole
                }
                (_, 0) => vec![0xFF; 60],
                _ => {
                    let len = body.len();
                    body.truncate(len - 3);
                    body.extend([0x55; 70_000]);
                    body
                }
            };
            bench.client_says(kind, PacketStatus::NORMAL, &body);
            if mode == Mode::Observe {
                assert_eq!(bench.server_message().len(), body.len());
                bench.server_says(&done(0, 0));
                assert!(bench.records.last().unwrap().unparsed, "{kind:?} {broken_at}");
                continue;
            }
            if !bench.to_server.is_empty() {
                bench.server_says(&done(2, 0));
            }
            let answer = bench.client_message();
            assert_eq!(error_in(&answer), Some((50400, 16)), "{kind:?} {broken_at}");
            let text = String::from_utf16_lossy(
                &answer
                    .chunks(2)
                    .map(|c| u16::from_le_bytes([c[0], *c.get(1).unwrap_or(&0)]))
                    .collect::<Vec<_>>(),
            );
            let shifted = String::from_utf16_lossy(
                &answer[1..]
                    .chunks(2)
                    .map(|c| u16::from_le_bytes([c[0], *c.get(1).unwrap_or(&0)]))
                    .collect::<Vec<_>>(),
            );
            assert!(text.contains("at byte") || shifted.contains("at byte"), "{text}");
            assert!(bench.end.is_none() && bench.to_client.is_empty());
        }
    }
}

#[test]
fn the_reset_bit_of_a_refused_bulk_load_means_nothing() {
    let mut bench = Bench::priced(0, by_upload());
    bench.client_says(PacketType::BulkLoad, PacketStatus::RESET, &bulk(3));
    bench.deny();
    assert!(bench.to_server.is_empty());
    assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
}
