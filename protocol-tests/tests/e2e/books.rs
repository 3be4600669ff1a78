//! The mixed queries, and the load of the chaos tests, on the demo: the whole line on embedded stores.

use weir_protocol_tests::demo::Place;
use weir_protocol_tests::money::UNIT;
use weir_protocol_tests::world::World;

use crate::{load, mixed, outage};

#[test]
fn two_hundred_mixed_queries_are_counted_as_the_drivers_saw_them() {
    let place = Place::new();
    let demo = place.start("50.00");
    let _ = mixed::run(&demo, 50 * UNIT);
    demo.stop();
}

#[test]
fn a_load_that_nothing_disturbs_is_served_whole_and_charged_to_the_row() {
    let place = Place::new();
    let demo = place.start("50.00");
    let ((), seen) = load::under_load(&demo.tenant(), 3, |load| load.served(10));
    outage::assert_served(&seen, &[]);
    let balance = demo.settled_balance();
    let rows = outage::assert_charged(&seen, &demo.usage());
    let received: u64 = seen.events.iter().map(|event| event.received).sum();
    assert_eq!(rows, received);
    assert_eq!(balance, 50 * UNIT - outage::cost_of(rows));
    mixed::assert_books(&demo, outage::cost_of(rows));
    demo.stop();
}
