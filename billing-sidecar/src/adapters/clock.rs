//! The wall clock, read here only: stamps for people. Nothing is decided by it.

/// Now, RFC 3339.
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}
