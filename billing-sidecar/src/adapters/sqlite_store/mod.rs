//! The billing store on SQLite: WAL, `synchronous=FULL`, one thread; each port call is one transaction.

mod accounts;
mod books;
mod leases;
mod rating;
mod settle;
mod usage;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use async_trait::async_trait;
use weir_contracts::{
    event::Place,
    ids::{AccountId, LeaseId, ProxyId},
};

use super::sqlite_thread::SqliteThread;
use crate::{
    domain::{
        accounts::Account,
        lease::Lease,
        proxies::{KnownStart, Registration, StartRefused},
        rating::Batch,
        settle::Work,
        tariffs::PricedTariff,
    },
    ports::{
        PortError,
        billing_store::{
            AccountTotals, BillingStore, BookFacts, BookedCharge, OpenCharges, RateOutcome, RequestUsage,
            Stored, Unsettled,
        },
    },
};

const NAME: &str = "the billing store";

/// The billing store in one file.
#[derive(Debug, Clone)]
pub struct SqliteStore(SqliteThread);

impl SqliteStore {
    /// Opens or makes the file. Blocking.
    pub fn open(path: &Path) -> Result<Self, PortError> {
        SqliteThread::open(path, NAME, include_str!("schema.sql")).map(Self)
    }
}

#[async_trait]
impl BillingStore for SqliteStore {
    async fn add_account(&self, account: Account) -> Result<Stored<Account>, PortError> {
        self.0.call(move |c| accounts::add(c, account)).await
    }

    async fn set_wallet(&self, account: &AccountId, wallet_id: &str) -> Result<(), PortError> {
        let (account, wallet_id) = (account.clone(), wallet_id.to_owned());
        self.0
            .call(move |c| accounts::set_wallet(c, &account, &wallet_id))
            .await
    }

    async fn account(&self, id: &AccountId) -> Result<Option<Account>, PortError> {
        let id = id.clone();
        self.0.call(move |c| accounts::by_id(c, &id)).await
    }

    async fn account_by_login(&self, canonical: &str) -> Result<Option<Account>, PortError> {
        let canonical = canonical.to_owned();
        self.0.call(move |c| accounts::by_login(c, &canonical)).await
    }

    async fn accounts(&self) -> Result<Vec<Account>, PortError> {
        self.0.call(accounts::all).await
    }

    async fn add_tariff(&self, tariff: PricedTariff) -> Result<Stored<PricedTariff>, PortError> {
        self.0.call(move |c| accounts::add_tariff(c, tariff)).await
    }

    async fn tariff(&self, version: &str) -> Result<Option<PricedTariff>, PortError> {
        let version = version.to_owned();
        self.0.call(move |c| accounts::tariff(c, &version)).await
    }

    async fn tariffs(&self) -> Result<Vec<PricedTariff>, PortError> {
        self.0.call(accounts::tariffs).await
    }

    async fn register(&self, start: Registration) -> Result<Result<(), StartRefused>, PortError> {
        self.0.call(move |c| accounts::register(c, &start)).await
    }

    async fn known_start(&self, proxy: ProxyId) -> Result<Option<KnownStart>, PortError> {
        self.0.call(move |c| accounts::known_start(c, proxy)).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, PortError> {
        self.0.call(move |c| leases::by_id(c, id)).await
    }

    async fn open_lease(&self, lease: Lease) -> Result<(), PortError> {
        self.0.call(move |c| leases::open(c, &lease)).await
    }

    async fn set_granted(&self, id: LeaseId, granted_nanos: i64) -> Result<(), PortError> {
        self.0
            .call(move |c| leases::set_granted(c, id, granted_nanos))
            .await
    }

    async fn set_settled(&self, id: LeaseId) -> Result<(), PortError> {
        self.0.call(move |c| leases::set_settled(c, id)).await
    }

    async fn rate(&self, batch: Arc<Batch>, now: &str) -> Result<RateOutcome, PortError> {
        let now = now.to_owned();
        self.0.call(move |c| rating::rate(c, &batch, &now)).await
    }

    async fn mark(&self, proxy: ProxyId) -> Result<Option<Place>, PortError> {
        self.0.call(move |c| rating::mark(c, proxy)).await
    }

    async fn marks(&self) -> Result<Vec<(ProxyId, Place)>, PortError> {
        self.0.call(rating::marks).await
    }

    async fn accounts_with_work(&self, limit: usize) -> Result<Vec<AccountId>, PortError> {
        self.0.call(move |c| settle::accounts(c, limit)).await
    }

    async fn work(&self, account: &AccountId, limit: usize) -> Result<Vec<Work>, PortError> {
        let account = account.clone();
        self.0.call(move |c| settle::work(c, &account, limit)).await
    }

    async fn set_captured(&self, charge: &str, txn_id: &str) -> Result<(), PortError> {
        let (charge, txn_id) = (charge.to_owned(), txn_id.to_owned());
        self.0
            .call(move |c| settle::set_captured(c, &charge, &txn_id))
            .await
    }

    async fn set_itemized(&self, charge: &str) -> Result<(), PortError> {
        let charge = charge.to_owned();
        self.0.call(move |c| settle::set_itemized(c, &charge)).await
    }

    async fn set_failed(&self, charge: &str, cause: &str) -> Result<(), PortError> {
        let (charge, cause) = (charge.to_owned(), cause.to_owned());
        self.0.call(move |c| settle::set_failed(c, &charge, &cause)).await
    }

    async fn unsettled(&self, account: &AccountId) -> Result<Unsettled, PortError> {
        let account = account.clone();
        self.0.call(move |c| settle::unsettled(c, &account)).await
    }

    async fn charges_open(&self) -> Result<OpenCharges, PortError> {
        self.0.call(settle::charges_open).await
    }

    async fn usage(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RequestUsage>, PortError> {
        let (account, after) = (account.clone(), after.map(str::to_owned));
        self.0
            .call(move |c| usage::requests(c, &account, after.as_deref(), limit))
            .await
    }

    async fn totals(&self) -> Result<BTreeMap<AccountId, AccountTotals>, PortError> {
        self.0.call(usage::totals).await
    }

    async fn book_facts(&self) -> Result<BookFacts, PortError> {
        self.0.call(books::facts).await
    }

    async fn booked_charges(&self, after: i64, limit: usize) -> Result<Vec<BookedCharge>, PortError> {
        self.0.call(move |c| books::charges(c, after, limit)).await
    }
}
