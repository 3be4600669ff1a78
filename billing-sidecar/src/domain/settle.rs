//! Settlement: a charge's way to the wallet and into the financial items, and how often a failing step is tried.

use std::time::Duration;

use weir_contracts::{ids::AccountId, ids::LeaseId, money::Amount, money::Currency};

use super::rating::Totals;

/// First pause after a failed step.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause: a wallet that comes back is noticed this late at worst.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where a charge is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeState {
    /// Rated; the wallet is to be asked.
    Pending,
    /// Captured; the financial item is to be written.
    Captured,
    /// Done.
    Itemized,
    /// The wallet refused it for good: an operator has to look.
    Failed,
}

impl ChargeState {
    /// Its name in the store and in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Captured => "captured",
            Self::Itemized => "itemized",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Pending, Self::Captured, Self::Itemized, Self::Failed]
            .into_iter()
            .find(|s| s.name() == name)
    }
}

/// A charge on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCharge {
    /// Order among all charges.
    pub number: i64,
    /// Its id, and the capture's key.
    pub id: String,
    /// Who pays.
    pub account: AccountId,
    /// The account's wallet; none while it is not created.
    pub wallet_id: Option<String>,
    /// The hold it comes from.
    pub lease: Option<LeaseId>,
    /// How much.
    pub amount: Amount,
    /// In what.
    pub currency: Currency,
    /// Under which tariff version.
    pub tariff: String,
    /// For what.
    pub totals: Totals,
    /// Where it is.
    pub state: ChargeState,
    /// The wallet's transaction, once captured.
    pub txn_id: Option<String>,
    /// When it was rated, RFC 3339.
    pub rated_at: String,
}

/// The next step for one account, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Capture it, or write its item.
    Charge(Box<PendingCharge>),
    /// Give the rest of its hold back: every charge of it is captured.
    Release {
        /// Which hold.
        lease: LeaseId,
        /// In which wallet.
        wallet_id: Option<String>,
    },
}

/// Pause after `failures` failures in a row (from 1): doubles, up to [`BACKOFF_MAX`].
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    doubled.min(BACKOFF_MAX)
}

/// What the statement says of a charge.
#[must_use]
pub fn description(totals: &Totals, tariff: &str) -> String {
    let Totals {
        requests,
        rows,
        bytes_out,
        ..
    } = totals;
    format!("{requests} requests, {rows} rows, {bytes_out} bytes at {tariff}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(backoff(1), Duration::from_millis(50));
        assert_eq!(backoff(2), Duration::from_millis(100));
        assert_eq!(backoff(7), Duration::from_millis(3_200));
        assert_eq!(backoff(8), BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
