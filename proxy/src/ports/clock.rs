//! The wall clock, for people who read records. Nothing is decided by it.

/// Tells the time of day.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC.
    fn unix_nanos(&self) -> u64;
}
