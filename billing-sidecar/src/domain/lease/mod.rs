//! A credit lease: its states, what an ask for credit is answered, and how it ends.
//!
//! ```text
//!            raise                 closing record, sums agree           hold released
//!   (none) ───────► open ────────────────────────────────► closing ────────────────► settled
//!                    │ closing record, sums differ
//!                    └────────────────────────────────► blocked (alarm; an operator looks; nothing is released)
//! ```

mod ask;
mod close;

pub use ask::{Answer, Ask, AskError, Denied, answer};
pub use close::{CloseDifference, Closing, close};

use weir_contracts::ids::{AccountId, LeaseId};

/// Largest cumulative grant of one lease, nano-units: a data path that counts in `i64` stays far from its end.
pub const LEASE_TOTAL_MAX_NANOS: i64 = 1_000_000_000 * 1_000_000_000;

/// Where a lease is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Lends; may be raised.
    Open,
    /// All its usage is rated; the rest of its hold goes back after the last capture.
    Closing,
    /// Its hold is released.
    Settled,
    /// What the proxy reported does not add up to what was rated.
    Blocked,
}

impl LeaseState {
    /// Its name in the store and in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Settled => "settled",
            Self::Blocked => "blocked",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Open, Self::Closing, Self::Settled, Self::Blocked]
            .into_iter()
            .find(|s| s.name() == name)
    }
}

/// What was rated under a lease so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Usage records that named it.
    pub records: u64,
    /// Sum of the costs that the proxy wrote in them, nano-units.
    pub reported_nanos: i64,
    /// Sum of what rating made of them, nano-units.
    pub rated_nanos: i64,
    /// Sequence of the last of them; 0 if none.
    pub last_sequence: u64,
}

/// A lease as billing keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Made by the proxy.
    pub id: LeaseId,
    /// Who pays.
    pub account: AccountId,
    /// The version that prices all of it.
    pub tariff: String,
    /// Cumulative grant, nano-units, as the wallet holds it.
    pub granted_nanos: i64,
    /// Where it is in its life.
    pub state: LeaseState,
    /// What was rated under it.
    pub tally: Tally,
}

impl Lease {
    /// A lease that nothing was granted to yet.
    #[must_use]
    pub fn new(id: LeaseId, account: AccountId, tariff: String) -> Self {
        Self {
            id,
            account,
            tariff,
            granted_nanos: 0,
            state: LeaseState::Open,
            tally: Tally::default(),
        }
    }

    /// Credit that may come back from it, nano-units: granted and not yet rated.
    #[must_use]
    pub fn unused_nanos(&self) -> i64 {
        match self.state {
            LeaseState::Open | LeaseState::Closing => {
                self.granted_nanos.saturating_sub(self.tally.rated_nanos).max(0)
            }
            LeaseState::Settled | LeaseState::Blocked => 0,
        }
    }
}
