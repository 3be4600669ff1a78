//! A wallet as its events leave it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_contracts::{
    event::WalletUpdated,
    money::{Amount, Currency},
};

use super::ids::{HoldId, UserId, WalletId};
use crate::ledger::hold::Hold;

/// Whether a wallet may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// In use.
    Active,
    /// No new holds and no withdrawals; what was used is still captured.
    Frozen,
    /// Ended for good.
    Closed,
}

impl Status {
    /// As the REST interface and the events spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Frozen => "FROZEN",
            Self::Closed => "CLOSED",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown status: use ACTIVE, FROZEN or CLOSED")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        [Self::Active, Self::Frozen, Self::Closed]
            .into_iter()
            .find(|s| s.name() == text)
            .ok_or(UnknownStatus)
    }
}

/// A wallet. Only `apply` changes it. Written into snapshots as it is: a change of its fields is a new snapshot format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wallet {
    /// Which.
    pub id: WalletId,
    /// Whose.
    pub user: UserId,
    /// Of every amount in it.
    pub currency: Currency,
    /// Whether it may be used.
    pub status: Status,
    /// What can be held or withdrawn; never negative.
    pub available: Amount,
    /// Sum of the open holds' rests; never negative.
    pub held: Amount,
    /// Captured beyond the balance; more than zero only when nothing is available.
    pub receivable: Amount,
    /// Holds that were not released. Bound: one per open credit lease.
    pub holds: BTreeMap<HoldId, Hold>,
    /// Events applied.
    pub version: u64,
    /// Place of the last event among all events.
    pub position: u64,
    /// Of the first event.
    pub created_at: Timestamp,
    /// Of the last event.
    pub updated_at: Timestamp,
}

impl Wallet {
    /// What is not yet captured: available and held together. Never out of range: `decide` checks the sum.
    #[must_use]
    pub fn balance(&self) -> Amount {
        Amount::from_nanos(self.available.nanos() + self.held.nanos())
    }

    /// A hold's cumulative total; zero when there is none.
    #[must_use]
    pub fn hold_total(&self, hold: &HoldId) -> Amount {
        self.holds.get(hold).map_or(Amount::ZERO, |h| h.total)
    }

    /// The wallet as others see it.
    #[must_use]
    pub fn view(&self) -> WalletUpdated {
        WalletUpdated {
            wallet_id: self.id.to_string(),
            user_id: self.user.to_string(),
            currency: self.currency.to_string(),
            status: self.status.to_string(),
            balance: self.balance().to_string(),
            held: self.held.to_string(),
            available: self.available.to_string(),
            receivable: self.receivable.to_string(),
            created_at: self.created_at.to_string(),
            updated_at: self.updated_at.to_string(),
            position: self.position,
        }
    }
}
