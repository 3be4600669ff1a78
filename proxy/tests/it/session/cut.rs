//! Credit that ends: before a request, in the middle of rows, and in races with the client's own cancellation.

use std::sync::atomic::Ordering;

use weir_contracts::entry::Outcome;
use weir_tds::{
    build::TokenBuf,
    packet::{PacketStatus, PacketType},
    token::{Done, TokenKind},
};

use super::{
    bench::{Bench, ROW, V, batch, message, take_message},
    login::{error_in, tokens_of},
    relay::result,
};

pub(crate) fn rows_in(tokens: &[u8]) -> u64 {
    use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};
    let mut walker = Walker::new(WalkerOptions::new(V));
    let mut rest = tokens;
    while !rest.is_empty() {
        let walk = walker.walk(rest, &mut Budget { ..Budget::UNLIMITED }).unwrap();
        if matches!(walk.step, Step::NeedMore) {
            break;
        }
        let consumed = walk.consumed;
        rest = &rest[consumed..];
    }
    walker.rows()
}

pub(crate) fn ack() -> Vec<u8> {
    let mut tokens = TokenBuf::new(V);
    tokens.done(0x20, 0xFD, 0);
    tokens.as_bytes().to_vec()
}

/// Status bits of the last DONE.
pub(crate) fn last_done(tokens: &[u8]) -> u16 {
    let (kind, bytes) = tokens_of(tokens).pop().unwrap();
    assert!(kind.is_done());
    Done::parse(&bytes, V).unwrap().status.0
}

#[test]
fn the_stream_ends_after_exactly_the_rows_that_credit_buys() {
    for credit_rows in [0, 1, 2, 59, 60, 61, 199, 200] {
        for leftover in [0, 1, ROW - 1] {
            let mut bench = Bench::ready(credit_rows * ROW + leftover + ROW);
            bench.client_says(
                PacketType::SqlBatch,
                PacketStatus::NORMAL,
                &batch("select * from t"),
            );
            bench.server_message();
            bench.purse.nanos.fetch_sub(ROW, Ordering::SeqCst);
            bench.feed_server(&message(
                PacketType::TabularResult,
                PacketStatus::NORMAL,
                &result(201),
            ));
            bench.deny();
            assert_eq!(bench.server_message_kind(), PacketType::Attention);
            assert!(
                take_message(&mut bench.to_client.clone()).is_none(),
                "the client waits until the server is done"
            );
            bench.server_says(&ack());
            let answer = bench.client_message();
            assert_eq!(
                rows_in(&answer),
                u64::try_from(credit_rows).unwrap(),
                "credit for {credit_rows} rows"
            );
            assert_eq!(error_in(&answer), Some((50402, 16)));
            assert_eq!(last_done(&answer), 0x02);
            let record = &bench.records[0];
            assert_eq!(
                (i64::try_from(record.rows).unwrap(), record.outcome),
                (credit_rows, Outcome::CutOff)
            );
            assert_eq!(record.cost_nanos, credit_rows * ROW);
            assert_eq!(bench.purse.nanos.load(Ordering::SeqCst), leftover);
        }
    }
}

#[test]
fn any_split_of_a_stream_that_is_cut_gives_the_same_answer() {
    let mut sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(150));
    sent.extend(message(PacketType::TabularResult, PacketStatus::NORMAL, &ack()));
    let mut expected = None;
    for at in 0..=sent.len() {
        let mut bench = Bench::ready(77 * ROW);
        bench.client_says(
            PacketType::SqlBatch,
            PacketStatus::NORMAL,
            &batch("select * from t"),
        );
        bench.feed_server(&sent[..at]);
        if !bench.actions.is_empty() {
            bench.deny();
        }
        bench.feed_server(&sent[at..]);
        if !bench.actions.is_empty() {
            bench.deny();
        }
        let answer = bench.client_message();
        assert_eq!(rows_in(&answer), 77);
        assert_eq!(
            *expected.get_or_insert_with(|| answer.clone()),
            answer,
            "split at {at}"
        );
    }
}

