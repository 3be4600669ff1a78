//! The sandbox seen from a socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod catalogue;
mod client;
mod cursors;
mod library;
mod login;
mod mars;
mod reading;
mod requests;
mod scenario;
mod sql;
mod tls;

use weir_sandbox::{Config, Running};

/// No errors.
const NONE: [i32; 0] = [];

async fn sandbox() -> Running {
    weir_sandbox::start(Config::default()).await.unwrap()
}
