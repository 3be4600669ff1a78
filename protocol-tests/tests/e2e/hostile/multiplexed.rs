//! MARS sessions that break SMP: each ends the connection, with all of its sessions [MC-SMP 3.1.5.1].

use std::io::{Read, Write};
use std::net::TcpStream;

use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::raw::Raw;
use weir_tds::packet::PacketType;
use weir_tds::request::all_headers::AllHeaders;
use weir_tds::smp::{SMID, SMP_HEADER_LEN, SmpFlag, SmpHeader, WINDOW};

use super::{AT_ONCE, Siege, flood, packet, socket_of, unfinished};

/// Logged in with MARS: from here on everything is SMP.
fn multiplexed(siege: &Siege) -> TcpStream {
    let raw = Raw::login_multiplexed(&Target::demo(siege.gate.address())).expect("a login with MARS");
    socket_of(&raw)
}

fn control(flag: SmpFlag, sid: u16, seqnum: u32, window: u32) -> Vec<u8> {
    SmpHeader::control(flag, sid, seqnum, window).encode().to_vec()
}

fn data(sid: u16, seqnum: u32, window: u32, body: &[u8]) -> Vec<u8> {
    let header = SmpHeader {
        flag: SmpFlag::Data,
        sid,
        length: u32::try_from(SMP_HEADER_LEN + body.len()).expect("short"),
        seqnum,
        window,
    };
    [&header.encode()[..], body].concat()
}

fn batch(sql: &str) -> Vec<u8> {
    let mut body = AllHeaders::encode(0).to_vec();
    body.extend(sql.encode_utf16().flat_map(u16::to_le_bytes));
    packet(PacketType::SqlBatch, &body)
}

/// A multiplexed connection that says this is closed at once, for the reason that has `why` in it.
fn ends(why: &str, said: &[Vec<u8>]) {
    let siege = Siege::lay();
    let mut socket = multiplexed(&siege);
    for bytes in said {
        // It may have closed in between.
        let _cut = socket.write_all(bytes);
    }
    let heard = siege.closes(&socket, AT_ONCE, why);
    assert!(heard.len() < 64 * 1024, "it answered with {} bytes", heard.len());
    siege.stays_unshaken();
}

#[test]
fn bytes_that_are_no_smp_end_the_connection() {
    ends("instead of 0x53", &[batch("SELECT 1")]);
}

