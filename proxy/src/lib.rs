//! `weir-proxy`: the data plane. Clients on one side, SQL Server on the other, the gate in between.
//!
//! ```text
//! client ─► leg ─► session (pure: login, requests, walker, meter, gate) ─► leg ─► SQL Server
//!                     │            ▲
//!                 journal slot   credit lease ──► billing (gRPC)
//!                     ▼
//!              journal ─► ship ─► outbox
//! ```
//!
//! `session/` and `gate/` are pure: bytes, facts and `now` go in, bytes and actions come out. tokio lives in
//! `driver.rs`, `listener.rs`, `ship.rs`, `adapters/` and `app.rs`.

pub mod adapters;
pub mod app;
pub mod auth;
pub mod browser;
pub mod config;
pub mod core_dumps;
pub mod credit;
mod driver;
pub mod gate;
pub mod journal;
mod listener;
mod outboxes;
pub mod ports;
mod renewal;
pub mod session;
pub mod ship;
pub mod tls;
mod verifier;

pub use app::{Running, StartError, start};
pub use config::Config;
pub use outboxes::check_servers;
pub use renewal::Renewals;
