//! MARS: sessions of one connection metered apart, cut, cancelled, stopped and closed each for itself.

use std::sync::{Arc, atomic::Ordering};

use weir_contracts::entry::Outcome;
use weir_proxy::{
    ports::billing::Mode,
    session::{
        Action, MarsOffer, Settings,
        engine::{SERVER_OUT_MAX, SessionEnd},
    },
};
use weir_tds::{
    build::TokenBuf,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    prelogin::{Encryption, Prelogin},
    smp::WINDOW,
};

use super::{
    bench::{Bench, ROW, V, login7, message, prelogin, settings},
    cut::{ack, last_done, rows_in},
    login::error_in,
    mars_peers::Mars,
    relay::result,
};

fn error_number(tokens: &[u8]) -> i32 {
    error_in(tokens).expect("an error").0
}

/// An answer's packets, and how many of them are its first half.
fn in_packets(tokens: &[u8]) -> (Vec<u8>, usize) {
    let packets = message(PacketType::TabularResult, PacketStatus::NORMAL, tokens);
    let mut ends = vec![0];
    while let Ok(Some(header)) = PacketHeader::parse(&packets[*ends.last().unwrap()..]) {
        ends.push(ends.last().unwrap() + usize::from(header.length));
    }
    let half = ends[ends.len() / 2];
    (packets, half)
}

fn body_of(mut packets: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(header)) = PacketHeader::parse(packets) {
        let (packet, rest) = packets.split_at(usize::from(header.length));
        body.extend_from_slice(&packet[HEADER_LEN..]);
        packets = rest;
    }
    body
}

#[test]
fn sessions_interleave_and_each_request_is_metered_for_itself() {
    let mut mars = Mars::ready(10_000 * ROW, &[0, 1, 2]);
    for sid in [1, 0, 2] {
        mars.ask(sid, &format!("select {sid}"));
    }
    let rows = [700, 900, 30];
    let answers = rows.map(|rows| in_packets(&result(rows)));
    for (sid, (packets, half)) in (0..).zip(&answers) {
        mars.server_packets(sid, &packets[..*half]);
    }
    for (sid, (packets, half)) in (0..3).zip(&answers).rev() {
        mars.server_packets(sid, &packets[*half..]);
    }
    for (sid, rows) in (0..).zip(rows) {
        assert_eq!(mars.answer(sid), result(rows), "session {sid}, byte for byte");
    }
    assert_eq!(mars.credit(), (10_000 - 700 - 900 - 30) * ROW);
    let mut seen: Vec<_> = mars
        .bench
        .records
        .iter()
        .map(|r| (r.rows, r.bytes_out, r.cost_nanos, r.outcome))
        .collect();
    seen.sort_unstable_by_key(|(rows, ..)| *rows);
    let expected = [30, 700, 900].map(|rows| {
        let bytes = result(rows).len() as u64;
        (u64::from(rows), bytes, i64::from(rows) * ROW, Outcome::Completed)
    });
    assert_eq!(seen, expected);
    let mut requests: Vec<u64> = mars.bench.records.iter().map(|r| r.request).collect();
    requests.sort_unstable();
    assert_eq!(requests, [1, 2, 3], "numbered over the whole connection");
    assert!(mars.bench.records.iter().all(|r| r.session == 7));
    let journaled: Vec<u64> = mars.bench.journaled.values().copied().collect();
    assert_eq!(journaled, [700, 900, 30], "one journal slot for each session");
}

#[test]
fn one_session_is_cut_at_its_row_while_the_others_go_on() {
    let mut mars = Mars::ready(1000 * ROW, &[0, 1]);
    mars.ask(0, "select * from a");
    mars.ask(1, "select * from b");
    let (b, half) = in_packets(&result(300));
    mars.server_packets(1, &b[..half]);
    let spent_on_b = 1000 - mars.credit() / ROW;
    mars.bench.purse.nanos.store(60 * ROW, Ordering::SeqCst);
    let (a, half_a) = in_packets(&result(1000));
    mars.server_packets(0, &a[..half_a]);
    mars.bench.deny();
    mars.pump();
    assert_eq!(mars.asked(0).map(|(kind, _)| kind), Some(PacketType::Attention));
    assert_eq!(
        mars.asked(1),
        None,
        "the other session's request is not cancelled"
    );
    // The other session's answer goes on before the cut has ended: its credit came meanwhile.
    mars.bench.purse.nanos.store(1000 * ROW, Ordering::SeqCst);
    mars.server_packets(1, &b[half..]);
    assert_eq!(mars.answer(1), result(300));
    mars.server_packets(0, &a[half_a..]);
    mars.server_says(0, &ack());
    let cut = mars.answer(0);
    assert_eq!(rows_in(&cut), 60);
    assert_eq!(error_number(&cut), 50402);
    assert_eq!(last_done(&cut), 0x0002);
    assert_eq!(mars.credit(), (1000 - (300 - spent_on_b)) * ROW);
    let outcomes: Vec<_> = mars.bench.records.iter().map(|r| (r.rows, r.outcome)).collect();
    assert_eq!(outcomes, [(300, Outcome::Completed), (60, Outcome::CutOff)]);
    // Both go on working.
    for sid in [0, 1] {
        mars.ask(sid, "select 1");
        mars.server_says(sid, &result(1));
        assert_eq!(mars.answer(sid), result(1));
    }
    assert!(mars.bench.end.is_none());
}

