//! Placeholder head; see ARCHITECTURE.md.

pub mod adapters;
pub mod credit;
pub mod journal;
pub mod ports;
pub mod ship;
