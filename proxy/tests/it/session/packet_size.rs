//! Packet sizes that differ on the two legs: the same bytes, cut anew [MS-TDS 2.2.3, 2.2.7.9].

use bytes::BytesMut;
use weir_contracts::entry::Outcome;
use weir_proxy::{ports::billing::Mode, session::Settings};
use weir_tds::{
    build::TokenBuf,
    login7::Login7,
    message::write_message,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    token::EnvChange,
};

use super::{
    bench::{Bench, ROW, V, batch, login7, message, prelogin, settings},
    login::{error_in, tokens_of},
    relay::result,
};

/// A session whose client asked for `client` and whose server granted `server`.
fn legs(client: u16, server: u16) -> Bench {
    let mut bench = Bench::new(10_000 * ROW);
    (bench.asked_packet_size, bench.packet_size) = (client.into(), server);
    bench.log_in(Mode::Enforce);
    bench
}

fn packets_of(size: u16, kind: PacketType, status: PacketStatus, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_message(&mut out, kind, status, size, 51, 1, body);
    out.to_vec()
}

/// Headers of whole packets, and their bodies put together.
fn taken_apart(mut bytes: &[u8]) -> (Vec<PacketHeader>, Vec<u8>) {
    let (mut headers, mut body) = (Vec::new(), Vec::new());
    while let Some(header) = PacketHeader::parse(bytes).unwrap() {
        let (packet, rest) = bytes.split_at(header.length.into());
        body.extend_from_slice(&packet[HEADER_LEN..]);
        headers.push(header);
        bytes = rest;
    }
    (headers, body)
}

/// Ids count on from 1 modulo 256, no packet is larger than `size`, EOM stands on the last only.
fn assert_one_message(headers: &[PacketHeader], size: u16) {
    for (at, header) in headers.iter().enumerate() {
        assert_eq!(usize::from(header.packet_id), (at + 1) % 256);
        assert!(header.length <= size);
        assert_eq!(header.status.is_eom(), at + 1 == headers.len(), "packet {at}");
    }
}

#[test]
fn a_request_is_cut_to_the_servers_size_with_every_packet_but_the_last_full() {
    for (client, server) in [(512, 4096), (4096, 32_767), (1000, 1001), (512, 513)] {
        for length in [0, 1, 250, 252, 2000, 60_000, 200_000] {
            let body = batch(&"x".repeat(length));
            let sent = packets_of(client, PacketType::SqlBatch, PacketStatus::RESET, &body);
            for step in [sent.len(), 333] {
                let mut bench = legs(client, server);
                for piece in sent.chunks(step) {
                    bench.feed_client(piece);
                }
                let (headers, got) = taken_apart(&bench.to_server);
                assert_eq!(got, body, "{client} to {server}, {length} characters");
                let (last, full) = headers.split_last().unwrap();
                assert!(full.iter().all(|h| h.length == server));
                assert!(last.length > 8 && last.length <= server);
                assert_one_message(&headers, server);
                let resets: Vec<bool> = headers
                    .iter()
                    .map(|h| h.status.contains(PacketStatus::RESET))
                    .collect();
                assert!(resets[0] && !resets[1..].contains(&true), "{resets:?}");
            }
        }
    }
}

#[test]
fn an_answer_is_cut_to_the_clients_size_and_ends_with_its_done() {
    for (client, server) in [(512, 4096), (4096, 32_767), (512, 513), (8000, 8000)] {
        for rows in [0, 1, 100, 3000] {
            let body = result(rows);
            let mut bench = legs(client, server);
            bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
            let sent = packets_of(server, PacketType::TabularResult, PacketStatus::NORMAL, &body);
            bench.feed_server(&sent);
            let (headers, got) = taken_apart(&bench.to_client);
            assert_eq!(got, body, "{server} to {client}, {rows} rows");
            assert_one_message(&headers, client);
            assert!(headers.last().unwrap().length > 8, "EOM never comes alone");
            if client == server {
                assert_eq!(bench.to_client, sent, "as it came");
            }
            assert_eq!(
                (bench.records[0].bytes_out, bench.records[0].outcome),
                (body.len() as u64, Outcome::Completed)
            );
        }
    }
}