#[test]
fn the_connection_is_usable_after_a_cut_and_a_top_up() {
    let mut bench = Bench::ready(5 * ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.server_message();
    bench.server_says(&result(10));
    bench.deny();
    bench.server_message();
    bench.server_says(&ack());
    bench.client_message();
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 2"));
    bench.deny();
    assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
    assert!(
        bench.to_server.is_empty(),
        "a refused request does not reach the server"
    );
    bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 3"));
    bench.grant(10 * ROW);
    assert_eq!(bench.server_message(), batch("select 3"));
    let sent = result(3);
    bench.server_says(&sent);
    assert_eq!(bench.client_message(), sent);
}

#[test]
fn more_credit_in_the_middle_goes_on_without_a_seam() {
    let mut bench = Bench::ready(5 * ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(300));
    bench.feed_server(&sent);
    bench.grant(40 * ROW);
    bench.grant(400 * ROW);
    assert_eq!(bench.to_client, sent);
    assert_eq!(bench.records[0].rows, 300);
}

/// Two result sets of a batch, of 5 and 7 rows.
fn two_sets() -> Vec<u8> {
    let mut first = result(5);
    let done = first.len() - 13;
    first[done + 1] |= 1;
    first.extend(result(7));
    first
}

#[test]
fn a_cut_at_result_finishes_the_result_set_in_hand() {
    for (credit_rows, delivered, cut_off) in [
        (1, 5, true),
        (4, 5, true),
        (5, 5, true),
        (6, 12, false),
        (12, 12, false),
    ] {
        for split in [false, true] {
            let mut bench = Bench::new(credit_rows * ROW);
            bench.cut = weir_proxy::ports::billing::Cut::AtResult;
            bench.log_in(weir_proxy::ports::billing::Mode::Enforce);
            bench.client_says(
                PacketType::SqlBatch,
                PacketStatus::NORMAL,
                &batch("select * from t; select * from u"),
            );
            bench.server_message();
            let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &two_sets());
            let at = if split { sent.len() / 3 } else { sent.len() };
            bench.feed_server(&sent[..at]);
            if !bench.actions.is_empty() {
                bench.deny();
            }
            bench.feed_server(&sent[at..]);
            if !bench.actions.is_empty() {
                bench.deny();
            }
            if cut_off {
                assert_eq!(bench.server_message_kind(), PacketType::Attention);
                bench.server_says(&ack());
            }
            let answer = bench.client_message();
            assert_eq!(rows_in(&answer), delivered, "{credit_rows} {split}");
            assert_eq!(error_in(&answer).is_some(), cut_off);
            let outcome = if cut_off {
                Outcome::CutOff
            } else {
                Outcome::Completed
            };
            assert_eq!(
                (bench.records[0].rows, bench.records[0].outcome),
                (delivered, outcome)
            );
            assert_eq!(
                bench.records[0].cost_nanos,
                i64::try_from(delivered).unwrap() * ROW
            );
        }
    }
}

#[test]
fn a_result_set_that_is_larger_than_the_row_credit_is_cut_at_a_row() {
    let mut bench = Bench::new(3 * ROW);
    bench.cut = weir_proxy::ports::billing::Cut::AtResult;
    bench.log_in(weir_proxy::ports::billing::Mode::Enforce);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.server_message();
    let whole = result(60_000);
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &whole);
    for piece in sent.chunks(16 * 1024) {
        bench.feed_server(piece);
        if !bench.actions.is_empty() {
            bench.deny();
        }
    }
    bench.server_says(&ack());
    let answer = bench.client_message();
    assert_eq!(error_in(&answer), Some((50402, 16)));
    let half = (1 << 20) / 2;
    assert!(
        whole.len() > 2 * half && answer.len() > half - 8192 && answer.len() < half + 8192,
        "{}",
        answer.len()
    );
    assert_eq!(
        bench.records[0].cost_nanos,
        i64::try_from(bench.records[0].rows).unwrap() * ROW
    );
}