#[test]
fn a_refusal_is_told_in_its_session_only() {
    let mut mars = Mars::ready(ROW, &[0, 1]);
    mars.ask(0, "select 1");
    mars.bench.purse.nanos.store(0, Ordering::SeqCst);
    mars.client_says(1, PacketType::SqlBatch, &super::bench::batch("select 2"));
    mars.bench.deny();
    mars.pump();
    assert_eq!(mars.asked(1), None);
    assert_eq!(error_number(&mars.answer(1)), 50402);
    let mut done = TokenBuf::new(V);
    done.done(0, 0xC1, 0);
    mars.server_says(0, done.as_bytes());
    assert_eq!(mars.answer(0), done.as_bytes());
}

/// The answers come in the order of the questions, whichever session they are for, and also if that one has gone.
#[test]
fn credit_is_answered_to_the_session_that_asked() {
    let mut mars = Mars::ready(0, &[0, 1, 2]);
    for sid in [2, 0, 1] {
        mars.client_says(sid, PacketType::SqlBatch, &super::bench::batch("select 1"));
    }
    mars.client_closes(2);
    mars.bench.deny();
    mars.pump();
    assert_eq!(mars.client.got.get(&0), None, "session 2 was first, and has gone");
    mars.bench.deny();
    mars.pump();
    assert_eq!(error_number(&mars.answer(0)), 50402);
    mars.bench.grant(10 * ROW);
    mars.pump();
    assert!(mars.asked(1).is_some());
}

#[test]
fn attention_cancels_its_session_only() {
    let mut mars = Mars::ready(1000 * ROW, &[0, 1]);
    mars.ask(0, "select * from a");
    mars.ask(1, "select * from b");
    let (a, half) = in_packets(&result(300));
    mars.server_packets(0, &a[..half]);
    mars.client_says(0, PacketType::Attention, &[]);
    assert_eq!(mars.asked(0).map(|(kind, _)| kind), Some(PacketType::Attention));
    assert_eq!(mars.asked(1), None);
    mars.server_says(1, &result(5));
    assert_eq!(mars.answer(1), result(5));
    mars.server_packets(0, &a[half..]);
    mars.server_says(0, &ack());
    assert_eq!(mars.answer(0), result(300));
    assert_eq!(mars.answer(0), ack());
    let outcomes: Vec<_> = mars.bench.records.iter().map(|r| r.outcome).collect();
    assert_eq!(outcomes, [Outcome::Completed, Outcome::Cancelled]);
}

#[test]
fn a_session_that_is_not_read_stops_itself_and_nobody_else() {
    let mut mars = Mars::ready(1_000_000 * ROW, &[1, 2]);
    mars.client.unread.insert(1);
    mars.ask(1, "select * from big");
    mars.server_says(1, &result(50_000));
    let (to_client, left) = (mars.client.got[&1].len(), mars.server.to_send[&1].len());
    assert!(
        to_client <= WINDOW as usize * 4096,
        "{to_client} bytes beyond the window"
    );
    // In the gate: one chunk for the client and the server's window.
    assert!(
        left > 200,
        "the gate took {left} packets less than all: it buffers a whole answer"
    );
    let queued = mars.bench.core.client().out.len();
    assert_eq!(queued, 0, "nothing of the session stands in the others' way");
    for n in 0..20 {
        mars.ask(2, "select * from small");
        mars.server_says(2, &result(500));
        assert_eq!(mars.answer(2), result(500), "answer {n}");
    }
    assert!(mars.client.got[&1].len() <= WINDOW as usize * 4096);
    // It is read again: everything comes.
    mars.client_reads_again();
    assert_eq!(mars.answer(1), result(50_000));
    assert_eq!(mars.bench.records.last().unwrap().rows, 50_000);
}

