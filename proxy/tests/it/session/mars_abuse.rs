//! MARS: every way in which a peer may break SMP, and every way in which its bytes may be cut.

use fastrand::Rng;
use weir_proxy::session::{engine::SessionEnd, leg::READ_MOST};
use weir_tds::{
    message::write_message,
    packet::{PacketStatus, PacketType},
    smp::{SESSIONS_MAX, SmpFlag, WINDOW},
};

use super::{
    bench::{ROW, batch, message},
    mars_peers::{Mars, control, data},
    relay::result,
};

/// What the client's bytes come to: how the session ended, and what the server was sent.
fn client_sends(wire: &[u8]) -> (Option<SessionEnd>, Vec<u8>) {
    let mut mars = Mars::ready(1000 * ROW, &[7]);
    mars.bench.feed_client(wire);
    (mars.bench.end.take(), mars.bench.to_server)
}

#[test]
fn a_client_that_breaks_smp_is_closed() {
    use SmpFlag::{Ack, Data, Fin, Syn};
    let batch = message(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("TDS without SMP", batch.clone()),
        ("a TLS record", vec![0x16, 3, 1]),
        ("no flag", vec![0x53, 0]),
        ("two flags", vec![0x53, 0x09]),
        ("SYN twice", control(Syn, 7, 0, 4)),
        ("SYN with a number", control(Syn, 8, 1, 4)),
        ("DATA for nobody", data(8, 1, 4, &batch)),
        ("ACK for nobody", control(Ack, 8, 0, 4)),
        ("FIN for nobody", control(Fin, 8, 0, 4)),
        ("DATA 0", data(7, 0, 4, &batch)),
        ("DATA 2 before 1", data(7, 2, 4, &batch)),
        ("ACK ahead", control(Ack, 7, 1, 4)),
        ("window back", control(Ack, 7, 0, 3)),
        ("ACK with data", {
            let mut packet = data(7, 0, 5, b"xxxx");
            packet[1] = Ack.byte();
            packet
        }),
        ("a length below the header", {
            let mut packet = control(Data, 7, 1, 4);
            packet[4] = 15;
            packet
        }),
        ("a length of 4 GiB", {
            let mut packet = control(Data, 7, 1, 4);
            packet[4..8].fill(0xFF);
            packet
        }),
        ("a length above the packet size", data(7, 1, 4, &vec![1; 4097])),
        (
            "DATA behind FIN",
            [control(Fin, 7, 0, 4), data(7, 1, 4, &batch)].concat(),
        ),
        (
            "FIN twice",
            [control(Fin, 7, 0, 4), control(Fin, 7, 0, 4)].concat(),
        ),
        ("no TDS inside", data(7, 1, 4, &[0xFF; 20])),
        ("LOGIN7 inside", {
            data(7, 1, 4, &message(PacketType::Login7, PacketStatus::NORMAL, b"x"))
        }),
    ];
    for (name, wire) in cases {
        let (end, _) = client_sends(&wire);
        assert!(matches!(end, Some(SessionEnd::Client(_))), "{name}: {end:?}");
    }
}

#[test]
fn a_client_cannot_send_beyond_its_window_nor_open_sessions_without_end() {
    // The first request waits for credit that nobody answers for: what follows is not taken.
    let mut mars = Mars::ready(0, &[7]);
    let batch = message(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    for seqnum in 1..=WINDOW {
        mars.bench.feed_client(&data(7, seqnum, 4, &batch));
        assert!(mars.bench.end.is_none(), "packet {seqnum}");
    }
    // One of them was taken, but the client was not told of more room.
    mars.bench.feed_client(&data(7, WINDOW + 1, 4, &batch));
    assert!(
        matches!(mars.bench.end, Some(SessionEnd::Client(_))),
        "{:?}",
        mars.bench.end
    );

    let mut mars = Mars::ready(0, &[]);
    for sid in 0..u16::try_from(SESSIONS_MAX).unwrap() {
        mars.bench.feed_client(&control(SmpFlag::Syn, sid, 0, 4));
        assert!(mars.bench.end.is_none(), "session {sid}");
    }
    mars.bench.feed_client(&control(SmpFlag::Syn, u16::MAX, 0, 4));
    assert!(matches!(mars.bench.end, Some(SessionEnd::Client(_))));
}

#[test]
fn a_server_that_breaks_smp_is_closed() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "TDS without SMP",
            message(PacketType::TabularResult, PacketStatus::NORMAL, &result(1)),
        ),
        ("SYN", control(SmpFlag::Syn, 9, 0, 4)),
        ("DATA for nobody", data(9, 1, 4, b"")),
        ("DATA 2 before 1", data(7, 2, 4, b"")),
        ("window back", control(SmpFlag::Ack, 7, 0, 3)),
        (
            "an answer to nothing",
            data(
                7,
                1,
                4,
                &message(PacketType::TabularResult, PacketStatus::NORMAL, &result(1)),
            ),
        ),
    ];
    for (name, wire) in cases {
        let mut mars = Mars::ready(1000 * ROW, &[7]);
        mars.bench.feed_server(&wire);
        assert!(
            matches!(mars.bench.end, Some(SessionEnd::Server(_))),
            "{name}: {:?}",
            mars.bench.end
        );
    }
}

