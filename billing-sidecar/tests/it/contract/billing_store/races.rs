//! Promises about several tasks and several openings of one store at once.

use std::sync::Arc;

use weir_billing::ports::billing_store::RateOutcome;
use weir_contracts::{event::Place, ids::AccountId};

use super::{Home, NOW, batch, furnished, place, was_rated};
use crate::world::{Journal, PATIENCE, record};

pub(crate) async fn the_same_batch_from_several_tasks_is_booked_once(home: &dyn Home) {
    let store = furnished(home).await;
    let others = [home.open().await, home.open().await];
    for round in 1..=8 {
        // A proxy's first batch, then its second.
        let mut journal = Journal::new(round);
        let lease = journal.lease(1);
        for (after, request) in [(None, 1), (Some(place(1, 1)), 2)] {
            journal.usage(record(Some(lease), request, 10));
            let batch = batch(after, &journal.entries[journal.entries.len() - 1..]);
            let tasks: Vec<_> = (0..6)
                .map(|n| {
                    let (store, batch) = (Arc::clone(&others[n % 2]), Arc::clone(&batch));
                    tokio::spawn(async move { store.rate(batch, NOW).await.unwrap() })
                })
                .collect();
            let mut rated = 0;
            for task in tasks {
                match task.await.unwrap() {
                    RateOutcome::Duplicate => {}
                    RateOutcome::Rated { .. } => rated += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(rated, 1);
        }
        let tally = store.lease(lease).await.unwrap().unwrap().tally;
        assert_eq!((tally.records, tally.rated_nanos), (2, 200_000));
    }
    assert_eq!(store.booked_charges(0, 100).await.unwrap().len(), 16);
}

pub(crate) async fn batches_cut_differently_at_once_are_booked_once(home: &dyn Home) {
    let store = furnished(home).await;
    let entries = super::rating::journal(60).entries;
    let tasks: Vec<_> = [1, 2, 3, 5, 7, 60]
        .into_iter()
        .map(|length| {
            let (store, entries) = (Arc::clone(&store), entries.clone());
            tokio::spawn(async move {
                let mut after: Option<Place> = None;
                for part in entries.chunks(length) {
                    // Whoever comes here has rated all before, so nothing is missing.
                    let outcome = store.rate(batch(after, part), NOW).await.unwrap();
                    assert!(
                        was_rated(&outcome) || outcome == RateOutcome::Duplicate,
                        "{outcome:?}"
                    );
                    after = part.last().map(|e| place(1, e.id.sequence));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let charges = store.booked_charges(0, 100).await.unwrap();
    assert!(charges.iter().all(|c| c.usage == c.amount));
    let total: i128 = charges.iter().map(|c| c.amount.nanos()).sum();
    assert_eq!(total, 6_000_000);
    let demo: AccountId = "demo".parse().unwrap();
    assert_eq!(store.totals().await.unwrap()[&demo].totals.requests, 60);
    assert_eq!(store.usage(&demo, None, 100).await.unwrap().len(), 60);
}

/// Proxies that rate at once, and batches of each.
const PROXIES: u128 = 4;
const BATCHES: u64 = 10;

pub(crate) async fn numbers_become_visible_in_order_and_without_a_gap(home: &dyn Home) {
    let store = furnished(home).await;
    let mut writing = Vec::new();
    for n in 1..=PROXIES {
        let store = home.open().await;
        writing.push(tokio::spawn(async move {
            let mut journal = Journal::new(n);
            for round in 0..BATCHES {
                let after = journal.entries.last().map(|e| place(1, e.id.sequence));
                let from = journal.entries.len();
                for request in 1..=3 {
                    let lease = journal.lease(request);
                    journal.usage(record(Some(lease), round * 3 + u64::from(request), 1));
                }
                let outcome = store
                    .rate(batch(after, &journal.entries[from..]), NOW)
                    .await
                    .unwrap();
                assert!(was_rated(&outcome), "{outcome:?}");
            }
        }));
    }
    // A reader that goes on from what it saw last must meet everything.
    let demo: AccountId = "demo".parse().unwrap();
    let all = usize::try_from(PROXIES).unwrap() * usize::try_from(BATCHES).unwrap() * 3;
    let (mut charges, mut requests) = (Vec::new(), Vec::<String>::new());
    let reading = async {
        while charges.len() < all || requests.len() < all {
            let after = charges.last().copied().unwrap_or(0);
            for charge in store.booked_charges(after, 7).await.unwrap() {
                assert_eq!(charge.number, charges.last().copied().unwrap_or(0) + 1);
                charges.push(charge.number);
            }
            let after = requests.last().map(String::as_str);
            let page = store.usage(&demo, after, 7).await.unwrap();
            requests.extend(page.into_iter().map(|r| r.id));
            let newest = store.book_facts().await.unwrap().newest_charge;
            assert!(newest >= charges.last().copied().unwrap_or(0));
        }
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        panic!("{} charges, {} requests of {all}", charges.len(), requests.len());
    }
    for writer in writing {
        writer.await.unwrap();
    }
    assert_eq!(store.usage(&demo, None, 1_000).await.unwrap().len(), all);
}

pub(crate) async fn one_lease_named_by_several_proxies_at_once_counts_them_all(home: &dyn Home) {
    let store = furnished(home).await;
    let lease = Journal::new(9).lease(1);
    let other = Journal::new(9).lease(2);
    let mut writing = Vec::new();
    for n in 1..=4 {
        let store = home.open().await;
        writing.push(tokio::spawn(async move {
            let mut journal = Journal::new(n);
            for request in 0..5_u64 {
                let after = journal.entries.last().map(|e| place(1, e.id.sequence));
                let from = journal.entries.len();
                // In one order and in the other: whoever waits for both must not wait for ever.
                let pair = if n % 2 == 0 {
                    [lease, other]
                } else {
                    [other, lease]
                };
                for (lease, half) in pair.into_iter().zip(1..) {
                    journal.usage(record(Some(lease), request * 2 + half, 10));
                }
                let outcome = store
                    .rate(batch(after, &journal.entries[from..]), NOW)
                    .await
                    .unwrap();
                assert!(was_rated(&outcome), "{outcome:?}");
            }
        }));
    }
    for writer in writing {
        writer.await.unwrap();
    }
    for id in [lease, other] {
        let tally = store.lease(id).await.unwrap().unwrap().tally;
        assert_eq!((tally.records, tally.rated_nanos), (20, 2_000_000));
    }
    let facts = store.book_facts().await.unwrap();
    assert_eq!(facts.lease_differences, Vec::<String>::new());
    assert_eq!(facts.newest_charge, 40);
}
