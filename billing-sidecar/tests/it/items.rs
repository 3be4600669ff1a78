//! The store of financial items: one suite over the embedded file and over SQL Server, whose part the sandbox plays over a socket;
//! and what only a network can do: connections that are lost at each point of a write, a server that is frozen, away, or restarted.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::json;
use tokio::time::Instant;
use weir_billing::{
    adapters::{SqlServerItems, SqliteItems, SqliteScratch},
    ports::{
        PortError,
        items::{FinancialItem, Items, ScratchItems},
    },
    selftest::{self, Report},
};
use weir_contracts::money::Amount;
use weir_sandbox::{EncryptionPolicy, Running};
use weir_servers::{ServerUrl, chaos_proxy::ChaosProxy};

use crate::world::{Journal, PATIENCE, World, record};

/// Deadline of a call where a test waits for it.
const SHORT: Duration = Duration::from_millis(400);

async fn sandbox() -> Running {
    weir_sandbox::start(weir_sandbox::Config::default())
        .await
        .unwrap()
}

fn url(at: SocketAddr) -> ServerUrl {
    format!("mssql://demo:demo@{at}/demo?encrypt=off").into()
}

fn item(id: &str, nanos: i128) -> FinancialItem {
    FinancialItem {
        id: id.to_owned(),
        account: "demo".parse().unwrap(),
        lease: None,
        tariff: "t@1".to_owned(),
        amount: Amount::from_nanos(nanos),
        currency: weir_contracts::money::Currency::USD,
        requests: 1,
        rows: 2,
        bytes_out: 3,
        txn_id: format!("txn-{id}"),
        rated_at: "2026-10-01T00:00:00.5Z".to_owned(),
    }
}

fn holds(report: &Report) {
    assert!(report.ok && report.checks.len() > 10, "{report:#?}");
}

#[tokio::test]
async fn the_embedded_store_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let report = selftest::items::run(&SqliteScratch::new(dir.path().to_owned())).await;
    holds(&report);
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "files are left");
}

#[tokio::test]
async fn sql_server_passes_the_suite() {
    let server = sandbox().await;
    let items = SqlServerItems::connect(&url(server.addr)).await.unwrap();
    let report = selftest::items::run(&items).await;
    holds(&report);
    assert!(!format!("{report:?} {items:?}").contains("demo:demo"));
    assert_eq!(
        items.amounts_after("", 10).await.unwrap(),
        [],
        "the service's own table is left alone"
    );
    server.stop().await;
}

/// How a store can be wrong.
#[derive(Clone, Copy)]
enum Wrong {
    /// Takes another content for the same item.
    Forgetful,
    /// Keeps amounts in a double.
    Rounding,
    /// Does not tell cases apart in its order.
    CaseBlind,
    /// Leaves out the first item of each page after the first page.
    Skipping,
    /// Loses every fifth write.
    Losing,
}

/// The embedded store, spoiled.
struct Spoiled {
    scratch: SqliteScratch,
    wrong: Wrong,
}

struct SpoiledItems {
    items: Arc<dyn Items>,
    wrong: Wrong,
    writes: std::sync::atomic::AtomicU64,
}

#[async_trait]
impl ScratchItems for Spoiled {
    fn place(&self) -> String {
        "a wrong store".to_owned()
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Items>, PortError> {
        let items = self.scratch.open(name).await?;
        Ok(Arc::new(SpoiledItems {
            items,
            wrong: self.wrong,
            writes: Default::default(),
        }))
    }

    async fn remove(&self, name: &str) -> Result<(), PortError> {
        self.scratch.remove(name).await
    }
}

#[async_trait]
impl Items for SpoiledItems {
    async fn write(&self, item: &FinancialItem) -> Result<(), PortError> {
        let nth = self.writes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut item = item.clone();
        match self.wrong {
            Wrong::Losing if nth % 5 == 4 => return Ok(()),
            Wrong::Rounding => item.amount = Amount::from_nanos(item.amount.nanos() as f64 as i128),
            _ => {}
        }
        match (self.items.write(&item).await, self.wrong) {
            (Err(PortError::OtherContent(..)), Wrong::Forgetful) => Ok(()),
            (told, _) => told,
        }
    }

