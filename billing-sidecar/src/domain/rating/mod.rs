//! Rating: usage → charges. A pure function of one batch and the facts that the store holds about it.
//!
//! The store applies a [`Rated`] in one transaction: mark, entries, charges (each is also the outgoing capture command),
//! lease tallies. So a batch is rated wholly or not at all, and a batch that comes again finds its own marks.

mod batch;
mod plan;

pub use batch::{Batch, BatchError, EntryHash, entry_hash};
pub use plan::{Blocked, Charge, EntryRow, Facts, Mistake, Plan, Rated, Totals, plan};
