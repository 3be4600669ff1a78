//! Promises about a charge's way: pending, captured, itemized or failed, and the release that follows.

use weir_billing::{
    domain::settle::{ChargeState, PendingCharge, Work},
    ports::billing_store::{BillingStore, OpenCharges},
};
use weir_contracts::{ids::AccountId, money::Amount};

use super::{Home, NOW, account, batch, furnished, place, was_rated};
use crate::world::{Journal, record};

fn demo() -> AccountId {
    "demo".parse().unwrap()
}

/// Two charges under a lease that is closing; their ids.
async fn two_charges(store: &dyn BillingStore) -> (Journal, [String; 2]) {
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    journal.usage(record(Some(lease), 1, 10));
    assert!(was_rated(
        &store.rate(batch(None, &journal.entries), NOW).await.unwrap()
    ));
    journal.usage(record(Some(lease), 2, 20));
    journal.close(lease);
    let rest = batch(Some(place(1, 1)), &journal.entries[1..]);
    assert!(was_rated(&store.rate(rest, NOW).await.unwrap()));
    let ids = [0, 1].map(|n| journal.entries[n].id.to_string());
    (journal, ids)
}

fn charges(work: Vec<Work>) -> Vec<PendingCharge> {
    work.into_iter()
        .filter_map(|w| match w {
            Work::Charge(charge) => Some(*charge),
            Work::Release { .. } => None,
        })
        .collect()
}

/// State and transaction of each charge.
async fn states(home: &dyn Home) -> Vec<(&'static str, Option<String>)> {
    let booked = home.open().await.booked_charges(0, 9).await.unwrap();
    booked.into_iter().map(|c| (c.state, c.txn_id)).collect()
}

pub(crate) async fn a_pending_charge_tells_all_that_its_capture_needs(home: &dyn Home) {
    let store = furnished(home).await;
    let (journal, [first, _]) = two_charges(&*store).await;
    let work = home.open().await.work(&demo(), 9).await.unwrap();
    let expected = PendingCharge {
        number: 1,
        id: first,
        account: demo(),
        wallet_id: None,
        lease: Some(journal.lease(1)),
        amount: Amount::from(100_000),
        currency: "USD".parse().unwrap(),
        tariff: "t@1".into(),
        totals: weir_billing::domain::rating::Totals {
            requests: 1,
            rows: 10,
            bytes_out: 1_000,
            cut_offs: 0,
        },
        state: ChargeState::Pending,
        txn_id: None,
        rated_at: NOW.into(),
    };
    assert_eq!(charges(work)[0], expected);
}

pub(crate) async fn charges_go_forward_only(home: &dyn Home) {
    let store = furnished(home).await;
    let (_, [first, _]) = two_charges(&*store).await;
    // Not before it is captured; and the first capture is the one that counts.
    store.set_itemized(&first).await.unwrap();
    assert_eq!(states(home).await[0], ("pending", None));
    for txn in ["t-1", "t-2"] {
        home.open().await.set_captured(&first, txn).await.unwrap();
    }
    store.set_failed(&first, "too late").await.unwrap();
    assert_eq!(states(home).await[0], ("captured", Some("t-1".into())));
    store.set_itemized(&first).await.unwrap();
    store.set_captured(&first, "t-3").await.unwrap();
    assert_eq!(states(home).await[0], ("itemized", Some("t-1".into())));
    let open = OpenCharges {
        open: 1,
        failed: 0,
        oldest: Some(2),
    };
    assert_eq!(store.charges_open().await.unwrap(), open);
}

