//! The sandbox seen from a socket.

mod client;
mod login;
mod requests;
mod sql;

use weir_sandbox::{Config, Running};

async fn sandbox() -> Running {
    weir_sandbox::start(Config::default()).await.unwrap()
}
