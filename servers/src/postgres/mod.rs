//! PostgreSQL: a pool whose every wait ends, sessions that keep the stores' promises, migrations, and checks of the server's settings.
//!
//! ```text
//! Pool::connect ─► check_settings ─► migrate ─► get() ─► Client ─► begin() ─► Transaction
//! ```
//! Needs session pooling: a PgBouncer in transaction mode in between loses the session's settings and prepared statements.

mod client;
mod error;
mod migrate;
mod pool;
mod settings;
mod tls;

pub use client::{Client, Isolation, Transaction};
pub use error::PostgresError;
pub use pool::{Pool, PoolOptions};
pub use tokio_postgres::{Row, types};
