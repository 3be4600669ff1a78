//! What touches the outside: stores, broker, network, clock.

pub mod grpc;
