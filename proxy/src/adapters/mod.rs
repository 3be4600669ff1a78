//! What stands behind the ports: billing over gRPC, and the outbox on the embedded log.
pub mod system_clock;

pub mod billing_grpc;
pub mod embedded_outbox;
#[cfg(feature = "servers")]
pub mod redis_outbox;
