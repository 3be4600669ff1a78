//! Edges: where nobody would be woken, where memory would grow, and where a record would not cost what it counts.

use std::sync::atomic::Ordering;

use weir_contracts::{entry::Outcome, tariff::Tariff};
use weir_proxy::{
    ports::billing::Mode,
    session::{Settings, engine::SessionEnd},
};
use weir_tds::{
    build::TokenBuf,
    message::write_message,
    packet::{PacketStatus, PacketType},
    token::{Done, DoneStatus, TokenKind},
};

use super::{
    bench::{Bench, ROW, V, batch, message, settings, take_message, tariff},
    login::{error_in, tokens_of},
    relay::result,
};

fn ack() -> Vec<u8> {
    let mut tokens = TokenBuf::new(V);
    tokens.done(0x20, 0xFD, 0);
    tokens.as_bytes().to_vec()
}

fn by_byte() -> Tariff {
    Tariff {
        per_request_nanos: 700,
        per_row_nanos: 0,
        per_kib_out_nanos: 1024,
        ..Tariff::clone(&tariff())
    }
}

/// The answer ends with its only final DONE: many drivers stop reading there.
fn assert_one_end(answer: &[u8]) {
    let tokens = tokens_of(answer);
    let last = tokens.len() - 1;
    for (at, (kind, bytes)) in tokens.iter().enumerate() {
        let ends = kind.is_done() && !Done::parse(bytes, V).unwrap().status.contains(DoneStatus::MORE);
        assert_eq!(ends, at == last, "token {at} of {last}: {kind:?}");
    }
}

fn assert_records_add_up(bench: &Bench, prices: &Tariff) {
    assert!(!bench.records.is_empty());
    for record in &bench.records {
        assert_eq!(
            record.cost_nanos,
            prices.cost_nanos(&record.quantity()),
            "rating computes it again: {record:?}"
        );
    }
}

fn select(bench: &mut Bench) {
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
}

#[test]
fn a_large_request_that_is_all_buffered_goes_on_when_credit_comes() {
    let mut bench = Bench::ready(0);
    let body = batch(&format!("select '{}'", "x".repeat(180_000)));
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &body);
    bench.grant(ROW);
    assert_eq!(bench.server_message(), body);
}

#[test]
fn a_cut_is_done_with_the_server_even_if_the_client_reads_nothing() {
    let mut cuts = 0;
    for credit_rows in 1..300 {
        let small = Settings {
            chunk_bytes: 4096,
            ..settings()
        };
        let mut bench = Bench::with(small, credit_rows * ROW);
        bench.log_in(Mode::Enforce);
        bench.unread_limit = 1000;
        select(&mut bench);
        bench.feed_server(&message(
            PacketType::TabularResult,
            PacketStatus::NORMAL,
            &result(400),
        ));
        if bench.actions.is_empty() {
            continue;
        }
        cuts += 1;
        bench.deny();
        bench.server_says(&ack());
        assert!(bench.core.deadline().is_none(), "{credit_rows} rows");
        bench.unread_limit = usize::MAX;
        bench.pump();
        assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
    }
    assert!(cuts > 50);
}

#[test]
fn the_smallest_chunk_still_takes_the_largest_packets() {
    let small = Settings {
        chunk_bytes: 4096,
        ..settings()
    };
    let mut bench = Bench::with(small, 1000 * ROW);
    (bench.asked_packet_size, bench.packet_size) = (32_767, 32_767);
    bench.log_in(Mode::Enforce);
    select(&mut bench);
    let mut sent = bytes::BytesMut::new();
    let kind = PacketType::TabularResult;
    write_message(
        &mut sent,
        kind,
        PacketStatus::NORMAL,
        32_767,
        51,
        1,
        &result(1000),
    );
    for piece in sent.chunks(1000) {
        assert!(bench.core.wants_server());
        bench.feed_server(piece);
    }
    assert_eq!(bench.to_client, sent);
}

