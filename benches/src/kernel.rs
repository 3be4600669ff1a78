//! The walker against a copy of the same bytes: how near counting every row comes to not looking at all.

use std::hint::black_box;

use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Walker, WalkerOptions};

use crate::failure::Failure;
use crate::figures::{Figure, Judged};
use crate::process::CpuMark;
use crate::shapes::{Response, Shape};
use crate::workload::Size;

/// Bytes of the response: more than any cache holds.
const RESPONSE: usize = 64 * 1000 * 1000;
/// Pieces as a proxy reads them.
const PIECE: usize = 256 * 1024;
/// Repeats of a round: the system's count of CPU time is as coarse as its tick.
const REPEATS: u32 = 10;

/// What `--only` calls it.
pub const NAME: &str = "walker";

/// Measures and judges.
///
/// # Errors
/// The walker loses a row.
pub fn figure(rounds: usize, size: Size) -> Result<Figure, Failure> {
    let (bytes, repeats) = match size {
        Size::Tiny => (RESPONSE / 64, 1),
        _ => (RESPONSE, REPEATS),
    };
    let response = Shape::Events.response(bytes);
    let mut copy = vec![0; response.bytes.len()];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let gb = f64::from(repeats) * response.bytes.len() as f64 / 1e9;
        let began = CpuMark::of(std::process::id());
        for _ in 0..repeats {
            walk(&response)?;
        }
        ours.push(gb / began.elapsed().as_secs_f64());
        let began = CpuMark::of(std::process::id());
        for _ in 0..repeats {
            copy.copy_from_slice(&response.bytes);
            black_box(&copy);
        }
        theirs.push(gb / began.elapsed().as_secs_f64());
    }
    let judged = Judged {
        figure: "walker, events mix: GB/s per core, against memcpy of the same 64 MB".to_owned(),
        floor: 0.35,
        aim: 0.6,
        more_is_better: true,
        absolute: false,
        judged: size != Size::Tiny,
    };
    Ok(judged.figure(&ours, &theirs))
}

/// Walks a whole response in the pieces that a proxy reads.
///
/// # Errors
/// The walker loses a row.
pub fn walk(response: &Response) -> Result<(), Failure> {
    let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
    walker.begin_message();
    let mut budget = Budget::UNLIMITED;
    for mut piece in response.bytes.chunks(PIECE) {
        while !piece.is_empty() {
            let walk = walker.walk(piece, &mut budget).map_err(Failure::new)?;
            piece = piece.get(walk.consumed..).unwrap_or_default();
        }
    }
    if walker.rows() == response.rows {
        return Ok(());
    }
    Err(Failure(format!(
        "the walker counted {} rows of {}",
        walker.rows(),
        response.rows
    )))
}
