//! Real traffic: the counts of tokens that are known of it; what is not TDS 7 and what begins in mid-air is refused with an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use weir_protocol_tests::pcap::{self, Stream};
use weir_tds::error::{WireError, WireErrorKind};
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketType};
use weir_tds::token::{LoginAck, TokenKind};
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};

const SERVER_PORT: u16 = 1433;

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures").join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) fn capture(name: &str) -> Vec<Stream> {
    pcap::streams(&file(name))
}

/// The whole messages of a stream.
fn messages(mut bytes: &[u8]) -> Result<Vec<(PacketType, Vec<u8>)>, WireError> {
    let mut messages = Vec::new();
    let mut body = Vec::new();
    while let Some(header) = PacketHeader::parse(bytes)? {
        let Some((packet, rest)) = bytes.split_at_checked(usize::from(header.length)) else {
            break;
        };
        body.extend_from_slice(&packet[HEADER_LEN..]);
        if header.status.is_eom() {
            messages.push((header.kind, std::mem::take(&mut body)));
        }
        bytes = rest;
    }
    Ok(messages)
}

type Counts = BTreeMap<&'static str, u64>;

/// Walks a response message and counts its tokens; LOGINACK sets the version.
fn walk(walker: &mut Walker, body: &[u8], counts: &mut Counts) -> Result<(), WireError> {
    walker.begin_message();
    let mut at = 0;
    while at < body.len() {
        let walk = walker.walk(&body[at..], &mut Budget::UNLIMITED.clone())?;
        at += walk.consumed;
        if let Step::Token(token) = walk.step {
            *counts.entry(token.kind.name()).or_default() += 1;
            if token.kind == TokenKind::LoginAck {
                let version = LoginAck::parse(token.bytes)?.version.expect("a version of TDS 7");
                walker.set_options(WalkerOptions::new(version));
            }
        }
    }
    *counts.entry("ROW").or_default() += walker.rows();
    walker.end_message()
}

/// The version of a connection whose login was not captured, by its client's first request: ALL_HEADERS came with 7.2.
pub(crate) fn version_by_request(streams: &[Stream], response: &Stream) -> TdsVersion {
    let request = streams.iter().find(|s| s.direction.from == response.direction.to);
    let first = request.and_then(|s| messages(&s.bytes).ok()?.into_iter().next());
    match first {
        Some((_, body)) if body.get(..8) == Some(&[0x16, 0, 0, 0, 0x12, 0, 0, 0]) => TdsVersion::V7_2,
        _ => TdsVersion::V7_1,
    }
}

#[test]
fn a_whole_connection_of_tds_7() {
    let streams = capture("arkime_tds7.pcap");
    let server = streams
        .iter()
        .find(|s| s.direction.from.1 == SERVER_PORT)
        .expect("the server");
    assert!(server.from_start && server.gaps == 0);
    let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_1));
    let mut counts = Counts::new();
    let answers = messages(&server.bytes).expect("packets");
    // The first answers the PRELOGIN.
    for (kind, body) in answers.iter().skip(1) {
        assert_eq!(*kind, PacketType::TabularResult);
        walk(&mut walker, body, &mut counts).expect("a response");
    }
    let expected = [
        ("COLMETADATA", 1),
        ("DONE", 2),
        ("ENVCHANGE", 4),
        ("INFO", 2),
        ("LOGINACK", 1),
        ("ROW", 1),
    ];
    assert_eq!(counts, Counts::from(expected));
}

fn thirteen_streams(name: &str) -> (Counts, BTreeMap<u8, u64>) {
    let mut streams = capture(name);
    streams.retain(|s| s.direction.from.0[0] == 10 && s.direction.to.0[0] == 10);
    let mut counts = Counts::new();
    let mut types = BTreeMap::new();
    for stream in &streams {
        let mut walker = Walker::new(WalkerOptions::new(version_by_request(&streams, stream)));
        for (kind, body) in messages(&stream.bytes).expect("packets") {
            *types.entry(kind.byte()).or_default() += 1;
            if kind == PacketType::TabularResult {
                walk(&mut walker, &body, &mut counts)
                    .unwrap_or_else(|e| panic!("{:?}: {e}", stream.direction));
            }
        }
    }
    (counts, types)
}

#[test]
fn thirteen_connections_without_their_logins() {
    for name in ["ndpi_mssql_tds.pcap", "malcolm_TDS.pcap"] {
        let (counts, types) = thirteen_streams(name);
        let least = [
            ("COLMETADATA", 3),
            ("ROW", 7),
            ("RETURNSTATUS", 10),
            ("DONEINPROC", 8),
            ("DONEPROC", 3),
            ("DONE", 5),
        ];
        for (token, least) in least {
            assert!(
                counts.get(token).is_some_and(|n| *n >= least),
                "{name}: {token} {counts:?}"
            );
        }
        // One of the 17 RPC packets goes on in a second one.
        let types: Vec<_> = types.into_iter().collect();
        let messages = [
            (PacketType::SqlBatch, 3),
            (PacketType::Rpc, 16),
            (PacketType::TabularResult, 10),
        ];
        assert_eq!(types, messages.map(|(kind, n)| (kind.byte(), n)), "{name}");
    }
}

#[test]
fn a_stream_that_begins_in_mid_air_is_an_error() {
    let payloads = pcap::payloads(&file("malcolm_TDS.pcap"));
    let long: Vec<Vec<u8>> = payloads
        .into_iter()
        .filter(|(d, _)| d.from.0[0] == 172)
        .map(|(_, payload)| payload)
        .collect();
    assert_eq!(long.iter().map(Vec::len).sum::<usize>(), 793_089);
    let error = messages(&long.concat()).expect_err("not a packet");
    assert!(matches!(error.kind, WireErrorKind::PacketType(_)), "{error}");
    // As token stream too, from any byte on: an error with its offset or "more", and it always ends.
    for payload in &long {
        for from in (0..payload.len()).step_by(97) {
            let bytes = payload.get(from..).unwrap_or_default();
            for version in [TdsVersion::V7_1, TdsVersion::V7_4] {
                let mut walker = Walker::new(WalkerOptions::new(version));
                if let Err(error) = walk(&mut walker, bytes, &mut Counts::new()) {
                    assert!(error.offset <= bytes.len() as u64, "{error}");
                }
            }
        }
    }
}

#[test]
fn tds_5_is_refused() {
    let mut refused = 0;
    for stream in capture("arkime_tds5.pcap") {
        let Ok(messages) = messages(&stream.bytes) else {
            refused += 1;
            continue;
        };
        for (kind, body) in messages {
            assert_eq!(
                kind,
                PacketType::TabularResult,
                "a client of TDS 5 is refused by its packet types"
            );
            let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
            let error = walk(&mut walker, &body, &mut Counts::new()).expect_err("tokens of TDS 5");
            assert!(matches!(error.kind, WireErrorKind::Token(_)), "{error}");
            refused += 1;
        }
    }
    assert!(refused >= 2, "{refused}");
}
