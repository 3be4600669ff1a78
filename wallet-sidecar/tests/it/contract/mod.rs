//! Contract suites of the ports: each adapter is run through them; another adapter adds one test that calls them.

pub(crate) mod broker;
pub(crate) mod event_store;
#[cfg(feature = "servers")]
mod mongo_settings;
pub(crate) mod read_model;
pub(crate) mod subscriber;
