//! What real clients sent in the captures, through the parsers of the client's side.

use std::fs;
use std::path::Path;

use weir_protocol_tests::pcap::{self, Stream};
use weir_tds::framer::{Frame, Framer};
use weir_tds::login7::Login7;
use weir_tds::message::MessageBuf;
use weir_tds::packet::{HEADER_LEN, PACKET_SIZE_MAX, PacketType};
use weir_tds::prelogin::Prelogin;
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::{ProcId, RpcReader};
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::version::TdsVersion;

const SERVER_PORT: u16 = 1433;

fn client_streams(name: &str) -> Vec<Stream> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures").join(name);
    let file = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    pcap::streams(&file)
        .into_iter()
        .filter(|s| s.direction.to.1 == SERVER_PORT)
        .collect()
}

fn messages(mut bytes: &[u8]) -> Vec<(PacketType, Vec<u8>)> {
    let framer = Framer::new(PACKET_SIZE_MAX);
    let mut message = MessageBuf::new("message", 1 << 20);
    let mut all = Vec::new();
    while let Frame::Packet(header) = framer.next(bytes).unwrap() {
        let (packet, rest) = bytes.split_at(usize::from(header.length));
        if message.push(&header, &packet[HEADER_LEN..]).unwrap() {
            all.push((header.kind, message.take().to_vec()));
        }
        bytes = rest;
    }
    all
}

/// The layout of a request whose login was not captured: ALL_HEADERS came with 7.2.
fn options(body: &[u8]) -> RequestOptions {
    let modern = body.starts_with(&[0x16, 0, 0, 0, 0x12, 0, 0, 0]);
    RequestOptions::new(if modern {
        TdsVersion::V7_2
    } else {
        TdsVersion::V7_1
    })
}

#[test]
fn a_whole_login_of_an_old_client() {
    let streams = client_streams("arkime_tds7.pcap");
    let all = messages(&streams[0].bytes);
    let kinds: Vec<PacketType> = all.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [PacketType::Prelogin, PacketType::Login7, PacketType::SqlBatch]
    );
    let prelogin = Prelogin::parse(&all[0].1).unwrap();
    assert_eq!(Prelogin::parse(&prelogin.encode()), Ok(prelogin));
    let login = Login7::parse(&all[1].1).unwrap();
    assert!(
        !login.user_name.is_empty() && login.version().is_some(),
        "{login:?}"
    );
    assert_eq!(Login7::parse(&login.encode().unwrap()), Ok(login));
    assert!(
        !SqlBatch::parse(&all[2].1, options(&all[2].1))
            .unwrap()
            .text()
            .is_empty()
    );
}

#[test]
fn every_request_of_the_thirteen_connections() {
    let (mut calls, mut parameters, mut batches) = (0, 0, 0);
    for stream in client_streams("ndpi_mssql_tds.pcap") {
        for (kind, body) in messages(&stream.bytes) {
            match kind {
                PacketType::SqlBatch => {
                    let text = SqlBatch::parse(&body, options(&body)).unwrap().text();
                    assert!(!text.is_empty() && !text.contains('\u{FFFD}'), "{text}");
                    batches += 1;
                }
                PacketType::Rpc => {
                    let mut rpc = RpcReader::new(&body, options(&body)).unwrap();
                    while let Some(call) = rpc.next_call().unwrap() {
                        let id = call.procedure.id();
                        while let Some(parameter) = rpc.next_parameter().unwrap() {
                            parameters += 1;
                            let text = parameter.text().unwrap_or_default();
                            assert!(
                                id != Some(ProcId::ExecuteSql) || !text.contains('\u{FFFD}'),
                                "{text}"
                            );
                        }
                        calls += 1;
                    }
                }
                _ => {}
            }
        }
    }
    assert!(
        calls >= 17 && batches == 3 && parameters > calls,
        "{calls} calls, {parameters}, {batches}"
    );
}

#[test]
fn an_old_sybase_login_is_told_by_its_type() {
    for stream in client_streams("arkime_tds5.pcap") {
        let found = Framer::new(PACKET_SIZE_MAX).next(&stream.bytes);
        assert!(
            !matches!(found, Ok(Frame::Packet(h)) if h.kind == PacketType::Login7 || h.kind == PacketType::Prelogin),
            "{found:?}"
        );
    }
}