#[test]
fn a_session_whose_server_does_not_read_stops_itself_and_nobody_else() {
    let mut mars = Mars::ready(1_000_000 * ROW, &[1, 2]);
    mars.server.unread.insert(1);
    let long = "x".repeat(1 << 20);
    mars.client_says(1, PacketType::SqlBatch, &super::bench::batch(&long));
    let held = mars.client.to_send[&1].len();
    assert!(
        held > 400,
        "{held} packets are still with the client: the gate is no buffer"
    );
    assert!(mars.bench.core.server().out.len() < SERVER_OUT_MAX);
    mars.ask(2, "select 1");
    mars.server_says(2, &result(1));
    assert_eq!(mars.answer(2), result(1));
    mars.server_reads_again();
    assert_eq!(mars.asked(1).unwrap().1, super::bench::batch(&long));
}

#[test]
fn a_client_that_closes_a_session_ends_its_request_and_frees_its_number() {
    let mut mars = Mars::ready(1000 * ROW, &[0, 1]);
    mars.ask(0, "select * from a");
    mars.ask(1, "select * from b");
    let (a, half) = in_packets(&result(300));
    mars.server_packets(0, &a[..half]);
    mars.client_closes(0);
    assert_eq!(mars.server.fins, [0], "the server is told");
    assert!(
        mars.client.fins.is_empty(),
        "the number is not free before the server has closed it"
    );
    assert_eq!(mars.bench.records.last().unwrap().outcome, Outcome::Interrupted);
    assert!(
        mars.bench.core.deadline().is_some(),
        "the server's FIN is waited for, not for ever"
    );
    // What the server still sends of it is nobody's.
    mars.server_packets(0, &a[half..]);
    mars.server_closes(0);
    assert_eq!(mars.client.fins, [0]);
    assert!(mars.bench.core.deadline().is_none());
    let records = mars.bench.records.len();
    mars.open(0);
    mars.client.got.clear();
    mars.ask(0, "select 1");
    mars.server_says(0, &result(1));
    assert_eq!(mars.answer(0), result(1));
    mars.server_says(1, &result(2));
    assert_eq!(mars.answer(1), result(2));
    assert_eq!(mars.bench.records.len(), records + 2);
}

#[test]
fn a_server_that_never_closes_a_session_ends_the_connection_at_the_deadline() {
    let mut mars = Mars::ready(1000 * ROW, &[0, 1]);
    mars.client_closes(0);
    mars.bench.now = mars.bench.core.deadline().unwrap();
    mars.bench.core.on_deadline(mars.bench.now);
    mars.bench.pump();
    assert!(matches!(mars.bench.end, Some(SessionEnd::Deadline(_))));
}

#[test]
fn a_session_that_the_server_closes_ends_with_an_error_and_the_others_go_on() {
    let mut mars = Mars::ready(1000 * ROW, &[0, 1]);
    mars.ask(0, "select * from a");
    mars.ask(1, "select * from b");
    mars.server_closes(0);
    assert_eq!(mars.server.fins, [0], "answered at once");
    assert_eq!(mars.client.fins, [0]);
    assert_eq!(error_number(&mars.answer(0)), 50504);
    mars.server_says(1, &result(2));
    assert_eq!(mars.answer(1), result(2));
    mars.client_closes(0);
    mars.open(0);
    mars.ask(0, "select 1");
}

#[test]
fn a_server_that_goes_away_is_told_in_every_session_that_waits() {
    let mut mars = Mars::ready(1000 * ROW, &[0, 1, 2]);
    mars.ask(0, "select * from a");
    mars.ask(2, "select * from b");
    mars.server_says(2, &result(3));
    mars.ask(2, "select * from c");
    assert_eq!(mars.answer(2), result(3));
    let now = mars.bench.now;
    mars.bench.core.server_closed(now);
    mars.bench.pump();
    mars.pump();
    for sid in [0, 2] {
        assert_eq!(error_number(&mars.answer(sid)), 50504, "session {sid}");
    }
    assert_eq!(mars.client.got.get(&1), None);
    assert!(matches!(mars.bench.end, Some(SessionEnd::Server(_))));
    assert_eq!(mars.bench.records.len(), 3);
}

#[test]
fn a_gateway_that_stops_lets_what_runs_end_and_begins_nothing() {
    let mut mars = Mars::ready(1000 * ROW, &[0, 1]);
    mars.ask(0, "select * from a");
    let now = mars.bench.now;
    mars.bench.core.stop(now);
    mars.bench.pump();
    mars.client_says(1, PacketType::SqlBatch, &super::bench::batch("select 2"));
    assert_eq!(mars.asked(1), None);
    assert!(mars.bench.end.is_none());
    mars.server_says(0, &result(5));
    assert_eq!(mars.answer(0), result(5));
    assert!(matches!(mars.bench.end, Some(SessionEnd::Closed)));
    assert_eq!(mars.bench.records[0].outcome, Outcome::Completed);
}

