//! Rating on the store: duplicates, gaps, other content, crashes with a reopened store.

use std::{path::Path, sync::Arc};

use weir_billing::{
    adapters::SqliteStore,
    domain::{
        accounts::{Account, Cut, Mode},
        lease::LeaseState,
        rating::{Batch, BatchError, Blocked},
        tariffs::Prices,
    },
    ports::billing_store::{BillingStore, RateOutcome},
};
use weir_contracts::{
    entry::{Entry, EntryBody},
    event::{Place, USAGE_BATCH_ENTRIES_MAX, UsageBatch},
    money::{Amount, Currency},
};

use crate::world::{Journal, record};

pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";

pub(crate) async fn store(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(&path.join("billing.db")).unwrap();
    let prices: Prices = serde_json::from_str(r#"{"currency":"USD","per_row":"0.00001"}"#).unwrap();
    store.add_tariff(prices.tariff("t@1").unwrap()).await.unwrap();
    let account = Account {
        id: "demo".parse().unwrap(),
        login: "demo".into(),
        currency: Currency::USD,
        mode: Mode::Enforce,
        cut: Cut::Row,
        tariff: "t@1".into(),
        row_credit_bytes: 0,
        initial_credit: Amount::ZERO,
        wallet_id: None,
    };
    store.add_account(account).await.unwrap();
    store
}

pub(crate) fn batch(after: Option<Place>, entries: &[Entry]) -> Arc<Batch> {
    let entries = entries.to_vec();
    Arc::new(UsageBatch { after, entries }.try_into().unwrap())
}

fn place(epoch: u64, sequence: u64) -> Place {
    Place { epoch, sequence }
}

fn journal(records: u64) -> Journal {
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    for request in 1..=records {
        journal.usage(record(Some(lease), request, 10));
    }
    journal
}

#[tokio::test]
async fn a_batch_is_rated_once_however_it_is_cut_and_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let e = journal(6).entries;
    // Each step reopens the store: what counts is what was committed.
    for (after, part, new) in [
        (None, 0..3, 3),
        (None, 0..3, 0),
        (None, 0..5, 2),
        (Some(place(1, 2)), 2..4, 0),
        (Some(place(1, 1)), 1..6, 1),
        (None, 0..6, 0),
    ] {
        let store = store(dir.path()).await;
        let outcome = store.rate(batch(after, &e[part.clone()]), NOW).await.unwrap();
        let entries = match outcome {
            RateOutcome::Rated {
                entries, mistakes: 0, ..
            } => entries,
            RateOutcome::Duplicate => 0,
            other => panic!("{part:?}: {other:?}"),
        };
        assert_eq!(entries, new, "{part:?}");
    }
    let store = store(dir.path()).await;
    let charges = store.booked_charges(0, 100).await.unwrap();
    let ids: Vec<_> = charges.iter().map(|c| c.id.clone()).collect();
    assert_eq!(ids, [e[0].id, e[3].id, e[5].id].map(|id| id.to_string()));
    assert!(charges.iter().all(|c| c.usage == c.amount));
    let total: i128 = charges.iter().map(|c| c.amount.nanos()).sum();
    assert_eq!(total, 600_000);
}

#[tokio::test]
async fn a_gap_blocks_and_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let e = journal(6).entries;
    let gap = |mark, sequence| RateOutcome::Gap {
        mark,
        first: place(1, sequence),
    };
    assert_eq!(
        store.rate(batch(None, &e[1..3]), NOW).await.unwrap(),
        gap(None, 2)
    );
    store.rate(batch(None, &e[0..2]), NOW).await.unwrap();
    let later = batch(Some(place(1, 3)), &e[3..6]);
    let mark = Some(place(1, 2));
    assert_eq!(store.rate(Arc::clone(&later), NOW).await.unwrap(), gap(mark, 4));
    assert_eq!(store.mark(e[0].id.proxy).await.unwrap(), mark);
    store.rate(batch(mark, &e[2..3]), NOW).await.unwrap();
    assert!(matches!(
        store.rate(later, NOW).await.unwrap(),
        RateOutcome::Rated { entries: 3, .. }
    ));
}