#[test]
fn a_held_request_that_is_cancelled_still_resets_the_server() {
    let mut bench = Bench::ready(0);
    bench.client_says(PacketType::SqlBatch, PacketStatus::RESET, &batch("select 1"));
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    assert_eq!(bench.to_server[1], 0x09, "EOM and RESETCONNECTION");
    assert_eq!(bench.server_message(), batch(""));
    assert!(bench.to_client.is_empty(), "the reset is acknowledged first");
    let mut reset = TokenBuf::new(V);
    reset.env_reset_ack().done(0, 0xFD, 0);
    bench.server_says(reset.as_bytes());
    let kinds: Vec<TokenKind> = tokens_of(&bench.client_message())
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, [TokenKind::EnvChange, TokenKind::Done]);
    assert_eq!(bench.client_message(), ack());
    assert!(bench.to_client.is_empty() && bench.to_server.is_empty());
}

#[test]
fn an_answer_about_credit_is_for_the_request_that_asked() {
    let mut bench = Bench::ready(0);
    select(&mut bench);
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    bench.client_message();
    bench.client_message();
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 2"));
    bench.deny();
    assert!(bench.to_client.is_empty(), "that refusal was for the first");
    bench.grant(ROW);
    assert_eq!(bench.server_message(), batch("select 2"));
}

#[test]
fn packets_without_a_body_are_not_held_without_end() {
    let mut bench = Bench::ready(ROW);
    let empty = [0x01, 0x00, 0x00, 0x08, 0, 0, 1, 0];
    bench.feed_client(&empty.repeat(10_000));
    assert_eq!(bench.core.client().buffered(), 0);
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    assert_eq!(bench.server_message(), batch("select 1"), "they say nothing");
}

#[test]
fn a_client_that_reads_no_answers_of_the_gate_gets_no_more_of_them() {
    let mut bench = Bench::ready(0);
    bench.unread_limit = 0;
    let ask = message(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("EXEC weir.usage"),
    );
    bench.feed_client(&ask.repeat(2000));
    assert!(bench.core.client().out.len() < 65 * 1024);
    bench.unread_limit = usize::MAX;
    bench.pump();
    let mut answers = 0;
    while take_message(&mut bench.to_client).is_some() {
        answers += 1;
    }
    assert_eq!(answers, 2000);
}

#[test]
fn a_record_that_is_cut_costs_what_it_counts() {
    for credit in [701, 702, 1500, 4800, 9000] {
        let mut bench = Bench::priced(credit, by_byte());
        select(&mut bench);
        bench.feed_server(&message(
            PacketType::TabularResult,
            PacketStatus::NORMAL,
            &result(800),
        ));
        while !bench.actions.is_empty() {
            bench.deny();
        }
        bench.server_says(&ack());
        let answer = bench.client_message();
        assert_one_end(&answer);
        assert_eq!(error_in(&answer), Some((50402, 16)), "{credit}");
        assert_eq!(bench.records[0].outcome, Outcome::CutOff);
        assert_records_add_up(&bench, &by_byte());
    }
}

#[test]
fn an_answer_that_has_ended_is_not_cut_behind_its_end() {
    for rows in [0, 1] {
        let mut bench = Bench::priced(702, by_byte());
        select(&mut bench);
        bench.purse.nanos.store(i64::from(rows) * 701, Ordering::SeqCst);
        let sent = result(0);
        bench.server_says(&sent);
        bench.deny();
        assert_eq!(
            bench.client_message(),
            sent,
            "what is in hand is finished on credit"
        );
        assert!(bench.to_client.is_empty());
        assert_eq!(bench.records[0].outcome, Outcome::Completed);
        assert_records_add_up(&bench, &by_byte());
    }
}

#[test]
fn a_client_that_cancels_at_the_end_of_an_answer_gets_one_end_and_one_acknowledgement() {
    let mut bench = Bench::priced(702, by_byte());
    select(&mut bench);
    bench.server_message();
    bench.purse.nanos.store(0, Ordering::SeqCst);
    bench.server_says(&result(0));
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    assert_eq!(bench.server_message_kind(), PacketType::Attention);
    bench.server_says(&ack());
    bench.deny();
    assert_one_end(&bench.client_message());
    assert_eq!(bench.client_message(), ack());
    assert!(bench.to_client.is_empty());
    assert_records_add_up(&bench, &by_byte());
}

