//! One account's credit as sessions use it: a short lock around the ledger, one question to billing at a time, waiters woken by what changes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::watch;
use weir_contracts::ids::{AccountId, LeaseId};

use super::{
    AccountState, More, Shared, Slice,
    ledger::{Ending, Ledger, RELEASE_RETRY, Round, Stamp, Verdict, Waiter},
};
use crate::{
    journal::LeaseRecord,
    ports::billing::{Billing, LeaseAnswer, LeaseAsk},
};

/// Questions in one flight: a closed lease and a changed tariff each cost one more.
const ROUNDS_MAX: u32 = 4;

/// One account's credit.
///
/// Calls that move credit hold a lock for some tens of nanoseconds and never wait for I/O.
#[derive(Debug)]
pub struct AccountCredit {
    pub(super) id: AccountId,
    pub(super) shared: Arc<Shared>,
    ledger: Mutex<Ledger>,
    changed: watch::Sender<()>,
}

/// A response (its slot) uses a lease; dropped, it no longer does. Drop it after the slot is closed (`Journal::close` returned) or dropped.
#[derive(Debug)]
#[must_use = "dropping it says that no slot names the lease any more"]
pub struct LeaseUse {
    account: Arc<AccountCredit>,
    number: Option<u32>,
}

impl Drop for LeaseUse {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let now = Instant::now();
            self.account.update(|ledger| ledger.detach(number, now));
        }
    }
}

/// A session that waits; dropped with its future.
struct Waiting<'a>(&'a AccountCredit);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiters -= 1;
    }
}

/// The flight, over when dropped, also by a panic.
struct Flight(Arc<AccountCredit>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.update(Ledger::land);
        self.0.changed.send_replace(());
    }
}