#[tokio::test]
async fn the_missing_end_of_an_epoch_blocks_the_next_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut journal = journal(3);
    journal.epoch = 2;
    journal.usage(record(None, 9, 10));
    let e = &journal.entries;
    store.rate(batch(None, &e[0..2]), NOW).await.unwrap();
    let next = batch(Some(place(1, 3)), &e[3..4]);
    assert!(matches!(
        store.rate(Arc::clone(&next), NOW).await.unwrap(),
        RateOutcome::Gap { .. }
    ));
    store.rate(batch(Some(place(1, 2)), &e[2..3]), NOW).await.unwrap();
    assert!(matches!(
        store.rate(next, NOW).await.unwrap(),
        RateOutcome::Rated { .. }
    ));
    assert_eq!(store.mark(journal.proxy).await.unwrap(), Some(place(2, 1)));
}

#[tokio::test]
async fn the_same_id_with_other_content_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut e = journal(3).entries;
    store.rate(batch(None, &e[0..2]), NOW).await.unwrap();
    if let EntryBody::Usage(record) = &mut e[1].body {
        record.rows += 1;
    }
    let outcome = store.rate(batch(None, &e), NOW).await.unwrap();
    assert_eq!(outcome, RateOutcome::OtherContent(e[1].id));
    assert_eq!(store.mark(e[0].id.proxy).await.unwrap(), Some(place(1, 2)));
}

#[tokio::test]
async fn an_unknown_tariff_or_account_blocks_until_it_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut journal = Journal::new(1);
    let mut other = record(None, 1, 10);
    other.tariff = "t@2".into();
    let entry = journal.usage(other);
    let batch = batch(None, &journal.entries);
    let blocked = RateOutcome::Blocked(Blocked::Tariff(entry.id, "t@2".into()));
    assert_eq!(store.rate(Arc::clone(&batch), NOW).await.unwrap(), blocked);
    let prices: Prices = serde_json::from_str(r#"{"currency":"USD","per_row":"0.00001"}"#).unwrap();
    store.add_tariff(prices.tariff("t@2").unwrap()).await.unwrap();
    assert!(matches!(
        store.rate(batch, NOW).await.unwrap(),
        RateOutcome::Rated { .. }
    ));
}

#[tokio::test]
async fn free_usage_is_counted_and_not_charged_and_closes_its_lease() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    journal.usage(record(Some(lease), 1, 0));
    journal.close(lease);
    let outcome = store.rate(batch(None, &journal.entries), NOW).await.unwrap();
    let rated = RateOutcome::Rated {
        entries: 2,
        charges: 0,
        mistakes: 0,
    };
    assert_eq!(outcome, rated);
    assert_eq!(
        store.lease(lease).await.unwrap().unwrap().state,
        LeaseState::Closing
    );
    store.set_settled(lease).await.unwrap();
    assert!(store.accounts_with_work(10).await.unwrap().is_empty());
}

#[test]
fn malformed_batches_are_refused_with_their_reason() {
    let e = journal(3).entries;
    let form = |entries: Vec<Entry>| Batch::try_from(UsageBatch { after: None, entries }).err();
    assert_eq!(form(vec![]), Some(BatchError::Empty));
    assert_eq!(
        form(vec![e[0].clone(), e[2].clone()]),
        Some(BatchError::Order(e[2].id.to_string()))
    );
    let many = journal(u64::try_from(USAGE_BATCH_ENTRIES_MAX).unwrap() + 1).entries;
    assert_eq!(form(many), Some(BatchError::TooLong(USAGE_BATCH_ENTRIES_MAX + 1)));
    let mut large = e[0].clone();
    if let EntryBody::Usage(record) = &mut large.body {
        record.bytes_out = u64::MAX;
    }
    assert_eq!(form(vec![large]), Some(BatchError::TooLarge(e[0].id.to_string())));
}
