//! What the end-to-end tests stand on: a running demo, real drivers behind one interface, a client that sends raw bytes.
//!
//! Everything here blocks and has a deadline; a test that needs several connections uses threads.

pub mod deadline;
pub mod demo;
pub mod drivers;
pub mod gate;
pub mod money;
pub mod process;
pub mod raw;
pub mod rows;
