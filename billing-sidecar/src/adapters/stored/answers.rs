//! What a billing store answers: the words for what is there already, and what rating needs to know and says.

use std::collections::BTreeSet;

use weir_contracts::{
    entry::EntryBody,
    event::Place,
    ids::{AccountId, LeaseId},
};

use crate::{
    domain::{
        accounts::Account,
        rating::{Batch, Plan, Rated},
        tariffs::PricedTariff,
    },
    ports::billing_store::{RateOutcome, Stored},
};

/// An account of that name is there.
pub(crate) fn account_there(there: Account, new: &Account) -> Stored<Account> {
    if there.same_request(new) {
        Stored::Same(there)
    } else {
        Stored::Other(format!("account {} exists with other terms", new.id))
    }
}

/// The login means someone else.
pub(crate) fn login_taken(other: &Account, new: &Account) -> Stored<Account> {
    Stored::Other(format!("login `{}` means account {}", new.login, other.id))
}

/// A version of that name is there.
pub(crate) fn tariff_there(there: PricedTariff, new: &PricedTariff) -> Stored<PricedTariff> {
    if there == *new {
        Stored::Same(there)
    } else {
        Stored::Other(format!(
            "tariff {} exists with other prices: a version never changes, name a new one",
            new.tariff.version
        ))
    }
}

/// What a batch names above a mark, each once and in order.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) accounts: BTreeSet<AccountId>,
    pub(crate) leases: BTreeSet<LeaseId>,
    pub(crate) tariffs: BTreeSet<String>,
}

impl Named {
    pub(crate) fn above(mark: Option<Place>, batch: &Batch) -> Self {
        let mut named = Self::default();
        for (entry, _) in &batch.entries {
            let place = Place {
                epoch: batch.epoch,
                sequence: entry.id.sequence,
            };
            if mark.is_some_and(|mark| place <= mark) {
                continue;
            }
            match &entry.body {
                EntryBody::Usage(record) => {
                    named.accounts.insert(record.account.clone());
                    named.leases.extend(record.lease);
                    named.tariffs.insert(record.tariff.clone());
                }
                EntryBody::LeaseClosed(record) => {
                    named.accounts.insert(record.account.clone());
                    named.leases.insert(record.lease);
                }
            }
        }
        named
    }
}

/// What a plan says to write down; `Err` answers without writing anything.
pub(crate) fn decided(plan: Plan) -> Result<Box<Rated>, RateOutcome> {
    Err(match plan {
        Plan::Rate(rated) => return Ok(rated),
        Plan::Duplicate => RateOutcome::Duplicate,
        Plan::Gap { mark, first } => RateOutcome::Gap { mark, first },
        Plan::OtherContent(id) => RateOutcome::OtherContent(id),
        Plan::Blocked(cause) => RateOutcome::Blocked(cause),
    })
}

/// The answer once it is written down.
pub(crate) fn rated(rated: &Rated) -> RateOutcome {
    RateOutcome::Rated {
        entries: rated.entries.len(),
        charges: rated.charges.len(),
        mistakes: rated.mistakes.len(),
    }
}
