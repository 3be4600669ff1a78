//! The weir binary from outside: commands against a scripted billing, and the demo started, stopped and continued.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod commands;
mod demo;
mod scripted;
mod weir;
