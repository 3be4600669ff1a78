//! Time as an input.

use jiff::Timestamp;

/// Tells the time; only for people, nothing is decided by it.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}
