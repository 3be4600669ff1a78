//! The embedded outbox and broker on SQLite: for the demo and small installs they stand where Redis and RabbitMQ stand in the product.
//!
//! Promises, as the real ones are used: an append is conditional on the stream's last position; a publish returns when it is durable in every
//! bound queue; the same id with other content is an error. WAL with `synchronous=FULL`: what was answered survives a power loss. Several
//! processes may open the same file. Deliberately absent: replication, and any order between queues.

mod log;
mod owner;
mod queue;
mod store;

pub use log::{Appended, ENTRIES_MAX, Log, Position};
pub use queue::{CLAIM_TTL, CLAIM_WAIT, DeadLetter, Delivery, Queue};
pub use store::StoreError;
