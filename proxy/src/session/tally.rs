//! What all sessions of a proxy could not read, counted since its start: each is a hole in somebody's bill to look into.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that sessions share.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    responses: AtomicU64,
}

impl Tally {
    /// A request could not be read: refused, or in observe mode passed on and flagged.
    pub fn unreadable_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A response could not be read.
    pub fn unreadable_response(&self) {
        self.responses.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests and responses that could not be read.
    #[must_use]
    pub fn unreadable(&self) -> (u64, u64) {
        (
            self.requests.load(Ordering::Relaxed),
            self.responses.load(Ordering::Relaxed),
        )
    }
}
