//! Drives the walker over a stream cut into pieces, and writes down every token and row it finds.

use weir_tds::error::WireError;
use weir_tds::token::TokenKind;
use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};

/// A token or row that the walker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub kind: TokenKind,
    /// Offset of its token byte.
    pub offset: u64,
    /// The token's bytes; nothing for rows.
    pub bytes: Vec<u8>,
}

/// What a walk over a whole stream gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// In stream order.
    pub found: Vec<Found>,
    /// Rows, result sets and payload bytes that the walker counted; zero after an error, where they depend on the pieces.
    pub counts: (u64, u64, u64),
    /// How it ended.
    pub end: Result<(), WireError>,
}

/// Walks `stream` cut at the positions of `cuts` (ascending). Rows are let through one by one, so that each is seen.
///
/// # Panics
/// When the walker breaks a promise of its API: input not taken although more was asked for, or bytes lost in relaying.
#[must_use]
pub fn trace(stream: &[u8], cuts: &[usize], options: WalkerOptions) -> Trace {
    let mut walker = Walker::new(options);
    walker.begin_message();
    let mut relay = Relay::default();
    let mut end = Ok(());
    let mut from = 0;
    for to in cuts.iter().copied().chain([stream.len()]) {
        end = relay.piece(&mut walker, &stream[from..to]);
        if end.is_err() {
            break;
        }
        from = to;
    }
    if end.is_ok() {
        end = walker.end_message();
        assert_eq!(
            relay.out.len() + walker.held(),
            stream.len(),
            "bytes were lost or made up in relaying"
        );
    }
    assert_eq!(relay.out, stream[..relay.out.len()], "relayed bytes differ");
    let mut counts = (0, 0, 0);
    let rows = relay.found.iter().filter(|found| found.kind.is_row()).count() as u64;
    if end.is_ok() {
        assert_eq!(rows, walker.rows(), "rows counted, and rows stopped at");
        counts = (walker.rows(), walker.result_sets(), walker.payload_bytes());
    }
    Trace {
        found: relay.found,
        counts,
        end,
    }
}

/// Forwards as the walker's documentation says, and writes down what it sees.
#[derive(Default)]
struct Relay {
    found: Vec<Found>,
    out: Vec<u8>,
}

impl Relay {
    fn piece(&mut self, walker: &mut Walker, mut input: &[u8]) -> Result<(), WireError> {
        let mut budget = Budget {
            rows: 0,
            bytes: u64::MAX,
        };
        loop {
            let held = walker.held();
            let before = walker.payload_bytes();
            let (consumed, stop) = {
                let walk = match walker.walk(input, &mut budget) {
                    Ok(walk) => walk,
                    Err(error) => {
                        let whole = walker.payload_bytes() - before;
                        self.out
                            .extend_from_slice(&input[..usize::try_from(whole).unwrap_or(0)]);
                        return Err(error);
                    }
                };
                let stop = match walk.step {
                    Step::Token(token) => {
                        let taken = if held > 0 {
                            token.bytes
                        } else {
                            &input[..walk.consumed]
                        };
                        self.out.extend_from_slice(taken);
                        let bytes = token.bytes.to_vec();
                        self.found.push(Found {
                            kind: token.kind,
                            offset: token.offset,
                            bytes,
                        });
                        Some(true)
                    }
                    Step::BudgetSpent => Some(false),
                    Step::NeedMore => None,
                };
                (walk.consumed, stop)
            };
            let (taken, rest) = input.split_at(consumed);
            input = rest;
            if stop != Some(true) {
                let kept = walker.held() - held;
                self.out.extend_from_slice(&taken[..taken.len() - kept]);
            }
            match stop {
                None => {
                    assert!(input.is_empty(), "more was asked for although input was left");
                    return Ok(());
                }
                Some(true) => {}
                Some(false) => {
                    assert!(walker.at_boundary(), "stopped inside a token");
                    let kind = TokenKind::from_byte(input[0]).expect("a row token");
                    assert!(kind.is_row(), "stopped before {}", kind.name());
                    self.found.push(Found {
                        kind,
                        offset: walker.payload_bytes(),
                        bytes: Vec::new(),
                    });
                    budget.rows = 1;
                }
            }
        }
    }
}

/// Walks `stream` whole and without a budget; the counts of rows, result sets and payload bytes.
///
/// # Errors
/// What the walker finds wrong.
pub fn count(stream: &[u8], cuts: &[usize], options: WalkerOptions) -> Result<(u64, u64, u64), WireError> {
    let mut walker = Walker::new(options);
    let mut budget = Budget::UNLIMITED;
    let mut from = 0;
    for to in cuts.iter().copied().chain([stream.len()]) {
        while from < to {
            from += walker.walk(&stream[from..to], &mut budget)?.consumed;
        }
    }
    walker.end_message()?;
    Ok((walker.rows(), walker.result_sets(), walker.payload_bytes()))
}
