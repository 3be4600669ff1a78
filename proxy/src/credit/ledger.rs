//! One account's credit as pure arithmetic: leases, slices, marks. No clock, no tasks: `now` and facts come in, decisions come out.
//!
//! Invariant, per lease: granted = leftover + outstanding + spent (overdraft makes leftover negative). Only a valid current lease is spent
//! from; a closing one ends when no slot names it, no slice of it is out and no question about it is on its way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_contracts::{ids::LeaseId, tariff::Tariff};

use super::{AccountState, LeaseView, Slice};
use crate::ports::billing::{Denial, DenialReason, LeaseAnswer, LeaseAsk, Terms};

/// Least that a lease asks for, nano-units (0.01 of the currency).
pub const LEASE_WANT_MIN: i64 = 10_000_000;
/// Most that a lease asks for at a time (100 units).
pub const LEASE_WANT_MAX: i64 = 100_000_000_000;
/// A lease that was granted this much in all is left for a new one, long before an `i64` is full.
const LEASE_TOTAL_MAX: i64 = i64::MAX / 4;
/// A grant should last this long at the pace of the last one. More is asked for when half of it is left, and that half is what an account
/// lives on while billing is away: long enough for a restart of it, short enough for a wallet not to be all in leases.
const GRANT_LASTS: Duration = Duration::from_secs(40);
/// A grant used up within this time wishes for four times as much, and within [`GRANT_LASTS`] for twice as much.
const BURN_FAST: Duration = Duration::from_secs(GRANT_LASTS.as_secs() / 4);
/// A grant that lasted longer than this halves the wish.
const BURN_SLOW: Duration = Duration::from_secs(GRANT_LASTS.as_secs() * 4);
/// A refusal is believed for this time when no notice clears it.
pub const RECHECK: Duration = Duration::from_secs(1);
/// After a question without an answer none is asked for this time.
const FAIL_PAUSE: Duration = Duration::from_millis(100);
/// While credit of an ended lease is on its way back, billing is asked again this often...
pub(super) const RELEASE_RETRY: Duration = Duration::from_millis(50);
/// ...and for this long; then a refusal is a refusal. Well above what rating and releasing take, and below the deadline of `more`.
const RELEASE_GRACE: Duration = Duration::from_millis(1500);

/// A lease as this proxy knows it.
#[derive(Debug)]
struct Lease {
    id: LeaseId,
    tariff: Arc<Tariff>,
    granted: i64,
    leftover: i64,
    outstanding: i64,
    users: u32,
    /// A question about it is on its way: it must not be closed before the answer.
    asking: bool,
    /// Billing said that it is closed: never spent from again.
    ended: bool,
    valid_until: Option<Instant>,
    valid_for: Duration,
    last_grant: i64,
    granted_at: Option<Instant>,
    last_used: Instant,
}

impl Lease {
    fn is_valid(&self, now: Instant) -> bool {
        !self.ended && self.valid_until.is_some_and(|until| now < until)
    }

    fn is_idle(&self) -> bool {
        self.users == 0 && self.outstanding == 0 && !self.asking
    }
}

/// What [`Ledger::examine`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Enough,
    Denied(Denial),
    Unavailable(String),
    /// Something is on its way that may change the answer.
    Wait,
    /// Billing must be asked.
    Fly,
}

/// What a flight does next.
#[derive(Debug)]
pub(super) enum Round {
    /// Append a record for a new lease of this tariff, then install it.
    Open(Terms),
    /// Ask billing.
    Ask(LeaseAsk, Stamp),
    /// The answer stands.
    Land,
}

/// When a question was asked, and what was known then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) asked: Instant,
    news: u64,
    /// Enough was in hand: only the lease's time was to be renewed.
    time_only: bool,
}

/// A lease that is to be closed in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) lease: LeaseId,
    leftover: i64,
}

/// A waiting session's memory: failures before it came are not its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    failures: u64,
    pub(super) need: i64,
}

#[derive(Debug)]
struct Mark {
    denial: Denial,
    at: Instant,
}

