//! The embedded outbox and broker, with the unhappy half: reopened in the middle, same id again, other content, broken order, other processes.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod log;
mod queue;
