//! What touches the outside: stores, broker, network, clock.

pub mod grpc;
pub mod memory_broker;
pub mod sqlite;
pub mod system_clock;