#[test]
fn a_rollback_in_the_discarded_part_reaches_the_client() {
    let mut bench = Bench::ready(ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.server_says(&result(2));
    bench.deny();
    let mut rolled_back = TokenBuf::new(V);
    rolled_back.env_rollback(1).done(0x20, 0xFD, 0);
    bench.server_says(rolled_back.as_bytes());
    let answer = tokens_of(&bench.client_message());
    let kinds: Vec<TokenKind> = answer.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [
            TokenKind::ColMetadata,
            TokenKind::EnvChange,
            TokenKind::Error,
            TokenKind::Done
        ]
    );
}

#[test]
fn a_client_that_cancels_while_the_gate_cuts_gets_one_acknowledgement() {
    let mut bench = Bench::ready(ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.server_message();
    bench.server_says(&result(3));
    bench.deny();
    assert_eq!(bench.server_message_kind(), PacketType::Attention);
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    assert!(bench.to_server.is_empty(), "the server is cancelled once");
    bench.server_says(&ack());
    assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
    assert_eq!(last_done(&bench.client_message()), 0x20);
    assert!(bench.to_client.is_empty());
}

#[test]
fn a_client_that_cancels_while_the_answer_waits_for_credit_is_heard() {
    let mut bench = Bench::ready(2 * ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.server_message();
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &result(400));
    let packet = 4096.min(sent.len());
    bench.feed_server(&sent[..packet]);
    assert_eq!(bench.actions.len(), 1);
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    assert_eq!(bench.server_message_kind(), PacketType::Attention);
    let mut rest = sent[packet..].to_vec();
    rest.extend(message(PacketType::TabularResult, PacketStatus::NORMAL, &ack()));
    bench.feed_server(&rest);
    bench.deny();
    let answer = bench.client_message();
    assert_eq!(
        (rows_in(&answer), last_done(&answer), error_in(&answer)),
        (2, 0x02, None)
    );
    assert_eq!(last_done(&bench.client_message()), 0x20);
    assert_eq!(
        (bench.records[0].rows, bench.records[0].outcome),
        (2, Outcome::Cancelled)
    );
}

#[test]
fn a_client_that_cancels_a_held_request_is_answered_by_the_gate() {
    let mut bench = Bench::ready(0);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
    assert_eq!(last_done(&bench.client_message()), 0x02);
    assert_eq!(last_done(&bench.client_message()), 0x20);
    bench.deny();
    assert!(bench.to_client.is_empty() && bench.to_server.is_empty());
}

#[test]
fn a_tenant_without_credit_can_set_up_give_back_and_ask() {
    let mut bench = Bench::ready(0);
    for text in [
        "SET NOCOUNT ON",
        "use [demo]",
        "BEGIN TRAN",
        "IF @@TRANCOUNT > 0 ROLLBACK TRAN",
    ] {
        bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch(text));
        assert_eq!(bench.server_message(), batch(text), "{text}");
        let mut done = TokenBuf::new(V);
        done.done(0, 0xFD, 0);
        bench.server_says(done.as_bytes());
        assert_eq!(bench.client_message(), done.as_bytes());
    }
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("EXEC weir.balance"),
    );
    let answer = bench.client_message();
    assert_eq!((rows_in(&answer), last_done(&answer)), (1, 0x10));
    assert!(bench.to_server.is_empty(), "the gate answers itself");
    assert!(bench.records.iter().all(|r| r.cost_nanos == 0));
    assert_eq!(
        bench.records.len(),
        4,
        "what the gate answers is free and no usage"
    );
}

