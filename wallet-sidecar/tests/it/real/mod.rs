//! Tests over real servers, whose addresses are in the environment. Each makes a place of its own there and removes it.

mod broker;
mod database;
mod event_store;
mod line;
mod read_model;
mod start;
mod wallets;

/// A server's address, from the variable that `scripts/stack` prints.
pub(crate) fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run through scripts/test, or `scripts/stack up --servers-only`")
    })
}
