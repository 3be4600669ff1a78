//! Clients that take their time, in each phase: what they hold is given back within the phase's deadline.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use weir_protocol_tests::deadline::pause;
use weir_tds::packet::PacketType;
use weir_tds::prelogin::Encryption;

use super::{
    GRACE, LOGIN_DEADLINE, LOGIN_TOO_SLOW, REQUEST_TOO_SLOW, Siege, good_login, packet, rows_of, socket_of,
    unfinished,
};

/// Between two bytes of a client that dribbles: so slow that the deadline comes first.
const DRIBBLE: std::time::Duration = std::time::Duration::from_millis(100);

/// Writes byte by byte until the gate has enough of it, which it must by its deadline.
fn dribbles(siege: &Siege, mut socket: TcpStream, bytes: &[u8]) {
    let began = Instant::now();
    for byte in bytes.iter().cycle() {
        if socket.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(began.elapsed() < LOGIN_DEADLINE + GRACE, "still listened to");
        pause(DRIBBLE);
    }
    siege.closes(&socket, GRACE, LOGIN_TOO_SLOW);
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let siege = Siege::lay();
    let said = siege.closes(&siege.connect(), LOGIN_DEADLINE + GRACE, LOGIN_TOO_SLOW);
    assert_eq!(said, b"");
    siege.stays_unshaken();
}

#[test]
fn a_client_that_says_nothing_behind_its_prelogin_is_closed() {
    let siege = Siege::lay();
    let socket = siege.greeted(Encryption::NotSup);
    siege.closes(&socket, LOGIN_DEADLINE + GRACE, LOGIN_TOO_SLOW);
    siege.stays_unshaken();
}

#[test]
fn a_prelogin_byte_by_byte_is_closed() {
    let siege = Siege::lay();
    dribbles(&siege, siege.connect(), &packet(PacketType::Prelogin, &[0; 3000]));
    siege.stays_unshaken();
}

#[test]
fn a_login_byte_by_byte_is_closed() {
    let siege = Siege::lay();
    let socket = siege.greeted(Encryption::NotSup);
    dribbles(&siege, socket, &packet(PacketType::Login7, &good_login()));
    siege.stays_unshaken();
}

#[test]
fn a_handshake_byte_by_byte_is_closed() {
    let siege = Siege::lay();
    let mut hello = vec![0x16, 3, 1, 0x0B, 0];
    hello.resize(3000, 0);
    let socket = siege.greeted(Encryption::On);
    dribbles(&siege, socket, &packet(PacketType::Prelogin, &hello));
    siege.stays_unshaken();
}

#[test]
fn a_request_that_stops_half_way_is_closed() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    let mut half = packet(PacketType::SqlBatch, &[0x41; 600]);
    half.truncate(300);
    raw.send_bytes(&half).expect("half a packet");
    siege.closes(&socket_of(&raw), LOGIN_DEADLINE + GRACE, REQUEST_TOO_SLOW);
    siege.stays_unshaken();
}

#[test]
fn a_request_that_stops_between_two_packets_is_closed() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    raw.send_bytes(&unfinished(PacketType::SqlBatch, &[0x41; 4088]))
        .expect("a packet");
    siege.closes(&socket_of(&raw), LOGIN_DEADLINE + GRACE, REQUEST_TOO_SLOW);
    siege.stays_unshaken();
}

#[test]
fn a_session_that_rests_is_left_alone() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    pause(LOGIN_DEADLINE + LOGIN_DEADLINE / 2);
    assert_eq!(rows_of(&mut raw, "SELECT TOP (1) * FROM orders"), 1);
    siege.stays_unshaken();
}
