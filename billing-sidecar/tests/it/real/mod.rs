//! Tests over real servers; `scripts/test` starts them and says where they are.

mod billing_store;
mod billing_store_random;
mod broker;
mod redis_outbox;

/// The address of a server as `scripts/test` gives it.
pub(crate) fn server_url(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run through scripts/test, or `scripts/stack up --servers-only`")
    })
}
