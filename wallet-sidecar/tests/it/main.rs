//! The wallet service from outside: over gRPC and REST on loopback, through its ports, and across crashes.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

mod cli;
mod contract;
mod crash;
mod desk;
mod grpc;
mod kill;
mod life;
mod projection;
mod race;
#[cfg(feature = "servers")]
mod real;
mod rest;
mod snapshot;
mod world;
