//! Walker: a response's token stream with options of the input's choice, against the naive decoder and at any split.

use weir_tds::error::{WireError, WireErrorKind};
use weir_tds::walker::{Budget, Walker, WalkerOptions};

use super::oracle;
use super::source::Source;
use crate::naive_decoder::{NaiveError, NaiveToken, decode};
use crate::trace::{Trace, count, trace};

/// Bytes that each byte of a response may cost: a column of eight bytes is read into one of some eighty, in a vector that
/// grows by doubling.
const BYTES_PER_BYTE: usize = 32;

/// First byte: the version; second: features; the rest: what a server sends.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let options = source.options();
    let stream = source.rest();
    let limit = oracle::FREE_BYTES + BYTES_PER_BYTE * stream.len();
    let plain = oracle::bounded(limit, stream.len(), || walk(stream, options));
    let whole = trace(stream, &[], options);
    let (tokens, error) = decode(stream, options);
    compare(&whole, &tokens, error.as_ref());
    match &plain {
        Ok(rows) => assert_eq!(*rows, oracle::rows(&tokens), "rows counted, and rows there"),
        Err(error) => assert_eq!(whole.end.as_ref(), Err(error)),
    }
    // Rows that pass at once and rows that are stopped at take different ways: each input goes one of them in pieces.
    let cuts = oracle::cuts(stream);
    if oracle::fingerprint(stream) & 0x100 == 0 {
        assert_eq!(trace(stream, &cuts, options), whole, "cut at {cuts:?}");
    } else {
        match count(stream, &cuts, options) {
            Ok(counts) => assert_eq!(counts, whole.counts, "cut at {cuts:?}"),
            Err(error) => assert_eq!(Err(error), whole.end, "cut at {cuts:?}"),
        }
    }
}

/// The rows of a stream, as a session walks it.
fn walk(stream: &[u8], options: WalkerOptions) -> Result<u64, WireError> {
    let mut walker = Walker::new(options);
    let mut budget = Budget::UNLIMITED;
    let mut at = 0;
    while at < stream.len() {
        at += walker.walk(&stream[at..], &mut budget)?.consumed;
    }
    walker.end_message()?;
    Ok(walker.rows())
}

/// Both read the same tokens and stop for the same reason. The token at fault may have been seen to begin by the walker: a
/// row counts when it begins, a RETURNVALUE is given before its long value.
///
/// # Panics
/// When they differ.
pub(super) fn compare(walked: &Trace, tokens: &[NaiveToken], error: Option<&NaiveError>) {
    match (error, &walked.end) {
        (None, end) => {
            assert_eq!(*end, Ok(()));
            assert_eq!(walked.found.len(), tokens.len());
        }
        (Some(NaiveError::Short), Err(error)) => {
            let bound = matches!(
                error.kind,
                WireErrorKind::Truncated(_) | WireErrorKind::TooLarge { .. }
            );
            assert!(bound, "the stream is short: {error}");
        }
        (Some(NaiveError::Broken(why)), Err(error)) => {
            assert!(
                !matches!(error.kind, WireErrorKind::Truncated(_)),
                "{why}: {error}"
            );
        }
        (Some(error), Ok(())) => panic!("the walker overlooked {error:?}"),
    }
    assert!(
        walked.found.len() <= tokens.len() + 1,
        "{} tokens are too many",
        walked.found.len()
    );
    for (at, token) in tokens.iter().enumerate() {
        let found = walked.found.get(at).map(|f| (f.kind.byte(), f.offset));
        assert_eq!(found, Some((token.token, token.offset as u64)), "token {at}");
    }
}
