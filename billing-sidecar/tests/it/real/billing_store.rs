//! The billing store on PostgreSQL: the port's contract, and what a connection that breaks at each place leaves.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use weir_billing::{
    adapters::PostgresStore,
    ports::{
        PortError,
        billing_store::{BillingStore, RateOutcome},
    },
};
use weir_contracts::{event::Place, ids::AccountId};
use weir_servers::{
    ServerUrl,
    chaos_proxy::ChaosProxy,
    postgres::{Isolation, Pool, PoolOptions},
};

use super::server_url;
use crate::{
    contract::billing_store::{
        Home, NOW, batch, billing_store_contract, furnish, furnished, place, prices, was_rated,
    },
    property::books_agree,
    world::{Journal, PATIENCE, World, record},
};

/// Longest wait of one statement, and what a busy machine adds.
const HANGS_AT_MOST: Duration = Duration::from_secs(5 + 4);

/// A schema that is dropped at the end.
pub(super) struct InSchema {
    schema: String,
}

impl InSchema {
    pub(super) async fn new() -> Self {
        Self {
            schema: format!("b{:016x}", fastrand::u64(..)),
        }
    }

    /// The store, reached by another address of its server.
    async fn open_by(&self, url: &ServerUrl) -> Result<PostgresStore, PortError> {
        PostgresStore::connect(url, &self.schema).await
    }

    /// The store behind a proxy that fails on command, furnished.
    async fn behind_proxy(&self) -> (ChaosProxy, PostgresStore) {
        let proxy = ChaosProxy::start(server()).unwrap();
        let store = self.open_by(&through(proxy.addr)).await.unwrap();
        furnish(&store).await;
        (proxy, store)
    }

    /// Connections of our own to the same tables.
    async fn pool(&self) -> Pool {
        let options = PoolOptions::new(&self.schema, "weir-test");
        Pool::connect(&url(), options, PATIENCE).await.unwrap()
    }
}

impl Drop for InSchema {
    fn drop(&mut self) {
        let schema = self.schema.clone();
        // A runtime of its own: this one may have a single thread, which stands here.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let options = PoolOptions::new(&schema, "weir-test");
                let pool = Pool::connect(&url(), options, PATIENCE).await.unwrap();
                let mut client = pool.get().await.unwrap().with_deadline(PATIENCE);
                let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
                client.batch(&drop).await.unwrap();
            });
        });
        let _ = dropping.join();
    }
}

#[async_trait]
impl Home for InSchema {
    async fn open(&self) -> Arc<dyn BillingStore> {
        Arc::new(self.open_by(&url()).await.unwrap())
    }
}

billing_store_contract!(InSchema::new);

fn url() -> ServerUrl {
    server_url("DATABASE_URL").into()
}

fn server() -> SocketAddr {
    let url = server_url("DATABASE_URL");
    let (_, host) = url.rsplit_once('@').unwrap();
    host.split('/').next().unwrap().parse().unwrap()
}

fn through(proxy: SocketAddr) -> ServerUrl {
    let url = server_url("DATABASE_URL");
    url.replace(&server().to_string(), &proxy.to_string()).into()
}