/// One account's credit.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) terms: Option<Terms>,
    frozen: Option<Mark>,
    broke: Option<Mark>,
    balance: Option<String>,
    available: Option<String>,
    current: Option<Lease>,
    closing: Vec<Lease>,
    /// On their way into the journal.
    ending: Vec<Ending>,
    /// Ended not long ago: what was left in them comes back to the wallet.
    releasing: Vec<(i64, Instant)>,
    want: i64,
    need: i64,
    flying: bool,
    failures: u64,
    failed: Option<(Instant, String)>,
    /// Counts notices that set or clear marks: an answer that crossed one is stale.
    news: u64,
    pub(super) waiters: usize,
}

impl Ledger {
    fn find(&mut self, number: u32) -> Option<&mut Lease> {
        self.current
            .iter_mut()
            .chain(&mut self.closing)
            .find(|l| l.id.number == number)
    }

    /// `least..=want` of the current lease.
    pub(super) fn take(&mut self, least: i64, want: i64, now: Instant) -> Option<Slice> {
        if self.frozen.is_some() {
            return None;
        }
        let lease = self.current.as_mut().filter(|l| l.is_valid(now))?;
        let nanos = want.min(lease.leftover);
        if nanos < least.max(1) {
            return None;
        }
        lease.leftover -= nanos;
        lease.outstanding += nanos;
        lease.last_used = now;
        let view = LeaseView {
            number: lease.id.number,
            id: lease.id,
            tariff: Arc::clone(&lease.tariff),
        };
        Some(Slice { nanos, lease: view })
    }

    pub(super) fn give_back(&mut self, number: u32, nanos: i64) {
        if let Some(lease) = self.find(number) {
            lease.leftover += nanos;
            lease.outstanding -= nanos;
        }
    }

    pub(super) fn spent(&mut self, number: u32, nanos: i64) {
        if let Some(lease) = self.find(number) {
            lease.outstanding -= nanos;
        }
    }

    pub(super) fn overdraw(&mut self, number: u32, nanos: i64) {
        if let Some(lease) = self.find(number) {
            lease.leftover = lease.leftover.saturating_sub(nanos);
        }
    }

    pub(super) fn attach(&mut self, number: u32) -> bool {
        self.find(number).map(|lease| lease.users += 1).is_some()
    }

    /// True when records should leave the lease: there is credit in another one, or its prices are old.
    pub(super) fn is_closing(&self, number: u32) -> bool {
        let version = self.terms.as_ref().map(|t| &t.tariff.version);
        let funded = self.current.as_ref().is_some_and(|l| l.leftover > 0);
        let leaves =
            |l: &Lease| l.id.number == number && (funded || l.ended || Some(&l.tariff.version) != version);
        self.closing.iter().any(leaves)
    }

    pub(super) fn detach(&mut self, number: u32, now: Instant) {
        if let Some(lease) = self.find(number) {
            lease.users = lease.users.saturating_sub(1);
            lease.last_used = now;
        }
    }

    pub(super) fn waiter(&self, need: i64) -> Waiter {
        Waiter {
            failures: self.failures,
            need: need.max(1),
        }
    }

    /// Whether a session that needs credit may go on, must wait, or is refused. A refusal is true at this instant.
    pub(super) fn examine(&mut self, waiter: &Waiter, now: Instant) -> Verdict {
        let need = waiter.need;
        if let Some(mark) = &self.frozen
            && (self.flying || now < mark.at + RECHECK)
        {
            return Verdict::Denied(mark.denial.clone());
        }
        let (valid, leftover, outstanding) = self
            .current
            .as_ref()
            .map_or((false, 0, 0), |l| (l.is_valid(now), l.leftover, l.outstanding));
        if valid && leftover >= need && self.frozen.is_none() {
            return Verdict::Enough;
        }
        if self.flying || (valid && self.frozen.is_none() && leftover.saturating_add(outstanding) >= need) {
            return Verdict::Wait;
        }
        if let Some((at, why)) = &self.failed
            && (self.failures > waiter.failures || now < *at + FAIL_PAUSE)
        {
            return Verdict::Unavailable(why.clone());
        }
        if let Some(mark) = self.broke.as_ref().filter(|m| now < m.at + RECHECK)
            && leftover.saturating_add(outstanding) < need
        {
            if leftover
                .saturating_add(outstanding)
                .saturating_add(self.elsewhere(now))
                < need
            {
                return Verdict::Denied(mark.denial.clone());
            }
            if now < mark.at + RELEASE_RETRY {
                return Verdict::Wait;
            }
        }
        self.need = self.need.max(need - leftover);
        Verdict::Fly
    }