    async fn amounts_after(&self, after: &str, limit: usize) -> Result<Vec<(String, Amount)>, PortError> {
        let mut page = self.items.amounts_after(after, limit).await?;
        match self.wrong {
            Wrong::CaseBlind => page.sort_by_key(|(id, _)| id.to_lowercase()),
            Wrong::Skipping if !after.is_empty() && page.len() > 1 => {
                page.remove(0);
            }
            _ => {}
        }
        Ok(page)
    }
}

#[tokio::test]
async fn a_store_that_is_wrong_fails_the_check_of_that_name() {
    for (wrong, check) in [
        (Wrong::Forgetful, "other content is refused"),
        (Wrong::Rounding, "amounts are exact"),
        (Wrong::CaseBlind, "id order"),
        (Wrong::Skipping, "paging"),
        (Wrong::Losing, "writers of one item"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let scratch = SqliteScratch::new(dir.path().to_owned());
        let report = selftest::items::run(&Spoiled { scratch, wrong }).await;
        let failed: Vec<_> = report.checks.iter().filter(|c| !c.ok).map(|c| c.check).collect();
        assert!(!report.ok && failed.contains(&check), "{check}: {report:#?}");
    }
}

/// A sandbox behind a proxy, and the adapter that speaks through it.
struct Torn {
    server: Running,
    proxy: ChaosProxy,
    items: SqlServerItems,
    /// Straight to the server.
    direct: SqlServerItems,
}

impl Torn {
    async fn new(deadline: Duration) -> Self {
        let server = sandbox().await;
        let proxy = ChaosProxy::start(server.addr).unwrap();
        let direct = SqlServerItems::connect(&url(server.addr)).await.unwrap();
        let items = SqlServerItems::connect_within(&url(proxy.addr), deadline)
            .await
            .unwrap();
        Self {
            server,
            proxy,
            items,
            direct,
        }
    }

    /// Writes until it is told that the item is there, as the settler does.
    async fn persist(&self, item: &FinancialItem) -> Result<(), PortError> {
        let by = Instant::now() + PATIENCE;
        loop {
            match self.items.write(item).await {
                Err(PortError::Unavailable(..)) if Instant::now() < by => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                told => return told,
            }
        }
    }

    async fn there(&self, prefix: &str) -> Vec<(String, Amount)> {
        let mut all = self.direct.amounts_after("", 1_000).await.unwrap();
        all.retain(|(id, _)| id.starts_with(prefix));
        all
    }
}

#[tokio::test]
async fn a_connection_lost_at_any_point_of_a_write_leaves_one_item() {
    let torn = Torn::new(Duration::from_secs(5)).await;
    type Cut = fn(&ChaosProxy);
    let cuts: [(&str, Cut); 7] = [
        ("before the write", |p| p.cut_before_request()),
        ("in the write's first bytes", |p| p.cut_in_request(3)),
        ("in the middle of the write", |p| p.cut_in_request(400)),
        ("after the write", |p| p.cut_after_request(1)),
        ("in the answer's first bytes", |p| p.cut_in_answer(3)),
        ("in the middle of the answer", |p| p.cut_in_answer(20)),
        ("while nothing happens", |p| p.cut_now()),
    ];
    for (index, (point, cut)) in cuts.into_iter().enumerate() {
        let one = item(&format!("cut:{index}"), 7);
        cut(&torn.proxy);
        let first = torn.items.write(&one).await;
        assert!(
            !matches!(first, Err(PortError::OtherContent(..) | PortError::Settings(..))),
            "{point}: {first:?}"
        );
        torn.persist(&one).await.unwrap();
        assert_eq!(
            torn.there(&one.id).await,
            [(one.id.clone(), one.amount)],
            "{point}"
        );
        // What the lost write left behind is recognised, not overwritten.
        let other = item(&one.id, 8);
        let told = torn.persist(&other).await;
        assert!(
            matches!(told, Err(PortError::OtherContent(..))),
            "{point}: {told:?}"
        );
    }
    torn.server.stop().await;
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_was_done_and_is_told_so_when_asked_again() {
    let torn = Torn::new(Duration::from_secs(5)).await;
    let one = item("answer:1", 7);
    torn.items.write(&item("answer:0", 7)).await.unwrap();
    torn.proxy.cut_after_request(1);
    let lost = torn.items.write(&one).await;
    assert!(matches!(lost, Err(PortError::Unavailable(..))), "{lost:?}");
    tokio::time::timeout(PATIENCE, torn.proxy.sprung()).await.unwrap();
    assert_eq!(torn.there("answer:1").await.len(), 1, "the server had done it");
    torn.persist(&one).await.unwrap();
    assert_eq!(torn.there("answer:1").await.len(), 1);
    torn.server.stop().await;
}

#[tokio::test]
async fn a_server_that_is_frozen_is_answered_for_within_the_deadline() {
    let torn = Torn::new(SHORT).await;
    torn.items.write(&item("frozen:0", 7)).await.unwrap();
    torn.proxy.freeze(true);
    let began = Instant::now();
    let crowd: Vec<FinancialItem> = (1..=20).map(|n| item(&format!("frozen:{n}"), n)).collect();
    let told = futures_util::future::join_all(crowd.iter().map(|one| torn.items.write(one))).await;
    assert!(
        told.iter().all(|t| matches!(t, Err(PortError::Unavailable(..)))),
        "{told:?}"
    );
    assert!(
        began.elapsed() < SHORT * 4,
        "{:?} for all of them at once",
        began.elapsed()
    );
    torn.proxy.freeze(false);
    for one in &crowd {
        torn.persist(one).await.unwrap();
    }
    assert_eq!(torn.there("frozen:").await.len(), crowd.len() + 1);
    torn.server.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_with_its_data_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let start = |listen: Option<SocketAddr>| {
        let mut config = weir_sandbox::Config {
            data_dir: Some(dir.path().to_owned()),
            ..Default::default()
        };
        config.listen = listen.unwrap_or(config.listen);
        weir_sandbox::start(config)
    };
    let server = start(None).await.unwrap();
    let proxy = ChaosProxy::start(server.addr).unwrap();
    let items = SqlServerItems::connect_within(&url(proxy.addr), SHORT)
        .await
        .unwrap();
    items.write(&item("restart:1", 7)).await.unwrap();
    server.stop().await;
    assert!(items.write(&item("restart:2", 7)).await.is_err());
    let server = start(None).await.unwrap();
    proxy.retarget(server.addr);
    let by = Instant::now() + PATIENCE;
    while let Err(e) = items.write(&item("restart:2", 7)).await {
        assert!(Instant::now() < by, "{e}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ids: Vec<String> = items
        .amounts_after("", 10)
        .await
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids, ["restart:1", "restart:2"]);
    server.stop().await;
}

#[tokio::test]
async fn wrong_settings_are_told_apart_from_a_server_that_is_away() {
    let server = sandbox().await;
    let at = server.addr;
    let unknown = SqlServerItems::connect(&format!("mssql://demo:wrong@{at}/demo?encrypt=off").into()).await;
    let text = unknown.as_ref().unwrap_err().to_string();
    assert!(matches!(unknown, Err(PortError::Settings(..))), "{text}");
    assert!(text.contains("items_url") && !text.contains("wrong@"), "{text}");
    let malformed = SqlServerItems::connect(&"mssql://demo:secret@host".into()).await;
    assert!(matches!(malformed, Err(PortError::Settings(..))));
    // The sandbox has no certificate here: a client that requires encryption must not go on without.
    let plain = SqlServerItems::connect(&format!("mssql://demo:demo@{at}/demo").into()).await;
    assert!(plain.is_err());
    SqlServerItems::check(&url(at)).await.unwrap();
    server.stop().await;
    let away = SqlServerItems::connect_within(&url(at), SHORT).await;
    assert!(matches!(away, Err(PortError::Unavailable(..))), "{away:?}");
}

#[tokio::test]
async fn the_connection_is_encrypted_and_the_certificate_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let ca = cert.display().to_string();
    let server = weir_sandbox::start(weir_sandbox::Config {
        tls: Some(weir_sandbox::TlsFiles { cert, key }),
        encryption: EncryptionPolicy::LoginOnly,
        ..Default::default()
    })
    .await
    .unwrap();
    let at = server.addr;
    for options in [
        format!("encrypt=required&ca={ca}"),
        "trust=true".to_owned(),
        format!("encrypt=login&ca={ca}"),
        "encrypt=off".to_owned(),
    ] {
        let to = format!("mssql://demo:demo@{at}/demo?{options}");
        let items = SqlServerItems::connect(&to.into())
            .await
            .unwrap_or_else(|e| panic!("{options}: {e}"));
        items.write(&item("tls:1", 7)).await.unwrap();
    }
    // Nobody vouches for the certificate.
    let told = SqlServerItems::connect(&format!("mssql://demo:demo@{at}/demo").into()).await;
    let text = told.as_ref().unwrap_err().to_string();
    assert!(
        matches!(told, Err(PortError::Settings(..))) && text.contains("ca=PATH"),
        "{text}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let server = weir_sandbox::start(weir_sandbox::Config {
        data_dir: Some(dir.path().to_owned()),
        encryption: EncryptionPolicy::LoginOnly,
        ..Default::default()
    })
    .await
    .unwrap();
    // As a DBA could have made it: the sandbox keeps its tables in SQLite.
    let file = rusqlite::Connection::open(dir.path().join("sandbox.db")).unwrap();
    file.execute_batch(
        "CREATE TABLE [weir_financial_items] ([id] nvarchar(200) COLLATE NOCASE PRIMARY KEY, [amount] decimal(15,2))",
    )
    .unwrap();
    for told in [
        SqlServerItems::connect(&url(server.addr)).await.map(|_| ()),
        SqlServerItems::check(&url(server.addr)).await,
    ] {
        let text = told.as_ref().unwrap_err().to_string();
        assert!(
            matches!(told, Err(PortError::Settings(..))) && text.contains("items-sql"),
            "{text}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn items_that_the_columns_cannot_hold_are_refused_before_they_are_sent() {
    let server = sandbox().await;
    let items = SqlServerItems::connect(&url(server.addr)).await.unwrap();
    let change = |change: fn(&mut FinancialItem)| {
        let mut one = item("odd:1", 7);
        change(&mut one);
        one
    };
    for odd in [
        change(|i| i.id = "x".repeat(201)),
        change(|i| i.id = "ends with a blank ".to_owned()),
        change(|i| i.txn_id.clear()),
        change(|i| i.rows = u64::MAX),
        change(|i| i.rated_at = "yesterday".to_owned()),
    ] {
        let told = items.write(&odd).await;
        assert!(matches!(told, Err(PortError::Corrupt(..))), "{told:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn billing_writes_its_items_to_sql_server_and_tests_it_on_demand() {
    let server = sandbox().await;
    let items_url = url(server.addr);
    let world = World::configured(|config| config.items_url = Some(items_url.clone()))
        .await
        .with_demo()
        .await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    world.gate().await.granted(lease, 0, 2_000_000_000).await;
    journal.usage(record(Some(lease), 1, 100_000));
    journal.close(lease);
    journal.ship(&world.outbox, 0).await;
    world
        .until("/api/accounts/demo", |a| a["available"] == "4.00")
        .await;
    let verdict = world.get("/api/reconcile").await;
    assert_eq!(
        (&verdict["ok"], &verdict["sums"]["items"]),
        (&json!(true), &json!("1.00")),
        "{verdict}"
    );
    let direct = SqlServerItems::connect(&items_url).await.unwrap();
    let written = direct.amounts_after("", 10).await.unwrap();
    assert_eq!(written.len(), 1, "{written:?}");
    let report = world.post("/api/selftest/items", json!({})).await;
    assert_eq!(report["ok"], true, "{report}");
    assert!(
        report["place"]
            .as_str()
            .unwrap()
            .starts_with("SQL Server demo@127.0.0.1:"),
        "{report}"
    );
    assert_eq!(direct.amounts_after("", 10).await.unwrap(), written);
    drop(world);
    server.stop().await;
}

#[tokio::test]
async fn a_start_waits_for_a_server_that_is_away() {
    let server = sandbox().await;
    let proxy = Arc::new(ChaosProxy::start(server.addr).unwrap());
    proxy.refuse(true);
    let (items_url, opens) = (url(proxy.addr), Arc::clone(&proxy));
    let opening = async {
        while opens.accepted() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        opens.refuse(false);
    };
    let starting = World::configured(|config| config.items_url = Some(items_url));
    let (world, ()) = tokio::join!(starting, opening);
    assert_eq!(world.get("/ready").await["ready"], true);
    drop(world);
    server.stop().await;
}

#[tokio::test]
async fn a_self_test_of_a_store_that_is_away_fails_within_its_deadline() {
    let torn = Torn::new(SHORT).await;
    torn.proxy.freeze(true);
    let began = Instant::now();
    let report = selftest::items::run(&torn.items).await;
    assert!(
        !report.ok && began.elapsed() < Duration::from_secs(28),
        "{report:#?}"
    );
    torn.server.stop().await;
}

#[tokio::test]
async fn the_embedded_store_is_opened_by_two_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("items.db");
    let (one, two) = (
        SqliteItems::open(&file).unwrap(),
        SqliteItems::open(&file).unwrap(),
    );
    let same = item("two:1", 7);
    let (a, b) = tokio::join!(one.write(&same), two.write(&same));
    a.and(b).unwrap();
    assert_eq!(one.amounts_after("", 10).await.unwrap().len(), 1);
}
