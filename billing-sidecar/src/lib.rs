//! `weir-billing`: lends credit to proxies, rates what they used, has it captured from the wallet, and writes it down.
//!
//! ```text
//! proxy ──Gate gRPC──► lease ──hold──► wallet            proxy ◄──Watch── hub ◄──Wallets.Watch── wallet
//! outbox ──► relay ──► broker usage.v1 ──► rating ──► billing store ──► settle ──capture──► wallet ──► financial items
//! ```
//!
//! | module | role |
//! |---|---|
//! | [`config`] | text → typed [`Config`], or one clear error |
//! | [`app`] | composition root: [`Config`] → [`Running`] |
//! | [`selftest`] | suites that an operator runs on the stores that are configured |
//! | `stores` | which adapter stands behind which port, and the wait for servers that are away at the start |
//! | [`domain`] | pure decisions: leases, rating, accounts, settlement, reconciliation; no tokio, clock, files |
//! | [`ports`] | what the domain's drivers need from the world |
//! | [`adapters`] | SQLite stores, embedded broker and outbox, wallet over gRPC, the Gate server, REST |
//! | [`flow`] | the drivers: relay, rating consumer, settler, credit desk, hub, wait-settled |
//!
//! Arrows: `main → app → adapters → flow → ports ◄ domain`; the stores and clients among the adapters implement ports. Deliberately absent: the wallet's code (it is asked over gRPC).

pub mod adapters;
pub mod app;
pub mod config;
pub mod domain;
pub mod flow;
pub mod ports;
pub mod selftest;
mod stores;

pub use app::{Running, StartError, start};
pub use config::{Config, ConfigError, LeaseConfig, Token};
pub use stores::check_servers;