    /// Credit that is this account's but not in the current lease: in closing leases, and on its way back from ended ones.
    fn elsewhere(&self, now: Instant) -> i64 {
        let closing = self
            .closing
            .iter()
            .map(|l| l.leftover.max(0).saturating_add(l.outstanding));
        let ending = self.ending.iter().map(|e| e.leftover.max(0));
        let releasing = self
            .releasing
            .iter()
            .filter(|(_, at)| now < *at + RELEASE_GRACE)
            .map(|(n, _)| (*n).max(0));
        closing
            .chain(ending)
            .chain(releasing)
            .fold(0_i64, i64::saturating_add)
    }

    /// True while credit is on its way back: asking again soon may help.
    pub(super) fn awaits_release(&self, now: Instant) -> bool {
        self.elsewhere(now) > 0
    }

    /// True when the current lease runs low, in credit or in time, and billing should be asked ahead of need.
    pub(super) fn wants_renewal(&self, now: Instant) -> bool {
        let wish = self.wish();
        let low = self.current.as_ref().is_some_and(|l| {
            let half_gone = |until| now + l.valid_for / 2 >= until;
            l.last_grant > 0
                && (l.leftover < l.last_grant.min(wish) / 2 || l.valid_until.is_some_and(half_gone))
        });
        let pausing = self.failed.as_ref().is_some_and(|(at, _)| now < *at + FAIL_PAUSE)
            || self.broke.as_ref().is_some_and(|m| now < m.at + RECHECK);
        low && !self.flying && !pausing && self.frozen.is_none()
    }

    /// How much the next question asks for, if less is in hand.
    fn wish(&self) -> i64 {
        self.want.clamp(LEASE_WANT_MIN, LEASE_WANT_MAX)
    }

    /// Takes off, if nobody flies.
    pub(super) fn take_off(&mut self) -> bool {
        !std::mem::replace(&mut self.flying, true)
    }

    /// The flight is over, whatever became of it.
    pub(super) fn land(&mut self) {
        self.flying = false;
        self.need = 0;
        for lease in self.current.iter_mut().chain(&mut self.closing) {
            lease.asking = false;
        }
    }

    /// What a flight does next; marks the lease as asked about.
    pub(super) fn next_round(&mut self, account: &weir_contracts::ids::AccountId, now: Instant) -> Round {
        let Some(terms) = self.terms.clone() else {
            return Round::Land;
        };
        let wish = self.wish();
        let stale =
            |l: &Lease| l.tariff.version != terms.tariff.version || l.granted > LEASE_TOTAL_MAX || l.ended;
        if self.current.as_ref().is_some_and(stale) {
            self.close_current();
        }
        let Some(lease) = &mut self.current else {
            return Round::Open(terms);
        };
        lease.asking = true;
        // With enough in hand only the time is renewed: a quiet account's hold must not grow for ever.
        let time_only = lease.leftover >= wish / 2 && self.need == 0;
        let want_nanos = if time_only || lease.leftover >= wish {
            self.need.max(1)
        } else {
            wish.max(self.need)
        };
        let (lease, known_grant_nanos) = (lease.id, lease.granted);
        let ask = LeaseAsk {
            account: account.clone(),
            lease,
            known_grant_nanos,
            want_nanos,
        };
        Round::Ask(
            ask,
            Stamp {
                asked: now,
                news: self.news,
                time_only,
            },
        )
    }

