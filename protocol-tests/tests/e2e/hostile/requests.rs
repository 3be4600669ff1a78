//! Requests that lie, that never end, or that come in floods.

use std::io::{Read, Write};

use weir_tds::message::attention;
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketType};
use weir_tds::request::all_headers::AllHeaders;

use super::{AT_ONCE, MEMORY_MAX, Siege, answer_of, error_of, flood, packet, rows_of, socket_of, unfinished};

/// Calls in one message.
const CALLS: usize = 1_000_000;

/// ATTENTIONs that nothing is open for.
const ATTENTIONS: usize = 100_000;

/// Bytes of the parameter that never ends: far more than the gate may hold.
const ENDLESS: usize = 3 * MEMORY_MAX as usize;

/// What the gate says of a request that it cannot read (docs/errors.md).
const UNMETERABLE: i32 = 50400;

#[test]
fn packet_types_that_no_session_has_end_it() {
    let siege = Siege::lay();
    for kind in [
        PacketType::Prelogin,
        PacketType::TabularResult,
        PacketType::Sspi,
        PacketType::FedAuthToken,
    ] {
        let mut raw = siege.session();
        raw.send_bytes(&packet(kind, &[0; 64])).expect("a packet");
        let said = siege.closes(&socket_of(&raw), AT_ONCE, "after login");
        assert_eq!(said, b"", "{kind:?}");
    }
    siege.stays_unshaken();
}

#[test]
fn another_request_inside_a_request_ends_the_session() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    raw.send_bytes(&unfinished(PacketType::SqlBatch, &[0x41; 64]))
        .expect("a packet");
    raw.send_bytes(&packet(PacketType::Rpc, &[0x41; 64]))
        .expect("a packet");
    let said = siege.closes(
        &socket_of(&raw),
        AT_ONCE,
        "another request began inside a request",
    );
    assert_eq!(said, b"");
    siege.stays_unshaken();
}

#[test]
fn a_packet_longer_than_agreed_ends_the_session() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    raw.send_bytes(&[1, 0, 0x7F, 0xFF, 0, 0, 1, 0]).expect("a header");
    let said = siege.closes(&socket_of(&raw), AT_ONCE, "packet length 32767 is outside");
    assert_eq!(said, b"");
    siege.stays_unshaken();
}

#[test]
fn headers_of_a_request_whose_length_lies_are_refused() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    for total in [0_u32, 3, 0x7FFF_FFFF, u32::MAX] {
        let mut body = AllHeaders::encode(0).to_vec();
        body[..4].copy_from_slice(&total.to_le_bytes());
        body.extend_from_slice(&[0x53, 0, 0x45, 0]);
        raw.send(PacketType::SqlBatch, &body).expect("a request");
        assert_eq!(error_of(&raw), Some(UNMETERABLE), "{total}");
    }
    assert_eq!(rows_of(&mut raw, "SELECT TOP (1) * FROM orders"), 1, "it goes on");
    siege.stays_unshaken();
}

#[test]
fn a_million_calls_in_one_message_are_bounded() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    let mut body = AllHeaders::encode(0).to_vec();
    for call in 0..CALLS {
        if call > 0 {
            body.push(0xFF);
        }
        // sp_unprepare by number, without flags or parameters.
        body.extend_from_slice(&[0xFF, 0xFF, 15, 0, 0, 0]);
    }
    let packets = packet(PacketType::Rpc, &body);
    let mut socket = socket_of(&raw);
    let reader = socket_of(&raw);
    let read = std::thread::spawn(move || read_to_eom_or_end(reader));
    // It may refuse it before its end.
    let _cut = socket.write_all(&packets);
    read.join().expect("an answer or an end");
    let _session_may_be_over = raw.batch("SELECT 1");
    siege.stays_unshaken();
}

/// Reads a whole message, or to the end of the connection.
fn read_to_eom_or_end(mut socket: std::net::TcpStream) {
    let mut head = [0; HEADER_LEN];
    while socket.read_exact(&mut head).is_ok() {
        let Ok(Some(header)) = PacketHeader::parse(&head) else {
            return;
        };
        let mut body = vec![0; header.body_len()];
        if socket.read_exact(&mut body).is_err() || header.status.is_eom() {
            return;
        }
    }
}

