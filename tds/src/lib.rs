//! The TDS protocol as pure code: packets, framing, messages, tokens, types, the walker, and the answers a gate makes.
//!
//! What comes in is bytes, what goes out is bytes and facts. Deliberately absent: sockets, tokio, clocks, chance, TLS.

#![deny(clippy::indexing_slicing)]

pub mod answer;
pub mod build;
pub mod error;
pub mod framer;
pub mod login7;
pub mod message;
pub mod packet;
pub mod password;
pub mod prelogin;
#[expect(dead_code, reason = "the request readers come next")]
mod reader;
pub mod request;
pub mod utf16;
pub mod version;
