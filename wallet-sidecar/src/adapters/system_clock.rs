//! The machine's clock, cut to microseconds so that times compare alike wherever they are stored.

use jiff::{Timestamp, Unit};

use crate::ports::clock::Clock;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // Rounding fails only at the end of jiff's range (year 9999): then the finer time stays.
        now.round(Unit::Microsecond).unwrap_or(now)
    }
}
