//! Weir's wallet service: an event-sourced double-entry ledger behind gRPC (billing) and REST (people).
//!
//! Read in this order: `wallet` (commands to events, pure), `ledger` (events to postings, pure), `ports` (what is needed from
//! outside), `writer` (the one thread that decides and commits), `projections` (broker to read model), `adapters`, `stores` (which adapter
//! stands behind which port), `app`.
//! Arrows: `main → app → adapters → ports ◄ domain`; `wallet` and `ledger` know neither tokio nor clock nor files.

pub mod adapters;
pub mod app;
pub mod config;
pub mod health;
pub mod ledger;
pub mod meters;
pub mod ports;
pub mod projections;
pub mod relay;
pub mod service;
mod stores;
pub mod wallet;
pub mod writer;

pub use app::{Running, StartError, start};
pub use config::Config;
pub use stores::check_servers;
