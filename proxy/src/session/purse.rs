//! What the session core sees of an account's credit: sync, no I/O, no clock. `credit/` is behind it, fakes are in tests.

use std::sync::Arc;

use crate::{
    credit::{AccountCredit, AccountState, Slice},
    ports::billing::Terms,
};

/// Says, when dropped, that no open record names the lease any more.
pub type LeaseGuard = Box<dyn Send + Sync>;

/// An account's purse.
pub trait Purse: Send + Sync {
    /// Takes `least..=want` nano-units, or nothing. A slice lives only during one synchronous pass (RFD 3).
    fn take(&self, least: i64, want: i64) -> Option<Slice>;
    /// Part of a taken slice was spent.
    fn spent(&self, lease_number: u32, nanos: i64);
    /// Part of a taken slice was not needed.
    fn give_back(&self, lease_number: u32, nanos: i64);
    /// What the row in hand cost beyond its slice.
    fn overdraw(&self, lease_number: u32, nanos: i64);
    /// A record names this lease from now on. Call it while a slice of it is out.
    fn attach(&self, lease_number: u32) -> LeaseGuard;
    /// True if records should leave this lease.
    fn is_closing(&self, lease_number: u32) -> bool;
    /// What is known of the account now.
    fn state(&self) -> AccountState;
}

impl Purse for Arc<AccountCredit> {
    fn take(&self, least: i64, want: i64) -> Option<Slice> {
        self.take_between(least, want)
    }

    fn spent(&self, lease_number: u32, nanos: i64) {
        AccountCredit::spent(self, lease_number, nanos);
    }

    fn give_back(&self, lease_number: u32, nanos: i64) {
        AccountCredit::give_back(self, lease_number, nanos);
    }

    fn overdraw(&self, lease_number: u32, nanos: i64) {
        AccountCredit::overdraw(self, lease_number, nanos);
    }

    fn attach(&self, lease_number: u32) -> LeaseGuard {
        Box::new(AccountCredit::attach(self, lease_number))
    }

    fn is_closing(&self, lease_number: u32) -> bool {
        AccountCredit::is_closing(self, lease_number)
    }

    fn state(&self) -> AccountState {
        AccountCredit::state(self)
    }
}

/// The account's terms as the session last saw them; a tariff version changes only with the lease.
#[derive(Debug, Clone)]
pub struct Payer {
    /// Terms at login, renewed by each grant.
    pub terms: Terms,
    /// Login at the gate.
    pub principal: String,
    /// Session number within (proxy, epoch).
    pub session: u32,
}
