//! The weir binary from outside: commands against a scripted billing, and the demo started, stopped and continued.

mod commands;
mod scripted;
mod weir;
