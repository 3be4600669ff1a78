//! Credit is spent to the row: cut off exactly, the connection usable after, a top-up opens the gate.

use std::time::Duration;

use fastrand::Rng;
use weir_protocol_tests::deadline::wait_for;
use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::drivers::{Driver, Reply, Session};
use weir_protocol_tests::money::{DEMO_ROW, UNIT, decimal, nanos};
use weir_protocol_tests::world::World;

use crate::fleet;

/// The gate's error for credit that is spent.
const SPENT: i64 = 50402;

/// From the ledger to the gate.
const BALANCE_WITHIN: Duration = Duration::from_secs(1);

/// Seeded credits per driver.
const CREDITS: usize = 20;

/// Sessions that spend one account at once.
const SESSIONS: usize = 4;

#[test]
fn pymssql_spends_its_credit_to_the_row() {
    the_whole_line("pymssql");
}

#[test]
fn tedious_spends_its_credit_to_the_row() {
    the_whole_line("tedious");
}

#[test]
fn tiberius_spends_its_credit_to_the_row() {
    the_whole_line("tiberius");
}

#[test]
fn pymssql_is_cut_off_exactly_at_seeded_credits() {
    seeded_credits("pymssql", 1);
}

#[test]
fn tedious_is_cut_off_exactly_at_seeded_credits() {
    seeded_credits("tedious", 2);
}

#[test]
fn tiberius_is_cut_off_exactly_at_seeded_credits() {
    seeded_credits("tiberius", 3);
}

#[test]
fn four_sessions_share_one_credit_to_the_row() {
    for (seed, driver) in fleet::all().iter().enumerate() {
        let mut random = Rng::with_seed(40 + seed as u64);
        let credit = random.i64(UNIT / 4..UNIT / 2);
        let place = Place::new();
        let demo = place.start(&decimal(credit));
        let replies = at_once(driver.as_ref(), &demo);
        for reply in &replies {
            assert_eq!(reply.numbers(), [SPENT], "{}: {:?}", driver.name(), reply.errors);
        }
        let rows: u64 = replies.iter().map(|reply| reply.rows).sum();
        let bought = credit / DEMO_ROW;
        assert_eq!(
            rows,
            bought.unsigned_abs(),
            "{}: rows of all sessions for {}",
            driver.name(),
            decimal(credit)
        );
        assert_eq!(
            demo.settled_balance(),
            credit - bought * DEMO_ROW,
            "{}",
            driver.name()
        );
        demo.reconcile();
        demo.stop();
    }
}

#[test]
fn cut_off_inside_a_procedure_call_the_connection_stays_usable() {
    for driver in fleet::all() {
        let bought = 1234;
        let place = Place::new();
        let demo = place.start(&decimal(bought * DEMO_ROW + 1));
        let mut session = fleet::connected(driver.as_ref(), &demo.tenant());
        let Some(reply) = session.call("select * from events") else {
            continue;
        };
        assert_spent(&reply, bought);
        demo.top_up(bought * DEMO_ROW);
        if let Some(reply) = session.prepared("select * from events") {
            assert_spent(&reply, bought);
            demo.top_up(bought * DEMO_ROW);
        }
        let reply = session.call("select top 1000 * from orders").map(Reply::ok);
        assert_eq!(reply.map(|reply| reply.rows), Some(1000), "{}", driver.name());
        assert_eq!(demo.settled_balance(), (bought - 1000) * DEMO_ROW + 1);
        demo.reconcile();
        demo.stop();
    }
}

/// The main line, with one driver.
fn the_whole_line(name: &str) {
    let driver = fleet::named(name);
    let credit = if fleet::long() { 5 * UNIT } else { UNIT };
    let place = Place::new();
    let demo = place.start(&decimal(credit));
    let mut session = fleet::connected(driver, &demo.tenant());

    assert_eq!(
        session.query("select count(*) from orders").ok().scalar(),
        "100000"
    );
    let bought = credit / DEMO_ROW;
    let reply = session.query("select * from events");
    assert_spent(&reply, bought - 1);

    assert_eq!(demo.settled_balance(), credit - bought * DEMO_ROW);
    assert_balance(session.as_mut(), credit - bought * DEMO_ROW);

    demo.top_up(UNIT);
    assert_eq!(
        session.query("select count(*) from orders").ok().scalar(),
        "100000"
    );
    assert_eq!(
        demo.settled_balance(),
        credit - bought * DEMO_ROW + UNIT - DEMO_ROW
    );
    assert_statement(&demo, credit, (bought + 1) * DEMO_ROW);
    demo.reconcile();
    demo.stop();
}

