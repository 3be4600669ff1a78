//! Every request of the vectors through a session: the server gets what the client sent, and the record counts it.

use fastrand::Rng;
use weir_contracts::entry::{Outcome, RequestKind};
use weir_protocol_tests::fuzz::Conversation;
use weir_protocol_tests::vectors::Vector;
use weir_tds::build::TokenBuf;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::RpcReader;

use super::{answer, divisions, full_packets, packets, random_cuts, random_splits};
use crate::client_vectors::expected;
use crate::messages::{Message, client_messages};

/// What a record must say: kind, requests, bytes and bulk rows that came in.
type Counted = (RequestKind, u64, u64, u64);

/// `None` for the one vector that names a request which does not exist.
fn truth(vector: &Vector, message: &Message) -> Option<Counted> {
    let body = expected(vector);
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let rows = list("tokens")
        .iter()
        .filter(|token| token["token"] == "ROW")
        .count() as u64;
    let bytes = message.body.len() as u64;
    Some(match message.kind {
        PacketType::SqlBatch => (RequestKind::Batch, 1, bytes, 0),
        PacketType::Rpc => (RequestKind::Rpc, list("calls").len() as u64, bytes, 0),
        PacketType::BulkLoad => (RequestKind::BulkLoad, 1, bytes, rows),
        _ if vector.name.starts_with("spec-4.13") => return None,
        _ => (RequestKind::TransactionManager, 1, bytes, 0),
    })
}

/// What the server gets: the same, but for fNoMetaData, without which its rows could not be read [MS-TDS 2.2.6.6].
fn for_the_server(vector: &Vector, message: &Message) -> Vec<u8> {
    let mut body = message.body.clone();
    if message.kind == PacketType::Rpc {
        let mut rpc = RpcReader::new(&message.body, RequestOptions::new(vector.version)).unwrap();
        while let Some(call) = rpc.next_call().unwrap() {
            body[call.flags_at] &= !2;
        }
    }
    body
}

fn is_request(kind: PacketType) -> bool {
    use PacketType::{BulkLoad, Rpc, SqlBatch, TransactionManager};
    [SqlBatch, Rpc, BulkLoad, TransactionManager].contains(&kind)
}

/// The message in packets; one that ends with IGNORE as the vector has it.
fn wire(vector: &Vector, message: &Message, ends: &[usize]) -> Vec<u8> {
    if message.ignored {
        return vector.bytes.clone();
    }
    let status = PacketStatus(message.first.0);
    packets(message.kind, status, &message.body, ends)
}

fn check(vector: &Vector, message: &Message, wire: &[u8], cuts: &[usize]) {
    let what = format!("{} of {} bytes cut at {cuts:?}", vector.name, wire.len());
    let mut session = Conversation::logged_in(vector.options(), false);
    session.client(wire, cuts);
    let Some(counted) = truth(vector, message) else {
        let told = session.to_client().concat();
        assert_eq!(told.first(), Some(&0xAA), "{what}: an ERROR");
        assert!(
            session.to_server().is_empty() && session.ended().is_none(),
            "{what}"
        );
        session.leave();
        assert!(session.records().is_empty(), "{what}");
        return;
    };
    assert_eq!(session.to_server(), [for_the_server(vector, message)], "{what}");
    let mut done = TokenBuf::new(vector.version);
    done.done(0x10, 0xC1, 5);
    session.server(&answer(done.as_bytes(), &[]), &[]);
    assert_eq!(session.to_client(), [done.as_bytes()], "{what}");
    assert_eq!(session.ended(), None, "{what}");
    let [record] = session.records() else {
        panic!("{what}: {:?}", session.records());
    };
    let found = (record.kind, record.requests, record.bytes_in, record.bulk_rows);
    assert_eq!(found, counted, "{what}");
    let bulk = if record.kind == RequestKind::BulkLoad {
        record.bytes_in
    } else {
        0
    };
    assert_eq!((record.bulk_bytes, record.rows), (bulk, 0), "{what}");
    assert_eq!(
        (record.outcome, record.unparsed),
        (Outcome::Completed, false),
        "{what}"
    );
    session.leave();
    assert_eq!(session.records().len(), 1, "{what}");
}

#[test]
fn requests_are_passed_on_and_counted_alike_at_every_split() {
    let mut rng = Rng::with_seed(13);
    let mut seen = 0;
    for (vector, message) in client_messages() {
        if !is_request(message.kind) {
            continue;
        }
        seen += 1;
        let whole = wire(&vector, &message, &full_packets(&message.body));
        for cuts in divisions(whole.len(), &mut rng) {
            check(&vector, &message, &whole, &cuts);
        }
        for _ in 0..random_splits() {
            let ends = random_cuts(message.body.len(), &mut rng);
            let wire = wire(&vector, &message, &ends);
            let cuts = random_cuts(wire.len(), &mut rng);
            check(&vector, &message, &wire, &cuts);
        }
    }
    assert!(seen > 40, "only {seen} requests");
}

/// The captured calls and loads of the vectors have what the counts are of.
#[test]
fn the_vectors_have_calls_and_rows_to_count() {
    let all: Vec<Counted> = client_messages()
        .iter()
        .filter(|(_, message)| is_request(message.kind))
        .filter_map(|(vector, message)| truth(vector, message))
        .collect();
    let calls: u64 = all
        .iter()
        .filter(|(kind, ..)| *kind == RequestKind::Rpc)
        .map(|(_, calls, ..)| calls)
        .sum();
    let rows: u64 = all.iter().map(|(.., rows)| rows).sum();
    assert!(calls > 15 && rows > 5, "{calls} calls, {rows} rows");
}