    /// A lease whose record stands in the journal; nothing is granted under it yet.
    pub(super) fn install(&mut self, id: LeaseId, tariff: Arc<Tariff>, now: Instant) {
        let fresh = Lease {
            id,
            tariff,
            granted: 0,
            leftover: 0,
            outstanding: 0,
            users: 0,
            asking: false,
            ended: false,
            valid_until: None,
            valid_for: Duration::ZERO,
            last_grant: 0,
            granted_at: None,
            last_used: now,
        };
        self.closing.extend(self.current.replace(fresh));
    }

    /// Takes in billing's answer; true when another round is due.
    pub(super) fn answer(&mut self, lease: LeaseId, answer: LeaseAnswer, stamp: Stamp, now: Instant) -> bool {
        self.failed = None;
        match answer {
            LeaseAnswer::Grant {
                granted_total_nanos,
                terms,
                valid,
            } => {
                self.grant(lease, granted_total_nanos, valid, stamp, now);
                let other = self
                    .find(lease.number)
                    .is_none_or(|l| l.tariff.version != terms.tariff.version);
                self.terms = Some(terms);
                self.broke = None;
                // A freeze that crossed the answer is the newer word.
                if self.news == stamp.news {
                    self.frozen = None;
                }
                other
            }
            LeaseAnswer::Denial(denial) => self.denied(lease, denial, stamp, now),
        }
    }

    fn grant(&mut self, id: LeaseId, total: i64, valid: Duration, stamp: Stamp, now: Instant) {
        let mut want = self.wish();
        let Some(lease) = self.find(id.number).filter(|l| l.id == id) else {
            return;
        };
        let more = total.saturating_sub(lease.granted).max(0);
        lease.granted = lease.granted.max(total);
        lease.leftover = lease.leftover.saturating_add(more);
        (lease.valid_until, lease.valid_for) = (Some(stamp.asked + valid), valid);
        let bought = more > 0 && !stamp.time_only;
        let lasted = lease.granted_at.map(|at| now.saturating_duration_since(at));
        match lasted {
            Some(t) if t > BURN_SLOW => {
                want /= 2;
                lease.granted_at = Some(now);
            }
            Some(t) if t < BURN_FAST && bought => want = want.saturating_mul(4),
            Some(t) if t < GRANT_LASTS && bought => want = want.saturating_mul(2),
            _ => {}
        }
        if bought {
            (lease.last_grant, lease.granted_at, lease.last_used) = (more, Some(now), now);
        }
        self.want = want.clamp(LEASE_WANT_MIN, LEASE_WANT_MAX);
    }

    fn denied(&mut self, id: LeaseId, denial: Denial, stamp: Stamp, now: Instant) -> bool {
        if denial.reason == DenialReason::LeaseClosed {
            if let Some(lease) = self.find(id.number) {
                // What was left of it comes back to the wallet with its closing record.
                lease.ended = true;
            }
            return true;
        }
        if self.news != stamp.news {
            return true;
        }
        let mark = Some(Mark {
            denial: denial.clone(),
            at: now,
        });
        match denial.reason {
            DenialReason::Frozen => self.frozen = mark,
            _ => {
                self.frozen = None;
                self.broke = mark;
                if denial.reason == DenialReason::CreditSpent {
                    self.confirm_holds(id, stamp);
                }
            }
        }
        (self.balance, self.available) = (Some(denial.balance), Some(denial.available));
        false
    }

