//! A usage batch as it comes from the broker, checked for its form.

use sha2::{Digest, Sha256};
use weir_contracts::{
    entry::{Entry, EntryBody},
    event::{Place, USAGE_BATCH_ENTRIES_MAX, UsageBatch},
    ids::ProxyId,
};

/// SHA-256 of an entry's content.
pub type EntryHash = [u8; 32];

/// A well-formed batch: one proxy, one epoch, no gap, not empty, not too long.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Whose.
    pub proxy: ProxyId,
    /// Of which start.
    pub epoch: u64,
    /// The place before the first entry.
    pub after: Option<Place>,
    /// Each with the hash of its content.
    pub entries: Vec<(Entry, EntryHash)>,
}

/// Why a batch is not well-formed: the sender's fault, it can never be rated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No entries.
    #[error("the batch is empty")]
    Empty,
    /// More than the contract allows.
    #[error("the batch has {0} entries, at most {USAGE_BATCH_ENTRIES_MAX} are allowed")]
    TooLong(usize),
    /// An entry out of place.
    #[error("entry {0} does not follow the one before it in the batch")]
    Order(String),
    /// Cannot be written down again.
    #[error("entry {0} has no canonical form: {1}")]
    Form(String, String),
    /// Larger than the store's integers.
    #[error("entry {0} has a count above 2^53, or a number or a time above 2^63-1")]
    TooLarge(String),
}

/// The hash under which an entry's content is remembered: of its JSON as this contract version writes it.
pub fn entry_hash(entry: &Entry) -> Result<EntryHash, serde_json::Error> {
    Ok(Sha256::digest(serde_json::to_vec(entry)?).into())
}

impl TryFrom<UsageBatch> for Batch {
    type Error = BatchError;

    fn try_from(batch: UsageBatch) -> Result<Self, BatchError> {
        let first = batch.entries.first().ok_or(BatchError::Empty)?.id;
        if batch.entries.len() > USAGE_BATCH_ENTRIES_MAX {
            return Err(BatchError::TooLong(batch.entries.len()));
        }
        let mut entries = Vec::with_capacity(batch.entries.len());
        for (place, entry) in (first.sequence..).zip(batch.entries) {
            let id = entry.id;
            if (id.proxy, id.epoch, id.sequence) != (first.proxy, first.epoch, place) || place == 0 {
                return Err(BatchError::Order(id.to_string()));
            }
            if !fits(&entry) {
                return Err(BatchError::TooLarge(id.to_string()));
            }
            let hash = entry_hash(&entry).map_err(|e| BatchError::Form(id.to_string(), e.to_string()))?;
            entries.push((entry, hash));
        }
        Ok(Self {
            proxy: first.proxy,
            epoch: first.epoch,
            after: batch.after,
            entries,
        })
    }
}

/// Largest count in one entry: a thousand of them still add up within a store's `i64`.
const COUNT_MAX: u64 = 1 << 53;

/// Stores count in `i64`: what does not fit could only be stored wrong.
fn fits(entry: &Entry) -> bool {
    let (counts, stamps) = match &entry.body {
        EntryBody::Usage(u) => (
            vec![
                u.requests,
                u.rows,
                u.rows_affected,
                u.result_sets,
                u.bytes_out,
                u.bytes_in,
                u.bulk_rows,
                u.bulk_bytes,
                u.server_nanos,
            ],
            vec![u.session, u.request, u.started_unix_nanos, u.ended_unix_nanos],
        ),
        EntryBody::LeaseClosed(c) => (vec![c.records], vec![c.last_sequence]),
    };
    let ids = [entry.id.epoch, entry.id.sequence];
    counts.into_iter().all(|n| n <= COUNT_MAX)
        && stamps.into_iter().chain(ids).all(|n| i64::try_from(n).is_ok())
}
