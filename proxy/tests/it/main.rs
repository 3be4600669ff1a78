//! The proxy's parts under crashes, contention and a failing neighbour.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count what is beside the test functions as tests"
)]

mod journal;
mod session;
