//! Promises about leases: grants grow, states go forward.

use std::sync::Arc;

use weir_billing::{
    domain::lease::{Lease, LeaseState, Tally},
    ports::billing_store::BillingStore,
};

use super::{Home, NOW, batch, furnished, place, was_rated};
use crate::world::{Journal, record};

fn new_lease(journal: &Journal, number: u32) -> Lease {
    Lease::new(journal.lease(number), "demo".parse().unwrap(), "t@1".into())
}

pub(crate) async fn a_grant_never_goes_down(home: &dyn Home) {
    let store = furnished(home).await;
    let journal = Journal::new(1);
    let lease = new_lease(&journal, 1);
    store.set_granted(lease.id, 5).await.unwrap();
    assert_eq!(store.lease(lease.id).await.unwrap(), None);
    store.open_lease(lease.clone()).await.unwrap();
    assert_eq!(store.lease(lease.id).await.unwrap(), Some(lease.clone()));
    for (set, stands) in [
        (7, 7),
        (3, 7),
        (7, 7),
        (-1, 7),
        (i64::MAX, i64::MAX),
        (0, i64::MAX),
    ] {
        home.open().await.set_granted(lease.id, set).await.unwrap();
        assert_eq!(
            store.lease(lease.id).await.unwrap().unwrap().granted_nanos,
            stands
        );
    }
    // Opened again it stays as it is.
    store.open_lease(lease.clone()).await.unwrap();
    assert_eq!(
        store.lease(lease.id).await.unwrap().unwrap().granted_nanos,
        i64::MAX
    );
    let raced = new_lease(&journal, 2);
    store.open_lease(raced.clone()).await.unwrap();
    let mut setting = Vec::new();
    for grant in [40, 90, 10, 70, 20, 80] {
        let store = home.open().await;
        let id = raced.id;
        setting.push(tokio::spawn(async move {
            store.set_granted(id, grant).await.unwrap()
        }));
    }
    for one in setting {
        one.await.unwrap();
    }
    assert_eq!(store.lease(raced.id).await.unwrap().unwrap().granted_nanos, 90);
}

pub(crate) async fn a_lease_settles_only_when_it_is_closing(home: &dyn Home) {
    let store = furnished(home).await;
    let mut journal = Journal::new(1);
    let lease = new_lease(&journal, 1);
    let state = async |store: &dyn BillingStore| store.lease(lease.id).await.unwrap().unwrap().state;
    store.open_lease(lease.clone()).await.unwrap();
    store.set_settled(lease.id).await.unwrap();
    assert_eq!(state(&*store).await, LeaseState::Open);
    journal.usage(record(Some(lease.id), 1, 10));
    journal.close(lease.id);
    assert!(was_rated(
        &store.rate(batch(None, &journal.entries), NOW).await.unwrap()
    ));
    assert_eq!(state(&*store).await, LeaseState::Closing);
    store.set_settled(lease.id).await.unwrap();
    // Usage that comes too late is counted, is a mistake, and opens nothing again.
    journal.usage(record(Some(lease.id), 2, 1));
    let late = batch(Some(place(1, 2)), &journal.entries[2..]);
    assert!(was_rated(&home.open().await.rate(late, NOW).await.unwrap()));
    let settled = store.lease(lease.id).await.unwrap().unwrap();
    assert_eq!(settled.state, LeaseState::Settled);
    let tally = Tally {
        records: 2,
        reported_nanos: 110_000,
        rated_nanos: 110_000,
        last_sequence: 3,
    };
    assert_eq!(settled.tally, tally);
    assert_eq!(store.unsettled(&lease.account).await.unwrap().leases, []);
    assert_eq!(store.book_facts().await.unwrap().mistakes.len(), 1);
}

pub(crate) async fn a_lease_opened_while_its_first_batch_is_rated_keeps_both(home: &dyn Home) {
    let store = furnished(home).await;
    let other = home.open().await;
    for n in 1..=20 {
        let mut journal = Journal::new(n);
        let lease = new_lease(&journal, 1);
        journal.usage(record(Some(lease.id), 1, 10));
        let first = batch(None, &journal.entries);
        let rating = tokio::spawn({
            let store = Arc::clone(&other);
            async move { store.rate(first, NOW).await.unwrap() }
        });
        store.open_lease(lease.clone()).await.unwrap();
        store.set_granted(lease.id, 500_000).await.unwrap();
        assert!(was_rated(&rating.await.unwrap()));
        let both = store.lease(lease.id).await.unwrap().unwrap();
        assert_eq!((both.granted_nanos, both.tally.rated_nanos), (500_000, 100_000));
    }
    assert!(store.book_facts().await.unwrap().mistakes.is_empty());
}
