//! One client connection and its server connection: the sans-IO core and the driver that gives it sockets.
//!
//! | file | what |
//! |---|---|
//! | `core.rs` | the session: phases, actions out, events in |
//! | `login.rs` | PRELOGIN, TLS, LOGIN7 on both legs, the login response |
//! | `upload.rs` | client → server: requests, admission, ATTENTION |
//! | `download.rs` | server → client: walk, pay, forward |
//! | `cut.rs` | refusals, and ending a response at a row boundary |
//! | `leg.rs`, `out.rs` | buffers and TLS of one side |
//! | `meter.rs`, `purse.rs` | the running usage record, and credit as the core sees it |
//! | `driver.rs` | the one file that reads and writes the sockets |

pub mod core;
mod cut;
mod download;
pub mod driver;
pub mod leg;
mod login;
pub mod meter;
pub mod out;
pub mod purse;
mod upload;

pub use core::{Action, Event, Session, Settings};
