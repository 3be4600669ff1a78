//! What the session core sees of an account's credit: sync, no I/O, no clock. `credit/` implements it.

use std::sync::Arc;

use weir_contracts::{
    ids::{AccountId, LeaseId},
    money::Currency,
    tariff::Tariff,
};

/// How an account is treated at the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who pays.
    pub account: AccountId,
    /// Of the wallet and of the tariff.
    pub currency: Currency,
    /// False in observe mode: everything is metered, nothing refused.
    pub enforce: bool,
    /// After a cut the connection is closed, too.
    pub close_on_cut: bool,
    /// Prices in force.
    pub tariff: Arc<Tariff>,
    /// Bytes up to which a row in hand, or an exempt request, is finished on credit.
    pub row_credit_bytes: u64,
}

/// The lease that a slice came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// Its number within (proxy, epoch).
    pub number: u32,
    /// Its id.
    pub id: LeaseId,
    /// The tariff version that it buys under.
    pub tariff: Arc<Tariff>,
}

/// Credit taken for one synchronous walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// At least 1.
    pub nanos: i64,
    /// Where it came from.
    pub lease: LeaseView,
}

/// What billing last told about the wallet; decimal strings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "as weir.billing.v1.AccountState")]
pub struct Balance {
    pub balance: String,
    pub available: String,
}

/// The answer to a call for more credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum More {
    /// There is at least what was needed: take again.
    Enough,
    /// What can be spent is less than what was needed, leases of other sessions included.
    Denied(Balance),
    /// The wallet is frozen or closed.
    Frozen,
    /// Billing could not say within its deadline.
    Unavailable(String),
}

/// An account's purse.
pub trait Purse: Send + Sync {
    /// Takes at most `want` nanos from the lease. A slice lives only during one synchronous pass.
    fn take(&self, want: i64) -> Option<Slice>;
    /// Part of a taken slice was spent.
    fn spent(&self, lease: u32, nanos: i64);
    /// Part of a taken slice was not needed.
    fn give_back(&self, lease: u32, nanos: i64);
    /// A usage record names this lease from now on; the driver detaches when that record is in the journal.
    fn attach(&self, lease: u32);
    /// The terms in force now.
    fn terms(&self) -> Arc<Terms>;
    /// True while the wallet is frozen.
    fn is_frozen(&self) -> bool;
    /// The wallet as billing last told it.
    fn balance(&self) -> Balance;
}
