//! Weir's wallet service: an event-sourced double-entry ledger behind gRPC (billing) and REST (people).

pub mod adapters;
pub mod app;
pub mod config;

pub use app::{Running, StartError, start};
pub use config::Config;