#[test]
fn a_refused_request_with_a_reset_bit_still_resets_the_server() {
    let mut bench = Bench::ready(0);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::RESET,
        &batch("select * from t"),
    );
    bench.deny();
    assert!(bench.to_client.is_empty(), "the reset is acknowledged first");
    let status = bench.to_server[1];
    assert_eq!(status, 0x09, "EOM and RESETCONNECTION");
    assert_eq!(bench.server_message(), batch(""));
    let mut reset = TokenBuf::new(V);
    reset.env_reset_ack().done(0, 0xFD, 0);
    bench.server_says(reset.as_bytes());
    let kinds: Vec<TokenKind> = tokens_of(&bench.client_message())
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, [TokenKind::EnvChange, TokenKind::Error, TokenKind::Done]);
}

#[test]
fn a_long_refused_request_is_read_to_its_end_and_then_answered() {
    let mut bench = Bench::ready(0);
    let text = format!("select '{}'", "x".repeat(100_000));
    let sent = message(PacketType::SqlBatch, PacketStatus::NORMAL, &batch(&text));
    let (head, tail) = sent.split_at(120_000);
    bench.feed_client(head);
    bench.deny();
    assert!(
        bench.to_client.is_empty(),
        "answers come behind the whole request"
    );
    bench.feed_client(tail);
    assert_eq!(error_in(&bench.client_message()), Some((50402, 16)));
    assert!(bench.to_server.is_empty());
}

#[test]
fn a_server_that_does_not_acknowledge_in_time_ends_the_session_with_class_20() {
    let mut bench = Bench::ready(ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.server_says(&result(3));
    bench.deny();
    bench.now = bench.core.deadline().unwrap();
    bench.core.on_deadline(bench.now);
    bench.pump();
    assert!(bench.end.is_some());
    let answer = bench.client_message();
    assert_eq!(error_in(&answer), Some((50504, 20)));
    assert_eq!(rows_in(&answer), 1);
    assert_eq!(
        (bench.records[0].rows, bench.records[0].outcome),
        (1, Outcome::CutOff)
    );
}

#[test]
fn what_cannot_be_walked_is_cut_before_it_and_says_why() {
    let mut bench = Bench::ready(1000 * ROW);
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select * from t"),
    );
    bench.server_message();
    let mut tokens = result(5);
    tokens.extend_from_slice(&[0x42, 1, 2, 3]);
    bench.server_says(&tokens);
    assert_eq!(bench.server_message_kind(), PacketType::Attention);
    bench.server_says(&ack());
    let answer = bench.client_message();
    assert_eq!((rows_in(&answer), error_in(&answer)), (5, Some((50400, 16))));
    assert_eq!(bench.records[0].rows, 5);
}

#[test]
fn rows_right_before_what_cannot_be_walked_are_delivered_and_paid() {
    let whole = result(40);
    let done = 13;
    let mut tokens = whole[..whole.len() - done].to_vec();
    tokens.extend_from_slice(&[0x42, 1, 2, 3]);
    let sent = message(PacketType::TabularResult, PacketStatus::NORMAL, &tokens);
    for at in [0, 1, sent.len() / 2, sent.len() - 1] {
        let mut bench = Bench::ready(1000 * ROW);
        bench.client_says(
            PacketType::SqlBatch,
            PacketStatus::NORMAL,
            &batch("select * from t"),
        );
        bench.server_message();
        bench.feed_server(&sent[..at]);
        bench.feed_server(&sent[at..]);
        assert_eq!(bench.server_message_kind(), PacketType::Attention);
        bench.server_says(&ack());
        let answer = bench.client_message();
        assert_eq!((rows_in(&answer), error_in(&answer)), (40, Some((50400, 16))));
        assert_eq!(
            (bench.records[0].rows, bench.records[0].cost_nanos),
            (40, 40 * ROW)
        );
        assert_eq!(bench.purse.nanos.load(Ordering::SeqCst), 960 * ROW);
    }
}
