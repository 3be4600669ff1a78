//! Two hundred mixed queries from eight connections: what the proxy counted is what the drivers saw, query by query, and every book
//! adds up to it.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::Value;
use weir_protocol_tests::drivers::{Driver, Target};
use weir_protocol_tests::money::{DEMO_ROW, nanos};
use weir_protocol_tests::world::World;

use crate::fleet;

/// Connections at once.
const CONNECTIONS: usize = 8;

/// Queries of all connections.
const QUERIES: usize = 200;

/// What was used in all.
pub(crate) struct Used {
    /// Rows of each query that gave some, ascending.
    pub(crate) rows: Vec<u64>,
    /// What they cost, nano-units.
    pub(crate) cost: i64,
}

/// Runs them on a world whose account begins with `credit` nano-units, more than enough, and checks every book.
pub(crate) fn run(world: &dyn World, credit: i64) -> Used {
    let mut seen: Vec<u64> = everyone(&world.tenant())
        .into_iter()
        .filter(|rows| *rows > 0)
        .collect();
    let balance = world.settled_balance();
    let usage = world.usage();
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
    assert_eq!(balance, credit - cost);
    assert_ids_are_unique(&usage);
    assert_books(world, cost);
    Used { rows: seen, cost }
}

/// All sums of the books are this cost.
pub(crate) fn assert_books(world: &dyn World, cost: i64) {
    let sums = world.reconcile();
    for book in ["usage", "charges", "captures", "read_model", "items"] {
        let sum = sums[book]
            .as_str()
            .unwrap_or_else(|| panic!("no sum of {book}: {sums}"));
        assert_eq!(nanos(sum).abs(), cost, "{book}: {sums}");
    }
    assert_eq!(nanos(sums["postings"].as_str().unwrap_or("0")), 0, "{sums}");
}

/// No request stands twice.
pub(crate) fn assert_ids_are_unique(usage: &[Value]) {
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
