//! Integration events become documents of the read model.

pub mod change;
pub mod projector;

pub use projector::{PROJECTION_QUEUE, Projector};
