//! Financial items: one per captured charge, idempotent by its id.

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
}
