//! Promises about one batch after the other: duplicates, gaps, other content, blocked batches, lease closings, bounds.

use std::sync::Arc;

use weir_billing::{
    domain::{
        lease::{LeaseState, Tally},
        rating::Blocked,
        tariffs::PricedTariff,
    },
    ports::billing_store::RateOutcome,
};
use weir_contracts::{
    entry::EntryBody,
    event::USAGE_BATCH_ENTRIES_MAX,
    money::{Amount, Currency},
    tariff::Tariff,
};

use super::{Home, NOW, batch, furnished, place, prices, was_rated};
use crate::world::{Journal, record};

/// A journal of so many records of ten rows under one lease.
pub(super) fn journal(records: u64) -> Journal {
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    for request in 1..=records {
        journal.usage(record(Some(lease), request, 10));
    }
    journal
}

pub(crate) async fn a_batch_is_rated_once_however_it_is_cut_and_repeated(home: &dyn Home) {
    furnished(home).await;
    let e = journal(6).entries;
    // Each step opens the store again: what counts is what was committed.
    for (after, part, new) in [
        (None, 0..3, 3),
        (None, 0..3, 0),
        (None, 0..5, 2),
        (Some(place(1, 2)), 2..4, 0),
        (Some(place(1, 1)), 1..6, 1),
        (None, 0..6, 0),
    ] {
        let outcome = home
            .open()
            .await
            .rate(batch(after, &e[part.clone()]), NOW)
            .await
            .unwrap();
        let entries = match outcome {
            RateOutcome::Rated {
                entries, mistakes: 0, ..
            } => entries,
            RateOutcome::Duplicate => 0,
            other => panic!("{part:?}: {other:?}"),
        };
        assert_eq!(entries, new, "{part:?}");
    }
    let store = home.open().await;
    let charges = store.booked_charges(0, 100).await.unwrap();
    let ids: Vec<_> = charges.iter().map(|c| c.id.clone()).collect();
    assert_eq!(ids, [e[0].id, e[3].id, e[5].id].map(|id| id.to_string()));
    assert!(charges.iter().all(|c| c.usage == c.amount));
    let total: i128 = charges.iter().map(|c| c.amount.nanos()).sum();
    assert_eq!(total, 600_000);
    assert_eq!(store.marks().await.unwrap(), [(e[0].id.proxy, place(1, 6))]);
}

pub(crate) async fn a_gap_blocks_and_moves_nothing(home: &dyn Home) {
    let store = furnished(home).await;
    let e = journal(6).entries;
    let gap = |mark, sequence| RateOutcome::Gap {
        mark,
        first: place(1, sequence),
    };
    assert_eq!(
        store.rate(batch(None, &e[1..3]), NOW).await.unwrap(),
        gap(None, 2)
    );
    assert_eq!(store.mark(e[0].id.proxy).await.unwrap(), None);
    assert_eq!(store.marks().await.unwrap(), []);
    store.rate(batch(None, &e[0..2]), NOW).await.unwrap();
    let later = batch(Some(place(1, 3)), &e[3..6]);
    let mark = Some(place(1, 2));
    assert_eq!(store.rate(Arc::clone(&later), NOW).await.unwrap(), gap(mark, 4));
    assert_eq!(store.mark(e[0].id.proxy).await.unwrap(), mark);
    store.rate(batch(mark, &e[2..3]), NOW).await.unwrap();
    let outcome = store.rate(later, NOW).await.unwrap();
    assert!(
        matches!(outcome, RateOutcome::Rated { entries: 3, .. }),
        "{outcome:?}"
    );
}

