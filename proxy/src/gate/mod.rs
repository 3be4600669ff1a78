//! The gate: what may pass on credit, what is answered here, and what a refusal says. Pure.

pub mod command;
pub mod exempt;
mod glance;
pub mod lexer;
pub mod refusal;
pub mod request;

pub use command::Command;
pub use refusal::{Cause, Refused};
