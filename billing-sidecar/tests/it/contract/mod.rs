//! Contract suites of the ports, each run over every adapter: the embedded one here, the real servers in `real`.

pub(crate) mod billing_store;
pub(crate) mod broker;
pub(crate) mod outbox_source;
