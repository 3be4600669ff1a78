//! A tenant without credit: it connects, it can ask why, and it never holds the server's locks.

use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::drivers::{Driver, Session};
use weir_protocol_tests::money::{DEMO_ROW, decimal, nanos};
use weir_protocol_tests::world::World;

use crate::fleet;

/// The gate's error for credit that is spent.
const SPENT: i64 = 50402;

#[test]
fn a_tenant_without_credit_connects_and_asks_for_its_balance() {
    let place = Place::new();
    let demo = place.start("0");
    for driver in fleet::all() {
        for to in [demo.tenant(), demo.tenant().encrypted()] {
            let mut session = fleet::connected(driver.as_ref(), &to);
            let balance = session.query("EXEC weir.balance").ok();
            assert_eq!(nanos(&balance.value("balance")), 0, "{}", driver.name());
            let refused = session.query("select count(*) from orders");
            assert_eq!(
                (refused.rows, refused.numbers()),
                (0, vec![SPENT]),
                "{}",
                driver.name()
            );
            let _ = session.query("EXEC weir.balance").ok();
        }
    }
    assert_eq!(demo.settled_balance(), 0);
    demo.reconcile();
    demo.stop();
}

#[test]
fn out_of_credit_inside_a_transaction_it_can_be_rolled_back() {
    for driver in fleet::all() {
        let (place, demo) = with_rows_worth(500);
        let mut server = fleet::connected(driver.as_ref(), &demo.server());
        let mut session = in_transaction(driver.as_ref(), &demo, server.as_mut());
        let _ = session.rollback().ok();
        assert_eq!(
            count(server.as_mut()),
            "0",
            "{}: the insert is undone",
            driver.name()
        );
        assert_free(server.as_mut(), driver.name());
        demo.top_up(DEMO_ROW * 10);
        assert_eq!(
            session.query("select @@trancount").ok().scalar(),
            "0",
            "{}",
            driver.name()
        );
        finish(demo, place);
    }
}

#[test]
fn out_of_credit_inside_a_transaction_it_can_be_committed() {
    for driver in fleet::all() {
        let (place, demo) = with_rows_worth(700);
        let mut server = fleet::connected(driver.as_ref(), &demo.server());
        let mut session = in_transaction(driver.as_ref(), &demo, server.as_mut());
        let _ = session.commit().ok();
        assert_eq!(
            count(server.as_mut()),
            "1",
            "{}: the insert is kept",
            driver.name()
        );
        assert_free(server.as_mut(), driver.name());
        finish(demo, place);
    }
}

fn with_rows_worth(rows: i64) -> (Place, Demo) {
    let place = Place::new();
    let demo = place.start(&decimal(rows * DEMO_ROW));
    (place, demo)
}

/// A session whose transaction holds a lock and whose statement was cut off.
fn in_transaction(driver: &dyn Driver, demo: &Demo, server: &mut dyn Session) -> Box<dyn Session> {
    let _ = server.query("create table kept (id int)").ok();
    let mut session = fleet::connected(driver, &demo.tenant());
    let _ = session.begin().ok();
    let _ = session.query("insert into kept (id) values (1)").ok();
    let cut = session.query("select * from events");
    assert_eq!(cut.numbers(), [SPENT], "{}: {:?}", driver.name(), cut.errors);
    let refused = session.query("insert into kept (id) values (2)");
    assert_eq!(
        refused.numbers(),
        [SPENT],
        "{}: {:?}",
        driver.name(),
        refused.errors
    );
    session
}

fn count(server: &mut dyn Session) -> String {
    server.query("select count(*) from kept").ok().scalar()
}

/// Another session can write what the first had locked.
fn assert_free(server: &mut dyn Session, name: &str) {
    let written = server.query("update kept set id = 3; insert into kept (id) values (4)");
    assert!(
        written.errors.is_empty(),
        "{name}: a lock is still held: {:?}",
        written.errors
    );
}

fn finish(demo: Demo, _place: Place) {
    let _ = demo.settled_balance();
    demo.reconcile();
    demo.stop();
}
