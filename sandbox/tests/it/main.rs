//! The sandbox seen from a socket.

mod client;
mod login;
mod requests;
mod scenario;
mod sql;

use weir_sandbox::{Config, Running};

/// No errors.
const NONE: [i32; 0] = [];

async fn sandbox() -> Running {
    weir_sandbox::start(Config::default()).await.unwrap()
}
