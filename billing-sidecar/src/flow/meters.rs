//! The service's own counters, for `/metrics` and the live view.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A proxy's usage that has been blocked this long is a difference, not a batch on its way.
pub const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// Counters since the start.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each counter's name says what it counts")]
pub struct Meters {
    pub batches_published: AtomicU64,
    pub entries_rated: AtomicU64,
    pub batches_duplicate: AtomicU64,
    pub batches_gap: AtomicU64,
    pub batches_blocked: AtomicU64,
    pub batches_rejected: AtomicU64,
    pub mistakes: AtomicU64,
    pub charges_captured: AtomicU64,
    pub charges_refused: AtomicU64,
    pub settle_failures: AtomicU64,
    pub leases_granted: AtomicU64,
    pub leases_replayed: AtomicU64,
    pub leases_released: AtomicU64,
    pub denials_credit: AtomicU64,
    pub denials_frozen: AtomicU64,
    pub denials_other: AtomicU64,
    pub recalls: AtomicU64,
    pub wallet_watch_breaks: AtomicU64,
    pub relay_failures: AtomicU64,
    blocked: Mutex<BTreeMap<String, (Instant, String)>>,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Meters {
    /// A stream stands still, and why.
    pub fn block(&self, stream: &str, cause: &str) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = blocked.get(stream).map_or_else(Instant::now, |(since, _)| *since);
        blocked.insert(stream.to_owned(), (since, cause.to_owned()));
    }

    /// It moves again.
    pub fn unblock(&self, stream: &str) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.remove(stream);
    }

    /// What stands still for longer than [`BLOCKED_AFTER`].
    #[must_use]
    pub fn blocked(&self) -> Vec<String> {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let long = blocked
            .iter()
            .filter(|(_, (since, _))| since.elapsed() >= BLOCKED_AFTER);
        long.map(|(stream, (_, cause))| format!("{stream}: {cause}"))
            .collect()
    }

    /// Every counter by name.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("batches_published_total", read(&self.batches_published)),
            ("entries_rated_total", read(&self.entries_rated)),
            ("batches_duplicate_total", read(&self.batches_duplicate)),
            ("batches_gap_total", read(&self.batches_gap)),
            ("batches_blocked_total", read(&self.batches_blocked)),
            ("batches_rejected_total", read(&self.batches_rejected)),
            ("mistakes_total", read(&self.mistakes)),
            ("charges_captured_total", read(&self.charges_captured)),
            ("charges_refused_total", read(&self.charges_refused)),
            ("settle_failures_total", read(&self.settle_failures)),
            ("leases_granted_total", read(&self.leases_granted)),
            ("leases_replayed_total", read(&self.leases_replayed)),
            ("leases_released_total", read(&self.leases_released)),
            ("denials_credit_total", read(&self.denials_credit)),
            ("denials_frozen_total", read(&self.denials_frozen)),
            ("denials_other_total", read(&self.denials_other)),
            ("recalls_total", read(&self.recalls)),
            ("wallet_watch_breaks_total", read(&self.wallet_watch_breaks)),
            ("relay_failures_total", read(&self.relay_failures)),
        ]
    }
}
