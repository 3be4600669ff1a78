//! The billing store on PostgreSQL: each port call is one transaction and ends within its deadline. Several billing processes may use
//! one schema: a batch holds its proxy's mark, and what goes only forward is in the statements.

mod accounts;
mod books;
mod failure;
mod leases;
mod rating;
mod settle;
mod usage;
mod write;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use weir_contracts::{
    event::Place,
    ids::{AccountId, LeaseId, ProxyId},
};
use weir_servers::{
    ServerUrl,
    postgres::{Pool, PoolOptions},
};

use self::failure::Failure;
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
/// How the server shows our connections.
const APPLICATION: &str = "weir-billing";
/// The schema's versions, oldest first; one that was released never changes.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];
/// Longest port call, all its statements together: what is under way then is undone.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// The billing store in one schema of a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore(Pool);

impl PostgresStore {
    /// Connects, once; checks the server's settings and brings the schema to the newest version.
    ///
    /// # Errors
    /// `Unavailable` when the server is away: try again. `Settings` names what must be set otherwise and how; `Corrupt` a schema that a
    /// newer program wrote.
    pub async fn connect(url: &ServerUrl, schema: &str) -> Result<Self, PortError> {
        let opening = async {
            let pool = Self::checked_pool(url, schema).await?;
            pool.migrate(&MIGRATIONS).await?;
            Ok(Self(pool))
        };
        opening.await.map_err(Failure::into_start)
    }

    /// Connects, once, and checks the server's settings; changes nothing there.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub async fn check(url: &ServerUrl, schema: &str) -> Result<(), PortError> {
        let checked = Self::checked_pool(url, schema).await;
        checked.map(|_| ()).map_err(Failure::into_start)
    }

    async fn checked_pool(url: &ServerUrl, schema: &str) -> Result<Pool, Failure> {
        let options = PoolOptions::new(schema, APPLICATION);
        let pool = Pool::connect(url, options, Duration::ZERO).await?;
        pool.check_settings().await?;
        Ok(pool)
    }
}

/// Ends a call with its deadline. A connection that was in use then is closed, and the server undoes what it had begun.
async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, PortError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(outcome) => outcome.map_err(Failure::into_port),
        Err(_) => Err(PortError::Unavailable(
            NAME,
            format!("not done within {deadline:?}"),
        )),
    }
}

/// One port call on a connection of its own.
macro_rules! on {
    ($store:expr, $connection:ident => $work:expr) => {
        within(CALL_DEADLINE, async {
            let $connection = &mut $store.0.get().await?;
            $work.await
        })
        .await
    };
}

#[async_trait]
impl BillingStore for PostgresStore {
    async fn add_account(&self, account: Account) -> Result<Stored<Account>, PortError> {
        on!(self, c => accounts::add(c, account))
    }

    async fn set_wallet(&self, account: &AccountId, wallet_id: &str) -> Result<(), PortError> {
        on!(self, c => accounts::set_wallet(c, account, wallet_id))
    }

    async fn account(&self, id: &AccountId) -> Result<Option<Account>, PortError> {
        on!(self, c => accounts::by_id(c, id))
    }

    async fn account_by_login(&self, canonical: &str) -> Result<Option<Account>, PortError> {
        on!(self, c => accounts::by_login(c, canonical))
    }

    async fn accounts(&self) -> Result<Vec<Account>, PortError> {
        on!(self, c => accounts::all(c))
    }

    async fn add_tariff(&self, tariff: PricedTariff) -> Result<Stored<PricedTariff>, PortError> {
        on!(self, c => accounts::add_tariff(c, tariff))
    }

    async fn tariff(&self, version: &str) -> Result<Option<PricedTariff>, PortError> {
        on!(self, c => accounts::tariff(c, version))
    }

    async fn tariffs(&self) -> Result<Vec<PricedTariff>, PortError> {
        on!(self, c => accounts::tariffs(c))
    }

    async fn register(&self, start: Registration) -> Result<Result<(), StartRefused>, PortError> {
        on!(self, c => accounts::register(c, start))
    }

    async fn known_start(&self, proxy: ProxyId) -> Result<Option<KnownStart>, PortError> {
        on!(self, c => accounts::known_start(c, proxy))
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, PortError> {
        on!(self, c => leases::by_id(c, id))
    }

    async fn open_lease(&self, lease: Lease) -> Result<(), PortError> {
        on!(self, c => leases::open(c, &lease))
    }

    async fn set_granted(&self, id: LeaseId, granted_nanos: i64) -> Result<(), PortError> {
        on!(self, c => leases::set_granted(c, id, granted_nanos))
    }

    async fn set_settled(&self, id: LeaseId) -> Result<(), PortError> {
        on!(self, c => leases::set_settled(c, id))
    }

    async fn rate(&self, batch: Arc<Batch>, now: &str) -> Result<RateOutcome, PortError> {
        within(CALL_DEADLINE, rating::rate(&self.0, &batch, now)).await
    }

    async fn mark(&self, proxy: ProxyId) -> Result<Option<Place>, PortError> {
        on!(self, c => rating::mark(c, proxy))
    }

    async fn marks(&self) -> Result<Vec<(ProxyId, Place)>, PortError> {
        on!(self, c => rating::marks(c))
    }

    async fn accounts_with_work(&self, limit: usize) -> Result<Vec<AccountId>, PortError> {
        on!(self, c => settle::accounts(c, limit))
    }

    async fn work(&self, account: &AccountId, limit: usize) -> Result<Vec<Work>, PortError> {
        on!(self, c => settle::work(c, account, limit))
    }

    async fn set_captured(&self, charge: &str, txn_id: &str) -> Result<(), PortError> {
        on!(self, c => settle::set_captured(c, charge, txn_id))
    }

    async fn set_itemized(&self, charge: &str) -> Result<(), PortError> {
        on!(self, c => settle::set_itemized(c, charge))
    }

    async fn set_failed(&self, charge: &str, cause: &str) -> Result<(), PortError> {
        on!(self, c => settle::set_failed(c, charge, cause))
    }

    async fn unsettled(&self, account: &AccountId) -> Result<Unsettled, PortError> {
        on!(self, c => settle::unsettled(c, account))
    }

    async fn charges_open(&self) -> Result<OpenCharges, PortError> {
        on!(self, c => settle::charges_open(c))
    }

    async fn usage(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RequestUsage>, PortError> {
        on!(self, c => usage::requests(c, account, after, limit))
    }

    async fn totals(&self) -> Result<BTreeMap<AccountId, AccountTotals>, PortError> {
        on!(self, c => usage::totals(c))
    }

    async fn book_facts(&self) -> Result<BookFacts, PortError> {
        let reading = async { books::facts(self.0.get().await?).await };
        within(books::BOOKS_DEADLINE, reading).await
    }

    async fn booked_charges(&self, after: i64, limit: usize) -> Result<Vec<BookedCharge>, PortError> {
        on!(self, c => books::charges(c, after, limit))
    }
}
