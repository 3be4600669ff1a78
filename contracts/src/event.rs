//! Integration events and broker messages: CloudEvents 1.0 in JSON structured mode.

use serde::{Deserialize, Serialize};

use crate::entry::Entry;

/// Topic of usage batches: relay → rating.
pub const USAGE_TOPIC: &str = "usage.v1";
/// Topic of wallet states: wallet → read model, billing.
pub const WALLET_UPDATED_TOPIC: &str = "wallet.updated.v1";
/// Topic of transactions: wallet → read model.
pub const TRANSACTION_CREATED_TOPIC: &str = "transaction.created.v1";

/// A CloudEvents 1.0 envelope. `source` and `id` together are unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent<T> {
    /// Always `1.0`.
    pub specversion: String,
    /// Id within the source: never time or chance.
    pub id: String,
    /// Who tells: `weir/proxy/<id>`, `weir/wallet`.
    pub source: String,
    /// One of the topics above.
    pub r#type: String,
    /// RFC 3339, for people.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The content.
    pub data: T,
}

impl<T> CloudEvent<T> {
    /// An envelope around `data`.
    pub fn new(r#type: &str, source: String, id: String, time: String, data: T) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id,
            source,
            r#type: r#type.to_owned(),
            time,
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }
}

/// Largest number of entries in one broker message.
pub const USAGE_BATCH_ENTRIES_MAX: usize = 500;

/// A place in one proxy's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Which start of the proxy.
    pub epoch: u64,
    /// Position within the epoch, from 1.
    pub sequence: u64,
}

/// Entries of one proxy and epoch in sequence order, without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageBatch {
    /// The place just before the first entry, in an earlier epoch perhaps; none at the journal's beginning. With it a
    /// consumer sees that the end of an earlier epoch is missing.
    #[serde(default)]
    pub after: Option<Place>,
    /// At most [`USAGE_BATCH_ENTRIES_MAX`].
    pub entries: Vec<Entry>,
}

/// A wallet after a change; consumers keep the one with the highest position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as weir.wallet.v1.Wallet")]
pub struct WalletUpdated {
    pub wallet_id: String,
    pub user_id: String,
    pub currency: String,
    pub status: String,
    pub balance: String,
    pub held: String,
    pub available: String,
    pub receivable: String,
    pub created_at: String,
    pub updated_at: String,
    pub position: u64,
}

/// A transaction was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as weir.wallet.v1.Transaction")]
pub struct TransactionCreated {
    pub txn_id: String,
    pub wallet_id: String,
    pub amount: String,
    pub r#type: String,
    pub description: String,
    pub reference_id: String,
    pub reference_type: String,
    pub status: String,
    pub created_at: String,
    pub balance_after: String,
    pub position: u64,
}
