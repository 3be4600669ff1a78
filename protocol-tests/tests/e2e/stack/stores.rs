//! The stores themselves, asked by other clients than ours: what PostgreSQL, MongoDB and SQL Server hold adds up to what the drivers saw,
//! and nothing lies in RabbitMQ or Redis any more.

use std::process::Command;
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use redis::Commands;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, numeric::Numeric};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;
use tokio_util::compat::TokioAsyncWriteCompatExt;
use weir_protocol_tests::deadline::wait_for;
use weir_protocol_tests::money::nanos;
use weir_protocol_tests::stack::Stack;

use crate::mixed::Used;

/// For all that one store is asked.
const ASK_WITHIN: Duration = Duration::from_secs(30);

/// The transport may still be acknowledging what is booked.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);

/// Table of the financial items.
const ITEMS: &str = "dbo.weir_financial_items";

/// Every store shows these rows and their cost.
pub(crate) fn assert_hold(stack: &Stack, used: &Used) {
    let runtime = Runtime::new().expect("a runtime");
    let asked = runtime.block_on(async {
        let all = async {
            let captured = billing(stack.line("BILLING_DATABASE_URL"), used).await;
            wallet(stack.line("WALLET_DATABASE_URL"), used).await;
            let shown = read_model(stack.line("MONGODB_URL"), used).await;
            assert_eq!(captured, shown, "charges and documents name other transactions");
            assert_eq!(items(stack.line("WEIR_ITEMS_URL")).await, used.cost, "items");
        };
        tokio::time::timeout(4 * ASK_WITHIN, all).await
    });
    asked.expect("the stores answer in time");
    assert_nothing_on_its_way(stack);
}

async fn rows_of(url: &str, sql: &str) -> Vec<tokio_postgres::Row> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL");
    let running = tokio::spawn(connection);
    let rows = client.query(sql, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    running.abort();
    rows
}

async fn text(url: &str, sql: &str) -> String {
    let rows = rows_of(url, sql).await;
    rows.first()
        .and_then(|row| row.get::<_, Option<String>>(0))
        .unwrap_or_default()
}

/// Usage query by query, charges, and no mistakes. The transactions of its captures, in order.
async fn billing(url: &str, used: &Used) -> Vec<String> {
    let requests = "SELECT sum((body::json ->> 'rows')::bigint)::bigint FROM billing.entries
        WHERE request IS NOT NULL GROUP BY proxy, epoch, session, request";
    let mut rows: Vec<u64> = rows_of(url, requests)
        .await
        .iter()
        .map(|row| u64::try_from(row.get::<_, i64>(0)).expect("rows"))
        .filter(|rows| *rows > 0)
        .collect();
    rows.sort_unstable();
    assert_eq!(rows, used.rows, "usage in PostgreSQL");
    for (what, sql) in [
        ("usage", "SELECT sum(cost)::text FROM billing.entries"),
        (
            "charges",
            "SELECT sum(amount)::text FROM billing.charges WHERE state = 'itemized'",
        ),
        (
            "charges of any state",
            "SELECT sum(amount)::text FROM billing.charges",
        ),
    ] {
        assert_eq!(nanos(&text(url, sql).await), used.cost, "{what}");
    }
    let mistakes = text(url, "SELECT count(*)::text FROM billing.mistakes").await;
    assert_eq!(mistakes, "0", "mistakes");
    let gaps = "SELECT count(*)::text FROM (SELECT proxy, epoch, max(sequence) - count(*) AS missing FROM billing.entries
        GROUP BY proxy, epoch) AS streams WHERE missing <> 0";
    assert_eq!(text(url, gaps).await, "0", "streams with a sequence missing");
    let captured = "SELECT txn_id FROM billing.charges ORDER BY txn_id COLLATE \"C\"";
    rows_of(url, captured)
        .await
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Postings sum to zero and revenue is the cost.
async fn wallet(url: &str, used: &Used) {
    let sum = "SELECT sum(amount)::text FROM wallet.postings";
    assert_eq!(nanos(&text(url, sum).await), 0, "postings");
    let revenue = format!("{sum} WHERE account = 'revenue'");
    assert_eq!(nanos(&text(url, &revenue).await).abs(), used.cost, "revenue");
    let gaps = "SELECT (max(position) - count(*))::text FROM wallet.events";
    assert_eq!(text(url, gaps).await, "0", "positions missing");
}

