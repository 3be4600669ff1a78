//! The world: SQLite files, embedded broker and outbox, the real servers (feature `servers`), the wallet over gRPC and REST, the clock, the Gate server, REST.

mod clock;
mod embedded_broker;
mod embedded_outbox;
mod gate_grpc;
#[cfg(feature = "servers")]
mod postgres_store;
#[cfg(feature = "servers")]
mod rabbit_broker;
#[cfg(feature = "servers")]
mod redis_outbox;
mod rest;
mod sqlite_items;
mod sqlite_store;
mod sqlite_thread;
#[cfg(feature = "servers")]
pub mod sqlserver_items;
mod stored;
mod wallet_grpc;
mod wallet_rest;

pub use clock::now;
pub use embedded_broker::EmbeddedBroker;
pub use embedded_outbox::EmbeddedOutbox;
pub use gate_grpc::{BearerGuard, GateServer};
#[cfg(feature = "servers")]
pub use postgres_store::PostgresStore;
#[cfg(feature = "servers")]
pub use rabbit_broker::RabbitBroker;
#[cfg(feature = "servers")]
pub use redis_outbox::RedisOutbox;
pub use rest::{Api, router};
pub use sqlite_items::{SqliteItems, SqliteScratch};
pub use sqlite_store::SqliteStore;
#[cfg(feature = "servers")]
pub use sqlserver_items::SqlServerItems;
pub use wallet_grpc::WalletGrpc;
pub use wallet_rest::WalletRest;
