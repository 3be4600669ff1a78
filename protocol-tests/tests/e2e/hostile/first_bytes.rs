//! What is no TDS, or no beginning of it.

use std::io::Write;
use std::time::Instant;

use weir_protocol_tests::raw::prelogin;
use weir_tds::packet::PacketType;
use weir_tds::prelogin::Encryption;

use super::{AT_ONCE, GRACE, LOGIN_DEADLINE, LOGIN_TOO_SLOW, Siege, flood, packet, unfinished};

/// PRELOGIN before anything else.
const PRELOGIN: u8 = 0x12;

#[test]
fn bytes_that_are_no_tds_are_closed_without_an_answer() {
    let siege = Siege::lay();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        &[0xFF; 64],
        b"SSH-2.0-x\r\n",
    ] {
        assert_eq!(siege.refuses(bytes, "client: first byte 0x"), b"", "{bytes:?}");
    }
    siege.stays_unshaken();
}

#[test]
fn a_login_of_tds_5_is_closed_without_an_answer() {
    let siege = Siege::lay();
    let mut login = vec![2, 1, 2, 0, 0, 0, 0, 0];
    login.resize(512, 0x20);
    assert_eq!(siege.refuses(&login, "client: first byte 0x02 is not TDS"), b"");
    siege.stays_unshaken();
}

#[test]
fn a_packet_shorter_than_its_header_is_closed() {
    let siege = Siege::lay();
    for length in [0_u8, 1, 7] {
        let said = siege.refuses(
            &[PRELOGIN, 1, 0, length, 0, 0, 1, 0],
            &format!("packet length {length} is outside"),
        );
        assert_eq!(said, b"", "{length}");
    }
    siege.stays_unshaken();
}

#[test]
fn a_packet_longer_than_agreed_is_closed_by_its_header() {
    let siege = Siege::lay();
    let header = [PRELOGIN, 1, 0xFF, 0xFF, 0, 0, 1, 0];
    assert_eq!(siege.refuses(&header, "packet length 65535 is outside"), b"");
    siege.stays_unshaken();
}

#[test]
fn a_prelogin_that_never_ends_is_closed_at_its_bound() {
    let siege = Siege::lay();
    let socket = siege.connect();
    flood(&socket, &unfinished(PacketType::Prelogin, &[0; 4000]), 1_000);
    let said = siege.closes(&socket, AT_ONCE, "a login message larger than");
    assert_eq!(said, b"");
    siege.stays_unshaken();
}

/// They never come to the bound of bytes, so it is the deadline that ends them, although the client never pauses.
#[test]
fn empty_packets_before_the_login_are_closed_at_its_deadline() {
    let siege = Siege::lay();
    let socket = siege.connect();
    socket.set_write_timeout(Some(AT_ONCE)).expect("a socket");
    let empty = unfinished(PacketType::Prelogin, &[]).repeat(1_000);
    let began = Instant::now();
    flood(&socket, &empty, usize::MAX);
    let after = began.elapsed();
    assert!(after < 2 * LOGIN_DEADLINE, "listened to for {after:?}");
    siege.closes(&socket, GRACE, LOGIN_TOO_SLOW);
    siege.stays_unshaken();
}

#[test]
fn options_of_a_prelogin_that_lie_outside_it_are_closed() {
    let siege = Siege::lay();
    let good = prelogin(Encryption::NotSup).encode();
    for (at, byte) in [(1, 0xFF), (3, 0xFF), (0, 0x77)] {
        let mut bad = good.clone();
        bad[at] = byte;
        let said = siege.refuses(&packet(PacketType::Prelogin, &bad), "client: at byte");
        assert_eq!(said, b"", "byte {at}");
    }
    siege.stays_unshaken();
}

#[test]
fn a_request_before_the_login_is_closed() {
    let siege = Siege::lay();
    for kind in [
        PacketType::SqlBatch,
        PacketType::Rpc,
        PacketType::Attention,
        PacketType::Sspi,
    ] {
        let request = packet(kind, &[0; 32]);
        let said = siege.refuses(&request, "is not TDS");
        assert_eq!(said, b"", "{kind:?}");
        let mut socket = siege.greeted(Encryption::NotSup);
        socket.write_all(&request).expect("a request");
        let said = siege.closes(&socket, AT_ONCE, "before login");
        assert_eq!(said, b"", "{kind:?} behind PRELOGIN");
    }
    siege.stays_unshaken();
}

#[test]
fn a_second_prelogin_is_closed() {
    let siege = Siege::lay();
    let mut socket = siege.greeted(Encryption::NotSup);
    let again = packet(PacketType::Prelogin, &prelogin(Encryption::NotSup).encode());
    socket.write_all(&again).expect("PRELOGIN");
    assert_eq!(
        siege.closes(&socket, AT_ONCE, "packet type 0x12 before login"),
        b""
    );
    siege.stays_unshaken();
}