/// A peer that makes the gate answer and reads nothing is not read for ever either.
#[test]
fn what_waits_for_a_client_that_reads_nothing_is_bounded() {
    let mut mars = Mars::ready(1_000_000 * ROW, &[]);
    mars.bench.unread_limit = 0;
    let mut wire = Vec::new();
    for _ in 0..20_000 {
        wire.extend(control(SmpFlag::Syn, 3, 0, 4));
        wire.extend(control(SmpFlag::Fin, 3, 0, 4));
    }
    for chunk in wire.chunks(READ_MOST) {
        if !mars.bench.core.wants_client() {
            break;
        }
        mars.bench.feed_client(chunk);
        // The server closes each at once.
        let fins = mars.server_answers();
        mars.bench.feed_server(&fins);
        if mars.bench.end.is_some() {
            break;
        }
    }
    let waiting = mars.bench.core.client().out.len();
    assert!(waiting <= 256 * 1024, "{waiting} bytes");
}

/// What both peers get must not depend on how the client's bytes are cut.
#[test]
fn the_clients_bytes_may_be_cut_anywhere() {
    let wire = {
        let (one, two) = (batch("select * from one"), batch(&"two ".repeat(150)));
        // In packets of 512 bytes; the server gets it cut anew.
        let packet = |body: &[u8]| {
            let mut out = bytes::BytesMut::new();
            write_message(
                &mut out,
                PacketType::SqlBatch,
                PacketStatus::NORMAL,
                512,
                0,
                1,
                body,
            );
            out
        };
        let two = packet(&two);
        [
            control(SmpFlag::Syn, 0, 0, 4),
            control(SmpFlag::Syn, 1, 0, 4),
            data(1, 1, 4, &two[..512]),
            data(0, 1, 4, &packet(&one)),
            data(1, 2, 4, &two[512..1024]),
            data(1, 3, 4, &two[1024..]),
            control(SmpFlag::Ack, 1, 3, 6),
            control(SmpFlag::Fin, 0, 1, 4),
        ]
        .concat()
    };
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut mars = Mars::ready(1000 * ROW, &[]);
        for piece in pieces {
            mars.bench.feed_client(piece);
            assert!(mars.bench.end.is_none(), "{:?}", mars.bench.end);
        }
        mars.server_got()
    };
    let whole = run(&mut std::iter::once(&wire[..]));
    assert_eq!(whole.len(), 2);
    for at in 0..wire.len() {
        let (left, right) = wire.split_at(at);
        assert_eq!(run(&mut [left, right].into_iter()), whole, "cut at {at}");
    }
    assert_eq!(run(&mut wire.chunks(1)), whole, "byte by byte");
    let mut rng = Rng::with_seed(7);
    for round in 0..50 {
        let mut ends: Vec<usize> = (0..rng.usize(1..40)).map(|_| rng.usize(..wire.len())).collect();
        ends.extend([0, wire.len()]);
        ends.sort_unstable();
        let mut pieces = ends.windows(2).map(|w| &wire[w[0]..w[1]]);
        assert_eq!(run(&mut pieces), whole, "round {round}");
    }
}
