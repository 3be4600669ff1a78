//! What the tests stand on: vectors, captures and oracles for the protocol; a running demo or stack and real drivers for the whole.
//!
//! Everything here blocks and has a deadline; a test that needs several connections uses threads.

pub mod allocation;
pub mod deadline;
pub mod demo;
pub mod drivers;
pub mod fuzz;
pub mod gate;
pub mod money;
pub mod multiplexed;
pub mod naive_decoder;
pub mod pcap;
pub mod process;
pub mod raw;
pub mod rows;
pub mod stack;
pub mod stream_maker;
pub mod trace;
pub mod vectors;
pub mod world;
