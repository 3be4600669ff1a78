//! The local balance cache: one lease per account, spent in slices by its sessions, enlarged by billing.
//!
//! Rules: nothing is spent that was not granted; nobody is denied while the account's leftover and what is out in slices cover the need.

mod account;
mod ledger;
mod notices;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};
use weir_contracts::{
    ids::{AccountId, LeaseId},
    tariff::Tariff,
};

pub use account::{AccountCredit, LeaseUse};
pub use ledger::{LEASE_WANT_MAX, LEASE_WANT_MIN, RECHECK};

use crate::{
    journal::Journal,
    ports::billing::{Billing, BillingError, Denial, Login, Resolved, Terms},
};

/// Logins remembered; beyond it all are forgotten at once.
const LOGINS_MAX: usize = 10_000;
/// Close requests worked on at a time.
const CLOSINGS_MAX: usize = 64;
/// How often idle leases and forgotten accounts are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// Limits of the credit cache.
#[derive(Debug, Clone)]
pub struct CreditOptions {
    /// How long billing may take to answer.
    pub deadline: Duration,
    /// An unused lease is closed after this time.
    pub idle: Duration,
    /// How long a resolved login is believed without asking again.
    pub resolve_ttl: Duration,
    /// How long it is believed while billing gives no answer: who was let in before is let in again, to spend what the lease holds.
    pub resolve_keep: Duration,
}

impl Default for CreditOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            idle: Duration::from_secs(10),
            resolve_ttl: Duration::from_secs(2),
            resolve_keep: Duration::from_secs(600),
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

