//! Integration events become documents of the read model.

pub mod change;
pub mod projector;
pub mod sweep;

pub use projector::{PROJECTION_QUEUE, Projector};
pub use sweep::Sweep;
