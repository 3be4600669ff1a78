//! The TDS protocol as pure code: packets, framing, messages, tokens, types, the walker, and the answers a gate makes.
//!
//! What comes in is bytes, what goes out is bytes and facts. Deliberately absent: sockets, tokio, clocks, chance, TLS.

#![deny(clippy::indexing_slicing)]

pub mod answer;
mod body;
pub mod browser;
pub mod build;
pub mod col_metadata;
pub mod data_type;
pub mod error;
pub mod framer;
mod layout;
pub mod lengths;
pub mod login7;
pub mod message;
pub mod packet;
pub mod password;
pub mod prelogin;
pub mod read;
pub mod request;
mod row_plan;
mod row_walk;
mod scan;
pub mod smp;
pub mod token;
pub mod type_info;
pub mod utf16;
mod value;
pub mod version;
pub mod walker;
