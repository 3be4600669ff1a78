//! What each event posts, and the sums of all postings.

use std::collections::BTreeMap;

use weir_contracts::money::{Amount, Currency};

use super::account::LedgerAccount;
use crate::wallet::Event;

/// One side of an entry: debits positive, credits negative, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// Where to.
    pub account: LedgerAccount,
    /// How much.
    pub amount: Amount,
}

/// The postings of an event; their sum is zero for every event that `decide` makes.
#[must_use]
pub fn postings(event: &Event) -> Vec<Posting> {
    use LedgerAccount::{Cash, Held, Receivable, Revenue, Wallet};
    let n = |a: &Amount| a.nanos();
    let sides: Vec<(LedgerAccount, i128)> = match event {
        Event::Opened { .. } | Event::StatusChanged { .. } => Vec::new(),
        Event::ToppedUp {
            amount,
            to_receivable,
            ..
        } => vec![
            (Cash, n(amount)),
            (Receivable, -n(to_receivable)),
            (Wallet, n(to_receivable) - n(amount)),
        ],
        Event::Withdrawn { amount, .. } => vec![(Wallet, n(amount)), (Cash, -n(amount))],
        Event::HoldPlaced { by, .. } => vec![(Wallet, n(by)), (Held, -n(by))],
        Event::Captured {
            amount,
            from_hold,
            from_available,
            to_receivable,
            ..
        } => vec![
            (Held, n(from_hold)),
            (Wallet, n(from_available)),
            (Receivable, n(to_receivable)),
            (Revenue, -n(amount)),
        ],
        Event::HoldReleased {
            amount,
            to_receivable,
            ..
        } => vec![
            (Held, n(amount)),
            (Receivable, -n(to_receivable)),
            (Wallet, n(to_receivable) - n(amount)),
        ],
    };
    sides
        .into_iter()
        .filter(|(_, nanos)| *nanos != 0)
        .map(|(account, nanos)| Posting {
            account,
            amount: Amount::from_nanos(nanos),
        })
        .collect()
}

/// True when debits equal credits.
#[must_use]
pub fn balanced(postings: &[Posting]) -> bool {
    postings.iter().map(|p| p.amount.nanos()).sum::<i128>() == 0
}

/// Sums of postings by account and currency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrialBalance {
    totals: BTreeMap<(&'static str, LedgerAccount), i128>,
}

impl TrialBalance {
    /// Adds a posting. Bound: 2^127 nano-units are 10^11 times what one balance can be; saturates there.
    pub fn add(&mut self, currency: Currency, posting: Posting) {
        let total = self.totals.entry((currency.code(), posting.account)).or_insert(0);
        *total = total.saturating_add(posting.amount.nanos());
    }

    /// Sum of one account.
    #[must_use]
    pub fn total(&self, currency: Currency, account: LedgerAccount) -> Amount {
        Amount::from_nanos(self.totals.get(&(currency.code(), account)).copied().unwrap_or(0))
    }

    /// Every account that was posted to, by currency.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, LedgerAccount, Amount)> + '_ {
        self.totals
            .iter()
            .map(|((currency, account), nanos)| (*currency, *account, Amount::from_nanos(*nanos)))
    }

    /// True when each currency's accounts sum to zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
        for ((currency, _), nanos) in &self.totals {
            let sum = sums.entry(currency).or_insert(0);
            *sum = sum.saturating_add(*nanos);
        }
        sums.values().all(|sum| *sum == 0)
    }
}
