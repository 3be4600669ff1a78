//! The billing store: accounts, tariffs, leases, inbox marks, raw usage, charges. Each call is one transaction.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde::Serialize;
use weir_contracts::{
    entry::{Outcome, RequestKind},
    event::Place,
    ids::{AccountId, EntryId, LeaseId, ProxyId},
    money::{Amount, Currency},
    tariff::Tariff,
};

use super::PortError;
use crate::domain::{
    accounts::Account,
    lease::Lease,
    proxies::{KnownStart, Registration, StartRefused},
    rating::{Batch, Blocked, Totals},
    settle::Work,
    tariffs::PricedTariff,
};

/// What became of something that is created once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored<T> {
    /// It is new.
    New(T),
    /// The same was there already.
    Same(T),
    /// Something else is there under this name.
    Other(String),
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateOutcome {
    /// Written down: entries, charges, mistakes.
    Rated {
        /// Entries that were new.
        entries: usize,
        /// Charges made of them.
        charges: usize,
        /// Things that do not add up.
        mistakes: usize,
    },
    /// All of it was there.
    Duplicate,
    /// Something before it is missing.
    Gap {
        /// The mark as it stands.
        mark: Option<Place>,
        /// Where the batch begins.
        first: Place,
    },
    /// An entry is there with other content.
    OtherContent(EntryId),
    /// Not ratable now.
    Blocked(Blocked),
}

/// One request as it is shown: its parts added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as weir_contracts::entry::UsageRecord")]
pub struct RequestUsage {
    /// Of the last part.
    pub id: String,
    pub account: AccountId,
    pub principal: String,
    pub session: u64,
    pub request: u64,
    pub kind: RequestKind,
    /// How many records it came in.
    pub parts: u64,
    pub rows: u64,
    pub rows_affected: u64,
    pub result_sets: u64,
    /// Token-stream bytes delivered.
    pub bytes: u64,
    pub bytes_in: u64,
    pub bulk_rows: u64,
    pub server_nanos: u64,
    pub cost: Amount,
    /// Of the last part.
    pub outcome: Outcome,
    /// RFC 3339, of the proxy's clock.
    pub started: String,
    pub ended: String,
    pub tariff: String,
    pub drift: bool,
    pub unparsed: bool,
}

/// What an account used since ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccountTotals {
    /// Counts.
    pub totals: Totals,
    /// Sum of what rating made of it.
    pub cost: Amount,
}

/// What is still under way for an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unsettled {
    /// Charges that are not captured or have no item yet.
    pub charges: u64,
    /// Charges that the wallet refused.
    pub failed: u64,
    /// Leases that are not settled.
    pub leases: Vec<Lease>,
}

/// Charges that are not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenCharges {
    /// To be captured or to be booked.
    pub open: u64,
    /// Refused by the wallet.
    pub failed: u64,
    /// Number of the oldest open one.
    pub oldest: Option<i64>,
}

/// A charge with what the store itself knows about its sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedCharge {
    /// Order among charges.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// Who pays.
    pub account: AccountId,
    /// From which hold.
    pub lease: Option<LeaseId>,
    /// In what.
    pub currency: Currency,
    /// Its amount.
    pub amount: Amount,
    /// Sum of the costs of the entries that name it.
    pub usage: Amount,
    /// Its state's name.
    pub state: &'static str,
    /// The wallet's transaction.
    pub txn_id: Option<String>,
}

/// What reconciliation needs besides charges, read in one transaction.
#[derive(Debug, Clone, Default)]
pub struct BookFacts {
    /// Number of the newest charge; 0: none.
    pub newest_charge: i64,
    /// Recorded mistakes, oldest first, at most a bounded number.
    pub mistakes: Vec<String>,
    /// Entries that cost something and have no charge: ids, at most a bounded number.
    pub uncharged: Vec<String>,
    /// Leases whose tally differs from their entries' sum, in words.
    pub lease_differences: Vec<String>,
    /// Wallets by account.
    pub wallets: BTreeMap<AccountId, String>,
}

