//! The PostgreSQL pool: sessions, deadlines, transactions, migrations, settings, and what each failure is called.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use weir_servers::{
    ServerUrl,
    chaos_proxy::ChaosProxy,
    postgres::{Isolation, Pool, PoolOptions, PostgresError},
};

/// Far above what a loaded machine needs, far below a test's patience.
const DEADLINE: Duration = Duration::from_secs(10);
/// For calls that are meant to run into it.
const SHORT: Duration = Duration::from_millis(600);
/// Beyond a deadline, for a loaded machine.
const SLACK: Duration = Duration::from_secs(4);

/// A name that no other test uses at the same time.
fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
    format!(
        "t_{now}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A schema's name of our own, and maybe a role; both are dropped at the end.
struct Place {
    schema: String,
    owner: Pool,
}

impl Place {
    async fn new() -> Self {
        let schema = fresh_name();
        let owner = Pool::connect(&url(), options(&schema), DEADLINE).await.unwrap();
        Self { schema, owner }
    }

    async fn sql(&self, sql: &str) {
        self.owner.get().await.unwrap().batch(sql).await.unwrap();
    }

    /// A role that may log in and no more, named as the schema; its address.
    async fn role(&self) -> String {
        let name = &self.schema;
        self.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'canary-secret'"))
            .await;
        with_user(name, "canary-secret")
    }

    async fn end(self) {
        let name = &self.schema;
        let mut client = self.owner.get().await.unwrap();
        client
            .batch(&format!("DROP SCHEMA IF EXISTS {name} CASCADE"))
            .await
            .unwrap();
        client
            .batch(&format!("DROP ROLE IF EXISTS {name}"))
            .await
            .unwrap();
    }
}

fn url() -> ServerUrl {
    super::address("DATABASE_URL").into()
}

/// The address with another user.
fn with_user(user: &str, password: &str) -> String {
    let url = super::address("DATABASE_URL");
    let (_, host) = url.rsplit_once('@').unwrap();
    format!("postgres://{user}:{password}@{host}")
}

/// The address with another host.
fn through(proxy: SocketAddr) -> ServerUrl {
    let url = super::address("DATABASE_URL");
    url.replace(&server().to_string(), &proxy.to_string()).into()
}

fn server() -> SocketAddr {
    let url = super::address("DATABASE_URL");
    let (_, host) = url.rsplit_once('@').unwrap();
    host.split('/').next().unwrap().parse().unwrap()
}

fn options(schema: &str) -> PoolOptions {
    PoolOptions {
        size: 2,
        deadline: DEADLINE,
        ..PoolOptions::new(schema, schema)
    }
}

async fn number(pool: &Pool, sql: &str) -> i64 {
    let row = pool.get().await.unwrap().query_one(sql, &[]).await.unwrap();
    row.try_get(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_that_migrate_at_once_each_script_runs_once_and_a_bad_one_leaves_no_trace() {
    let place = Place::new().await;
    let scripts = [
        "CREATE TABLE a (n bigint); INSERT INTO a VALUES (1)",
        "ALTER TABLE a ADD m bigint; INSERT INTO a VALUES (2)",
    ];
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let schema = place.schema.clone();
        starts.spawn(async move {
            let pool = Pool::connect(&url(), options(&schema), DEADLINE).await.unwrap();
            pool.migrate(&scripts).await
        });
    }
    while let Some(outcome) = starts.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(number(&place.owner, "SELECT count(*) FROM a").await, 2);
    let bad = [scripts[0], scripts[1], "INSERT INTO a VALUES (3); SELECT 1 / 0"];
    let error = place.owner.migrate(&bad).await.unwrap_err();
    assert!(
        matches!(&error, PostgresError::Damaged(what) if what.contains("division by zero")),
        "{error}"
    );
    assert_eq!(number(&place.owner, "SELECT count(*) FROM a").await, 2);
    let mended = [scripts[0], scripts[1], "INSERT INTO a VALUES (3)"];
    place.owner.migrate(&mended).await.unwrap();
    place.owner.migrate(&mended).await.unwrap();
    assert_eq!(number(&place.owner, "SELECT count(*) FROM a").await, 3);
    let older = place.owner.migrate(&scripts).await.unwrap_err();
    assert!(
        matches!(&older, PostgresError::Damaged(what) if what.contains("newer program")),
        "{older}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_make_its_schema_is_told_what_an_administrator_runs() {
    let place = Place::new().await;
    let pool = Pool::connect(&place.role().await.into(), options(&place.schema), DEADLINE)
        .await
        .unwrap();
    let name = &place.schema;
    let PostgresError::Settings(told) = pool.migrate(&["CREATE TABLE a (n bigint)"]).await.unwrap_err()
    else {
        panic!("another error");
    };
    let sql = format!("CREATE SCHEMA {name} AUTHORIZATION \"{name}\";");
    assert!(told.contains(&sql), "{told}");
    // What the administrator runs, by a role that is a member of the new one.
    place.sql(&format!("GRANT {name} TO CURRENT_USER")).await;
    place.sql(&sql).await;
    pool.migrate(&["CREATE TABLE a (n bigint)"]).await.unwrap();
    place
        .sql(&format!("REVOKE CREATE ON SCHEMA {name} FROM {name}"))
        .await;
    let PostgresError::Settings(told) = pool.migrate(&[]).await.unwrap_err() else {
        panic!("another error");
    };
    assert!(told.contains(&format!("GRANT ALL ON SCHEMA {name}")), "{told}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_would_lose_a_commit_are_named_with_the_remedy_and_overridden_meanwhile() {
    let place = Place::new().await;
    place.owner.check_settings().await.unwrap();
    let name = &place.schema;
    let role = place.role().await;
    place.sql(&format!("ALTER ROLE {name} SET synchronous_commit = off; ALTER ROLE {name} SET default_transaction_read_only = on")).await;
    let pool = Pool::connect(&role.into(), options(name), DEADLINE)
        .await
        .unwrap();
    let PostgresError::Settings(told) = pool.check_settings().await.unwrap_err() else {
        panic!("another error");
    };
    for part in [
        "synchronous_commit is off, needed is on",
        "ALTER SYSTEM SET synchronous_commit = on",
        "default_transaction_read_only is on, needed is off",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!told.contains("fsync"), "{told}");
    let row = pool
        .get()
        .await
        .unwrap()
        .query_one("SHOW synchronous_commit", &[])
        .await
        .unwrap();
    assert_eq!(row.try_get::<_, String>(0).unwrap(), "on");
    drop(pool);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_costs_a_deadline_and_its_late_answer_reaches_nobody() {
    let proxy = ChaosProxy::start(server()).unwrap();
    let short = PoolOptions {
        deadline: SHORT,
        size: 1,
        ..PoolOptions::new("public", "weir")
    };
    let pool = Pool::connect(&through(proxy.addr), short, DEADLINE)
        .await
        .unwrap();
    assert_eq!(number(&pool, "SELECT 1::bigint").await, 1);
    proxy.freeze(true);
    for _ in 0..3 {
        let asked = Instant::now();
        let outcome = async { pool.get().await?.query_one("SELECT 2::bigint", &[]).await }.await;
        assert!(
            matches!(outcome, Err(PostgresError::Unavailable(_))),
            "{outcome:?}"
        );
        assert!(asked.elapsed() < SHORT * 2 + SLACK, "{:?}", asked.elapsed());
    }
    proxy.freeze(false);
    // A new connection: the old one's answer, if it still comes, is not taken for this one's.
    let until = Instant::now() + DEADLINE;
    let answer = loop {
        match async { pool.get().await?.query_one("SELECT 3::bigint", &[]).await }.await {
            Ok(row) => break row.try_get::<_, i64>(0).unwrap(),
            Err(e) => assert!(e.is_passing() && Instant::now() < until, "{e}"),
        }
    };
    assert_eq!(answer, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_or_left_open_is_undone_and_not_lent_again() {
    let place = Place::new().await;
    place
        .owner
        .migrate(&["CREATE TABLE a (n bigint PRIMARY KEY)"])
        .await
        .unwrap();
    let one = PoolOptions {
        size: 1,
        ..options(&place.schema)
    };
    let pool = Pool::connect(&url(), one, DEADLINE).await.unwrap();
    let backend = "SELECT pg_backend_pid()::bigint";
    let first = number(&pool, backend).await;
    assert_eq!(
        number(&pool, backend).await,
        first,
        "a whole connection is used again"
    );
    // Given up while it waits.
    {
        let mut client = pool.get().await.unwrap();
        let slow = client.query("SELECT pg_sleep(60)", &[]);
        assert!(tokio::time::timeout(SHORT, slow).await.is_err());
        let after = client.query("SELECT 1", &[]).await;
        assert!(matches!(after, Err(PostgresError::Unavailable(_))), "{after:?}");
    }
    let second = number(&pool, backend).await;
    assert_ne!(second, first);
    // Left open.
    {
        let mut client = pool.get().await.unwrap();
        let mut open = client.begin(Isolation::ReadCommitted).await.unwrap();
        open.execute("INSERT INTO a VALUES (1)", &[]).await.unwrap();
    }
    assert_eq!(number(&pool, "SELECT count(*) FROM a").await, 0);
    let third = number(&pool, backend).await;
    assert_ne!(third, second);
    // Undone on purpose, and a conflict outside a transaction: the connection stays.
    {
        let mut client = pool.get().await.unwrap();
        let mut undone = client.begin(Isolation::Serializable).await.unwrap();
        undone.execute("INSERT INTO a VALUES (2)", &[]).await.unwrap();
        undone.rollback().await.unwrap();
        client.execute("INSERT INTO a VALUES (3)", &[]).await.unwrap();
        let twice = client.execute("INSERT INTO a VALUES (3)", &[]).await;
        let constraint = "a_pkey".to_owned();
        assert_eq!(twice, Err(PostgresError::UniqueViolation { constraint }));
    }
    assert_eq!(number(&pool, backend).await, third);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_failed_is_not_taken_for_committed() {
    let place = Place::new().await;
    place
        .owner
        .migrate(&["CREATE TABLE a (n bigint PRIMARY KEY)"])
        .await
        .unwrap();
    let mut client = place.owner.get().await.unwrap();
    let mut failing = client.begin(Isolation::ReadCommitted).await.unwrap();
    failing.execute("INSERT INTO a VALUES (1)", &[]).await.unwrap();
    let twice = failing.execute("INSERT INTO a VALUES (1)", &[]).await;
    // PostgreSQL itself answers COMMIT here by a rollback that looks like success.
    assert_eq!(failing.commit().await, twice.map(drop));
    assert_eq!(number(&place.owner, "SELECT count(*) FROM a").await, 0);
    drop(client);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_decided_on_the_same_rows_conflict() {
    let place = Place::new().await;
    place
        .owner
        .migrate(&["CREATE TABLE a (n bigint); INSERT INTO a VALUES (0)"])
        .await
        .unwrap();
    let (mut one, mut two) = (place.owner.get().await.unwrap(), place.owner.get().await.unwrap());
    let mut first = one.begin(Isolation::Serializable).await.unwrap();
    let mut second = two.begin(Isolation::Serializable).await.unwrap();
    for transaction in [&mut first, &mut second] {
        transaction.query_one("SELECT n FROM a", &[]).await.unwrap();
    }
    first.execute("UPDATE a SET n = 1", &[]).await.unwrap();
    first.commit().await.unwrap();
    let late = second.execute("UPDATE a SET n = 2", &[]).await;
    assert!(matches!(late, Err(PostgresError::Serialization(_))), "{late:?}");
    assert!(second.commit().await.unwrap_err().is_passing());
    drop((one, two));
    assert_eq!(number(&place.owner, "SELECT n FROM a").await, 1);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_told_at_once_and_what_may_pass_is_waited_for() {
    for (wrong, says) in [
        (with_user("weir_nobody", "canary-secret"), "user and password"),
        (
            format!("{}_missing", super::address("DATABASE_URL")),
            "does not exist",
        ),
        (
            format!("{}?sslmode=require", super::address("DATABASE_URL")),
            "TLS",
        ),
    ] {
        let asked = Instant::now();
        let error = Pool::connect(&wrong.into(), options("public"), Duration::from_secs(60))
            .await
            .unwrap_err();
        assert!(matches!(error, PostgresError::Settings(_)), "{error}");
        assert!(asked.elapsed() < DEADLINE + SLACK);
        assert!(error.to_string().contains(says), "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
    let proxy = ChaosProxy::start(server()).unwrap();
    proxy.refuse(true);
    let once = Pool::connect(&through(proxy.addr), options("public"), Duration::ZERO).await;
    assert!(matches!(once, Err(PostgresError::Unavailable(_))), "{once:?}");
    let before = proxy.accepted();
    let url = through(proxy.addr);
    let waiting = tokio::spawn(async move { Pool::connect(&url, options("public"), DEADLINE).await });
    let until = Instant::now() + DEADLINE;
    while proxy.accepted() < before + 2 {
        assert!(Instant::now() < until);
        tokio::task::yield_now().await;
    }
    proxy.refuse(false);
    waiting.await.unwrap().unwrap();
}
