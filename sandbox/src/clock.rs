//! The only place that reads the calendar: GETDATE and its like.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds and nanoseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "this is the clock adapter")]
pub(crate) fn unix_now() -> (i64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_nanos())
}