/// What the accounts share.
pub(crate) struct Shared {
    options: CreditOptions,
    journal: Journal,
    billing: Arc<dyn Billing>,
    runtime: Handle,
    accounts: DashMap<AccountId, Arc<AccountCredit>>,
    logins: DashMap<Login, (Instant, Resolved)>,
    lease_numbers: AtomicU32,
    /// Leases to be closed in the journal. Unbounded as a type; each lease is sent once, so leases bound it.
    closings: mpsc::UnboundedSender<(LeaseId, AccountId)>,
    registered: watch::Sender<Option<Result<(), BillingError>>>,
    stopping: AtomicBool,
    close_requests: Semaphore,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credit")
            .field("accounts", &self.accounts.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn next_lease(&self) -> LeaseId {
        let number = self.lease_numbers.fetch_add(1, Ordering::Relaxed);
        LeaseId {
            proxy: self.journal.proxy(),
            epoch: self.journal.epoch(),
            number,
        }
    }

    /// Billing's word on this start, as soon as there is one, within the deadline.
    async fn registered(&self) -> Result<(), BillingError> {
        let mut registered = self.registered.subscribe();
        let told = registered.wait_for(Option::is_some);
        match tokio::time::timeout(self.options.deadline, told).await {
            Ok(Ok(told)) => told.clone().unwrap_or(Ok(())),
            _ => Err(BillingError::Unavailable(
                "it has not yet answered this start".to_owned(),
            )),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn close_later(&self, lease: LeaseId, account: &AccountId) {
        // Only after `stop` is nobody there; the next start closes what is open.
        let _ = self.closings.send((lease, account.clone()));
    }

    fn account(self: &Arc<Self>, account: &AccountId) -> Arc<AccountCredit> {
        if let Some(known) = self.accounts.get(account) {
            return Arc::clone(&known);
        }
        let fresh = || Arc::new(AccountCredit::new(account.clone(), Arc::clone(self)));
        Arc::clone(&self.accounts.entry(account.clone()).or_insert_with(fresh))
    }

    fn all(&self) -> Vec<Arc<AccountCredit>> {
        self.accounts.iter().map(|a| Arc::clone(&a)).collect()
    }

    /// Closes idle leases; forgets accounts that hold none, that no session uses and that billing never spoke of. The others stay, as
    /// many as billing has: a session may ask for its balance before anything happens.
    fn sweep(&self) {
        let now = Instant::now();
        for account in self.all() {
            account.update(|ledger| ledger.close_idle(self.options.idle, now));
        }
        self.accounts.retain(|_, account| {
            let ledger = account.lock();
            Arc::strong_count(account) > 1 || ledger.is_told() || !ledger.open_leases().is_empty()
        });
        self.logins
            .retain(|_, (at, _)| now < *at + self.options.resolve_keep);
    }
}

/// All accounts' credit. Clones share it.
#[derive(Debug, Clone)]
pub struct Credit {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

/// Ends with the last clone: the tasks, and the circle of accounts and what they share, which would keep the journal open.
#[derive(Debug)]
struct Tasks {
    shared: Arc<Shared>,
    running: Vec<JoinHandle<()>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
        self.shared.accounts.clear();
    }
}

impl Credit {
    /// Starts the cache and its tasks (registration, notices, sweeping) on the current runtime; they end with [`Self::stop`] or the last clone.
    #[must_use]
    pub fn start(options: CreditOptions, journal: Journal, billing: Arc<dyn Billing>) -> Self {
        let (closings, endings) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            options,
            journal,
            billing,
            runtime: Handle::current(),
            accounts: DashMap::new(),
            logins: DashMap::new(),
            lease_numbers: AtomicU32::new(1),
            closings,
            registered: watch::Sender::new(None),
            stopping: AtomicBool::new(false),
            close_requests: Semaphore::new(CLOSINGS_MAX),
        });
        let tasks = vec![
            tokio::spawn(notices::watch(Arc::clone(&shared))),
            tokio::spawn(close_leases(Arc::clone(&shared), endings)),
            tokio::spawn(sweep(Arc::clone(&shared))),
        ];
        {
            let tasks = Arc::new(Tasks {
                shared: Arc::clone(&shared),
                running: tasks,
            });
            Self { shared, tasks }
        }
    }

    /// Waits until billing knows this start.
    ///
    /// # Errors
    /// Billing refuses this proxy, or did not answer within the deadline (it is asked again in the background).
    pub async fn registered(&self) -> Result<(), BillingError> {
        self.shared.registered().await
    }

    /// Whose login; remembered for a short time, and longer while billing is away.
    ///
    /// # Errors
    /// Billing gave no answer within the deadline, and the login was not seen lately.
    pub async fn resolve(&self, login: &Login) -> Result<Tenant, BillingError> {
        let shared = &self.shared;
        let known = shared.logins.get(login).map(|known| known.clone());
        let fresh = |at: &Instant| at.elapsed() < shared.options.resolve_ttl;
        let resolved = match known {
            Some((at, resolved)) if fresh(&at) => resolved,
            known => match (self.ask_whose(login).await, known) {
                (Err(BillingError::Unavailable(why)), Some((at, resolved @ Resolved::Terms(_))))
                    if at.elapsed() < shared.options.resolve_keep =>
                {
                    tracing::info!(why, "billing is away: a login is let in as it was last known");
                    resolved
                }
                (answer, _) => answer?,
            },
        };
        Ok(match resolved {
            Resolved::Unknown(why) => Tenant::Unknown(why),
            Resolved::Terms(terms) => {
                let credit = shared.account(&terms.account);
                // A notice may have brought newer terms; an account forgotten meanwhile has none.
                let terms = credit.lock().terms.get_or_insert(terms).clone();
                Tenant::Known { terms, credit }
            }
        })
    }

    async fn ask_whose(&self, login: &Login) -> Result<Resolved, BillingError> {
        let shared = &self.shared;
        let limit = shared.options.deadline;
        let late = |_| BillingError::Unavailable(format!("no answer within {limit:?}"));
        let asked = Instant::now();
        let answer = shared.billing.resolve_tenant(login.clone());
        let resolved = tokio::time::timeout(limit, answer).await.map_err(late)??;
        if shared.logins.len() >= LOGINS_MAX {
            shared.logins.clear();
        }
        shared.logins.insert(login.clone(), (asked, resolved.clone()));
        if let Resolved::Terms(terms) = &resolved {
            let credit = shared.account(&terms.account);
            credit.update(|ledger| ledger.terms = Some(terms.clone()));
        }
        Ok(resolved)
    }

    /// An account's credit. One that was never resolved has no terms yet and gets no lease.
    #[must_use]
    pub fn account(&self, account: &AccountId) -> Arc<AccountCredit> {
        self.shared.account(account)
    }

    /// Asks for no more, closes every lease that no response uses, waits for those in use up to `deadline`, then ends the tasks.
    pub async fn stop(&self, deadline: Duration) {
        self.shared.stopping.store(true, Ordering::Release);
        let end = tokio::time::Instant::now() + deadline;
        for account in self.shared.all() {
            let leases = account.update(|ledger| {
                ledger.close_current();
                ledger.open_leases()
            });
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if !account.closed(&leases, left).await {
                tracing::warn!(account = %account.id, "a lease stays open; the next start closes it");
            }
        }
        self.tasks.running.iter().for_each(JoinHandle::abort);
        self.shared.accounts.clear();
    }
}

/// Writes closing records, one after the other.
async fn close_leases(shared: Arc<Shared>, mut endings: mpsc::UnboundedReceiver<(LeaseId, AccountId)>) {
    while let Some((lease, id)) = endings.recv().await {
        match shared.journal.close_lease(lease, id.clone()).await {
            Ok(()) => shared
                .account(&id)
                .update(|ledger| ledger.ended(lease, Instant::now())),
            Err(e) => tracing::error!(%lease, error = %e, "a lease is not closed; the next start closes it"),
        }
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.sweep();
    }
}
