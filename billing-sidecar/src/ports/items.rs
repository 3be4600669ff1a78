//! Financial items: one per captured charge, idempotent by its id.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use weir_contracts::{
    ids::AccountId,
    money::{Amount, Currency},
};

use super::PortError;

/// A line for the books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinancialItem {
    /// The charge's id.
    pub id: String,
    /// Who paid.
    pub account: AccountId,
    /// The lease whose hold it came from.
    pub lease: Option<String>,
    /// Under which tariff version.
    pub tariff: String,
    /// How much.
    pub amount: Amount,
    /// In what.
    pub currency: Currency,
    /// Requests ended.
    pub requests: u64,
    /// Rows delivered.
    pub rows: u64,
    /// Token-stream bytes delivered.
    pub bytes_out: u64,
    /// The wallet's transaction.
    pub txn_id: String,
    /// When the charge was rated, RFC 3339.
    pub rated_at: String,
}

/// Where financial items are kept.
#[async_trait]
pub trait Items: Send + Sync {
    /// Writes an item. The same item again changes nothing; the same id with other content is an error.
    async fn write(&self, item: &FinancialItem) -> Result<(), PortError>;
    /// Items after an id in id order, at most `limit`: id and amount.
    async fn amounts_after(&self, after: &str, limit: usize) -> Result<Vec<(String, Amount)>, PortError>;

    /// Drops the connection to the store as a network would, for a self-test; false when there is none to drop.
    async fn lose_connection(&self) -> Result<bool, PortError> {
        Ok(false)
    }
}

/// Stores of the same kind as the service's own, beside it, which a self-test may fill and then removes.
#[async_trait]
pub trait ScratchItems: Send + Sync {
    /// Where they are, for people; without secrets.
    fn place(&self) -> String;
    /// A store of this name (`a-z 0-9 _`, at most 32), made when it is missing; each call answers one with a connection of its own.
    async fn open(&self, name: &str) -> Result<Arc<dyn Items>, PortError>;
    /// Removes the store of this name and all that is in it.
    async fn remove(&self, name: &str) -> Result<(), PortError>;
}
