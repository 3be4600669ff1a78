//! Contract suites of the ports: each adapter is run through them; another adapter adds one test that calls them.

mod event_store;
pub(crate) mod read_model;
