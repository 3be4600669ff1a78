//! Every server-to-client vector as the answer to a request, alone and in a session of SMP.

use fastrand::Rng;
use serde_json::Value;
use weir_contracts::entry::{Outcome, UsageRecord};
use weir_protocol_tests::fuzz::Conversation;
use weir_protocol_tests::vectors;
use weir_tds::build::TokenBuf;
use weir_tds::walker::WalkerOptions;

use super::{answer, divisions, full_packets, random_cuts, random_splits, request};
use crate::value_lengths::refused;
use crate::walker_vectors::{Sample, is_legacy_character, samples};

/// What a vector says of its stream.
#[derive(Debug, PartialEq, Eq)]
struct Truth {
    rows: u64,
    result_sets: u64,
    bytes: u64,
    outcome: Outcome,
}

fn truth(sample: &Sample) -> Truth {
    let is = |names: &'static [&str]| {
        move |token: &&Value| token["token"].as_str().is_some_and(|name| names.contains(&name))
    };
    let count = |names| sample.tokens.iter().filter(is(names)).count() as u64;
    // DONE_ERROR of the three DONE tokens [MS-TDS 2.2.7.6, 2.2.7.7, 2.2.7.8].
    let failed = sample
        .tokens
        .iter()
        .filter(is(&["DONE", "DONEPROC", "DONEINPROC"]))
        .any(|done| done["status"].as_u64().is_some_and(|status| status & 2 != 0));
    Truth {
        rows: count(&["ROW", "NBCROW", "ALTROW"]),
        result_sets: count(&["COLMETADATA", "ALTMETADATA"]),
        bytes: sample.stream.len() as u64,
        outcome: if failed || count(&["ERROR"]) > 0 {
            Outcome::Error
        } else {
            Outcome::Completed
        },
    }
}

fn told(record: &UsageRecord) -> Truth {
    assert!(!record.unparsed, "{record:?}");
    Truth {
        rows: record.rows,
        result_sets: record.result_sets,
        bytes: record.bytes_out,
        outcome: record.outcome,
    }
}

/// ENVCHANGEs that name another address: nothing of such an answer may reach a client [MS-TDS 2.2.7.9].
fn leads_away(sample: &Sample) -> bool {
    let kinds = [13, 20, 21];
    sample.tokens.iter().any(|token| {
        token["token"] == "ENVCHANGE" && token["type"].as_u64().is_some_and(|kind| kinds.contains(&kind))
    })
}

fn play(options: WalkerOptions, mars: bool, wire: &[u8], cuts: &[usize]) -> Conversation {
    let mut session = Conversation::logged_in(options, mars);
    session.client(&request(options.version), &[]);
    session.server(wire, cuts);
    session
}

fn check(sample: &Sample, mars: bool, ends: &[usize], cuts: &[usize]) {
    let mut session = play(sample.options, mars, &answer(&sample.stream, ends), cuts);
    let what = format!("{} in packets {ends:?} cut at {cuts:?}", sample.name);
    if leads_away(sample) {
        let end = session.ended().map(str::to_owned);
        assert!(end.is_some_and(|why| why.contains("elsewhere")), "{what}");
        let all = session.to_client().concat();
        let leaked = all.windows(sample.stream.len()).any(|part| part == sample.stream);
        assert!(!leaked, "{what}: an address reached the client");
        session.leave();
        assert!(session.records().iter().all(|record| record.rows == 0), "{what}");
        return;
    }
    assert_eq!(session.ended(), None, "{what}");
    assert_eq!(session.to_client(), [sample.stream.as_slice()], "{what}");
    let records: Vec<Truth> = session.records().iter().map(told).collect();
    assert_eq!(records, [truth(sample)], "{what}");
    session.leave();
    assert_eq!(session.records().len(), 1, "{what}");
}

/// Every division of the packets, and of random packets.
fn check_all(mars: bool) {
    let mut rng = Rng::with_seed(11);
    let samples = samples();
    for sample in &samples {
        let ends = full_packets(&sample.stream);
        // A byte of SMP's header can be cut as any other.
        let smp = if mars { 16 } else { 0 };
        let wire = answer(&sample.stream, &ends).len() + smp;
        for cuts in divisions(wire, &mut rng) {
            check(sample, mars, &ends, &cuts);
        }
        for _ in 0..random_splits() {
            // Of SMP's window no more than four packets may be on their way.
            let mut ends = random_cuts(sample.stream.len(), &mut rng);
            ends.truncate(if mars { 3 } else { usize::MAX });
            let wire = answer(&sample.stream, &ends).len() + smp * (ends.len() + 1);
            check(sample, mars, &ends, &random_cuts(wire, &mut rng));
        }
    }
    let rows: u64 = samples.iter().map(|sample| truth(sample).rows).sum();
    let failed = samples
        .iter()
        .filter(|sample| truth(sample).outcome == Outcome::Error);
    assert!(
        rows > 100 && failed.count() > 10,
        "the vectors have rows and errors: {rows} rows"
    );
}

