//! Promises about what is shown: usage by request, totals, and what reconciliation reads.

use weir_billing::ports::billing_store::{BillingStore, RequestUsage};
use weir_contracts::{entry::Outcome, event::USAGE_BATCH_ENTRIES_MAX, ids::AccountId, money::Amount};

use super::{Home, NOW, account, batch, furnished, place, was_rated};
use crate::world::{Journal, record};

/// Rates all of a journal, at most so many entries at a time.
async fn rate_all(store: &dyn BillingStore, journal: &Journal, at_once: usize) {
    let mut after = None;
    for part in journal.entries.chunks(at_once) {
        let outcome = store.rate(batch(after, part), NOW).await.unwrap();
        assert!(was_rated(&outcome), "{outcome:?}");
        after = part.last().map(|e| place(e.id.epoch, e.id.sequence));
    }
}

pub(crate) async fn parts_of_a_request_add_up_and_pages_join(home: &dyn Home) {
    let store = furnished(home).await;
    store.add_account(account("other")).await.unwrap();
    let mut journal = Journal::new(1);
    // Three parts of request 1 around request 2 and another account's; then ten more.
    for (request, rows, last) in [(1, 10, false), (2, 5, true), (1, 20, false), (1, 30, true)] {
        let mut part = record(None, request, rows);
        part.requests = u64::from(last);
        part.outcome = if last { Outcome::CutOff } else { Outcome::Continued };
        part.drift = rows == 20;
        part.rows_affected = rows * 2;
        part.ended_unix_nanos += rows;
        journal.usage(part);
    }
    let mut others = record(None, 3, 7);
    others.account = "other".parse().unwrap();
    others.session = 2;
    journal.usage(others);
    for request in 10..20 {
        journal.usage(record(None, request, request));
    }
    rate_all(&*store, &journal, 2).await;
    let demo: AccountId = "demo".parse().unwrap();
    let store = home.open().await;
    let all = store.usage(&demo, None, 100).await.unwrap();
    assert_eq!(all.len(), 12);
    let first = RequestUsage {
        id: journal.entries[3].id.to_string(),
        parts: 3,
        rows: 60,
        rows_affected: 120,
        result_sets: 3,
        bytes: 6_000,
        bytes_in: 150,
        server_nanos: 3_000,
        cost: Amount::from(600_000),
        outcome: Outcome::CutOff,
        started: "2026-09-21T14:13:20Z".into(),
        ended: "2026-09-21T14:13:21.00000003Z".into(),
        drift: true,
        request: 1,
        ..all[0].clone()
    };
    assert_eq!(all[0], first);
    assert_eq!((all[1].request, all[1].parts, all[1].rows), (2, 1, 5));
    // Pages of any length join to the whole.
    for length in [1, 2, 5, 12, 13] {
        let mut joined: Vec<RequestUsage> = Vec::new();
        loop {
            let after = joined.last().map(|r| r.id.clone());
            let page = store.usage(&demo, after.as_deref(), length).await.unwrap();
            assert!(page.len() <= length);
            if page.is_empty() {
                break;
            }
            joined.extend(page);
        }
        assert_eq!(joined, all, "pages of {length}");
    }
    // Any part of a request names it, also one of another account.
    for (entry, next) in [(0, 2), (1, 10), (2, 2), (4, 10)] {
        let id = journal.entries[entry].id.to_string();
        let page = store.usage(&demo, Some(&id), 1).await.unwrap();
        assert_eq!(page[0].request, next, "after entry {entry}");
    }
    assert_eq!(store.usage(&demo, None, 0).await.unwrap(), []);
    assert_eq!(
        store.usage(&"nobody".parse().unwrap(), None, 9).await.unwrap(),
        []
    );
}

