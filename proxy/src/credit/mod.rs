//! The local balance cache: one lease per account, spent in slices by its sessions, enlarged by billing.
//!
//! Rules: nothing is spent that was not granted; nobody is denied while the account's leftover and what is out in slices cover the need.

use std::{sync::Arc, time::Duration};

use weir_contracts::{
    ids::{AccountId, LeaseId},
    tariff::Tariff,
};

use crate::{
    journal::Journal,
    ports::billing::{Billing, BillingError, Denial, Login, Terms},
};

/// Limits of the credit cache.
#[derive(Debug, Clone)]
pub struct CreditOptions {
    /// How long billing may take to answer.
    pub deadline: Duration,
    /// An unused lease is closed after this time.
    pub idle: Duration,
    /// How long a resolved login is remembered.
    pub resolve_ttl: Duration,
}

impl Default for CreditOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            idle: Duration::from_secs(10),
            resolve_ttl: Duration::from_secs(2),
        }
    }
}

/// The lease that a slice was cut from.
#[derive(Debug, Clone)]
pub struct LeaseView {
    /// Its number within this epoch, for slots.
    pub number: u32,
    /// Its id, for records.
    pub id: LeaseId,
    /// Its prices.
    pub tariff: Arc<Tariff>,
}

/// Credit in hand: to be split into [`AccountCredit::spent`] and [`AccountCredit::give_back`] within the same synchronous walk.
#[derive(Debug)]
#[must_use = "what is not spent must be given back"]
pub struct Slice {
    /// How much, nano-units, at least 1.
    pub nanos: i64,
    /// Where from.
    pub lease: LeaseView,
}

/// Answer to [`AccountCredit::more`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum More {
    /// What was needed is there: take it (another session may be faster; then ask again).
    Enough,
    /// The spendable credit is below the need, or the account is frozen.
    Denied(Denial),
    /// Cannot be known now.
    Unavailable(String),
}

/// A snapshot of an account, for messages and decisions that move no credit.
#[derive(Debug, Clone)]
pub struct AccountState {
    /// No credit may be spent.
    pub frozen: bool,
    /// Last refusal by billing, if still in force.
    pub broke: Option<Denial>,
    /// Last known terms.
    pub terms: Option<Terms>,
    /// Decimal strings as billing last said, if it did.
    pub balance: Option<String>,
    /// As above.
    pub available: Option<String>,
    /// Granted, not spent and not out, nano-units.
    pub leftover_nanos: i64,
    /// Out in slices.
    pub outstanding_nanos: i64,
}

/// Outcome of [`Credit::resolve`].
#[derive(Debug, Clone)]
pub enum Tenant {
    /// Known: its terms and its credit.
    Known {
        /// Terms at this moment.
        terms: Terms,
        /// Its credit.
        credit: Arc<AccountCredit>,
    },
    /// Nobody's login; the text says why (error 50403).
    Unknown(String),
}

/// All accounts' credit. Clones share it.
#[derive(Debug, Clone)]
pub struct Credit(());

impl Credit {
    /// Starts the cache and its tasks (registration, notices, sweeping) on the current runtime.
    #[must_use]
    pub fn start(_options: CreditOptions, _journal: Journal, _billing: Arc<dyn Billing>) -> Self {
        Self(())
    }

    /// Waits until billing knows this start.
    ///
    /// # Errors
    /// Billing refuses this proxy, or did not answer within the deadline (it is asked again in the background).
    pub async fn registered(&self) -> Result<(), BillingError> {
        Err(BillingError::Unavailable(String::new()))
    }

    /// Whose login; remembered for a short time.
    ///
    /// # Errors
    /// Billing gave no answer within the deadline.
    pub async fn resolve(&self, _login: &Login) -> Result<Tenant, BillingError> {
        Err(BillingError::Unavailable(String::new()))
    }

    /// An account's credit.
    #[must_use]
    pub fn account(&self, _account: &AccountId) -> Arc<AccountCredit> {
        Arc::new(AccountCredit(()))
    }

    /// Closes every lease that no response uses, waits for those in use up to `deadline`, then ends the tasks.
    pub async fn stop(&self, _deadline: Duration) {}
}

/// One account's credit.
#[derive(Debug)]
pub struct AccountCredit(());

/// A response (its slot) uses a lease; dropped, it no longer does. Drop it after the slot is closed (`Journal::close` returned).
#[derive(Debug)]
#[must_use = "dropping it says that no slot names the lease any more"]
pub struct LeaseUse(());

impl AccountCredit {
    /// Takes `1..=want` nano-units from the lease, or nothing: then call [`Self::more`].
    pub fn take(&self, _want: i64) -> Option<Slice> {
        None
    }

    /// Takes `least..=want` nano-units, or nothing: what is below the price of a row is not taken in vain.
    pub fn take_between(&self, _least: i64, _want: i64) -> Option<Slice> {
        None
    }

    /// Returns the unspent part of a slice.
    pub fn give_back(&self, _lease_number: u32, _nanos: i64) {}

    /// Books the spent part of a slice.
    pub fn spent(&self, _lease_number: u32, _nanos: i64) {}

    /// Books what the row in hand cost beyond its slice: the lease's leftover may fall below zero, later grants pay it first.
    pub fn overdraw(&self, _lease_number: u32, _nanos: i64) {}

    /// Says that a slot names this lease. Call it while a slice of it is still out.
    pub fn attach(self: &Arc<Self>, _lease_number: u32) -> LeaseUse {
        LeaseUse(())
    }

    /// True when the lease should be left: end the part by an interim record, drop its [`LeaseUse`], take from the new lease.
    #[must_use]
    pub fn is_closing(&self, _lease_number: u32) -> bool {
        false
    }

    /// Asks billing for more, one question per account at a time, within the deadline.
    pub async fn more(self: &Arc<Self>, _need: i64) -> More {
        More::Unavailable(String::new())
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> AccountState {
        AccountState {
            frozen: false,
            broke: None,
            terms: None,
            balance: None,
            available: None,
            leftover_nanos: 0,
            outstanding_nanos: 0,
        }
    }
}
