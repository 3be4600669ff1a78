//! The three drivers that every promise is tested with, started once for the whole run.

use std::sync::OnceLock;

use weir_protocol_tests::drivers::{self, Driver, Session, Target};

use crate::tiberius_driver::Tiberius;

/// pymssql, tedious and tiberius.
pub(crate) fn all() -> &'static [Box<dyn Driver>; 3] {
    static ALL: OnceLock<[Box<dyn Driver>; 3]> = OnceLock::new();
    ALL.get_or_init(|| {
        [
            Box::new(drivers::python()),
            Box::new(drivers::node()),
            Box::new(Tiberius),
        ]
    })
}

/// One of them by name.
pub(crate) fn named(name: &str) -> &'static dyn Driver {
    all()
        .iter()
        .find(|driver| driver.name() == name)
        .expect("a driver of the fleet")
        .as_ref()
}

/// A connection that must succeed.
pub(crate) fn connected(driver: &dyn Driver, to: &Target) -> Box<dyn Session> {
    driver
        .connect(to)
        .unwrap_or_else(|errors| panic!("{} cannot connect: {errors:?}", driver.name()))
}

/// Whether the full counts that the issues name are wanted (`scripts/test --long`).
pub(crate) fn long() -> bool {
    std::env::var("WEIR_TEST_LONG").is_ok_and(|value| value == "1")
}