#[test]
fn usage_is_the_known_truth_at_every_split() {
    check_all(false);
}

#[test]
fn usage_is_the_known_truth_at_every_split_within_mars() {
    check_all(true);
}

/// The server goes away inside the answer: what was delivered is what is charged.
#[test]
fn an_answer_that_breaks_off_is_charged_as_far_as_it_went() {
    for sample in samples().iter().filter(|sample| !leads_away(sample)) {
        let wire = answer(&sample.stream, &[]);
        for end in 1..wire.len() {
            let mut session = play(sample.options, false, &wire[..end], &[]);
            session.leave();
            let [record] = session.records() else {
                panic!("{} broken off at {end}: {:?}", sample.name, session.records());
            };
            let bytes = session.to_client().concat().len() as u64;
            assert_eq!(
                (record.rows, record.bytes_out),
                (0, bytes),
                "{} broken off at {end}",
                sample.name
            );
            assert_eq!(
                record.outcome,
                Outcome::Interrupted,
                "{} broken off at {end}",
                sample.name
            );
        }
    }
}

#[test]
fn what_cannot_be_metered_is_refused_alike_at_every_split() {
    let mut rng = Rng::with_seed(12);
    let mut seen = 0;
    for vector in vectors::load().iter().filter(|v| is_legacy_character(v)) {
        seen += 1;
        let wire = answer(&vector.bytes, &[]);
        for cuts in divisions(wire.len(), &mut rng) {
            let mut session = play(vector.options(), false, &wire, &cuts);
            let what = format!("{} cut at {cuts:?}", vector.name);
            // The gate cancels; the server acknowledges.
            let mut ack = TokenBuf::new(vector.version);
            ack.done(0x20, 0, 0);
            session.server(&answer(ack.as_bytes(), &[]), &[]);
            session.leave();
            let [record] = session.records() else {
                panic!("{what}: {:?}", session.records());
            };
            assert_eq!((record.rows, record.result_sets), (0, 0), "{what}");
            let told = session.to_client().concat();
            // ERROR 50400 stands where the broken token would (docs/errors.md).
            let number = told
                .get(3..7)
                .and_then(|n| n.first_chunk().copied())
                .map(i32::from_le_bytes);
            assert_eq!((told.first(), number), (Some(&0xAA), Some(50_400)), "{what}");
        }
    }
    assert_eq!(seen, 2);
}

/// Where a row has a value of a length that its type does not have, what is whole before it reaches the client and is paid.
#[test]
fn a_value_that_its_type_does_not_have_ends_the_response_behind_the_rows_before_it() {
    let mut rng = Rng::with_seed(13);
    let vectors = refused();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let error = &vector.expected["error"];
        let (token, offset) = (error["token"].as_str(), error["offset"].as_u64());
        let place = format!(
            "{} of the answer, at byte {}: a value of 3 bytes",
            token.expect("a token"),
            offset.expect("an offset")
        );
        let place: Vec<u8> = place.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let at = error["token_offset"].as_u64().expect("an offset");
        let before = &vector.bytes[..usize::try_from(at).expect("small")];
        let wire = answer(&vector.bytes, &[]);
        for cuts in divisions(wire.len(), &mut rng) {
            let mut session = play(vector.options(), false, &wire, &cuts);
            let what = format!("{} cut at {cuts:?}", vector.name);
            let mut ack = TokenBuf::new(vector.version);
            ack.done(0x20, 0, 0);
            session.server(&answer(ack.as_bytes(), &[]), &[]);
            session.leave();
            let [record] = session.records() else {
                panic!("{what}: {:?}", session.records());
            };
            assert_eq!((record.rows, record.result_sets), (1, 1), "{what}");
            let told = session.to_client().concat();
            let refusal = told
                .strip_prefix(before)
                .unwrap_or_else(|| panic!("{what}: {told:02x?}"));
            let number = refusal
                .get(3..7)
                .and_then(|n| n.first_chunk().copied())
                .map(i32::from_le_bytes);
            assert_eq!((refusal.first(), number), (Some(&0xAA), Some(50_400)), "{what}");
            assert!(
                refusal.windows(place.len()).any(|part| part == place),
                "{what}: where it is not said"
            );
        }
    }
}

/// A part of the broken token is with the client: an ERROR would stand inside it, so the connection ends instead.
#[test]
fn what_cannot_be_metered_within_a_token_begun_in_an_earlier_packet_ends_the_connection() {
    for vector in vectors::load().iter().filter(|v| is_legacy_character(v)) {
        // The byte that cannot be read is the tenth.
        for border in 1..=9 {
            let mut session = play(vector.options(), false, &answer(&vector.bytes, &[border]), &[]);
            let what = format!("{} in packets of {border} bytes and the rest", vector.name);
            assert!(session.ended().is_some(), "{what}");
            assert_eq!(session.to_client(), [&vector.bytes[..border]], "{what}");
            session.leave();
            let bytes: Vec<u64> = session.records().iter().map(|record| record.bytes_out).collect();
            assert_eq!(bytes, [border as u64], "{what}");
        }
    }
}
