//! PostgreSQL: the event store of an install whose wallets must outlive a machine.

mod arrays;
pub mod event_store;
mod schema;

pub use event_store::PostgresEventStore;