pub(crate) async fn the_missing_end_of_an_epoch_blocks_the_next_epoch(home: &dyn Home) {
    let store = furnished(home).await;
    let mut journal = journal(3);
    journal.epoch = 2;
    journal.usage(record(None, 9, 10));
    let e = &journal.entries;
    store.rate(batch(None, &e[0..2]), NOW).await.unwrap();
    let next = batch(Some(place(1, 3)), &e[3..4]);
    let outcome = store.rate(Arc::clone(&next), NOW).await.unwrap();
    assert!(matches!(outcome, RateOutcome::Gap { .. }), "{outcome:?}");
    store.rate(batch(Some(place(1, 2)), &e[2..3]), NOW).await.unwrap();
    assert!(was_rated(&store.rate(next, NOW).await.unwrap()));
    assert_eq!(store.mark(journal.proxy).await.unwrap(), Some(place(2, 1)));
    // What is of the epoch before is seen as that.
    let again = store.rate(batch(None, &e[0..3]), NOW).await.unwrap();
    assert_eq!(again, RateOutcome::Duplicate);
}

pub(crate) async fn the_same_id_with_other_content_is_rejected(home: &dyn Home) {
    let store = furnished(home).await;
    let mut e = journal(3).entries;
    store.rate(batch(None, &e[0..2]), NOW).await.unwrap();
    if let EntryBody::Usage(record) = &mut e[1].body {
        record.rows += 1;
    }
    let outcome = home.open().await.rate(batch(None, &e), NOW).await.unwrap();
    assert_eq!(outcome, RateOutcome::OtherContent(e[1].id));
    assert_eq!(store.mark(e[0].id.proxy).await.unwrap(), Some(place(1, 2)));
    assert_eq!(store.booked_charges(0, 9).await.unwrap().len(), 1);
}

pub(crate) async fn an_unknown_tariff_or_account_blocks_until_it_is_added(home: &dyn Home) {
    let store = furnished(home).await;
    let mut journal = Journal::new(1);
    let mut other = record(None, 1, 10);
    other.tariff = "t@2".into();
    other.account = "new".parse().unwrap();
    let entry = journal.usage(other);
    let batch = batch(None, &journal.entries);
    let blocked = Blocked::Account(entry.id, "new".parse().unwrap());
    assert_eq!(
        store.rate(Arc::clone(&batch), NOW).await.unwrap(),
        RateOutcome::Blocked(blocked)
    );
    store.add_account(super::account("new")).await.unwrap();
    let blocked = Blocked::Tariff(entry.id, "t@2".into());
    assert_eq!(
        store.rate(Arc::clone(&batch), NOW).await.unwrap(),
        RateOutcome::Blocked(blocked)
    );
    assert_eq!(store.mark(journal.proxy).await.unwrap(), None);
    store.add_tariff(prices().tariff("t@2").unwrap()).await.unwrap();
    assert!(was_rated(&store.rate(batch, NOW).await.unwrap()));
}

pub(crate) async fn free_usage_is_counted_and_not_charged_and_closes_its_lease(home: &dyn Home) {
    let store = furnished(home).await;
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
    assert_eq!(
        store.accounts_with_work(10).await.unwrap(),
        ["demo".parse().unwrap()]
    );
    store.set_settled(lease).await.unwrap();
    assert!(store.accounts_with_work(10).await.unwrap().is_empty());
}

pub(crate) async fn a_closing_that_differs_blocks_its_lease(home: &dyn Home) {
    let store = furnished(home).await;
    let mut journal = journal(2);
    let lease = journal.lease(1);
    let closing = journal.close(lease);
    let EntryBody::LeaseClosed(closed) = &mut journal.entries[2].body else {
        panic!("{closing:?}");
    };
    closed.records = 3;
    let outcome = store.rate(batch(None, &journal.entries), NOW).await.unwrap();
    let rated = RateOutcome::Rated {
        entries: 3,
        charges: 1,
        mistakes: 1,
    };
    assert_eq!(outcome, rated);
    let blocked = store.lease(lease).await.unwrap().unwrap();
    assert_eq!(blocked.state, LeaseState::Blocked);
    store.set_settled(lease).await.unwrap();
    let unsettled = store.unsettled(&blocked.account).await.unwrap();
    assert_eq!(unsettled.leases, [blocked]);
    let said = store.book_facts().await.unwrap().mistakes;
    assert_eq!(
        said,
        [format!(
            "entry {} of account demo: lease {lease}: the proxy closed it with 3 records, 2 were rated",
            closing.id
        )]
    );
}

