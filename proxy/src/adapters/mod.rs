//! What stands behind the ports: billing over gRPC, and the outbox on the embedded log.
pub mod system_clock;
