//! The wallet service as billing asks it.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use uuid::Uuid;
use weir_contracts::money::{Amount, Currency};

/// Why the wallet did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// Away, slow or overloaded: ask the same again later; it may have been done.
    #[error("the wallet is not reachable now: {0}")]
    Unavailable(String),
    /// The same key was used with other content.
    #[error("the wallet has done something else under this key: {0}")]
    OtherContent(String),
    /// No such wallet, hold or transaction.
    #[error("the wallet does not know it: {0}")]
    NotFound(String),
    /// A rule forbids it: frozen, closed, bad amount.
    #[error("the wallet refused: {0}")]
    Refused(String),
}

impl WalletError {
    /// True when asking again can help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A wallet's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "as weir.wallet.v1.Wallet")]
pub struct WalletState {
    pub wallet_id: String,
    pub user_id: String,
    pub currency: Currency,
    pub status: String,
    pub balance: Amount,
    pub held: Amount,
    pub available: Amount,
    pub receivable: Amount,
    pub position: u64,
}

impl WalletState {
    /// True when nothing may be spent from it.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.status != "ACTIVE"
    }
}

/// A line of a wallet's history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "as weir.wallet.v1.Transaction")]
pub struct WalletTransaction {
    pub txn_id: String,
    pub wallet_id: String,
    pub amount: Amount,
    pub kind: String,
    pub description: String,
    pub reference_id: String,
    pub reference_type: String,
    pub status: String,
    pub created_at: String,
    pub balance_after: Amount,
    pub position: u64,
}

/// The sum of one kind of ledger account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSum {
    /// wallet, held, revenue, cash, receivable.
    pub ledger_account: String,
    /// In what.
    pub currency: String,
    /// Signed.
    pub total: Amount,
}

/// A capture that is asked for.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The charge's id.
    pub key: String,
    /// From which wallet.
    pub wallet_id: String,
    /// From which hold; empty: from the balance.
    pub hold_id: String,
    /// How much.
    pub amount: Amount,
    /// For the statement.
    pub description: String,
}

/// The wallet's commands and queries. Each call has a deadline.
#[async_trait]
pub trait WalletClient: Send + Sync {
    /// Creates a wallet; idempotent by key.
    async fn create(
        &self,
        key: &str,
        user_id: Uuid,
        currency: Currency,
        initial: Amount,
    ) -> Result<WalletState, WalletError>;
    /// Its state.
    async fn get(&self, wallet_id: &str) -> Result<WalletState, WalletError>;
    /// Adds money; idempotent by key.
    async fn top_up(
        &self,
        key: &str,
        wallet_id: &str,
        amount: Amount,
        description: &str,
    ) -> Result<WalletState, WalletError>;
    /// ACTIVE, FROZEN or CLOSED; idempotent by key.
    async fn set_status(&self, key: &str, wallet_id: &str, status: &str) -> Result<WalletState, WalletError>;
    /// Raises a hold's cumulative total to at most `total`; answers the total that is held.
    async fn place_hold(
        &self,
        wallet_id: &str,
        hold_id: &str,
        total: Amount,
    ) -> Result<(Amount, WalletState), WalletError>;
    /// Takes money; idempotent by key. Answers the transaction.
    async fn capture(&self, capture: &Capture) -> Result<(String, WalletState), WalletError>;
    /// Gives the rest of a hold back; idempotent.
    async fn release(&self, wallet_id: &str, hold_id: &str) -> Result<WalletState, WalletError>;
    /// History after a position, oldest first, at most `limit` (1..=1000).
    async fn transactions(
        &self,
        wallet_id: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<WalletTransaction>, WalletError>;
    /// Sums of all postings.
    async fn trial_balance(&self) -> Result<Vec<LedgerSum>, WalletError>;
    /// The current state of each wallet named, then each change. Ends when the connection does.
    async fn watch(
        &self,
        wallet_ids: Vec<String>,
    ) -> Result<BoxStream<'static, Result<WalletState, WalletError>>, WalletError>;
}

/// The wallet's read side: what its projection shows.
#[async_trait]
pub trait ReadModel: Send + Sync {
    /// Every transaction of a wallet as (id, signed amount).
    async fn transactions(&self, wallet_id: &str) -> Result<Vec<(String, Amount)>, WalletError>;
}
