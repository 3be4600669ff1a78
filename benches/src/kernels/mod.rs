//! The kernels: each part that a row, a packet, a request or a usage record passes, alone and on inputs that never change.
//!
//! Criterion times them (`benches/kernels.rs`), callgrind counts their instructions (`instructions.rs`). Each turn of a kernel
//! checks its own answer, and says how many units it has done.

mod gate;
mod journal;
mod lease;
mod ledger;
mod meter;
mod rating;
mod streams;

pub use lease::{Account, LEASE_GRANT};
pub use meter::{Chunk, ChunkMeter, tariff};

use crate::failure::Failure;

/// A prepared kernel: each call is one turn, and gives the units done in it.
pub type Work = Box<dyn FnMut() -> Result<u64, Failure>>;

/// A part that is measured alone.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// `GROUP/CASE`.
    pub name: &'static str,
    /// What is counted, in the singular.
    pub unit: &'static str,
    /// Turns that make enough instructions for one more or less not to matter, and little enough for callgrind.
    pub turns: u32,
    prepare: fn() -> Result<Work, Failure>,
}

impl Kernel {
    /// Makes its inputs, and does what is done once only.
    ///
    /// # Errors
    /// The inputs cannot be made.
    pub fn prepare(&self) -> Result<Work, Failure> {
        (self.prepare)()
    }

    /// The kernel of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|kernel| kernel.name == name)
    }
}

const fn kernel(
    name: &'static str,
    unit: &'static str,
    turns: u32,
    prepare: fn() -> Result<Work, Failure>,
) -> Kernel {
    Kernel {
        name,
        unit,
        turns,
        prepare,
    }
}

/// Every kernel.
pub const ALL: &[Kernel] = &[
    kernel("framer/4096", "packet", 20, streams::framer),
    kernel("walker/fixed", "row", 5, streams::fixed),
    kernel("walker/mixed", "row", 5, streams::mixed),
    kernel("walker/mixed, 4 KiB", "row", 5, streams::mixed_in_packets),
    kernel("walker/events", "row", 10, streams::events),
    kernel("walker/events, 4 KiB", "row", 10, streams::events_in_packets),
    kernel("walker/ints", "row", 5, streams::ints),
    kernel("walker/nbcrow", "row", 5, streams::nbcrow),
    kernel("walker/plp", "row", 20, streams::plp),
    kernel("walker/1024 columns", "row", 10, streams::wide),
    kernel("walker/1024 columns, nbcrow", "row", 10, streams::wide_nbcrow),
    kernel("meter/chunk", "chunk", 20, meter::chunk),
    kernel("chunk/permit", "chunk", 20, meter::permit),
    kernel("gate/exempt batch", "request", 20, gate::exempt),
    kernel("gate/query", "request", 20, gate::query),
    kernel("gate/sp_executesql", "request", 20, gate::execute_sql),
    kernel("lease/slice", "slice", 20, lease::slice),
    kernel("journal/slot", "write", 20, journal::slot),
    kernel("journal/segment", "usage record", 20, journal::segment),
    kernel("rating/batch", "usage record", 2, rating::batch),
    kernel("ledger/capture", "capture", 20, ledger::capture),
];
