//! What the journal's callers give and get: options, records, slot contents, errors.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use weir_contracts::{
    entry::RequestKind,
    ids::{AccountId, LeaseId},
};

/// Why the journal cannot be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A second process, or a second open in this one.
    #[error(
        "journal directory {0} is in use by another process; stop that one or give this proxy its own directory"
    )]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("journal file {path}: {cause}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A file says what this journal never wrote. Nothing is guessed: see `weir journal verify`.
    #[error("journal file {path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The record was not written in time; the disk is full or stuck.
    #[error("the journal did not write within {0:?}: {1}")]
    Busy(Duration, String),
    /// The journal's thread has ended; the process must be started anew.
    #[error("the journal has stopped: {0}")]
    Stopped(String),
}

impl JournalError {
    /// Names the file that the system refused.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |e| Self::Io {
            path: path.to_owned(),
            cause: e.to_string(),
        }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }
}

/// No slot is free: as many responses are open as the journal was configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {0} journal slots are in use")]
pub struct SlotsExhausted(pub u32);

/// What a power loss may cost. The death of the process never costs anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Records reach the disk when the kernel likes.
    #[default]
    None,
    /// A close is acknowledged after its group's `fdatasync`.
    Record,
}

/// Limits of a journal.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Responses open at a time.
    pub slots_max: u32,
    /// A segment is rotated at this size, bytes.
    pub segment_bytes: u64,
    /// Unshipped bytes above which the journal is not healthy, so that the gate denies.
    pub bytes_max: u64,
    /// See [`Durability`].
    pub durability: Durability,
    /// How long trimmed segments are kept.
    pub archive_keep: Duration,
    /// How long records that nobody waits for may gather before they are appended together; see [`GATHER`].
    pub gather: Duration,
}

/// Default of [`JournalOptions::slots_max`].
pub const SLOTS_MAX: u32 = 65_536;
/// Default of [`JournalOptions::segment_bytes`].
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Default of [`JournalOptions::bytes_max`].
pub const BYTES_MAX: u64 = 8 << 30;
/// Default of [`JournalOptions::archive_keep`].
pub const ARCHIVE_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Default of [`JournalOptions::gather`]. Until then their slots stand for them: a process that dies meanwhile loses no count,
/// and its next start books them as interrupted. One wake of the journal's thread for many records, not one for each.
pub const GATHER: Duration = Duration::from_millis(5);

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            slots_max: SLOTS_MAX,
            segment_bytes: SEGMENT_BYTES,
            bytes_max: BYTES_MAX,
            durability: Durability::None,
            archive_keep: ARCHIVE_KEEP,
            gather: GATHER,
        }
    }
}

/// Who a session is: appended once at login, named by its slots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionRecord {
    /// Who pays.
    pub account: AccountId,
    /// Login used at the gate.
    pub principal: String,
    /// Server behind, `host:port`.
    pub upstream: String,
    /// Tariff version of records without a lease (observe mode); see [`super::Journal::amend_session`].
    pub tariff: String,
}

/// A lease, appended before billing is asked for it and before any slot names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeaseRecord {
    /// Which.
    pub lease: LeaseId,
    /// Whose.
    pub account: AccountId,
    /// Tariff version that prices what it pays.
    pub tariff: String,
}

/// What of a slot stays the same while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHead {
    /// From [`super::Journal::begin_session`].
    pub session: u32,
    /// Number of the request within the session.
    pub request: u32,
    /// Kind of the request.
    pub kind: RequestKind,
    /// When it began, Unix nanoseconds.
    pub started_unix_nanos: u64,
}

/// Most requests of one record part: what a slot can hold.
pub const REQUESTS_MAX: u32 = 1 << 11;

/// Running totals of an open record part: all that is needed to make a usage record of the slot alone.
///
/// Bounds: the four quantities and `server_nanos` fit 48 bits (281 TB, 78 hours), `result_sets` saturates at 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotState {
    /// Number of the lease that pays, 0 for none.
    pub lease_number: u32,
    /// Requests whose own price `cost_nanos` includes: 0 in a later part, more than 1 for several calls in one message; at most
    /// [`REQUESTS_MAX`].
    pub requests: u32,
    /// Rows delivered; for [`RequestKind::BulkLoad`] rows uploaded (a bulk load returns none).
    pub rows: u64,
    /// Token-stream bytes delivered.
    pub bytes_out: u64,
    /// Request bytes.
    pub bytes_in: u64,
    /// As in the usage record, because tariffs price it.
    pub server_nanos: u64,
    /// Result sets begun.
    pub result_sets: u32,
    /// Paid so far.
    pub cost_nanos: i64,
    /// The walker lost the stream.
    pub unparsed: bool,
}
