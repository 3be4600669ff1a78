//! What touches the outside: stores, broker, network, clock.

pub mod embedded_broker;
pub mod grpc;
pub mod memory_broker;
#[cfg(feature = "servers")]
pub mod mongo;
#[cfg(feature = "servers")]
pub mod postgres;
#[cfg(feature = "servers")]
pub mod rabbit_broker;
pub mod rest;
pub mod sqlite;
pub mod system_clock;
