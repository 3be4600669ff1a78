//! Captured connections through a session, message by message, each answer cut everywhere.

use fastrand::Rng;
use weir_contracts::entry::Outcome;
use weir_protocol_tests::fuzz::Conversation;
use weir_protocol_tests::fuzz::oracle;
use weir_protocol_tests::naive_decoder::decode;
use weir_protocol_tests::pcap::Stream;
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketType};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use super::{divisions, request};
use crate::captures::{capture, version_by_request};

const SERVER_PORT: u16 = 1433;

/// The whole messages of a stream as they were on the wire: type and packets.
fn messages(mut bytes: &[u8]) -> Vec<(PacketType, Vec<u8>)> {
    let (mut all, mut message) = (Vec::new(), Vec::new());
    while let Ok(Some(header)) = PacketHeader::parse(bytes) {
        let Some((packet, rest)) = bytes.split_at_checked(usize::from(header.length)) else {
            break;
        };
        message.extend_from_slice(packet);
        if header.status.is_eom() {
            all.push((header.kind, std::mem::take(&mut message)));
        }
        bytes = rest;
    }
    all
}

fn body(mut packets: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(header)) = PacketHeader::parse(packets) {
        let (packet, rest) = packets.split_at(usize::from(header.length));
        body.extend_from_slice(&packet[HEADER_LEN..]);
        packets = rest;
    }
    body
}

/// Rows that a naive decoder sees in an answer, and whether there is an ERROR in it.
fn truth(answer: &[u8], version: TdsVersion) -> (u64, bool) {
    let (tokens, error) = decode(answer, WalkerOptions::new(version));
    assert_eq!(error, None, "the oracle reads what a server sent");
    (
        oracle::rows(&tokens),
        tokens.iter().any(|token| token.token == 0xAA),
    )
}

/// One answer in a session of its own, behind the request that it was given to.
fn check(version: TdsVersion, asked: &[u8], answered: &[u8], cuts: &[usize]) {
    let mut session = Conversation::logged_in(WalkerOptions::new(version), false);
    session.client(asked, &[]);
    session.server(answered, cuts);
    session.leave();
    let answer = body(answered);
    assert_eq!(session.to_client(), [answer.as_slice()], "cut at {cuts:?}");
    let [record] = session.records() else {
        panic!("cut at {cuts:?}: {:?}", session.records());
    };
    let (rows, failed) = truth(&answer, version);
    assert_eq!(
        (record.rows, record.bytes_out),
        (rows, answer.len() as u64),
        "cut at {cuts:?}"
    );
    let outcome = if failed {
        Outcome::Error
    } else {
        Outcome::Completed
    };
    assert_eq!(
        (record.outcome, record.unparsed),
        (outcome, false),
        "cut at {cuts:?}"
    );
}

/// Rows of a capture's answers, each checked under every division.
fn check_connections(streams: &[Stream]) -> u64 {
    let mut rng = Rng::with_seed(18);
    let mut rows = 0;
    for responses in streams.iter().filter(|s| s.direction.from.1 == SERVER_PORT) {
        let version = version_by_request(streams, responses);
        let requests = streams
            .iter()
            .find(|s| s.direction.from == responses.direction.to);
        let requests = requests.map(|s| messages(&s.bytes)).unwrap_or_default();
        for (nth, (kind, answered)) in messages(&responses.bytes).into_iter().enumerate() {
            if kind != PacketType::TabularResult {
                continue;
            }
            let asked = requests
                .get(nth)
                .map_or_else(|| request(version), |(_, asked)| asked.clone());
            rows += truth(&body(&answered), version).0;
            for cuts in divisions(answered.len(), &mut rng) {
                check(version, &asked, &answered, &cuts);
            }
        }
    }
    rows
}

#[test]
fn answers_of_connections_without_their_logins_are_counted_alike_at_every_split() {
    for name in ["ndpi_mssql_tds.pcap", "malcolm_TDS.pcap"] {
        let mut streams = capture(name);
        streams.retain(|s| s.direction.from.0[0] == 10 && s.direction.to.0[0] == 10);
        let rows = check_connections(&streams);
        assert!(rows >= 7, "{name}: {rows} rows");
    }
}

/// A connection from its first byte on: each of its messages cut everywhere, on either side.
#[test]
fn a_whole_connection_is_counted_alike_at_every_split() {
    let streams = capture("arkime_tds7.pcap");
    let of = |server: bool| {
        let stream = streams
            .iter()
            .find(|s| (s.direction.from.1 == SERVER_PORT) == server);
        messages(&stream.unwrap().bytes)
    };
    let (client, server) = (of(false), of(true));
    // PRELOGIN, LOGIN7, a batch; the server is greeted when the client's login is known.
    let order = [
        (0, true),
        (1, true),
        (0, false),
        (1, false),
        (2, true),
        (2, false),
    ];
    let mut rng = Rng::with_seed(19);
    for (cut, (nth, by_client)) in order.iter().enumerate() {
        let length = if *by_client {
            client[*nth].1.len()
        } else {
            server[*nth].1.len()
        };
        for cuts in divisions(length, &mut rng) {
            let mut session = Conversation::new();
            for (at, (nth, by_client)) in order.iter().enumerate() {
                let cuts = if at == cut { cuts.as_slice() } else { &[] };
                if *by_client {
                    session.client(&client[*nth].1, cuts);
                } else {
                    session.server(&server[*nth].1, cuts);
                }
            }
            let what = format!("message {cut} cut at {cuts:?}");
            assert!(
                session.is_logged_in() && session.ended().is_none(),
                "{what}: {:?}",
                session.ended()
            );
            session.leave();
            let answer = body(&server[2].1);
            assert_eq!(session.to_client().last(), Some(&answer), "{what}");
            let [record] = session.records() else {
                panic!("{what}: {:?}", session.records());
            };
            // As `captures/README.md` has it: one result set of one row.
            assert_eq!((record.rows, record.result_sets), (1, 1), "{what}");
            assert_eq!(record.bytes_out, answer.len() as u64, "{what}");
            assert_eq!(record.bytes_in, body(&client[2].1).len() as u64, "{what}");
        }
    }
}
