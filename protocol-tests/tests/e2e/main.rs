//! End to end: real drivers through a running Weir. Start these with `scripts/test`, which installs the drivers.

mod books;
mod broke;
mod credit;
mod fleet;
mod kill;
mod memory;
mod mock;
mod refusals;
mod tiberius_driver;
