//! Tests over real servers, whose addresses are in the environment. Each makes a place of its own there and removes it.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;

/// A server's address, from the variable that `scripts/stack` prints.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run through scripts/test, or `scripts/stack up --servers-only`")
    })
}