/// The documents of captures add up; their ids, in order.
async fn read_model(url: &str, used: &Used) -> Vec<String> {
    let client = mongodb::Client::with_uri_str(url).await.expect("MongoDB");
    let database = client.default_database().expect("a database in the address");
    let transactions = database.collection::<Document>("transactions");
    let captures = doc! { "reference_type": "charge" };
    let found = transactions.find(captures).await.expect("documents");
    let found: Vec<Document> = found.try_collect().await.expect("documents");
    let sum: i64 = found
        .iter()
        .map(|capture| nanos(capture.get_str("amount").expect("an amount")))
        .sum();
    assert_eq!(sum.abs(), used.cost, "documents");
    let mut ids: Vec<String> = found
        .iter()
        .map(|capture| capture.get_str("txn_id").expect("an id").to_owned())
        .collect();
    ids.sort_unstable();
    ids
}

/// Sum of the financial items, nano-units.
async fn items(url: &str) -> i64 {
    let (login, place) = url
        .strip_prefix("mssql://")
        .and_then(|rest| rest.split_once('@'))
        .expect("a login");
    let (user, password) = login.split_once(':').expect("a password");
    let (server, rest) = place.split_once('/').expect("a database");
    let mut config = Config::new();
    let address = weir_protocol_tests::stack::address_of(server);
    config.host(address.ip());
    config.port(address.port());
    config.database(rest.split('?').next().unwrap_or_default());
    config.authentication(AuthMethod::sql_server(user, password));
    config.encryption(EncryptionLevel::Required);
    config.trust_cert();
    let socket = TcpStream::connect(address).await.expect("the items' server");
    let client = Client::connect(config, socket.compat_write()).await;
    let mut client = client.expect("a login at the items' server");
    let text = format!("SELECT amount FROM {ITEMS}");
    let answer = client.simple_query(text).await.expect("the items");
    let rows = answer.into_first_result().await.expect("the items");
    rows.iter()
        .map(|row| {
            let amount = row.get::<Numeric, _>(0).expect("an amount");
            assert_eq!(amount.scale(), 9, "DECIMAL(28,9)");
            i64::try_from(amount.value()).expect("small")
        })
        .sum()
}

/// Queues are empty, and streams trimmed to the one entry that says where they end.
fn assert_nothing_on_its_way(stack: &Stack) {
    let mut last = String::new();
    let empty = wait_for(EMPTY_WITHIN, || {
        let listed = Command::new(stack.line("RABBITMQCTL"))
            .args(["--silent", "-p", "weir", "list_queues", "name", "messages"])
            .output()
            .expect("rabbitmqctl");
        last = String::from_utf8_lossy(&listed.stdout).into_owned();
        let counts = last.lines().filter_map(|line| line.split_whitespace().last());
        let all_zero = counts.clone().count() > 0 && counts.into_iter().all(|count| count == "0");
        (listed.status.success() && all_zero).then_some(())
    });
    assert!(empty.is_some(), "queues: {last}");
    let client = redis::Client::open(stack.line("REDIS_URL")).expect("an address");
    let mut redis = client.get_connection_with_timeout(ASK_WITHIN).expect("Redis");
    let trimmed = wait_for(EMPTY_WITHIN, || {
        let mut long = Vec::new();
        for key in redis.keys::<_, Vec<String>>("*").expect("the keys") {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut redis).expect("a type");
            let length: usize = if kind == "stream" {
                redis.xlen(&key).expect("a length")
            } else {
                0
            };
            if length > 1 {
                long.push((key, length));
            }
        }
        last = format!("{long:?}");
        long.is_empty().then_some(())
    });
    assert!(trimmed.is_some(), "streams: {last}");
}
