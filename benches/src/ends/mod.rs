//! The two ends of a measurement, each in a process of its own: the origin writes prebuilt packets, the client drains them.

pub mod client;
pub mod drain;
pub mod encryption;
pub mod login;
pub mod origin;
pub mod wire;