#[test]
fn a_cut_between_unlike_legs_goes_on_in_the_clients_packets() {
    let mut bench = Bench::new(77 * ROW);
    (bench.asked_packet_size, bench.packet_size) = (512, 4096);
    bench.log_in(Mode::Enforce);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    bench.feed_server(&message(
        PacketType::TabularResult,
        PacketStatus::NORMAL,
        &result(400),
    ));
    bench.deny();
    bench.server_says(TokenBuf::new(V).done(0x20, 0xFD, 0).as_bytes());
    let (headers, body) = taken_apart(&bench.to_client);
    assert_one_message(&headers, 512);
    assert_eq!(error_in(&body), Some((50402, 16)));
    assert_eq!(bench.records[0].rows, 77);
}

#[test]
fn a_client_that_sends_a_short_packet_in_between_does_not_break_its_servers_rule() {
    let body = batch(&"y".repeat(5000));
    let mut bench = legs(4096, 4096);
    let mut sent = Vec::new();
    let pieces: Vec<&[u8]> = body.chunks(700).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let mut packet = message(PacketType::SqlBatch, PacketStatus::NORMAL, piece);
        packet[1] = u8::from(at + 1 == pieces.len());
        sent.extend(packet);
    }
    bench.feed_client(&sent);
    let (headers, got) = taken_apart(&bench.to_server);
    assert_eq!(got, body);
    assert!(headers.split_last().unwrap().1.iter().all(|h| h.length == 4096));
}

#[test]
fn an_upload_that_the_client_throws_away_is_thrown_away_at_the_server() {
    let mut bench = legs(512, 4096);
    let text = batch(&"z".repeat(50_000));
    let mut sent = packets_of(512, PacketType::SqlBatch, PacketStatus::NORMAL, &text);
    let last = sent.len() - 512;
    let last = (last..sent.len())
        .rev()
        .find(|at| sent[*at..].starts_with(&[1, 1]))
        .unwrap();
    sent[last + 1] = 3;
    bench.feed_client(&sent);
    let (headers, _) = taken_apart(&bench.to_server);
    assert_eq!(headers.last().unwrap().status.0, 3, "EOM and IGNORE");
    bench.server_says(TokenBuf::new(V).done(2, 0, 0).as_bytes());
    assert_eq!(error_in(&bench.client_message()), None);
}

#[test]
fn ids_wrap_behind_255() {
    let body = batch(&"w".repeat(100_000));
    let mut bench = legs(512, 512);
    let sent = packets_of(512, PacketType::SqlBatch, PacketStatus::NORMAL, &body);
    bench.feed_client(&sent);
    assert_eq!(bench.to_server, sent, "as it came");
    let (headers, _) = taken_apart(&sent);
    assert!(headers.len() > 300);
    assert_one_message(&headers, 512);
}

#[test]
fn each_leg_is_told_its_own_size() {
    for (asked, upstream, granted, wanted) in [
        (4096, None, Some(4096), Some("4096")),
        (0, None, Some(8000), Some("8000")),
        (4096, Some(32_767), Some(32_767), Some("4096")),
        (32_767, None, Some(8000), Some("8000")),
        (512, None, None, None),
    ] {
        let with = Settings {
            upstream_packet_size: upstream,
            ..settings()
        };
        let mut bench = Bench::with(with, ROW);
        let hello = prelogin(weir_tds::prelogin::Encryption::NotSup).encode();
        bench.client_says(PacketType::Prelogin, PacketStatus::NORMAL, &hello);
        bench.client_message();
        let login = Login7 {
            packet_size: asked,
            ..login7("acme")
        };
        bench.client_says(PacketType::Login7, PacketStatus::NORMAL, &login.encode().unwrap());
        bench.actions.pop_front();
        bench.admit(Mode::Enforce);
        bench.server_message();
        bench.server_says(&hello);
        let asks = Login7::parse(&bench.server_message()).unwrap();
        assert_eq!(asks.packet_size, upstream.map_or(asked, u32::from));
        let mut tokens = TokenBuf::new(V);
        tokens.login_ack("test", [16, 0, 3, 232]);
        if let Some(granted) = granted {
            tokens.env_packet_size(granted, 4096);
        }
        tokens.done(0, 0, 0);
        bench.server_says(tokens.as_bytes());
        let told = tokens_of(&bench.client_message())
            .into_iter()
            .filter_map(|(_, bytes)| EnvChange::parse(&bytes).ok()?.packet_size())
            .next();
        assert_eq!(told.map(|size| size.to_string()).as_deref(), wanted);
    }
}