impl AccountCredit {
    pub(super) fn new(id: AccountId, shared: Arc<Shared>) -> Self {
        Self {
            id,
            shared,
            ledger: Mutex::new(Ledger::default()),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the ledger, sends off leases that ended by it, wakes those who wait.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.lock();
        let value = change(&mut ledger);
        let endings = ledger.take_endings();
        let wake = ledger.waiters > 0;
        drop(ledger);
        self.send_off(endings);
        if wake {
            self.changed.send_replace(());
        }
        value
    }

    fn send_off(&self, endings: Vec<Ending>) {
        for ending in endings {
            self.shared.close_later(ending.lease, &self.id);
        }
    }

    /// Takes `1..=want` nano-units from the lease, or nothing: then call [`Self::more`].
    pub fn take(self: &Arc<Self>, want: i64) -> Option<Slice> {
        self.take_between(1, want)
    }

    /// Takes `least..=want` nano-units, or nothing: what is below the price of a row is not taken in vain.
    pub fn take_between(self: &Arc<Self>, least: i64, want: i64) -> Option<Slice> {
        let now = Instant::now();
        let mut ledger = self.lock();
        let slice = ledger.take(least, want, now);
        let fly = slice.is_some() && ledger.wants_renewal(now) && ledger.take_off();
        drop(ledger);
        if fly {
            self.fly();
        }
        slice
    }

    /// Returns the unspent part of a slice.
    pub fn give_back(&self, lease_number: u32, nanos: i64) {
        if nanos != 0 {
            self.update(|ledger| ledger.give_back(lease_number, nanos));
        }
    }

    /// Books the spent part of a slice.
    pub fn spent(&self, lease_number: u32, nanos: i64) {
        if nanos != 0 {
            self.update(|ledger| ledger.spent(lease_number, nanos));
        }
    }

    /// Books what the row in hand cost beyond its slice: the lease's leftover may fall below zero, later grants pay it first.
    pub fn overdraw(&self, lease_number: u32, nanos: i64) {
        self.update(|ledger| ledger.overdraw(lease_number, nanos));
    }

    /// Says that a slot names this lease. Call it while a slice of it is still out.
    pub fn attach(self: &Arc<Self>, lease_number: u32) -> LeaseUse {
        let known = self.lock().attach(lease_number);
        LeaseUse {
            account: Arc::clone(self),
            number: known.then_some(lease_number),
        }
    }

    /// True when records should leave this lease: end the part by an interim record, drop its [`LeaseUse`], take from the next one.
    ///
    /// A closing lease whose credit the account still needs does not count: it is spent from until billing grants another.
    #[must_use]
    pub fn is_closing(&self, lease_number: u32) -> bool {
        self.lock().is_closing(lease_number)
    }

    /// What is known now. A refusal in it is no reason to refuse: only [`Self::more`] weighs it against what is left.
    #[must_use]
    pub fn state(&self) -> AccountState {
        self.lock().state()
    }

    /// Waits until `need` nano-units can be taken, asking billing for more, one question per account at a time.
    ///
    /// Ends within the deadline. `Denied` is true when it is said: leftover and slices that are out are below `need`, and billing has nothing.
    pub async fn more(self: &Arc<Self>, need: i64) -> More {
        let mut changed = self.changed.subscribe();
        let waiter = {
            let mut ledger = self.lock();
            ledger.waiters += 1;
            ledger.waiter(need)
        };
        let _waiting = Waiting(self);
        let deadline = tokio::time::Instant::now() + self.shared.options.deadline;
        loop {
            changed.mark_unchanged();
            let wait = match self.look(&waiter) {
                Ok(answer) => return answer,
                Err(poll) => deadline.min(tokio::time::Instant::now() + poll),
            };
            if tokio::time::timeout_at(wait, changed.changed()).await.is_err()
                && tokio::time::Instant::now() >= deadline
            {
                let waited = self.shared.options.deadline;
                return More::Unavailable(format!("no answer about the account's credit within {waited:?}"));
            }
        }
    }

    /// One look at the ledger: an answer, or how long to wait at most before the next look.
    fn look(self: &Arc<Self>, waiter: &Waiter) -> Result<More, std::time::Duration> {
        let now = Instant::now();
        let mut ledger = self.lock();
        match ledger.examine(waiter, now) {
            Verdict::Enough => Ok(More::Enough),
            Verdict::Denied(denial) => Ok(More::Denied(denial)),
            Verdict::Unavailable(why) => Ok(More::Unavailable(why)),
            Verdict::Wait if ledger.awaits_release(now) => Err(RELEASE_RETRY),
            Verdict::Wait => Err(self.shared.options.deadline),
            Verdict::Fly if self.shared.is_stopping() => {
                Ok(More::Unavailable("the proxy is stopping".to_owned()))
            }
            Verdict::Fly => {
                ledger.take_off();
                drop(ledger);
                self.fly();
                Err(self.shared.options.deadline)
            }
        }
    }

    /// Asks billing on a task of its own: a session that goes away does not take the answer with it. The caller has taken off.
    pub(super) fn fly(self: &Arc<Self>) {
        let flight = Flight(Arc::clone(self));
        self.shared.runtime.spawn(async move { flight.0.rounds().await });
    }

    async fn rounds(self: &Arc<Self>) {
        // A start that billing does not believe may be a copy of a directory, whose leases have the same ids: their credit would be spent
        // twice, and what they paid for be rejected.
        if let Err(e) = self.shared.registered().await {
            self.update(|ledger| ledger.fail(e.to_string(), Instant::now()));
            return;
        }
        for _ in 0..ROUNDS_MAX {
            let round = self.update(|ledger| ledger.next_round(&self.id, Instant::now()));
            let again = match round {
                Round::Land => false,
                Round::Open(terms) => match self.open(terms).await {
                    Ok(()) => true,
                    Err(e) => self.update(|ledger| {
                        ledger.fail(e.to_string(), Instant::now());
                        false
                    }),
                },
                Round::Ask(ask, stamp) => self.ask(ask, stamp).await,
            };
            if !again {
                return;
            }
        }
    }

    /// The lease's record comes before the question: what billing may hold, the journal can close.
    async fn open(&self, terms: crate::ports::billing::Terms) -> Result<(), crate::journal::JournalError> {
        let lease = self.shared.next_lease();
        let record = LeaseRecord {
            lease,
            account: self.id.clone(),
            tariff: terms.tariff.version.clone(),
        };
        self.shared.journal.begin_lease(record).await?;
        self.update(|ledger| ledger.install(lease, terms.tariff, Instant::now()));
        Ok(())
    }

    async fn ask(&self, ask: LeaseAsk, stamp: Stamp) -> bool {
        let lease: LeaseId = ask.lease;
        let limit = self.shared.options.deadline;
        let answer: Result<LeaseAnswer, String> =
            match tokio::time::timeout(limit, self.billing().lease(ask)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(e)) => Err(e.to_string()),
                Err(_) => Err(format!("billing did not answer within {limit:?}")),
            };
        let now = Instant::now();
        self.update(|ledger| match answer {
            Ok(answer) => ledger.answer(lease, answer, stamp, now),
            Err(why) => {
                tracing::warn!(account = %self.id, why, "no answer about a lease");
                ledger.fail(why, now);
                false
            }
        })
    }

    fn billing(&self) -> &dyn Billing {
        &*self.shared.billing
    }

    /// Waits until none of `leases` is open in the journal any more; false when that took longer than `limit`.
    pub(super) async fn closed(&self, leases: &[LeaseId], limit: std::time::Duration) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        let mut changed = self.changed.subscribe();
        self.lock().waiters += 1;
        let _waiting = Waiting(self);
        loop {
            changed.mark_unchanged();
            if !self.lock().open_leases().iter().any(|l| leases.contains(l)) {
                return true;
            }
            if tokio::time::timeout_at(deadline, changed.changed())
                .await
                .is_err()
            {
                return false;
            }
        }
    }
}
