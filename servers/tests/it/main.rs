//! The clients of the real servers, over real servers.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

#[cfg(feature = "testing")]
mod real;
