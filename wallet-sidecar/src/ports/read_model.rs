//! The read model: documents for queries, made from the broker's messages, completed from the event store.

use weir_contracts::event::{TransactionCreated, WalletUpdated};

use super::event_store::StoreError;

/// Largest page of transactions.
pub const PAGE_ROWS_MAX: u32 = 200;

/// One message's effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A wallet's state at a position.
    Wallet(WalletUpdated),
    /// A new transaction.
    Transaction(TransactionCreated),
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was stored.
    Stored,
    /// The document reflects it or a later position already.
    Known,
    /// The same id (or position) is stored with other content: never overwritten.
    OtherContent,
}

/// Which transactions of a wallet to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// From 1.
    pub page: u32,
    /// Rows per page, 1 to [`PAGE_ROWS_MAX`].
    pub limit: u32,
    /// Created at or after, Unix microseconds.
    pub from_micros: Option<i64>,
    /// Created before, Unix microseconds.
    pub until_micros: Option<i64>,
    /// Only this type.
    pub r#type: Option<String>,
    /// Only this status.
    pub status: Option<String>,
}

/// A page of transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Newest first.
    pub transactions: Vec<TransactionCreated>,
    /// Over all pages.
    pub total: u64,
}

/// The read model. Calls block.
pub trait ReadModel: Send + Sync + 'static {
    /// Applies changes, answered in order. Documents move only forward by position; transactions are inserted once, and before a wallet
    /// shows the position of their own. Each change is atomic; after an error any of them may be applied or not: apply all again.
    fn apply(&self, changes: &[Change]) -> Result<Vec<Applied>, StoreError>;
    /// Highest position that any wallet document reflects.
    fn position(&self) -> Result<u64, StoreError>;
    /// A wallet by its id.
    fn wallet(&self, wallet_id: &str) -> Result<Option<WalletUpdated>, StoreError>;
    /// A wallet by its user.
    fn wallet_of_user(&self, user_id: &str) -> Result<Option<WalletUpdated>, StoreError>;
    /// A page of a wallet's transactions.
    fn transactions(&self, wallet_id: &str, filter: &Filter) -> Result<Page, StoreError>;
    /// Position up to which every event is known to be in it.
    fn swept(&self) -> Result<u64, StoreError>;
    /// Keeps that position.
    fn set_swept(&self, position: u64) -> Result<(), StoreError>;
    /// Drops every document and the position, so that all is applied again.
    fn clear(&self) -> Result<(), StoreError>;
}
