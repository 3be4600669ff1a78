//! Connections in numbers.

use std::io::Write;
use std::net::TcpStream;

use weir_protocol_tests::deadline::wait_for;
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::raw::Raw;
use weir_tds::packet::PacketType;

use super::{AT_ONCE, GRACE, LOGIN_DEADLINE, LOGIN_TOO_SLOW, Siege, closed_within, unfinished};

/// Sessions that the gate takes here.
const SESSIONS_MAX: usize = 24;

#[test]
fn connections_beyond_the_bound_are_closed_at_accept() {
    let siege = Siege::lay_with(&["--sessions-max", &SESSIONS_MAX.to_string()]);
    // One place is the witness's, and each of these begins a PRELOGIN that it never ends.
    let begun = unfinished(PacketType::Prelogin, &[0; 100]);
    let silent: Vec<TcpStream> = (1..SESSIONS_MAX)
        .map(|_| {
            let mut socket = siege.connect();
            socket.write_all(&begun).expect("a place");
            socket
        })
        .collect();
    for _beyond in 0..100 {
        assert_eq!(closed_within(&siege.connect(), AT_ONCE), b"");
    }
    for socket in &silent {
        siege.closes(socket, LOGIN_DEADLINE + GRACE, LOGIN_TOO_SLOW);
    }
    // Their places are free again.
    let target = Target::demo(siege.gate.address());
    let newcomer = wait_for(GRACE, || Raw::login(&target).ok());
    assert!(newcomer.is_some(), "no place became free");
    siege.stays_unshaken();
}

#[test]
fn a_thousand_connections_that_leave_at_once_leave_nothing() {
    let siege = Siege::lay();
    for number in 0..1_000 {
        let mut socket = siege.connect();
        if number % 2 == 0 {
            let _gone = socket.write_all(&unfinished(PacketType::Prelogin, &[0; 3000]));
        }
    }
    siege.stays_unshaken();
}
