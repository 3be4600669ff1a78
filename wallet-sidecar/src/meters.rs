//! Counters of the service, for `/metrics`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counters since the start.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each counter's name says what it counts")]
pub struct Meters {
    pub commands_done: AtomicU64,
    pub commands_refused: AtomicU64,
    pub commands_failed: AtomicU64,
    pub groups_committed: AtomicU64,
    pub group_conflicts: AtomicU64,
    pub commit_micros: AtomicU64,
    pub messages_relayed: AtomicU64,
    pub messages_projected: AtomicU64,
    pub messages_dead_lettered: AtomicU64,
    pub documents_swept: AtomicU64,
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Meters {
    /// A group was committed in this time.
    pub fn committed(&self, took: Duration) {
        add(&self.groups_committed, 1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Every counter with its name.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 10] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("commands_done_total", value(&self.commands_done)),
            ("commands_refused_total", value(&self.commands_refused)),
            ("commands_failed_total", value(&self.commands_failed)),
            ("groups_committed_total", value(&self.groups_committed)),
            ("group_conflicts_total", value(&self.group_conflicts)),
            ("commit_microseconds_total", value(&self.commit_micros)),
            ("messages_relayed_total", value(&self.messages_relayed)),
            ("messages_projected_total", value(&self.messages_projected)),
            (
                "messages_dead_lettered_total",
                value(&self.messages_dead_lettered),
            ),
            ("documents_swept_total", value(&self.documents_swept)),
        ]
    }
}
