//! The journal: what was delivered, on local disk, before it is delivered. Slots for open responses, segments for closed records.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use uuid::Uuid;
use weir_contracts::{
    entry::{RequestKind, UsageRecord},
    ids::{AccountId, LeaseId, ProxyId},
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
    /// The journal's thread has ended; the process must be started anew.
    #[error("the journal has stopped: {0}")]
    Stopped(String),
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
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            slots_max: 65_536,
            segment_bytes: 64 << 20,
            bytes_max: 8 << 30,
            durability: Durability::None,
            archive_keep: Duration::from_secs(7 * 24 * 3600),
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
    /// From [`Journal::begin_session`].
    pub session: u32,
    /// Number of the request within the session.
    pub request: u32,
    /// Kind of the request.
    pub kind: RequestKind,
    /// When it began, Unix nanoseconds.
    pub started_unix_nanos: u64,
}

/// Running totals of an open record part: all that is needed to make a usage record of the slot alone.
///
/// Bounds: the four quantities and `server_nanos` fit 48 bits (281 TB, 78 hours), `result_sets` saturates at 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotState {
    /// Number of the lease that pays, 0 for none.
    pub lease_number: u32,
    /// `cost_nanos` includes the request's own price (`UsageRecord::requests` = 1).
    pub counts_request: bool,
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

/// One open response's 64 bytes on disk. Dropped without [`Journal::close`], it becomes an `interrupted` record by itself.
#[derive(Debug)]
pub struct Slot(());

impl Slot {
    /// Overwrites the slot in place: one 64-byte `pwrite`, done before the chunk's first byte goes to the client.
    ///
    /// # Errors
    /// The system refused, or a quantity is out of its bound: deliver nothing, end the response.
    pub fn write(&mut self, _state: &SlotState) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The journal of one proxy start. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal(());

impl Journal {
    /// Opens or makes a journal directory, recovers what an earlier start left open, and begins a new epoch. Blocking.
    ///
    /// # Errors
    /// Another process holds it, the disk refuses, or a file is damaged in its middle.
    pub fn open(dir: &Path, _options: JournalOptions) -> Result<Self, JournalError> {
        Err(JournalError::Stopped(format!("{} not opened", dir.display())))
    }

    /// Made with the directory.
    #[must_use]
    pub fn proxy(&self) -> ProxyId {
        ProxyId(Uuid::nil())
    }

    /// Of this start.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        0
    }

    /// Of this start.
    #[must_use]
    pub fn boot_nonce(&self) -> Uuid {
        Uuid::nil()
    }

    /// Of the start before.
    #[must_use]
    pub fn previous_boot_nonce(&self) -> Option<Uuid> {
        None
    }

    /// False when the disk refuses, too much is unshipped or the shipper is stuck: the gate must deny new requests.
    #[must_use]
    pub fn healthy(&self) -> bool {
        false
    }

    /// Why [`Self::healthy`] is false.
    #[must_use]
    pub fn unhealthy_reason(&self) -> Option<String> {
        None
    }

    /// Appends a session record; returns its number, from 1. Call [`Self::end_session`] when no slot will name it again.
    ///
    /// # Errors
    /// The journal has stopped.
    pub async fn begin_session(&self, _record: SessionRecord) -> Result<u32, JournalError> {
        Err(JournalError::Stopped(String::new()))
    }

    /// The session's last slot is closed.
    pub fn end_session(&self, _session: u32) {}

    /// Appends a lease record; returns after it is written.
    ///
    /// # Errors
    /// The journal has stopped.
    pub async fn begin_lease(&self, _record: LeaseRecord) -> Result<(), JournalError> {
        Err(JournalError::Stopped(String::new()))
    }

    /// Takes a free slot. Nothing is written until [`Slot::write`].
    ///
    /// # Errors
    /// All slots are in use: deny the request.
    pub fn open_slot(&self, _head: SlotHead) -> Result<Slot, SlotsExhausted> {
        Err(SlotsExhausted(0))
    }

    /// Appends the slot's record and frees the slot. Waits for room in the journal's queue, and with [`Durability::Record`] for the disk.
    ///
    /// # Errors
    /// The journal has stopped; the slot stays on disk and the next start recovers it.
    pub async fn close(&self, _slot: Slot, _record: UsageRecord) -> Result<(), JournalError> {
        Err(JournalError::Stopped(String::new()))
    }

    /// Appends a `LeaseClosed` with the lease's sums. Records that name the lease must have been closed before.
    ///
    /// # Errors
    /// The journal has stopped.
    pub async fn close_lease(&self, _lease: LeaseId, _account: AccountId) -> Result<(), JournalError> {
        Err(JournalError::Stopped(String::new()))
    }

    /// Waits until all that was given before is appended; returns this epoch's last sequence (0: none yet).
    ///
    /// # Errors
    /// The journal has stopped.
    pub async fn flush(&self) -> Result<u64, JournalError> {
        Err(JournalError::Stopped(String::new()))
    }
}
