//! The event store: the wallets' truth. Events, postings, answers and outbox are written in one commit.

use crate::{
    ledger::Posting,
    wallet::{Recorded, WalletId},
};
use weir_contracts::money::Currency;

/// Largest number of rows that one read returns.
pub const READ_ROWS_MAX: usize = 1000;

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote: read again and decide anew. Nothing was written.
    #[error("the event store moved on: expected position {expected}, found {found}")]
    Conflict {
        /// What the batch was decided on.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The disk or the database fails. A commit that failed so may be found written later: ask again with the same key.
    #[error("the store cannot be used now: {0}")]
    Unavailable(String),
    /// What is stored cannot be read: an operator must look.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The server is set up in a way that breaks a promise, or lets us not in: its operator must act, waiting does not help. The
    /// text names the setting and the remedy. Answered at the start only.
    #[error("{0}")]
    Settings(String),
}

/// An integration event on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutMessage {
    /// The broker's topic.
    pub topic: String,
    /// Unique within the topic, the same each time it is sent.
    pub id: String,
    /// A CloudEvent in JSON.
    pub body: Vec<u8>,
}

/// What was answered to a command, by the command's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The key, with its namespace.
    pub key: String,
    /// Digest of the command.
    pub hash: [u8; 32],
    /// The answer, as JSON.
    pub body: String,
}

/// What one command adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Whose stream.
    pub wallet: WalletId,
    /// Of the wallet: what each posting counts in.
    pub currency: Currency,
    /// Events with their postings, in stream order; positions go on from the batch's head.
    pub events: Vec<(Recorded, Vec<Posting>)>,
    /// The answer to keep.
    pub answer: Option<StoredAnswer>,
    /// What to tell others.
    pub messages: Vec<OutMessage>,
}

/// Several commands' appends, committed together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Position of the last event that the decisions knew.
    pub expected_head: u64,
    /// In commit order.
    pub appends: Vec<Append>,
}

impl Batch {
    /// Position of its last event, `expected_head` when it has none.
    ///
    /// # Errors
    /// `Damaged` when the positions do not go on from the head one by one: a reader would take the gap for a lost event.
    pub fn last_position(&self) -> Result<u64, StoreError> {
        let mut last = self.expected_head;
        for (recorded, _) in self.appends.iter().flat_map(|a| &a.events) {
            if recorded.position != last + 1 {
                return Err(StoreError::Damaged(format!(
                    "event {} of a batch does not follow {last}; nothing was written",
                    recorded.position
                )));
            }
            last = recorded.position;
        }
        Ok(last)
    }
}

/// A posting with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Of its event.
    pub position: u64,
    /// What it counts in.
    pub currency: Currency,
    /// Where to and how much.
    pub posting: Posting,
}

/// The wallets as they were at a position: a shortcut past the events up to there, never the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// How the wallets are written; another format is not read.
    pub format: u32,
    /// Every event up to here is in it.
    pub position: u64,
    /// Every wallet, as text.
    pub wallets: Vec<String>,
}

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxItem {
    /// Order of commit, from 1.
    pub sequence: u64,
    /// What to send.
    pub message: OutMessage,
}

/// The store. Calls block; reads never wait for a commit.
pub trait EventStore: Send + Sync + 'static {
    /// Position of the last event; 0 when there is none.
    fn head(&self) -> Result<u64, StoreError>;
    /// Writes all of the batch durably, or nothing. A wrong head, a stream version that exists, and a key that exists are
    /// `Conflict`; positions that do not go on one by one are `Damaged`.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;
    /// The answer kept under a key.
    fn answer(&self, key: &str) -> Result<Option<StoredAnswer>, StoreError>;
    /// Events after a position in commit order, at most `limit` (capped at [`READ_ROWS_MAX`]).
    fn events_after(&self, position: u64, limit: usize) -> Result<Vec<Recorded>, StoreError>;
    /// Events that are transactions, after a position, of one wallet or of all.
    fn transactions_after(
        &self,
        wallet: Option<WalletId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, StoreError>;
    /// All postings of the first `limit` events after a position that have any.
    fn postings_after(&self, position: u64, limit: usize) -> Result<Vec<Posted>, StoreError>;
    /// The oldest messages not yet relayed.
    fn outbox(&self, limit: usize) -> Result<Vec<OutboxItem>, StoreError>;
    /// Forgets messages up to a sequence: the broker has them.
    fn relayed(&self, up_to: u64) -> Result<(), StoreError>;
    /// The newest snapshot.
    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError>;
    /// Brings the snapshot forward by the wallets that changed since; false, and nothing done, when it is there or further already.
    /// A snapshot of another format is replaced, so then every wallet must be given.
    fn save_snapshot(
        &self,
        format: u32,
        position: u64,
        changed: &[(WalletId, String)],
    ) -> Result<bool, StoreError>;
    /// Proves that a write would succeed now.
    fn check_writable(&self) -> Result<(), StoreError>;
}
