//! What must hold on every input: bounded memory, nothing kept, the same answer at any split.

use crate::allocation::{live, peak};
use crate::naive_decoder::NaiveToken;

/// Memory that a peer may cost before it is known, whatever it sends.
pub const FREE_BYTES: usize = 64 * 1024;
/// Bytes that each byte from such a peer may cost beyond that.
pub const BYTES_PER_BYTE: usize = 4;

/// Runs `work`, which has `received` bytes from a peer that is not logged in.
///
/// # Panics
/// When it takes more than [`FREE_BYTES`] and [`BYTES_PER_BYTE`] for each byte received.
pub fn before_login<T>(received: usize, work: impl FnOnce() -> T) -> T {
    bounded(FREE_BYTES + BYTES_PER_BYTE * received, received, work)
}

/// Runs `work` under a bound of its own.
///
/// # Panics
/// When it takes more.
pub fn bounded<T>(limit: usize, received: usize, work: impl FnOnce() -> T) -> T {
    let (result, most) = peak(work);
    assert!(
        most <= limit,
        "{most} bytes allocated for {received} received, limit {limit}"
    );
    result
}

/// Runs a target; what it allocated must be given back. What the first run ever makes once for all is kept, so a run
/// that kept something is run again.
///
/// # Panics
/// When bytes stay allocated, and when the target panics.
pub fn nothing_kept(work: impl Fn()) {
    let before = live();
    work();
    if live() == before {
        return;
    }
    let before = live();
    work();
    assert_eq!(live() - before, 0, "bytes stay allocated behind the input");
}

/// Cuts `bytes` into pieces: where, is derived from the bytes. One input in four is cut once, one in four at every byte.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rng = fastrand::Rng::with_seed(fingerprint(bytes));
    let most = match rng.u8(..4) {
        0 => {
            return Pieces {
                rest: bytes,
                next: rng.usize(..=bytes.len()),
                once: true,
                rng,
                most: 0,
            };
        }
        1 => 1,
        2 => 9,
        _ => 300,
    };
    Pieces {
        rest: bytes,
        next: rng.usize(1..=most),
        once: false,
        rng,
        most,
    }
}

/// The same as positions, ascending.
#[must_use]
pub fn cuts(bytes: &[u8]) -> Vec<usize> {
    let mut at = 0;
    pieces(bytes)
        .map(|piece| {
            at += piece.len();
            at
        })
        .filter(|at| *at < bytes.len())
        .collect()
}

struct Pieces<'a> {
    rest: &'a [u8],
    next: usize,
    once: bool,
    rng: fastrand::Rng,
    most: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(self.next.min(self.rest.len()));
        self.rest = rest;
        self.next = if self.once {
            usize::MAX
        } else {
            self.rng.usize(1..=self.most)
        };
        Some(piece)
    }
}

/// FNV-1a.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Rows among decoded tokens: ROW, NBCROW, ALTROW.
#[must_use]
pub fn rows(tokens: &[NaiveToken]) -> u64 {
    tokens.iter().filter(|t| (0xD1..=0xD3).contains(&t.token)).count() as u64
}