#[test]
fn rows_are_journaled_per_session_before_the_client_has_them() {
    let mut mars = Mars::ready(1_000_000 * ROW, &[0, 1]);
    mars.ask(0, "select * from a");
    mars.ask(1, "select * from b");
    let answers = [in_packets(&result(3000)).0, in_packets(&result(2000)).0];
    let mut left = answers.clone();
    while left.iter().any(|l| !l.is_empty()) {
        for (sid, rest) in (0..).zip(&mut left) {
            if let Ok(Some(header)) = PacketHeader::parse(rest) {
                let packet: Vec<u8> = rest.drain(..usize::from(header.length)).collect();
                mars.server_packets(sid, &packet);
                let got = rows_in(&body_of(&mars.client.got[&sid]));
                let journaled = mars.bench.journaled[&(u32::from(sid) + 1)];
                assert!(
                    journaled >= got,
                    "session {sid}: {journaled} journaled, {got} delivered"
                );
            }
        }
    }
    assert_eq!(
        mars.bench.journaled.values().copied().collect::<Vec<_>>(),
        [3000, 2000]
    );
}

/// The client was promised what the server then does not do: an error that says so, and no promise to the next.
#[test]
fn a_server_without_mars_is_noticed_and_not_promised_again() {
    let proxy = Arc::new(Settings {
        mars: MarsOffer::new(true),
        ..settings()
    });
    let mut bench = Bench::sharing(Arc::clone(&proxy), 0);
    let hello = prelogin(Encryption::NotSup);
    bench.client_says(PacketType::Prelogin, PacketStatus::NORMAL, &hello.encode());
    assert_eq!(Prelogin::parse(&bench.client_message()).unwrap().mars, Some(true));
    let login = login7("acme").encode().unwrap();
    bench.client_says(PacketType::Login7, PacketStatus::NORMAL, &login);
    bench.actions.clear();
    bench.admit(Mode::Enforce);
    bench.server_message();
    let answer = Prelogin {
        mars: Some(false),
        ..prelogin(Encryption::NotSup)
    };
    bench.server_says(&answer.encode());
    let refusal = bench.client_message();
    assert_eq!(error_number(&refusal), 50504);
    let says: Vec<u8> = "MARS".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(refusal.windows(says.len()).any(|w| w == says), "it says why");
    assert!(bench.to_server.is_empty(), "no login is sent");
    assert!(bench.end.is_some());
    let mut bench = Bench::sharing(proxy, 0);
    bench.client_says(PacketType::Prelogin, PacketStatus::NORMAL, &hello.encode());
    assert_eq!(
        Prelogin::parse(&bench.client_message()).unwrap().mars,
        Some(false)
    );
}

#[test]
fn a_client_that_does_not_ask_for_mars_gets_none() {
    let mut bench = Bench::with(
        Settings {
            mars: MarsOffer::new(true),
            ..settings()
        },
        10 * ROW,
    );
    let hello = Prelogin {
        mars: Some(false),
        ..prelogin(Encryption::NotSup)
    };
    bench.client_says(PacketType::Prelogin, PacketStatus::NORMAL, &hello.encode());
    assert_eq!(
        Prelogin::parse(&bench.client_message()).unwrap().mars,
        Some(false)
    );
    let login = login7("acme").encode().unwrap();
    bench.client_says(PacketType::Login7, PacketStatus::NORMAL, &login);
    assert!(matches!(bench.actions.pop_front(), Some(Action::Admit(_))));
    bench.admit(Mode::Enforce);
    assert_eq!(
        Prelogin::parse(&bench.server_message()).unwrap().mars,
        Some(false)
    );
}

/// What SqlClient sends first on a MARS connection: two sessions, and a request on the second.
#[test]
fn sqlclients_recorded_bytes_open_its_sessions_and_ask() {
    let vector = include_str!("../../../../protocol-tests/vectors/real-sqlclient-mars-smp.json");
    let vector: serde_json::Value = serde_json::from_str(vector).unwrap();
    let hex = vector["bytes_hex"].as_str().unwrap().as_bytes();
    let wire: Vec<u8> = hex
        .chunks(2)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 16).unwrap())
        .collect();
    let mut mars = Mars::ready(100 * ROW, &[]);
    mars.bench.feed_client(&wire);
    let got = mars.server_got();
    assert_eq!(got.keys().copied().collect::<Vec<_>>(), [1]);
    let (kind, mut body) = mars.asked(1).unwrap();
    assert_eq!(kind, PacketType::Rpc);
    // All of it as it came, but for fNoMetaData, which would leave the answer unreadable.
    let sent = &wire[2 * 16 + 16 + HEADER_LEN..];
    let flags = 22 + 4;
    assert_eq!((sent[flags], body[flags]), (2, 0));
    body[flags] = sent[flags];
    assert_eq!(body, sent);
    assert_eq!(
        mars.server.sessions.len(),
        2,
        "both sessions are open at the server"
    );
}