pub(crate) async fn the_largest_costs_are_kept_exactly(home: &dyn Home) {
    let store = furnished(home).await;
    let tariff = Tariff {
        version: "dear@1".into(),
        per_request_nanos: 0,
        per_row_nanos: i64::MAX,
        per_kib_out_nanos: 0,
        per_kib_in_nanos: 0,
        per_bulk_row_nanos: 1,
        per_server_second_nanos: 0,
    };
    let currency = Currency::USD;
    store.add_tariff(PricedTariff { tariff, currency }).await.unwrap();
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    for request in 1..=2 {
        let mut dear = record(Some(lease), request, 2);
        (dear.tariff, dear.cost_nanos) = ("dear@1".into(), i64::MAX);
        journal.usage(dear);
    }
    let mut least = record(None, 3, 0);
    (least.tariff, least.cost_nanos, least.bulk_rows) = ("dear@1".into(), 1, 1);
    journal.usage(least);
    let outcome = store.rate(batch(None, &journal.entries), NOW).await.unwrap();
    let rated = RateOutcome::Rated {
        entries: 3,
        charges: 2,
        mistakes: 0,
    };
    assert_eq!(outcome, rated);
    let largest = Amount::from(i64::MAX);
    let charges = home.open().await.booked_charges(0, 9).await.unwrap();
    assert_eq!(charges[0].amount, largest);
    assert_eq!(charges[0].usage, largest.add(largest).unwrap());
    assert_eq!(
        (charges[1].amount, charges[1].usage),
        (Amount::from(1), Amount::from(1))
    );
    let tally = Tally {
        records: 2,
        reported_nanos: i64::MAX,
        rated_nanos: i64::MAX,
        last_sequence: 2,
    };
    assert_eq!(store.lease(lease).await.unwrap().unwrap().tally, tally);
    let shown = store.usage(&charges[0].account, None, 9).await.unwrap();
    let costs: Vec<_> = shown.iter().map(|r| r.cost).collect();
    assert_eq!(costs, [largest, largest, Amount::from(1)]);
    let mut more = record(None, 4, 2);
    (more.tariff, more.cost_nanos) = ("dear@1".into(), i64::MAX);
    journal.usage(more);
    let next = batch(Some(place(1, 3)), &journal.entries[3..]);
    assert!(was_rated(&store.rate(next, NOW).await.unwrap()));
    let totals = store.totals().await.unwrap();
    assert_eq!(totals[&charges[0].account].cost, largest.add(largest).unwrap());
}

pub(crate) async fn the_longest_batch_is_rated_and_shown(home: &dyn Home) {
    let store = furnished(home).await;
    let mut journal = Journal::new(1);
    for number in 1..=u32::try_from(USAGE_BATCH_ENTRIES_MAX).unwrap() {
        // A lease each, so as many charges as entries.
        let lease = journal.lease(number);
        journal.usage(record(Some(lease), u64::from(number), 1));
    }
    let outcome = store.rate(batch(None, &journal.entries), NOW).await.unwrap();
    let rated = RateOutcome::Rated {
        entries: USAGE_BATCH_ENTRIES_MAX,
        charges: USAGE_BATCH_ENTRIES_MAX,
        mistakes: 0,
    };
    assert_eq!(outcome, rated);
    let demo = "demo".parse().unwrap();
    let shown = store.usage(&demo, None, 1_000).await.unwrap();
    let ids: Vec<_> = shown.iter().map(|r| r.id.clone()).collect();
    let written: Vec<_> = journal.entries.iter().map(|e| e.id.to_string()).collect();
    assert_eq!(ids, written);
    assert_eq!(
        store.unsettled(&demo).await.unwrap().leases.len(),
        USAGE_BATCH_ENTRIES_MAX
    );
    let again = store.rate(batch(None, &journal.entries), NOW).await.unwrap();
    assert_eq!(again, RateOutcome::Duplicate);
}