pub(crate) async fn a_hold_is_released_after_its_last_capture(home: &dyn Home) {
    let store = furnished(home).await;
    let (journal, [first, second]) = two_charges(&*store).await;
    let lease = journal.lease(1);
    store.set_captured(&first, "t-1").await.unwrap();
    store.set_itemized(&first).await.unwrap();
    let work = store.work(&demo(), 9).await.unwrap();
    assert_eq!(
        charges(work.clone()).len(),
        work.len(),
        "one charge is not captured: {work:?}"
    );
    store.set_wallet(&demo(), "w-1").await.unwrap();
    store.set_captured(&second, "t-4").await.unwrap();
    // Captured, and the item not written: the release may go ahead.
    let release = Work::Release {
        lease,
        wallet_id: Some("w-1".into()),
    };
    let work = store.work(&demo(), 9).await.unwrap();
    assert_eq!(work.last(), Some(&release));
    let captured = &charges(work)[0];
    assert_eq!(
        (captured.state, captured.txn_id.as_deref()),
        (ChargeState::Captured, Some("t-4"))
    );
    assert_eq!(captured.wallet_id.as_deref(), Some("w-1"));
    store.set_itemized(&second).await.unwrap();
    assert_eq!(store.work(&demo(), 9).await.unwrap(), [release]);
    let unsettled = store.unsettled(&demo()).await.unwrap();
    assert_eq!((unsettled.charges, unsettled.leases.len()), (0, 1));
    store.set_settled(lease).await.unwrap();
    let store = home.open().await;
    assert_eq!(store.work(&demo(), 9).await.unwrap(), []);
    assert_eq!(store.accounts_with_work(9).await.unwrap(), []);
    assert_eq!(store.unsettled(&demo()).await.unwrap(), Default::default());
    assert_eq!(store.charges_open().await.unwrap(), OpenCharges::default());
}

pub(crate) async fn a_failed_charge_keeps_its_hold(home: &dyn Home) {
    let store = furnished(home).await;
    let (journal, [first, second]) = two_charges(&*store).await;
    store.set_captured(&first, "t-1").await.unwrap();
    store.set_itemized(&first).await.unwrap();
    store.set_failed(&second, "frozen").await.unwrap();
    store.set_captured(&second, "t-2").await.unwrap();
    let store = home.open().await;
    assert_eq!(store.work(&demo(), 9).await.unwrap(), []);
    // The lease still closes, so its account is looked at.
    assert_eq!(store.accounts_with_work(9).await.unwrap(), [demo()]);
    let unsettled = store.unsettled(&demo()).await.unwrap();
    assert_eq!((unsettled.charges, unsettled.failed), (0, 1));
    assert_eq!(unsettled.leases[0].id, journal.lease(1));
    let open = OpenCharges {
        open: 0,
        failed: 1,
        oldest: None,
    };
    assert_eq!(store.charges_open().await.unwrap(), open);
}

pub(crate) async fn work_is_handed_out_in_order_and_bounded(home: &dyn Home) {
    let store = furnished(home).await;
    for name in ["b", "a", "c"] {
        store.add_account(account(name)).await.unwrap();
    }
    let mut journal = Journal::new(1);
    for round in 0..4 {
        let after = journal.entries.last().map(|e| place(1, e.id.sequence));
        let from = journal.entries.len();
        for name in ["c", "a", "b"] {
            let mut usage = record(None, round, 1);
            usage.account = name.parse().unwrap();
            journal.usage(usage);
        }
        let part = batch(after, &journal.entries[from..]);
        assert!(was_rated(&store.rate(part, NOW).await.unwrap()));
    }
    let names = |accounts: Vec<AccountId>| accounts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(store.accounts_with_work(2).await.unwrap()), ["a", "b"]);
    assert_eq!(names(store.accounts_with_work(9).await.unwrap()), ["a", "b", "c"]);
    assert_eq!(store.accounts_with_work(0).await.unwrap(), []);
    let b: AccountId = "b".parse().unwrap();
    let numbers = |work: Vec<Work>| charges(work).iter().map(|c| c.number).collect::<Vec<_>>();
    assert_eq!(numbers(store.work(&b, 3).await.unwrap()), [3, 6, 9]);
    assert_eq!(numbers(store.work(&b, 99).await.unwrap()), [3, 6, 9, 12]);
    assert_eq!(store.work(&demo(), 9).await.unwrap(), []);
    let page = store.booked_charges(4, 3).await.unwrap();
    assert_eq!(page.iter().map(|c| c.number).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(store.booked_charges(12, 3).await.unwrap(), []);
}
