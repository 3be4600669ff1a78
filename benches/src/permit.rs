//! What a chunk costs beside walking it: credit taken, the meter's sum paid out of it, the journal slot written.

use crate::failure::{Failure, Trying};
use crate::figures::{Figure, Judged};
use crate::kernels::Kernel;
use crate::process::CpuMark;
use crate::workload::Size;

/// What `--only` calls it.
pub const NAME: &str = "chunk";
/// The kernel that does it.
const KERNEL: &str = "chunk/permit";
/// Turns of a round.
const TURNS: u64 = 200;
/// Most that it may take, µs.
const MICROS_MAX: f64 = 2.0;

/// Measures and judges.
///
/// # Errors
/// What was paid is not the price, or there is no journal.
pub fn figure(rounds: usize, size: Size) -> Result<Figure, Failure> {
    let turns = if size == Size::Tiny { 1 } else { TURNS };
    let kernel = Kernel::named(KERNEL).trying(KERNEL)?;
    let mut work = kernel.prepare()?;
    let mut micros = Vec::new();
    for _ in 0..rounds {
        let began = CpuMark::of(std::process::id());
        let mut chunks = 0;
        for _ in 0..turns {
            chunks += work()?;
        }
        micros.push(began.elapsed().as_secs_f64() * 1e6 / chunks as f64);
    }
    let judged = Judged {
        figure: "credit, meter and journal slot: CPU µs per chunk, against 2".to_owned(),
        floor: MICROS_MAX,
        aim: MICROS_MAX,
        more_is_better: false,
        absolute: true,
        judged: size != Size::Tiny,
    };
    Ok(judged.figure(&micros, &vec![MICROS_MAX; rounds]))
}
