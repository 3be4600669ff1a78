//! The decision about a batch: in order, seen before, ahead of a gap, contradicting, or blocked.

use std::collections::{BTreeMap, HashMap};

use weir_contracts::{
    entry::{Entry, EntryBody, LeaseClosed, Outcome, UsageRecord},
    event::Place,
    ids::{AccountId, EntryId, LeaseId},
    tariff::Tariff,
};

use super::{Batch, EntryHash};
use crate::domain::lease::{Closing, Lease, LeaseState, close};

/// What the store knows that matters for one batch.
#[derive(Debug, Default)]
pub struct Facts {
    /// The high-water mark of the batch's proxy: every entry up to it is rated.
    pub mark: Option<Place>,
    /// Hashes of the batch's entries at or below the mark, by sequence.
    pub seen: HashMap<u64, EntryHash>,
    /// Tariff versions that the batch names.
    pub tariffs: HashMap<String, Tariff>,
    /// Leases that the batch names.
    pub leases: HashMap<LeaseId, Lease>,
    /// Accounts that the batch names.
    pub accounts: std::collections::HashSet<AccountId>,
}

/// What to do with a batch.
#[derive(Debug)]
pub enum Plan {
    /// Write this down, whole.
    Rate(Box<Rated>),
    /// Every entry is rated already, with the same content.
    Duplicate,
    /// Something before the batch is missing: it comes again later; nothing moves meanwhile.
    Gap {
        /// The mark as it stands.
        mark: Option<Place>,
        /// Where the batch begins.
        first: Place,
    },
    /// An entry was rated with other content: an error of the sender, never a duplicate.
    OtherContent(EntryId),
    /// Not ratable now; it comes again later and the mark stands meanwhile.
    Blocked(Blocked),
}

/// Why a batch must wait for an operator: a ledger that has gone back, most likely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// Tariff not known here.
    #[error("entry {0} names tariff `{1}`, which is not known here: add that version")]
    Tariff(EntryId, String),
    /// Account not known here.
    #[error("entry {0} names account `{1}`, which is not known here: add that account")]
    Account(EntryId, AccountId),
}

/// An entry as it is written down.
#[derive(Debug)]
pub struct EntryRow {
    /// As it came.
    pub entry: Entry,
    /// Of its content.
    pub hash: EntryHash,
    /// What rating made of it, nano-units; 0 for a closing record.
    pub cost_nanos: i64,
    /// Index into [`Rated::charges`]; none when it cost nothing.
    pub charge: Option<usize>,
}

/// What is taken from a wallet at once: one per (lease, batch). Its id is the id of its first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Made of a place in the journal, so the same usage makes the same charge.
    pub id: EntryId,
    /// Who pays.
    pub account: AccountId,
    /// From which hold; none: from the balance.
    pub lease: Option<LeaseId>,
    /// Under which tariff version.
    pub tariff: String,
    /// How much, nano-units; above zero.
    pub amount_nanos: i64,
    /// For what.
    pub totals: Totals,
}

/// Sums for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is a sum named by its unit")]
pub struct Totals {
    pub requests: u64,
    pub rows: u64,
    pub bytes_out: u64,
    pub cut_offs: u64,
}

impl Totals {
    fn add(&mut self, record: &UsageRecord) {
        let cut = u64::from(record.outcome == Outcome::CutOff);
        self.requests = self.requests.saturating_add(record.requests);
        self.rows = self.rows.saturating_add(record.rows);
        self.bytes_out = self.bytes_out.saturating_add(record.bytes_out);
        self.cut_offs = self.cut_offs.saturating_add(cut);
    }
}

/// Something that does not add up: counted as a difference by reconciliation until an operator has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Which entry shows it.
    pub entry: EntryId,
    /// Whose.
    pub account: AccountId,
    /// In words.
    pub what: String,
}

/// What is written down in one transaction.
#[derive(Debug)]
pub struct Rated {
    /// The new high-water mark.
    pub mark: Place,
    /// The entries above the old mark.
    pub entries: Vec<EntryRow>,
    /// The charges, which are also the outgoing capture commands.
    pub charges: Vec<Charge>,
    /// The leases that changed.
    pub leases: Vec<Lease>,
    /// What each account used.
    pub accounts: BTreeMap<AccountId, (Totals, i64)>,
    /// What does not add up.
    pub mistakes: Vec<Mistake>,
}

/// Decides about a batch.
#[must_use]
pub fn plan(facts: Facts, batch: Batch) -> Plan {
    let place = |sequence| Place {
        epoch: batch.epoch,
        sequence,
    };
    let mut new = Vec::with_capacity(batch.entries.len());
    for (entry, hash) in batch.entries {
        if facts.mark.is_none_or(|mark| place(entry.id.sequence) > mark) {
            new.push((entry, hash));
        } else if facts.seen.get(&entry.id.sequence) != Some(&hash) {
            return Plan::OtherContent(entry.id);
        }
    }
    let Some((first, _)) = new.first() else {
        return Plan::Duplicate;
    };
    let first = place(first.id.sequence);
    if !follows(facts.mark, batch.after, first) {
        return Plan::Gap {
            mark: facts.mark,
            first,
        };
    }
    rate(facts, new, batch.epoch)
}

/// Whether `first` is the very next place after the mark. Over an epoch's end only `after` can tell.
fn follows(mark: Option<Place>, after: Option<Place>, first: Place) -> bool {
    match mark {
        Some(mark) if mark.epoch == first.epoch => mark.sequence.checked_add(1) == Some(first.sequence),
        _ => first.sequence == 1 && after == mark,
    }
}

