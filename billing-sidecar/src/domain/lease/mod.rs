//! A credit lease: its states, and what an ask for credit is answered.

/// Largest cumulative grant of one lease, nano-units: a data path that counts in `i64` stays far from its end.
pub const LEASE_TOTAL_MAX_NANOS: i64 = 1_000_000_000 * 1_000_000_000;