pub(crate) async fn a_request_of_very_many_parts_is_one_request(home: &dyn Home) {
    let store = furnished(home).await;
    let mut journal = Journal::new(1);
    journal.usage(record(None, 1, 1));
    for _ in 0..2_100 {
        let mut part = record(None, 2, 1);
        part.requests = 0;
        part.outcome = Outcome::Continued;
        journal.usage(part);
    }
    for request in 3..6 {
        journal.usage(record(None, request, 1));
    }
    rate_all(&*store, &journal, USAGE_BATCH_ENTRIES_MAX).await;
    let demo: AccountId = "demo".parse().unwrap();
    let parts = |page: Vec<RequestUsage>| page.iter().map(|r| (r.request, r.parts)).collect::<Vec<_>>();
    let all = store.usage(&demo, None, 9).await.unwrap();
    assert_eq!(parts(all.clone()), [(1, 1), (2, 2_100), (3, 1), (4, 1), (5, 1)]);
    for limit in 1..=5 {
        let page = store.usage(&demo, None, limit).await.unwrap();
        assert_eq!(page, all[..limit], "limit {limit}");
    }
    let page = store.usage(&demo, Some(&all[0].id), 2).await.unwrap();
    assert_eq!(page, all[1..3]);
}

pub(crate) async fn totals_and_booked_charges_agree(home: &dyn Home) {
    let store = furnished(home).await;
    store.add_account(account("other")).await.unwrap();
    for n in 1..=3_u128 {
        let mut journal = Journal::new(n);
        for request in 1..=9_u64 {
            let mut usage = record((request % 2 == 0).then(|| journal.lease(1)), request, request);
            if request % 3 == 0 {
                usage.account = "other".parse().unwrap();
                usage.lease = None;
                usage.outcome = Outcome::CutOff;
            }
            journal.usage(usage);
        }
        rate_all(&*store, &journal, 4).await;
    }
    let store = home.open().await;
    let charges = store.booked_charges(0, 100).await.unwrap();
    assert!(
        charges
            .iter()
            .all(|c| c.usage == c.amount && c.state == "pending")
    );
    let totals = store.totals().await.unwrap();
    for (name, rows, requests, cut_offs) in [("demo", 81, 18, 0), ("other", 54, 9, 9)] {
        let id: AccountId = name.parse().unwrap();
        let sum: i128 = charges
            .iter()
            .filter(|c| c.account == id)
            .map(|c| c.amount.nanos())
            .sum();
        let of = &totals[&id];
        assert_eq!((of.cost.nanos(), sum), (rows * 10_000, rows * 10_000));
        assert_eq!(i128::from(of.totals.rows), rows);
        assert_eq!(of.totals.bytes_out, of.totals.rows * 100);
        assert_eq!((of.totals.requests, of.totals.cut_offs), (requests, cut_offs));
    }
    assert_eq!(totals.len(), 2);
    let numbers: Vec<i64> = charges.iter().map(|c| c.number).collect();
    assert_eq!(
        numbers,
        (1..=i64::try_from(charges.len()).unwrap()).collect::<Vec<_>>()
    );
    assert_eq!(
        store.book_facts().await.unwrap().newest_charge,
        numbers[numbers.len() - 1]
    );
}

pub(crate) async fn book_facts_name_mistakes_and_wallets(home: &dyn Home) {
    let store = furnished(home).await;
    let nothing = store.book_facts().await.unwrap();
    assert_eq!((nothing.newest_charge, nothing.wallets.len()), (0, 0));
    store.add_account(account("other")).await.unwrap();
    store.set_wallet(&"other".parse().unwrap(), "w-2").await.unwrap();
    let mut journal = Journal::new(1);
    for request in 1..=25 {
        let mut wrong = record(None, request, 1);
        wrong.cost_nanos = i64::try_from(request).unwrap();
        journal.usage(wrong);
    }
    rate_all(&*store, &journal, 10).await;
    let facts = home.open().await.book_facts().await.unwrap();
    assert_eq!(facts.newest_charge, 3);
    assert_eq!(
        facts.wallets.into_iter().collect::<Vec<_>>(),
        [("other".parse().unwrap(), "w-2".into())]
    );
    // The oldest, at most twenty.
    let said: Vec<_> = (1..=20)
        .map(|n| {
            let id = journal.entries[n - 1].id;
            format!("entry {id} of account demo: the proxy took {n} nano-units, tariff t@1 makes it 10000")
        })
        .collect();
    assert_eq!(facts.mistakes, said);
    assert_eq!(facts.uncharged, Vec::<String>::new());
    assert_eq!(facts.lease_differences, Vec::<String>::new());
}
