//! A hold: money set aside for one credit lease, captured in parts, the rest released at its end.

use serde::{Deserialize, Serialize};
use weir_contracts::money::Amount;

/// An open hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Granted in all, captures included.
    pub total: Amount,
    /// Captured from it; at most `total`.
    pub captured: Amount,
}

impl Hold {
    /// Nothing granted yet.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            total: Amount::ZERO,
            captured: Amount::ZERO,
        }
    }

    /// What is still set aside.
    #[must_use]
    pub const fn rest(&self) -> Amount {
        Amount::from_nanos(self.total.nanos() - self.captured.nanos())
    }
}