/// Rates until the store answers, as the rating consumer does: how often it was not usable, and the answer.
async fn rate_until_answered(
    store: &PostgresStore,
    after: Option<Place>,
    journal: &Journal,
) -> (u32, RateOutcome) {
    let next = after.map_or(0, |after| usize::try_from(after.sequence).unwrap());
    let batch = batch(after, &journal.entries[next..]);
    let (began, mut failures) = (Instant::now(), 0);
    loop {
        match store.rate(Arc::clone(&batch), NOW).await {
            Ok(outcome) => return (failures, outcome),
            Err(e) => assert!(matches!(e, PortError::Unavailable(..)), "{e}"),
        }
        failures += 1;
        assert!(began.elapsed() < PATIENCE, "it never came back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_before_in_or_after_any_statement_or_the_commit_books_once() {
    let home = InSchema::new().await;
    let (proxy, store) = home.behind_proxy().await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    let (mut undone, mut done) = (0, 0);
    // 0 to 19: the answer to each of the transaction's statements is lost, the commit's among them; then the requests.
    for cut in 0..32_u32 {
        let after = journal.entries.last().map(|e| place(1, e.id.sequence));
        journal.usage(record(Some(lease), u64::from(cut) * 2, 10));
        journal.usage(record(None, u64::from(cut) * 2 + 1, 10));
        match cut {
            0..20 => proxy.cut_after_request(cut + 1),
            20 => proxy.cut_now(),
            21 => proxy.cut_before_request(),
            22..27 => proxy.cut_in_request(usize::try_from(cut - 21).unwrap() * 300),
            _ => proxy.cut_in_answer(usize::try_from(cut - 26).unwrap() * 40),
        }
        let (failures, outcome) = rate_until_answered(&store, after, &journal).await;
        match outcome {
            RateOutcome::Rated { entries: 2, .. } => undone += u32::from(failures > 0),
            RateOutcome::Duplicate if failures > 0 => done += 1,
            other => panic!("cut {cut}: {other:?} after {failures} failures"),
        }
        let (_, again) = rate_until_answered(&store, after, &journal).await;
        assert_eq!(again, RateOutcome::Duplicate, "cut {cut}");
        let entries = journal.entries.len();
        let mark = store.mark(journal.proxy).await.unwrap();
        assert_eq!(mark, Some(place(1, u64::try_from(entries).unwrap())), "cut {cut}");
    }
    assert!(undone > 5, "{undone} were cut before the commit");
    assert!(done > 0, "no commit's answer was lost");
    // By another connection, after all of it: every record once.
    drop(store);
    let store = home.open().await;
    let demo: AccountId = "demo".parse().unwrap();
    assert_eq!(store.totals().await.unwrap()[&demo].totals.requests, 64);
    let charges = store.booked_charges(0, 1_000).await.unwrap();
    assert_eq!(charges.len(), 64);
    assert!(charges.iter().all(|c| c.usage == c.amount));
    assert_eq!(store.lease(lease).await.unwrap().unwrap().tally.records, 32);
    assert_eq!(store.usage(&demo, None, 1_000).await.unwrap().len(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_call_whose_answer_is_lost_is_unavailable_and_the_same_when_repeated() {
    let home = InSchema::new().await;
    let (proxy, store) = home.behind_proxy().await;
    let journal = Journal::new(1);
    let lease =
        weir_billing::domain::lease::Lease::new(journal.lease(1), "demo".parse().unwrap(), "t@1".into());
    for lost in 1..=4 {
        let version = format!("t@1{lost}");
        let tariff = prices().tariff(&version).unwrap();
        proxy.cut_after_request(lost);
        let mut answers = Vec::new();
        // The cut meets one of these; none of them answers what is not so.
        for _ in 0..6 {
            answers.push(store.add_tariff(tariff.clone()).await.map(|_| ()));
            answers.push(store.open_lease(lease.clone()).await);
            answers.push(store.set_granted(lease.id, i64::from(lost)).await);
            answers.push(store.usage(&lease.account, None, 9).await.map(|_| ()));
        }
        let failed: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(matches!(failed[0], PortError::Unavailable(..)), "{failed:?}");
        assert_eq!(store.tariff(&version).await.unwrap(), Some(tariff));
        let granted = store.lease(lease.id).await.unwrap().unwrap().granted_nanos;
        assert_eq!(granted, i64::from(lost));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_ends_every_call_within_its_deadline() {
    let home = InSchema::new().await;
    let (proxy, store) = home.behind_proxy().await;
    let mut journal = Journal::new(1);
    journal.usage(record(None, 1, 10));
    let first = batch(None, &journal.entries);
    proxy.freeze(true);
    let began = Instant::now();
    let demo: AccountId = "demo".parse().unwrap();
    let frozen = through(proxy.addr);
    let (rated, shown, facts, started) = tokio::join!(
        store.rate(first, NOW),
        store.usage(&demo, None, 9),
        store.book_facts(),
        home.open_by(&frozen),
    );
    assert!(began.elapsed() < HANGS_AT_MOST, "{:?}", began.elapsed());
    for error in [rated.err(), shown.err(), started.err()] {
        assert!(matches!(error, Some(PortError::Unavailable(..))), "{error:?}");
    }
    assert!(facts.is_err());
    proxy.freeze(false);
    let (_, outcome) = rate_until_answered(&store, None, &journal).await;
    assert!(was_rated(&outcome) || outcome == RateOutcome::Duplicate);
    assert_eq!(store.booked_charges(0, 9).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_unavailable_and_used_again_when_it_is_back() {
    let home = InSchema::new().await;
    let (proxy, store) = home.behind_proxy().await;
    proxy.refuse(true);
    proxy.cut_now();
    let mut journal = Journal::new(1);
    journal.usage(record(None, 1, 10));
    for _ in 0..10 {
        let away = store.rate(batch(None, &journal.entries), NOW).await;
        assert!(matches!(away, Err(PortError::Unavailable(..))), "{away:?}");
    }
    proxy.refuse(false);
    let (_, outcome) = rate_until_answered(&store, None, &journal).await;
    assert!(was_rated(&outcome), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_holds_a_mark_holds_up_its_proxy_for_a_bounded_time_and_no_other() {
    let home = InSchema::new().await;
    let store = furnished(&home).await;
    let [mut held, mut free] = [Journal::new(1), Journal::new(2)];
    for journal in [&mut held, &mut free] {
        journal.usage(record(None, 1, 10));
        assert!(was_rated(
            &store.rate(batch(None, &journal.entries), NOW).await.unwrap()
        ));
        journal.usage(record(None, 2, 10));
    }
    let pool = home.pool().await;
    let mut client = pool.get().await.unwrap();
    let mut holding = client.begin(Isolation::ReadCommitted).await.unwrap();
    holding
        .query("SELECT FROM marks WHERE proxy = $1 FOR UPDATE", &[&held.proxy.0])
        .await
        .unwrap();
    let next = |journal: &Journal| batch(Some(place(1, 1)), &journal.entries[1..]);
    let began = Instant::now();
    let (waited, through) = tokio::join!(store.rate(next(&held), NOW), store.rate(next(&free), NOW));
    assert!(matches!(waited, Err(PortError::Unavailable(..))), "{waited:?}");
    assert!(began.elapsed() < HANGS_AT_MOST, "{:?}", began.elapsed());
    assert!(was_rated(&through.unwrap()));
    holding.rollback().await.unwrap();
    assert!(was_rated(&store.rate(next(&held), NOW).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_says_why() {
    let home = InSchema::new().await;
    // Several at once make the tables once.
    let (url, schema) = (url(), &home.schema);
    let connect = || PostgresStore::connect(&url, schema);
    let opened = tokio::join!(connect(), connect(), connect(), connect());
    for one in [opened.0, opened.1, opened.2, opened.3] {
        one.unwrap();
    }
    PostgresStore::check(&url, schema).await.unwrap();
    let (start, at) = url.reveal().rsplit_once('@').unwrap();
    let (start, _) = start.rsplit_once(':').unwrap();
    let stranger = ServerUrl::from(format!("{start}:not-the-password@{at}"));
    for refused in [
        home.open_by(&stranger).await.map(drop),
        PostgresStore::check(&stranger, schema).await,
        PostgresStore::connect(&url, "No Schema").await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, PortError::Settings(..)), "{error}");
        assert!(!error.to_string().contains("not-the-password"), "{error}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let away = home.open_by(&through(nobody)).await.unwrap_err();
    assert!(matches!(away, PortError::Unavailable(..)), "{away}");
    let pool = home.pool().await;
    let newer = "INSERT INTO schema_versions (version) VALUES (99)";
    pool.get().await.unwrap().batch(newer).await.unwrap();
    let error = home.open_by(&url).await.unwrap_err();
    assert!(matches!(error, PortError::Corrupt(..)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_tampered_with_are_named_and_not_believed() {
    let home = InSchema::new().await;
    let store = furnished(&home).await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    journal.usage(record(Some(lease), 1, 10));
    assert!(was_rated(
        &store.rate(batch(None, &journal.entries), NOW).await.unwrap()
    ));
    let pool = home.pool().await;
    let mut client = pool.get().await.unwrap();
    client
        .batch("UPDATE entries SET charge = NULL; UPDATE leases SET rated = rated + 0.000000001;")
        .await
        .unwrap();
    let facts = store.book_facts().await.unwrap();
    let id = journal.entries[0].id;
    assert_eq!(
        facts.uncharged,
        [format!("entry {id} costs 100000 nano-units and has no charge")]
    );
    assert_eq!(
        facts.lease_differences,
        [format!(
            "lease {lease}: 100001 nano-units were rated, its charges are 100000"
        )]
    );
    assert!(store.booked_charges(0, 1).await.unwrap()[0].usage.is_zero());
    client
        .batch("UPDATE entries SET body = '{'; DELETE FROM marks;")
        .await
        .unwrap();
    let unreadable = store.usage(&"demo".parse().unwrap(), None, 1).await.unwrap_err();
    assert!(matches!(unreadable, PortError::Corrupt(..)), "{unreadable}");
    // A mark that went back does not book again what is there.
    let twice = store.rate(batch(None, &journal.entries), NOW).await.unwrap_err();
    assert!(matches!(twice, PortError::Corrupt(..)), "{twice}");
    assert_eq!(store.booked_charges(0, 9).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_agree_while_connections_are_cut() {
    let home = InSchema::new().await;
    let proxy = ChaosProxy::start(server()).unwrap();
    let world = World::on_database(through(proxy.addr), home.schema.clone()).await;
    books_agree(world.with_demo().await, Some(&proxy)).await;
    // What was cut was made anew.
    assert!(proxy.accepted() > 10, "{}", proxy.accepted());
}
