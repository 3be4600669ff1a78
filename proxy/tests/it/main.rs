//! The proxy's parts under crashes, contention and a failing neighbour.

mod credit;
mod fake_billing;
mod journal;
mod session;
mod ship;
