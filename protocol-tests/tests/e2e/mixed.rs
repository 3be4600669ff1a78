//! What the proxy counted is what the drivers saw, query by query, and every book adds up to it.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::Value;
use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::drivers::{Driver, Target};
use weir_protocol_tests::money::{DEMO_ROW, UNIT, nanos};

use crate::fleet;

/// Connections at once.
const CONNECTIONS: usize = 8;

/// Queries of all connections.
const QUERIES: usize = 200;

/// What the mixed queries may cost at most, and more.
const CREDIT: &str = "50.00";

#[test]
fn two_hundred_mixed_queries_are_counted_as_the_drivers_saw_them() {
    let place = Place::new();
    let demo = place.start(CREDIT);
    let mut seen: Vec<u64> = everyone(&demo.tenant())
        .into_iter()
        .filter(|rows| *rows > 0)
        .collect();
    let balance = demo.settled_balance();
    let usage = demo.usage();
    let mut counted: Vec<u64> = usage
        .iter()
        .filter_map(|request| request["rows"].as_u64())
        .filter(|rows| *rows > 0)
        .collect();
    seen.sort_unstable();
    counted.sort_unstable();
    assert_eq!(
        seen, counted,
        "no two queries give the same number of rows, so equal lists are equal queries"
    );
    let rows: u64 = seen.iter().sum();
    let cost = i64::try_from(rows).expect("few rows") * DEMO_ROW;
    assert_eq!(balance, 50 * UNIT - cost);
    assert_ids_are_unique(&usage);
    assert_books(&demo, cost);
    demo.stop();
}

/// All sums of the books are the cost of the rows that the drivers saw.
fn assert_books(demo: &Demo, cost: i64) {
    let answer = demo.json(&["reconcile"]);
    assert!(
        answer["ok"] == true && answer["first_difference"].is_null(),
        "{answer}"
    );
    for book in ["usage", "charges", "captures", "read_model", "items"] {
        let sum = answer["sums"][book]
            .as_str()
            .unwrap_or_else(|| panic!("no sum of {book}: {answer}"));
        assert_eq!(nanos(sum).abs(), cost, "{book}: {answer}");
    }
    assert_eq!(
        nanos(answer["sums"]["postings"].as_str().unwrap_or("0")),
        0,
        "{answer}"
    );
}

fn assert_ids_are_unique(usage: &[Value]) {
    let mut ids = BTreeMap::new();
    for request in usage {
        *ids.entry(request["id"].to_string()).or_insert(0) += 1;
    }
    assert!(
        ids.values().all(|count| *count == 1),
        "an id stands twice: {ids:?}"
    );
}

/// Rows that each query gave, over all connections.
fn everyone(to: &Target) -> Vec<u64> {
    let plans = plans();
    std::thread::scope(|scope| {
        let running: Vec<_> = plans
            .iter()
            .enumerate()
            .map(|(index, queries)| {
                let driver = fleet::all()[index % 3].as_ref();
                scope.spawn(move || one(driver, to, queries))
            })
            .collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().expect("a connection"))
            .collect()
    })
}

/// Rows that each query gave on one connection; the wrong ones give an error and none.
fn one(driver: &dyn Driver, to: &Target, queries: &[Query]) -> Vec<u64> {
    let mut session = fleet::connected(driver, to);
    queries
        .iter()
        .map(|query| {
            let reply = session.query(&query.text);
            assert_eq!(
                reply.rows,
                query.rows,
                "{}: {}: {:?}",
                driver.name(),
                query.text,
                reply.errors
            );
            assert_eq!(
                reply.errors.is_empty(),
                !query.wrong,
                "{}: {}: {:?}",
                driver.name(),
                query.text,
                reply.errors
            );
            reply.rows
        })
        .collect()
}

struct Query {
    text: String,
    rows: u64,
    wrong: bool,
}

/// The queries of each connection. Each that gives rows gives a number of them that no other gives.
fn plans() -> Vec<Vec<Query>> {
    let mut random = Rng::with_seed(200);
    let mut sizes: Vec<u64> = (1..=QUERIES as u64).map(|index| index * 11).collect();
    random.shuffle(&mut sizes);
    let mut plans: Vec<Vec<Query>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (index, rows) in sizes.into_iter().enumerate() {
        plans[index % CONNECTIONS].push(query(index, rows));
    }
    plans
}

fn query(index: usize, rows: u64) -> Query {
    let (one, other) = (rows / 3, rows - rows / 3);
    let (text, rows, wrong) = match index / CONNECTIONS % 6 {
        0 => (format!("select top {rows} * from events"), rows, false),
        1 => (format!("select top {rows} * from orders"), rows, false),
        2 => (
            format!("select top {one} * from orders; select top {other} * from events"),
            rows,
            false,
        ),
        3 => (
            format!("exec sp_executesql N'select top {rows} * from orders'"),
            rows,
            false,
        ),
        4 => ("select * from no_such_table".to_owned(), 0, true),
        _ => (
            format!("set nocount on; select top {rows} * from events; set nocount off"),
            rows,
            false,
        ),
    };
    Query { text, rows, wrong }
}