fn rate(facts: Facts, new: Vec<(Entry, EntryHash)>, epoch: u64) -> Plan {
    let Facts {
        tariffs,
        leases,
        accounts,
        ..
    } = facts;
    let last = new.last().map_or(0, |(entry, _)| entry.id.sequence);
    let mut work = Work {
        known: leases,
        changed: BTreeMap::new(),
        by_group: HashMap::new(),
        rated: Rated {
            mark: Place {
                epoch,
                sequence: last,
            },
            entries: Vec::with_capacity(new.len()),
            charges: Vec::new(),
            leases: Vec::new(),
            accounts: BTreeMap::new(),
            mistakes: Vec::new(),
        },
    };
    for (entry, hash) in new {
        let account = match &entry.body {
            EntryBody::Usage(record) => &record.account,
            EntryBody::LeaseClosed(record) => &record.account,
        };
        if !accounts.contains(account) {
            return Plan::Blocked(Blocked::Account(entry.id, account.clone()));
        }
        let (cost_nanos, charge) = match &entry.body {
            EntryBody::LeaseClosed(record) => {
                work.close_lease(entry.id, record);
                (0, None)
            }
            EntryBody::Usage(record) => match tariffs.get(&record.tariff) {
                None => return Plan::Blocked(Blocked::Tariff(entry.id, record.tariff.clone())),
                Some(tariff) => work.use_up(entry.id, record, tariff),
            },
        };
        work.rated.entries.push(EntryRow {
            entry,
            hash,
            cost_nanos,
            charge,
        });
    }
    work.rated.leases = work.changed.into_values().collect();
    Plan::Rate(Box::new(work.rated))
}

/// One group per (account, lease, tariff) makes one charge.
type Group = (AccountId, Option<LeaseId>, String);

struct Work {
    known: HashMap<LeaseId, Lease>,
    changed: BTreeMap<LeaseId, Lease>,
    by_group: HashMap<Group, usize>,
    rated: Rated,
}

impl Work {
    /// The lease as this batch has it so far. One that billing never heard of is taken down as it is named.
    fn lease(&mut self, id: LeaseId, account: &AccountId, tariff: &str) -> &mut Lease {
        let known = &mut self.known;
        self.changed.entry(id).or_insert_with(|| {
            known
                .remove(&id)
                .unwrap_or_else(|| Lease::new(id, account.clone(), tariff.to_owned()))
        })
    }

    fn mistake(&mut self, entry: EntryId, account: &AccountId, what: String) {
        self.rated.mistakes.push(Mistake {
            entry,
            account: account.clone(),
            what,
        });
    }

    fn use_up(&mut self, id: EntryId, record: &UsageRecord, tariff: &Tariff) -> (i64, Option<usize>) {
        let cost = tariff.cost_nanos(&record.quantity());
        if cost != record.cost_nanos {
            let what = format!(
                "the proxy took {} nano-units, tariff {} makes it {cost}",
                record.cost_nanos, tariff.version
            );
            self.mistake(id, &record.account, what);
        }
        if let Some(lease_id) = record.lease {
            self.tally(id, record, lease_id, cost);
        }
        let (totals, spent) = self.rated.accounts.entry(record.account.clone()).or_default();
        totals.add(record);
        *spent = spent.saturating_add(cost);
        (cost, (cost > 0).then(|| self.charge(id, record, cost)))
    }

    fn tally(&mut self, id: EntryId, record: &UsageRecord, lease_id: LeaseId, cost: i64) {
        let lease = self.lease(lease_id, &record.account, &record.tariff);
        let wrong = if lease.account != record.account {
            Some(format!("lease {lease_id} belongs to account {}", lease.account))
        } else if lease.tariff != record.tariff {
            Some(format!("lease {lease_id} is priced by tariff {}", lease.tariff))
        } else if lease.state != LeaseState::Open {
            Some(format!("lease {lease_id} was closed before this record"))
        } else {
            None
        };
        lease.tally.records = lease.tally.records.saturating_add(1);
        lease.tally.reported_nanos = lease.tally.reported_nanos.saturating_add(record.cost_nanos);
        lease.tally.rated_nanos = lease.tally.rated_nanos.saturating_add(cost);
        lease.tally.last_sequence = id.sequence;
        if let Some(what) = wrong {
            self.mistake(id, &record.account, what);
        }
    }

    fn charge(&mut self, id: EntryId, record: &UsageRecord, cost: i64) -> usize {
        let group = (record.account.clone(), record.lease, record.tariff.clone());
        let charges = &mut self.rated.charges;
        let index = *self.by_group.entry(group).or_insert_with(|| {
            charges.push(Charge {
                id,
                account: record.account.clone(),
                lease: record.lease,
                tariff: record.tariff.clone(),
                amount_nanos: 0,
                totals: Totals::default(),
            });
            charges.len() - 1
        });
        if let Some(charge) = charges.get_mut(index) {
            charge.amount_nanos = charge.amount_nanos.saturating_add(cost);
            charge.totals.add(record);
        }
        index
    }

    fn close_lease(&mut self, id: EntryId, record: &LeaseClosed) {
        let lease = self.lease(record.lease, &record.account, "");
        match close(lease, record) {
            Closing::Already => {}
            Closing::Agreed => lease.state = LeaseState::Closing,
            Closing::Differs(difference) => {
                lease.state = LeaseState::Blocked;
                self.mistake(
                    id,
                    &record.account,
                    format!("lease {}: {difference}", record.lease),
                );
            }
        }
    }
}
