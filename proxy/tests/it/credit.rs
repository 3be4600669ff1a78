//! The balance cache: no credit overspent, nobody refused while credit is there, one question at a time, marks, closings.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use weir_contracts::entry::{Entry, EntryBody, LeaseClosed};
use weir_proxy::{
    credit::{AccountCredit, Credit, CreditOptions, More, Tenant},
    journal::{Journal, JournalOptions},
    ports::billing::{DenialReason, Login, Notice},
};

use crate::fake_billing::{FakeBilling, PRICE, account};

struct World {
    billing: Arc<FakeBilling>,
    reports: tokio::sync::mpsc::UnboundedReceiver<weir_proxy::ports::billing::CloseReport>,
    journal: Journal,
    credit: Credit,
    purse: Arc<AccountCredit>,
    _dir: tempfile::TempDir,
}

fn login() -> Login {
    Login {
        login: "demo".into(),
        ..Login::default()
    }
}

fn quick() -> CreditOptions {
    CreditOptions {
        deadline: Duration::from_millis(400),
        ..CreditOptions::default()
    }
}

async fn world(available: i64, options: CreditOptions) -> World {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let journal = Journal::open(
        dir.path(),
        JournalOptions {
            slots_max: 16_384,
            ..JournalOptions::default()
        },
    )
    .unwrap();
    let (billing, reports) = FakeBilling::new(available);
    let credit = Credit::start(options, journal.clone(), billing.clone());
    let Tenant::Known { credit: purse, terms } = credit.resolve(&login()).await.unwrap() else {
        panic!("unknown")
    };
    assert_eq!(terms.tariff.per_row_nanos, PRICE);
    World {
        billing,
        reports,
        journal,
        credit,
        purse,
        _dir: dir,
    }
}

fn closings(journal: &Journal) -> Vec<LeaseClosed> {
    let mut reader = journal.reader(None);
    let mut all = Vec::new();
    loop {
        let batch = reader.read(100, 1 << 20).unwrap();
        if batch.entries.is_empty() {
            return all;
        }
        for (_, json) in batch.entries {
            if let EntryBody::LeaseClosed(closed) = serde_json::from_slice::<Entry>(&json).unwrap().body {
                all.push(closed);
            }
        }
    }
}

/// Spends all it can, row by row in random chunks; returns the rows. Checks that each refusal is true when it is said.
fn spend_all(
    purse: &Arc<AccountCredit>,
    runtime: &tokio::runtime::Handle,
    seed: u64,
    total: i64,
    spent: &AtomicI64,
) -> i64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rows = 0;
    loop {
        let want = PRICE * rng.i64(1..=200);
        let least = if rng.bool() { PRICE } else { 1 };
        let Some(slice) = purse.take_between(least, want) else {
            match runtime.block_on(purse.more(PRICE)) {
                More::Enough => continue,
                More::Denied(denial) => {
                    assert_eq!(denial.reason, DenialReason::CreditSpent);
                    let left = total - spent.load(Ordering::SeqCst);
                    assert!(left < PRICE, "refused while {left} was there (seed {seed})");
                    return rows;
                }
                More::Unavailable(why) => panic!("{why} (seed {seed})"),
            }
        };
        let _use = purse.attach(slice.lease.number);
        if rng.u8(..) < 30 {
            std::thread::yield_now();
        }
        let covered = slice.nanos / PRICE;
        let used = if rng.bool() { covered } else { rng.i64(0..=covered) };
        rows += used;
        spent.fetch_add(used * PRICE, Ordering::SeqCst);
        purse.spent(slice.lease.number, used * PRICE);
        purse.give_back(slice.lease.number, slice.nanos - used * PRICE);
    }
}

/// `scripts/test --long` asks for the full count.
fn seeds(short: u64, long: u64) -> u64 {
    if std::env::var("WEIR_TEST_LONG").is_ok_and(|v| v == "1") {
        long
    } else {
        short
    }
}