    /// "Nothing more" is also "what you hold is yours": the lease's time begins anew, and a closing one with credit is used again, or the
    /// account would be refused while its own credit lies idle.
    fn confirm_holds(&mut self, id: LeaseId, stamp: Stamp) {
        if let Some(lease) = self.find(id.number).filter(|l| l.valid_until.is_some()) {
            lease.valid_until = Some(stamp.asked + lease.valid_for);
        }
        let version = self.terms.as_ref().map(|t| t.tariff.version.clone());
        let left = self.current.as_ref().map_or(0, |l| l.leftover.max(0));
        let usable = |l: &Lease| !l.ended && l.leftover > left && Some(&l.tariff.version) == version.as_ref();
        if let Some(at) = self.closing.iter().position(usable) {
            let mut again = self.closing.swap_remove(at);
            if again.valid_until.is_some() {
                again.valid_until = Some(stamp.asked + again.valid_for);
            }
            self.closing.extend(self.current.replace(again));
        }
    }

    /// A question without an answer.
    pub(super) fn fail(&mut self, why: String, now: Instant) {
        self.failures += 1;
        self.failed = Some((now, why));
    }

    /// A wallet changed.
    pub(super) fn notice(&mut self, frozen: Option<Denial>, funded: bool, now: Instant) {
        if frozen.is_some() || funded || self.frozen.is_some() {
            self.news += 1;
        }
        if frozen.is_none() && funded {
            self.broke = None;
        }
        self.frozen = frozen.map(|denial| Mark { denial, at: now });
    }

    pub(super) fn tell(&mut self, balance: String, available: String, terms: Option<Terms>) {
        (self.balance, self.available) = (Some(balance), Some(available));
        if terms.is_some() {
            self.terms = terms;
        }
        let version = self.terms.as_ref().map(|t| &t.tariff.version);
        if self
            .current
            .as_ref()
            .is_some_and(|l| Some(&l.tariff.version) != version)
        {
            self.close_current();
        }
    }

    /// True once billing spoke of the account.
    pub(super) fn is_told(&self) -> bool {
        self.balance.is_some()
    }

    pub(super) fn close_current(&mut self) {
        self.closing.extend(self.current.take());
    }

    /// True when a response still names a closing lease: a new one should be fetched for it.
    pub(super) fn has_users(&self) -> bool {
        self.closing.iter().any(|l| l.users > 0)
    }

    /// Closes the current lease if nobody used it for a time.
    pub(super) fn close_idle(&mut self, idle: Duration, now: Instant) {
        let old = |l: &Lease| l.is_idle() && now.saturating_duration_since(l.last_used) >= idle;
        if !self.flying && self.current.as_ref().is_some_and(old) {
            self.close_current();
        }
        self.releasing.retain(|(_, at)| now < *at + RELEASE_GRACE);
    }

    /// Closing leases that nothing holds any more; each is given out once, to be closed in the journal.
    pub(super) fn take_endings(&mut self) -> Vec<Ending> {
        let mut endings = Vec::new();
        self.closing.retain(|lease| {
            if lease.is_idle() {
                endings.push(Ending {
                    lease: lease.id,
                    leftover: lease.leftover,
                });
            }
            !lease.is_idle()
        });
        self.ending.extend(endings.iter().cloned());
        endings
    }

    /// The journal has the closing record.
    pub(super) fn ended(&mut self, lease: LeaseId, now: Instant) {
        if let Some(at) = self.ending.iter().position(|e| e.lease == lease) {
            let ending = self.ending.swap_remove(at);
            self.releasing.push((ending.leftover, now));
        }
    }

    /// Leases without a closing record in the journal.
    pub(super) fn open_leases(&self) -> Vec<LeaseId> {
        let held = self.current.iter().chain(&self.closing).map(|l| l.id);
        held.chain(self.ending.iter().map(|e| e.lease)).collect()
    }

    pub(super) fn state(&self) -> AccountState {
        let (leftover_nanos, outstanding_nanos) = self
            .current
            .as_ref()
            .map_or((0, 0), |l| (l.leftover, l.outstanding));
        AccountState {
            frozen: self.frozen.is_some(),
            broke: self.broke.as_ref().map(|m| m.denial.clone()),
            terms: self.terms.clone(),
            balance: self.balance.clone(),
            available: self.available.clone(),
            leftover_nanos,
            outstanding_nanos,
        }
    }
}

#[cfg(test)]
mod tests;
