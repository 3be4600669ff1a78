//! The ledger's accounts. Debits are positive: assets are above zero, what is owed to users and what was earned below.

use std::{fmt, str::FromStr};

/// A kind of account; each exists once per currency (and, for the first two and `Receivable`, per wallet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LedgerAccount {
    /// What users can still spend: owed to them (credit balance, zero or below).
    Wallet,
    /// What is held for leases: owed to them too (zero or below).
    Held,
    /// What usage earned (zero or below).
    Revenue,
    /// Money that came in less money that went out.
    Cash,
    /// What users owe (zero or above).
    Receivable,
}

impl LedgerAccount {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Wallet,
        Self::Held,
        Self::Revenue,
        Self::Cash,
        Self::Receivable,
    ];

    /// Its name in the store and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Held => "held",
            Self::Revenue => "revenue",
            Self::Cash => "cash",
            Self::Receivable => "receivable",
        }
    }
}

impl fmt::Display for LedgerAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a ledger account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a ledger account")]
pub struct UnknownAccount(pub String);

impl FromStr for LedgerAccount {
    type Err = UnknownAccount;

    fn from_str(text: &str) -> Result<Self, UnknownAccount> {
        Self::ALL
            .into_iter()
            .find(|a| a.name() == text)
            .ok_or_else(|| UnknownAccount(text.to_owned()))
    }
}