#[test]
fn a_lease_that_changes_under_a_due_packet_is_charged_for_it() {
    let mut bench = Bench::priced(6000, by_byte());
    select(&mut bench);
    let mut tokens = result(60);
    tokens.truncate(tokens.len() - 13);
    for _ in 0..600 {
        tokens.extend_from_slice(TokenBuf::new(V).done(0x01, 0xC1, 0).as_bytes());
    }
    tokens.extend_from_slice(TokenBuf::new(V).done(0, 0xC1, 0).as_bytes());
    bench.server_says(&tokens);
    bench.purse.lease.store(1, Ordering::SeqCst);
    bench.grant(100_000);
    bench.client_message();
    assert_eq!(bench.records.len(), 2, "one part of each lease");
    assert_records_add_up(&bench, &by_byte());
}

#[test]
fn a_client_that_goes_while_its_request_runs_leaves_a_record_that_adds_up() {
    let mut bench = Bench::priced(5000, by_byte());
    select(&mut bench);
    bench.core.client_closed(bench.now);
    bench.pump();
    assert_eq!(bench.records[0].outcome, Outcome::Interrupted);
    assert_records_add_up(&bench, &by_byte());
}

#[test]
fn a_client_that_cancels_inside_its_own_message_is_heard() {
    for credit in [0, ROW] {
        for length in [4000, 200_000] {
            let mut bench = Bench::ready(credit);
            let sent = message(
                PacketType::SqlBatch,
                PacketStatus::NORMAL,
                &batch(&"x".repeat(length)),
            );
            let packets = sent.len() / 4096 * 4096;
            bench.feed_client(&sent[..packets]);
            if credit == 0 && !bench.actions.is_empty() {
                bench.deny();
            }
            bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
            if !bench.to_server.is_empty() {
                let ignore = bench.to_server.len() - 8;
                assert_eq!(bench.to_server[ignore..][..4], [0x01, 0x03, 0, 8]);
                bench.server_message();
                let mut ended = TokenBuf::new(V);
                ended.done(2, 0xFD, 0);
                bench.server_says(ended.as_bytes());
                assert_eq!(bench.records[0].outcome, Outcome::Cancelled);
            }
            assert_eq!(error_in(&bench.client_message()), None);
            assert_eq!(bench.client_message(), ack());
            assert!(bench.to_client.is_empty() && bench.end.is_none());
            bench.purse.nanos.store(ROW, Ordering::SeqCst);
            select(&mut bench);
            assert_eq!(bench.server_message(), batch("select * from t"));
        }
    }
}

#[test]
fn what_a_server_said_before_it_closed_reaches_a_slow_client() {
    let mut bench = Bench::ready(1_000_000 * ROW);
    bench.unread_limit = 10_000;
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(5000));
    let mut fed = 0;
    for piece in sent.chunks(16 * 1024) {
        bench.feed_server(piece);
        fed += piece.len();
    }
    assert_eq!(fed, sent.len());
    bench.core.server_closed(bench.now);
    bench.pump();
    assert!(bench.end.is_none(), "there is more to deliver");
    bench.unread_limit = usize::MAX;
    bench.pump();
    assert_eq!(bench.to_client, sent);
    assert!(bench.end.is_some());
    assert_eq!(
        (bench.records[0].rows, bench.records[0].outcome),
        (5000, Outcome::Completed)
    );
}

/// A client that stops half-way through a request is given up; one that rests between two is not.
#[test]
fn a_request_that_stops_half_way_has_a_deadline_of_its_own() {
    let mut bench = Bench::ready(100 * ROW);
    assert_eq!(bench.core.deadline(), None, "a session that rests has none");
    let whole = message(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
    let (first, rest) = whole.split_at(whole.len() / 2);
    bench.feed_client(first);
    let until = bench.core.deadline().expect("half a request");
    assert_eq!(until, bench.now + std::time::Duration::from_secs(60));
    bench.feed_client(rest);
    assert_eq!(bench.core.deadline(), None, "the request is whole");
    bench.server_message();
    bench.server_says(&result(1));
    bench.client_message();
    bench.feed_client(first);
    bench.now += std::time::Duration::from_secs(60);
    bench.core.on_deadline(bench.now);
    bench.pump();
    assert!(
        matches!(bench.end, Some(SessionEnd::Deadline(_))),
        "{:?}",
        bench.end
    );
}
