//! The walker against the naive decoder: random valid responses, random damage, random splits, budgets.

use fastrand::Rng;
use weir_protocol_tests::naive_decoder::{self, NaiveError, NaiveToken};
use weir_protocol_tests::stream_maker;
use weir_protocol_tests::trace::{Trace, count, trace};
use weir_tds::error::WireErrorKind;
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};

/// Streams made; `WEIR_TEST_STREAMS` sets another number for a long run.
const STREAMS: u64 = 400;

fn streams() -> u64 {
    std::env::var("WEIR_TEST_STREAMS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(STREAMS)
}

fn options(rng: &mut Rng) -> WalkerOptions {
    const VERSIONS: [TdsVersion; 8] = [
        TdsVersion::V7_0,
        TdsVersion::V7_1,
        TdsVersion::V7_1Rev1,
        TdsVersion::V7_2,
        TdsVersion::V7_3A,
        TdsVersion::V7_3B,
        TdsVersion::V7_4,
        TdsVersion::V8_0,
    ];
    let version = *rng.choice(&VERSIONS).unwrap_or(&TdsVersion::V7_4);
    let newest = version >= TdsVersion::V7_4;
    WalkerOptions {
        version,
        column_encryption: newest && rng.bool(),
        data_classification: if newest { rng.u8(..3) } else { 0 },
    }
}

fn cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..rng.usize(..60)).map(|_| rng.usize(..=len)).collect();
    cuts.sort_unstable();
    cuts
}

/// The walker saw what the naive decoder saw.
fn same(walked: &Trace, tokens: &[NaiveToken]) -> bool {
    let walked: Vec<_> = walked.found.iter().map(|f| (f.kind.byte(), f.offset)).collect();
    let naive: Vec<_> = tokens.iter().map(|t| (t.token, t.offset as u64)).collect();
    walked == naive
}

#[test]
fn valid_responses_read_alike() {
    for seed in 0..streams() {
        let mut rng = Rng::with_seed(seed);
        let options = options(&mut rng);
        let stream = stream_maker::response(&mut rng, options, 3, 40);
        let (tokens, error) = naive_decoder::decode(&stream, options);
        assert_eq!(error, None, "seed {seed}: the maker and the oracle differ");
        let whole = trace(&stream, &[], options);
        assert_eq!(whole.end, Ok(()), "seed {seed}");
        assert!(same(&whole, &tokens), "seed {seed}");
        for _split in 0..8 {
            let cuts = cuts(&mut rng, stream.len());
            assert_eq!(
                trace(&stream, &cuts, options),
                whole,
                "seed {seed}, cut at {cuts:?}"
            );
            assert_eq!(
                count(&stream, &cuts, options),
                Ok(whole.counts),
                "seed {seed}, cut at {cuts:?}"
            );
        }
    }
}

#[test]
fn damaged_responses_read_alike() {
    for seed in 0..streams() * 4 {
        let mut rng = Rng::with_seed(1_000_000 + seed);
        let options = options(&mut rng);
        let mut stream = stream_maker::response(&mut rng, options, 2, 6);
        for _damage in 0..rng.usize(1..4) {
            let at = rng.usize(..stream.len());
            match rng.u8(..4) {
                0 => stream[at] = rng.u8(..),
                1 => stream[at] ^= 1 << rng.u8(..8),
                2 => drop(stream.remove(at)),
                _ => stream.insert(at, rng.u8(..)),
            }
        }
        let (tokens, error) = naive_decoder::decode(&stream, options);
        let whole = trace(&stream, &[], options);
        compare(seed, &whole, &tokens, error.as_ref());
        for _split in 0..4 {
            let cuts = cuts(&mut rng, stream.len());
            let split = trace(&stream, &cuts, options);
            assert_eq!(split.found, whole.found, "seed {seed}, cut at {cuts:?}");
            assert_eq!(split.end, whole.end, "seed {seed}, cut at {cuts:?}");
        }
    }
}

/// Both read the same tokens and stop for the same reason. The token at fault may have been seen to begin by the walker: a row counts when
/// it begins, a RETURNVALUE is given before its long value.
fn compare(seed: u64, walked: &Trace, tokens: &[NaiveToken], error: Option<&NaiveError>) {
    match (error, &walked.end) {
        (None, end) => {
            assert_eq!(*end, Ok(()), "seed {seed}");
            assert!(same(walked, tokens), "seed {seed}");
        }
        (Some(NaiveError::Short), Err(error)) => {
            let bound = matches!(
                error.kind,
                WireErrorKind::Truncated(_) | WireErrorKind::TooLarge { .. }
            );
            assert!(bound, "seed {seed}: {error}");
        }
        (Some(NaiveError::Broken(_)), Err(error)) => {
            assert!(
                !matches!(error.kind, WireErrorKind::Truncated(_)),
                "seed {seed}: {error}"
            );
        }
        (Some(error), Ok(())) => panic!("seed {seed}: the walker overlooked {error:?}"),
    }
    let before: Vec<_> = tokens.iter().map(|t| (t.token, t.offset as u64)).collect();
    let found: Vec<_> = walked.found.iter().map(|f| (f.kind.byte(), f.offset)).collect();
    assert!(
        found.starts_with(&before),
        "seed {seed}: {found:?} does not begin with {before:?}"
    );
    assert!(found.len() <= before.len() + 1, "seed {seed}");
}

#[test]
fn a_budget_stops_right_before_the_row() {
    for seed in 0..streams() {
        let mut rng = Rng::with_seed(2_000_000 + seed);
        let options = options(&mut rng);
        let stream = stream_maker::response(&mut rng, options, 2, 60);
        let (tokens, _) = naive_decoder::decode(&stream, options);
        let rows: Vec<&NaiveToken> = tokens
            .iter()
            .filter(|t| (0xD1..=0xD3).contains(&t.token))
            .collect();
        let allowed = rng.usize(..=rows.len());
        let by_bytes = rng.bool();
        let (mut budget, stop) = if by_bytes {
            let bytes = rng.usize(..=stream.len());
            (
                Budget {
                    rows: u64::MAX,
                    bytes: bytes as u64,
                },
                rows.iter().find(|row| row.offset >= bytes),
            )
        } else {
            (
                Budget {
                    rows: allowed as u64,
                    bytes: u64::MAX,
                },
                rows.get(allowed),
            )
        };
        let mut walker = Walker::new(options);
        let mut at = 0;
        let mut pieces = cuts(&mut rng, stream.len());
        pieces.push(stream.len());
        let mut stopped = false;
        'stream: for to in pieces {
            while at < to {
                let walk = walker.walk(&stream[at..to], &mut budget).expect("a valid stream");
                let spent = walk.step == Step::BudgetSpent;
                at += walk.consumed;
                if spent {
                    stopped = true;
                    break 'stream;
                }
            }
        }
        assert_eq!(stopped.then_some(at), stop.map(|row| row.offset), "seed {seed}");
        assert!(!stopped || walker.at_boundary());
        let begun = rows.iter().filter(|row| row.offset < at).count() as u64;
        assert_eq!(walker.rows(), begun, "seed {seed}");
        assert_eq!(walker.payload_bytes(), at as u64, "seed {seed}");
    }
}
