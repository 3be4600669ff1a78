//! The wallet service from outside: over gRPC and REST on loopback, through its ports, and across crashes.

mod grpc;
mod world;
