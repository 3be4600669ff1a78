//! The proxy's parts under crashes, contention and a failing neighbour.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod billing_grpc;
mod contract;
mod credit;
mod encryption;
mod fake_billing;
mod front_door;
mod full_disk;
mod generous_billing;
mod journal;
mod killed;
mod mars_sockets;
mod memory;
mod real;
mod session;
mod ship;
mod sighup;
mod tls_client;