/// The billing store.
#[async_trait]
pub trait BillingStore: Send + Sync {
    /// Adds an account; its login must mean nobody else.
    async fn add_account(&self, account: Account) -> Result<Stored<Account>, PortError>;
    /// Notes the account's wallet.
    async fn set_wallet(&self, account: &AccountId, wallet_id: &str) -> Result<(), PortError>;
    /// One account.
    async fn account(&self, id: &AccountId) -> Result<Option<Account>, PortError>;
    /// The account that a canonical login means.
    async fn account_by_login(&self, canonical: &str) -> Result<Option<Account>, PortError>;
    /// All accounts, by name.
    async fn accounts(&self) -> Result<Vec<Account>, PortError>;

    /// Adds a tariff version.
    async fn add_tariff(&self, tariff: PricedTariff) -> Result<Stored<PricedTariff>, PortError>;
    /// One version.
    async fn tariff(&self, version: &str) -> Result<Option<PricedTariff>, PortError>;
    /// All versions.
    async fn tariffs(&self) -> Result<Vec<PricedTariff>, PortError>;

    /// Believes or refuses a proxy's start.
    async fn register(&self, start: Registration) -> Result<Result<(), StartRefused>, PortError>;
    /// The last start of a proxy that was believed.
    async fn known_start(&self, proxy: ProxyId) -> Result<Option<KnownStart>, PortError>;

    /// One lease.
    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, PortError>;
    /// Writes down a lease before its hold is asked for.
    async fn open_lease(&self, lease: Lease) -> Result<(), PortError>;
    /// Writes down what the wallet holds for it. Never goes down.
    async fn set_granted(&self, id: LeaseId, granted_nanos: i64) -> Result<(), PortError>;
    /// The hold is released.
    async fn set_settled(&self, id: LeaseId) -> Result<(), PortError>;

    /// Rates a batch: mark, entries, charges with their capture commands, leases, in one transaction.
    async fn rate(&self, batch: Arc<Batch>, now: &str) -> Result<RateOutcome, PortError>;
    /// The high-water mark of a proxy.
    async fn mark(&self, proxy: ProxyId) -> Result<Option<Place>, PortError>;
    /// All marks.
    async fn marks(&self) -> Result<Vec<(ProxyId, Place)>, PortError>;

    /// Accounts that have something to settle, at most `limit`.
    async fn accounts_with_work(&self, limit: usize) -> Result<Vec<AccountId>, PortError>;
    /// The next steps of an account in order, at most `limit`.
    async fn work(&self, account: &AccountId, limit: usize) -> Result<Vec<Work>, PortError>;
    /// The wallet captured a charge.
    async fn set_captured(&self, charge: &str, txn_id: &str) -> Result<(), PortError>;
    /// Its item is written.
    async fn set_itemized(&self, charge: &str) -> Result<(), PortError>;
    /// The wallet refused it for good.
    async fn set_failed(&self, charge: &str, cause: &str) -> Result<(), PortError>;
    /// What is still under way for an account.
    async fn unsettled(&self, account: &AccountId) -> Result<Unsettled, PortError>;
    /// Charges not yet done, over all accounts.
    async fn charges_open(&self) -> Result<OpenCharges, PortError>;

    /// Requests of an account, oldest first, after the one with id `after`, at most `limit`.
    async fn usage(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RequestUsage>, PortError>;
    /// What each account used since ever.
    async fn totals(&self) -> Result<BTreeMap<AccountId, AccountTotals>, PortError>;

    /// What reconciliation needs besides charges.
    async fn book_facts(&self) -> Result<BookFacts, PortError>;
    /// Charges after a number, in order, at most `limit`.
    async fn booked_charges(&self, after: i64, limit: usize) -> Result<Vec<BookedCharge>, PortError>;
    /// Tariff of a version, for terms; `None` when unknown.
    async fn prices(&self, version: &str) -> Result<Option<Tariff>, PortError> {
        Ok(self.tariff(version).await?.map(|t| t.tariff))
    }
}