#[test]
fn no_flag_ends_the_connection() {
    let none = vec![SMID, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
    ends("SMP: flags 0x00 are not exactly one of", &[none]);
}

#[test]
fn two_flags_end_the_connection() {
    let two = vec![SMID, 3, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
    ends("SMP: flags 0x03 are not exactly one of", &[two]);
}

#[test]
fn a_session_opened_twice_ends_the_connection() {
    let syn = control(SmpFlag::Syn, 0, 0, WINDOW);
    ends("was opened twice", &[syn.clone(), syn]);
}

#[test]
fn data_for_a_session_that_nobody_opened_ends_the_connection() {
    ends("session 7 is not open", &[data(7, 1, WINDOW, &batch("SELECT 1"))]);
}

#[test]
fn a_flood_of_sessions_ends_the_connection() {
    let flood = (0..10_000)
        .map(|sid| control(SmpFlag::Syn, sid, 0, WINDOW))
        .collect::<Vec<_>>();
    ends("sessions on one connection", &[flood.concat()]);
}

/// Each session is closed again: none is left, however many there were.
#[test]
fn sessions_opened_and_closed_without_end_are_bounded() {
    let siege = Siege::lay();
    let mut socket = multiplexed(&siege);
    let mut reader = socket.try_clone().expect("a socket");
    for round in 0..2_000_u16 {
        let sid = round % 50;
        socket
            .write_all(&control(SmpFlag::Syn, sid, 0, WINDOW))
            .expect("SYN");
        socket
            .write_all(&control(SmpFlag::Fin, sid, 0, WINDOW))
            .expect("FIN");
        while smp_packet(&mut reader).flag != SmpFlag::Fin {}
    }
    siege.stays_unshaken();
}

#[test]
fn data_beyond_the_window_ends_the_connection() {
    let siege = Siege::lay();
    let mut socket = multiplexed(&siege);
    let syn = control(SmpFlag::Syn, 0, 0, WINDOW);
    // All at once: what is beyond the window is there before any of it can be acknowledged.
    let piece = unfinished(PacketType::SqlBatch, &[0x41; 100]);
    let many = (1..=100).map(|number| data(0, number, WINDOW, &piece));
    let said = [syn].into_iter().chain(many).collect::<Vec<_>>().concat();
    let _cut = socket.write_all(&said);
    siege.closes(&socket, AT_ONCE, "beyond its window");
    siege.stays_unshaken();
}

#[test]
fn a_gap_in_the_sequence_numbers_ends_the_connection() {
    let syn = control(SmpFlag::Syn, 0, 0, WINDOW);
    ends(
        "sent sequence number 3 instead of 1",
        &[syn, data(0, 3, WINDOW, &batch("SELECT 1"))],
    );
}

#[test]
fn a_repeated_sequence_number_ends_the_connection() {
    let syn = control(SmpFlag::Syn, 0, 0, WINDOW);
    let twice = data(0, 1, WINDOW, &batch("SELECT 1"));
    ends(
        "sent sequence number 1 instead of 2",
        &[syn, twice.clone(), twice],
    );
}

#[test]
fn a_window_that_is_taken_back_ends_the_connection() {
    let syn = control(SmpFlag::Syn, 0, 0, WINDOW);
    ends("took its window back", &[syn, control(SmpFlag::Ack, 0, 0, 1)]);
}

#[test]
fn a_packet_of_four_gibibytes_ends_the_connection() {
    let mut bomb = control(SmpFlag::Data, 0, 1, WINDOW);
    bomb[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    ends("SMP: length", &[control(SmpFlag::Syn, 0, 0, WINDOW), bomb]);
}

/// The packets of SMP that hold nothing make the gate neither answer nor hold anything.
#[test]
fn a_flood_of_acknowledgements_is_bounded() {
    let siege = Siege::lay();
    let mut socket = multiplexed(&siege);
    socket
        .write_all(&control(SmpFlag::Syn, 1, 0, WINDOW))
        .expect("SYN");
    let some = control(SmpFlag::Ack, 1, 0, WINDOW).repeat(1_000);
    flood(&socket, &some, 1_000);
    let asked = data(1, 1, WINDOW, &batch("SELECT TOP (1) * FROM orders"));
    socket.write_all(&asked).expect("a request");
    while smp_packet(&mut socket).flag != SmpFlag::Data {}
    siege.stays_unshaken();
}

/// A session that gives no window gets no more than its first; the other session goes on.
#[test]
fn a_window_that_is_never_opened_holds_up_one_session_alone() {
    let siege = Siege::lay();
    let mut socket = multiplexed(&siege);
    for sid in [1, 2] {
        socket
            .write_all(&control(SmpFlag::Syn, sid, 0, WINDOW))
            .expect("SYN");
    }
    let long = batch("SELECT * FROM orders");
    socket.write_all(&data(1, 1, WINDOW, &long)).expect("a request");
    socket
        .write_all(&data(2, 1, WINDOW, &batch("SELECT TOP (1) * FROM orders")))
        .expect("a request");
    let mut packets = [0_u32; 3];
    loop {
        let header = smp_packet(&mut socket);
        if header.flag != SmpFlag::Data {
            continue;
        }
        packets[usize::from(header.sid)] += 1;
        assert!(packets[1] <= WINDOW, "more than the window of session 1");
        if header.sid == 2 {
            break;
        }
    }
    // It waited, and goes on once it may.
    let opened = control(SmpFlag::Ack, 1, 1, 2 * WINDOW);
    socket.write_all(&opened).expect("a window");
    while packets[1] <= WINDOW {
        let header = smp_packet(&mut socket);
        packets[usize::from(header.sid)] += u32::from(header.flag == SmpFlag::Data);
    }
    siege.stays_unshaken();
}

/// Reads a packet of SMP, and throws its data away.
fn smp_packet(socket: &mut TcpStream) -> SmpHeader {
    let mut head = [0; SMP_HEADER_LEN];
    socket.read_exact(&mut head).expect("a packet");
    let header = SmpHeader::parse(&head).expect("SMP").expect("whole");
    let mut body = vec![0; header.data_len()];
    socket.read_exact(&mut body).expect("its data");
    header
}
