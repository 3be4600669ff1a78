//! End to end: real drivers through a running Weir. Start these with `scripts/test`, which installs the drivers.

mod books;
mod broke;
mod chaos;
mod conformance;
mod credit;
mod fleet;
mod hostile;
mod kill;
mod kill_mars;
mod load;
mod memory;
mod mixed;
mod mock;
mod outage;
mod recorded;
mod refusals;
mod selftest;
mod stack;
mod tiberius_driver;
mod tsql;