/// The gate's own answer on the same connection; what it knows of the wallet is at most a second old.
fn assert_balance(session: &mut dyn Session, want: i64) {
    let balance = session.query("EXEC weir.balance").ok();
    assert_eq!(balance.sets[0].columns[..3], ["account", "balance", "currency"]);
    assert_eq!(balance.value("account"), "demo");
    assert_eq!(balance.value("currency"), "USD");
    let told = wait_for(BALANCE_WITHIN, || {
        let balance = session.query("EXEC weir.balance").ok().value("balance");
        (nanos(&balance) == want).then_some(())
    });
    assert!(
        told.is_some(),
        "the gate does not know the balance {}: {balance:?}",
        decimal(want)
    );
}

/// The statement shows what came in, what was charged, and the balance that is left.
fn assert_statement(demo: &Demo, credit: i64, charged: i64) {
    let statement = demo.json(&["statement", "demo"]);
    let amount = |key: &str| {
        nanos(
            statement[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key}: {statement}")),
        )
    };
    assert_eq!(amount("closing"), credit + UNIT - charged, "{statement}");
    let lines = statement["lines"].as_array().expect("lines");
    let sum: i64 = lines
        .iter()
        .map(|line| nanos(line["amount"].as_str().expect("an amount")))
        .sum();
    assert_eq!(amount("opening") + sum, amount("closing"), "{statement}");
    assert!(
        lines.iter().any(|line| line["amount"]
            .as_str()
            .is_some_and(|amount| nanos(amount) == UNIT)),
        "{statement}"
    );
    assert_eq!(
        nanos(statement["usage"]["cost"].as_str().expect("a cost")),
        charged,
        "{statement}"
    );
}

/// One account, topped up by seeded amounts: each time it is cut off after exactly the rows that the sum buys.
fn seeded_credits(name: &str, seed: u64) {
    let driver = fleet::named(name);
    let mut random = Rng::with_seed(seed);
    let mut left = random.i64(0..DEMO_ROW * 3000);
    let place = Place::new();
    let demo = place.start(&decimal(left));
    // One driver of the three with the whole connection encrypted; FreeTDS encrypts its login, the third nothing.
    let tenant = if name == "tedious" {
        demo.tenant().encrypted()
    } else {
        demo.tenant()
    };
    let mut session = fleet::connected(driver, &tenant);
    for round in 0..CREDITS {
        let bought = left / DEMO_ROW;
        let reply = session.query("select * from events");
        assert_eq!(
            reply.rows,
            bought.unsigned_abs(),
            "{name}, seed {seed}, round {round}: {} was left",
            decimal(left)
        );
        assert_spent(&reply, bought);
        left -= bought * DEMO_ROW;
        let amount = random.i64(1..DEMO_ROW * 20_000);
        demo.top_up(amount);
        left += amount;
    }
    assert_eq!(demo.settled_balance(), left);
    demo.reconcile();
    demo.stop();
}

fn assert_spent(reply: &Reply, rows: i64) {
    assert_eq!(reply.numbers(), [SPENT], "{:?}", reply.errors);
    assert_eq!(reply.errors[0].class, 16, "{:?}", reply.errors);
    assert_eq!(reply.rows, rows.unsigned_abs(), "{:?}", reply.errors);
}

fn at_once(driver: &dyn Driver, demo: &Demo) -> Vec<Reply> {
    let mut sessions: Vec<Box<dyn Session>> = (0..SESSIONS)
        .map(|_| fleet::connected(driver, &demo.tenant()))
        .collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = sessions
            .iter_mut()
            .map(|session| scope.spawn(move || session.query("select * from events")))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a session"))
            .collect()
    })
}