#[test]
fn a_parameter_that_never_ends_is_not_held() {
    let siege = Siege::lay();
    let raw = siege.session();
    let mut socket = socket_of(&raw);
    let mut call = AllHeaders::encode(0).to_vec();
    // sp_executesql with a parameter nvarchar(max) of unknown length.
    call.extend_from_slice(&[
        0xFF, 0xFF, 10, 0, 0, 0, 0, 0, 0xE7, 0xFF, 0xFF, 9, 4, 0xD0, 0, 0x34,
    ]);
    call.extend_from_slice(&0xFFFF_FFFF_FFFF_FFFE_u64.to_le_bytes());
    call.extend_from_slice(&u32::MAX.to_le_bytes());
    call.resize(4096 - HEADER_LEN, 0x41);
    socket
        .write_all(&unfinished(PacketType::Rpc, &call))
        .expect("its beginning");
    let piece = unfinished(PacketType::Rpc, &[0x41; 4096 - HEADER_LEN]);
    flood(&socket, &piece, ENDLESS / piece.len());
    drop((socket, raw));
    siege.stays_unshaken();
}

#[test]
fn a_flood_of_attentions_is_answered_one_by_one_or_ended() {
    let siege = Siege::lay();
    let raw = siege.session();
    let mut reader = socket_of(&raw);
    let mut writer = socket_of(&raw);
    let flood = std::thread::spawn(move || {
        let some: Vec<u8> = attention(0).repeat(100);
        for _hundred in 0..ATTENTIONS / 100 {
            if writer.write_all(&some).is_err() {
                return false;
            }
        }
        true
    });
    let mut acknowledged = 0;
    let mut head = [0; HEADER_LEN];
    while acknowledged < ATTENTIONS && reader.read_exact(&mut head).is_ok() {
        let header = PacketHeader::parse(&head).expect("a header").expect("whole");
        let mut body = vec![0; header.body_len()];
        reader.read_exact(&mut body).expect("a packet");
        assert_eq!((body[0], body[1] & 0x20), (0xFD, 0x20), "an acknowledgement");
        acknowledged += 1;
    }
    let all_sent = flood.join().expect("the flood");
    assert!(
        !all_sent || acknowledged == ATTENTIONS,
        "{acknowledged} acknowledgements"
    );
    drop((reader, raw));
    siege.stays_unshaken();
}

#[test]
fn a_flood_of_attentions_that_nobody_reads_the_answers_of_is_bounded() {
    let siege = Siege::lay();
    let raw = siege.session();
    let socket = socket_of(&raw);
    socket.set_write_timeout(Some(AT_ONCE)).expect("a socket");
    // It stops taking them, or ends the session.
    flood(&socket, &attention(0).repeat(1_000), ATTENTIONS / 100);
    drop((socket, raw));
    siege.stays_unshaken();
}

/// Answers that the gate gives itself: to a command of its own, without asking the server.
#[test]
fn a_flood_of_commands_that_nobody_reads_the_answers_of_is_bounded() {
    let siege = Siege::lay();
    let raw = siege.session();
    let socket = socket_of(&raw);
    socket.set_write_timeout(Some(AT_ONCE)).expect("a socket");
    let mut body = AllHeaders::encode(0).to_vec();
    body.extend("EXEC weir.balance".encode_utf16().flat_map(u16::to_le_bytes));
    flood(&socket, &packet(PacketType::SqlBatch, &body).repeat(100), 10_000);
    drop((socket, raw));
    siege.stays_unshaken();
}

#[test]
fn empty_packets_without_end_are_bounded() {
    let siege = Siege::lay();
    let raw = siege.session();
    let socket = socket_of(&raw);
    flood(
        &socket,
        &unfinished(PacketType::SqlBatch, &[]).repeat(1_000),
        1_000,
    );
    drop((socket, raw));
    siege.stays_unshaken();
}

#[test]
fn a_bulk_load_that_nobody_announced_is_refused() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    let mut rows = vec![0x81, 0, 0, 0xFD];
    rows.resize(16, 0);
    raw.send(PacketType::BulkLoad, &rows).expect("a request");
    let error = error_of(&raw);
    assert!(error.is_some(), "it was taken");
    assert_eq!(rows_of(&mut raw, "SELECT TOP (1) * FROM orders"), 1, "it goes on");
    siege.stays_unshaken();
}

#[test]
fn statements_of_a_million_words_are_read_in_their_time() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    // The lexer of the exemption reads it, the server refuses it.
    let nested = format!("SELECT {}1{}", "(".repeat(200_000), ")".repeat(200_000));
    raw.batch(&nested).expect("a request");
    let _server_s_word = answer_of(&raw);
    let commented = format!("SELECT 1 {}", "/*".repeat(100_000));
    raw.batch(&commented).expect("a request");
    let _server_s_word = answer_of(&raw);
    assert_eq!(rows_of(&mut raw, "SELECT TOP (1) * FROM orders"), 1, "it goes on");
    siege.stays_unshaken();
}