#[test]
fn many_threads_spend_exactly_what_there_is() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for seed in 0..seeds(60, 3_000) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let total = rng.i64(0..3_000) * PRICE + rng.i64(0..PRICE);
        let options = CreditOptions {
            deadline: Duration::from_secs(20),
            ..CreditOptions::default()
        };
        let world = runtime.block_on(world(total, options));
        world.billing.set(|s| s.grant_max = rng.i64(1..=total.max(1)));
        let spent = AtomicI64::new(0);
        let rows: i64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..rng.u64(1..8))
                .map(|n| {
                    let (purse, handle, spent) = (&world.purse, runtime.handle(), &spent);
                    scope.spawn(move || spend_all(purse, handle, seed * 100 + n, total, spent))
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(rows, total / PRICE, "seed {seed}");
        assert_eq!(
            world.billing.at_once_max.load(Ordering::SeqCst).max(1),
            1,
            "more than one flight (seed {seed})"
        );
        runtime.block_on(world.credit.stop(Duration::from_secs(5)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_requests_in_the_middle_of_spending_lose_nothing() {
    for seed in 0..10 {
        let total = 2_000 * PRICE;
        let options = CreditOptions {
            deadline: Duration::from_secs(20),
            ..CreditOptions::default()
        };
        let mut world = world(total, options).await;
        let (purse, billing) = (world.purse.clone(), world.billing.clone());
        // What a real billing would release when the closing record arrives.
        let (journal, releasing) = (world.journal.clone(), billing.clone());
        let release = tokio::spawn(async move {
            let mut appended = journal.appended();
            loop {
                appended.changed().await.unwrap();
                for closed in closings(&journal) {
                    releasing.set(|s| {
                        if let Some(granted) = s.leases.remove(&closed.lease) {
                            s.closed.push(closed.lease);
                            s.available += granted - closed.cost_nanos;
                        }
                    });
                }
            }
        });
        let journal = world.journal.clone();
        let spender = tokio::spawn(async move { spend_journaled(&purse, &journal, seed).await });
        while !spender.is_finished() {
            billing
                .tell(Notice::CloseLeases {
                    account: account(),
                    request_id: seed.to_string(),
                })
                .await;
            let report = world.reports.recv().await.unwrap();
            assert!(!report.busy);
        }
        assert_eq!(spender.await.unwrap(), total, "seed {seed}");
        release.abort();
    }
}

/// One session that journals what it spends, as the session core does.
async fn spend_journaled(purse: &Arc<AccountCredit>, journal: &Journal, seed: u64) -> i64 {
    use weir_proxy::journal::{SessionRecord, SlotHead};
    let mut rng = fastrand::Rng::with_seed(seed);
    let session = SessionRecord {
        account: account(),
        principal: "demo".into(),
        upstream: String::new(),
        tariff: String::new(),
    };
    let session = journal.begin_session(session).await.unwrap();
    let mut spent = 0;
    loop {
        let Some(slice) = purse.take_between(PRICE, PRICE * rng.i64(1..40)) else {
            match purse.more(PRICE).await {
                More::Enough => continue,
                More::Denied(_) => return spent,
                More::Unavailable(why) => panic!("{why}"),
            }
        };
        let lease_use = purse.attach(slice.lease.number);
        purse.spent(slice.lease.number, slice.nanos / PRICE * PRICE);
        purse.give_back(slice.lease.number, slice.nanos % PRICE);
        let cost = slice.nanos / PRICE * PRICE;
        spent += cost;
        let kind = weir_contracts::entry::RequestKind::Batch;
        let slot = journal
            .open_slot(SlotHead {
                session,
                request: 1,
                kind,
                started_unix_nanos: 0,
            })
            .unwrap();
        let record = crate::journal::record_of(&slice.lease, cost);
        journal.close(slot, record).await.unwrap();
        drop(lease_use);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_never_spent_twice() {
    let world = world(100 * PRICE, quick()).await;
    world.billing.set(|s| s.lose_replies = 1);
    assert!(matches!(world.purse.more(PRICE).await, More::Unavailable(_)));
    // Within the pause the reason is repeated without a call; afterwards the same grant is there.
    assert!(matches!(world.purse.more(PRICE).await, More::Unavailable(_)));
    let again = loop {
        match world.purse.more(PRICE).await {
            More::Unavailable(_) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert_eq!(again, More::Enough);
    assert_eq!(world.billing.set(|s| s.leases.len()), 1);
    assert_eq!(world.purse.state().leftover_nanos, 100 * PRICE);
}

#[tokio::test]
async fn billing_away_or_slow_is_said_within_the_deadline() {
    let world = world(PRICE, quick()).await;
    world.billing.set(|s| s.delay = Duration::from_secs(60));
    let began = std::time::Instant::now();
    let all = futures_util::future::join_all((0..50).map(|_| world.purse.more(PRICE))).await;
    assert!(all.iter().all(|m| matches!(m, More::Unavailable(_))), "{all:?}");
    assert!(
        began.elapsed() < Duration::from_millis(1200),
        "{:?}",
        began.elapsed()
    );
    assert!(
        world.billing.asked() <= 3,
        "asked {} times",
        world.billing.asked()
    );
}

#[tokio::test]
async fn a_broke_tenant_is_refused_locally_until_a_push_or_the_recheck() {
    let world = world(0, quick()).await;
    assert!(matches!(world.purse.more(PRICE).await, More::Denied(_)));
    let asked = world.billing.asked();
    for _ in 0..100 {
        assert!(matches!(world.purse.more(PRICE).await, More::Denied(_)));
    }
    assert_eq!(world.billing.asked(), asked);
    world.billing.set(|s| s.available = PRICE);
    world.billing.tell_account().await;
    let began = std::time::Instant::now();
    while world.purse.more(PRICE).await != More::Enough {
        tokio::task::yield_now().await;
    }
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "the push did not open the gate: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn without_any_push_a_top_up_is_found_at_the_recheck() {
    let world = world(0, quick()).await;
    assert!(matches!(world.purse.more(PRICE).await, More::Denied(_)));
    world.billing.set(|s| s.available = PRICE);
    let began = std::time::Instant::now();
    while world.purse.more(PRICE).await != More::Enough {
        tokio::task::yield_now().await;
    }
    assert!(
        began.elapsed() < Duration::from_millis(1800),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_frozen_wallet_shuts_the_gate_though_credit_is_left() {
    let world = world(100 * PRICE, quick()).await;
    assert_eq!(world.purse.more(PRICE).await, More::Enough);
    world.billing.set(|s| s.frozen = true);
    world.billing.tell_account().await;
    while !world.purse.state().frozen {
        tokio::task::yield_now().await;
    }
    assert!(world.purse.take(PRICE).is_none());
    let More::Denied(denial) = world.purse.more(PRICE).await else {
        panic!("not denied")
    };
    assert_eq!(denial.reason, DenialReason::Frozen);
    world.billing.set(|s| s.frozen = false);
    world.billing.tell_account().await;
    while world.purse.more(PRICE).await != More::Enough {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.purse.take(100 * PRICE).map(|s| s.nanos), Some(100 * PRICE));
}

#[tokio::test]
async fn another_tariff_version_means_another_lease() {
    let world = world(100 * PRICE, quick()).await;
    world.billing.set(|s| s.grant_max = 10 * PRICE);
    assert_eq!(world.purse.more(PRICE).await, More::Enough);
    let first = world.purse.take(PRICE).unwrap();
    let first_use = world.purse.attach(first.lease.number);
    world.purse.spent(first.lease.number, PRICE);
    world.billing.set(|s| s.version = 2);
    world.billing.tell_account().await;
    let second = loop {
        match world.purse.take(PRICE) {
            Some(slice) if slice.lease.number != first.lease.number => break slice,
            Some(slice) => world.purse.give_back(slice.lease.number, slice.nanos),
            None => assert_eq!(world.purse.more(PRICE).await, More::Enough),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(second.lease.tariff.version, "demo@2");
    assert!(world.purse.is_closing(first.lease.number));
    assert!(closings(&world.journal).is_empty());
    drop(first_use);
    world.purse.give_back(second.lease.number, second.nanos);
    while closings(&world.journal).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(closings(&world.journal)[0].lease, first.lease.id);
}

#[tokio::test]
async fn a_close_request_is_answered_after_the_closing_record() {
    let mut world = world(100 * PRICE, quick()).await;
    assert_eq!(world.purse.more(PRICE).await, More::Enough);
    world
        .billing
        .tell(Notice::CloseLeases {
            account: account(),
            request_id: "r1".into(),
        })
        .await;
    let report = world.reports.recv().await.unwrap();
    assert_eq!(
        (report.request_id.as_str(), report.busy, report.last_sequence),
        ("r1", false, 1)
    );
    assert_eq!(closings(&world.journal).len(), 1);
    // Nothing open: answered at once.
    world
        .billing
        .tell(Notice::CloseLeases {
            account: account(),
            request_id: "r2".into(),
        })
        .await;
    assert_eq!(world.reports.recv().await.unwrap().request_id, "r2");
}

#[tokio::test]
async fn a_confirmation_means_that_what_was_told_before_it_holds() {
    let mut world = world(0, quick()).await;
    assert!(matches!(world.purse.more(PRICE).await, More::Denied(_)));
    for round in 0..20 {
        world.billing.set(|s| s.available += PRICE);
        world.billing.tell_account().await;
        let confirm = Notice::Confirm {
            account: account(),
            request_id: round.to_string(),
        };
        world.billing.tell(confirm).await;
        let report = world.reports.recv().await.unwrap();
        assert_eq!((report.request_id, report.last_sequence), (round.to_string(), 0));
        assert_eq!(world.purse.more(PRICE).await, More::Enough, "round {round}");
        let slice = world.purse.take(PRICE).unwrap();
        world.purse.spent(slice.lease.number, slice.nanos);
        assert!(matches!(world.purse.more(PRICE).await, More::Denied(_)));
    }
}

#[tokio::test]
async fn a_response_in_flight_keeps_its_credit_when_there_is_no_other() {
    let mut world = world(5 * PRICE, quick()).await;
    assert_eq!(world.purse.more(PRICE).await, More::Enough);
    let slice = world.purse.take(PRICE).unwrap();
    let number = slice.lease.number;
    let lease_use = world.purse.attach(number);
    world.purse.spent(number, slice.nanos);
    world
        .billing
        .tell(Notice::CloseLeases {
            account: account(),
            request_id: "r".into(),
        })
        .await;
    // Four rows more, out of a lease that billing wants closed: none is refused.
    for _ in 0..4 {
        let slice = loop {
            match world.purse.take_between(PRICE, PRICE) {
                Some(slice) => break slice,
                None => assert_eq!(world.purse.more(PRICE).await, More::Enough),
            }
        };
        assert_eq!(slice.lease.number, number);
        world.purse.spent(number, slice.nanos);
    }
    assert!(matches!(world.purse.more(PRICE).await, More::Denied(_)));
    let report = world.reports.recv().await.unwrap();
    assert!(report.busy);
    drop(lease_use);
}

#[tokio::test]
async fn an_idle_lease_is_closed_and_an_unused_validity_ends() {
    let options = CreditOptions {
        idle: Duration::from_millis(50),
        ..quick()
    };
    let world = world(100 * PRICE, options).await;
    world.billing.set(|s| s.valid = Duration::from_millis(20));
    assert_eq!(world.purse.more(PRICE).await, More::Enough);
    while world.purse.take(PRICE).is_some_and(|s| {
        world.purse.give_back(s.lease.number, s.nanos);
        true
    }) {
        tokio::task::yield_now().await;
    }
    // All is granted already: billing's "nothing more" renews the right to what is held.
    assert_eq!(world.purse.more(PRICE).await, More::Enough);
    let began = std::time::Instant::now();
    while closings(&world.journal).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stop_closes_what_is_open_and_frees_the_journal() {
    let world = world(100 * PRICE, quick()).await;
    assert_eq!(world.purse.more(PRICE).await, More::Enough);
    world.credit.stop(Duration::from_secs(2)).await;
    assert_eq!(closings(&world.journal).len(), 1);
    assert!(matches!(world.purse.more(PRICE).await, More::Unavailable(_)));
}

#[tokio::test]
async fn logins_are_resolved_once_for_a_while_and_strangers_are_told_why() {
    let world = world(PRICE, quick()).await;
    let asked = world.billing.asked();
    for _ in 0..10 {
        assert!(matches!(
            world.credit.resolve(&login()).await,
            Ok(Tenant::Known { .. })
        ));
    }
    assert_eq!(world.billing.asked(), asked);
    let stranger = Login {
        login: "eve".into(),
        ..Login::default()
    };
    assert!(matches!(
        world.credit.resolve(&stranger).await,
        Ok(Tenant::Unknown(_))
    ));
    world.billing.set(|s| s.away = true);
    let other = Login {
        login: "demo".into(),
        database: "x".into(),
        ..Login::default()
    };
    assert!(world.credit.resolve(&other).await.is_err());
    world.credit.registered().await.unwrap();
}

#[tokio::test]
async fn a_login_seen_lately_is_let_in_while_billing_is_away() {
    let options = CreditOptions {
        resolve_ttl: Duration::ZERO,
        resolve_keep: Duration::from_secs(1),
        ..quick()
    };
    let world = world(PRICE, options).await;
    let began = std::time::Instant::now();
    world.billing.set(|s| s.away = true);
    while let Ok(tenant) = world.credit.resolve(&login()).await {
        assert!(matches!(tenant, Tenant::Known { .. }));
        assert!(began.elapsed() < Duration::from_secs(5), "it is let in for ever");
        tokio::task::yield_now().await;
    }
    assert!(
        began.elapsed() > Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    world.billing.set(|s| s.away = false);
    assert!(world.credit.resolve(&login()).await.is_ok());
}

#[tokio::test]
async fn a_start_that_billing_does_not_believe_gets_no_credit_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), JournalOptions::default()).unwrap();
    let (billing, _reports) = FakeBilling::new(10 * PRICE);
    billing.set(|s| s.refuses = true);
    let credit = Credit::start(quick(), journal.clone(), billing.clone());
    let Tenant::Known { credit: purse, .. } = credit.resolve(&login()).await.unwrap() else {
        panic!("unknown")
    };
    match purse.more(PRICE).await {
        More::Unavailable(why) => assert!(why.contains("a copied directory"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(billing.set(|s| s.leases.is_empty()), "asked for all the same");
    billing.set(|s| s.refuses = false);
    let believed = async {
        while purse.more(PRICE).await != More::Enough {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), believed)
        .await
        .unwrap();
}
