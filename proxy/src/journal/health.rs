//! Whether the journal can take what is delivered; when not, the gate denies and says why.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Independent reasons, each set and cleared by its own part.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    /// A write fails; tried again until it does not.
    Disk = 0,
    /// Too much is unshipped.
    Full = 1,
    /// The outbox is stuck.
    Outbox = 2,
    /// The journal's thread has ended, or the disk lost what it had promised: only a new start helps.
    Stopped = 3,
    /// An `fdatasync` failed: the kernel may have dropped what it should have written, and a second call would not say so. Never cleared.
    Sync = 4,
}

/// The reasons in force.
#[derive(Debug, Default)]
pub(crate) struct Health {
    bad: AtomicBool,
    reasons: Mutex<[Option<String>; 5]>,
}

impl Health {
    pub(crate) fn set(&self, trouble: Trouble, reason: Option<String>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut reasons[trouble as usize];
        if *place == reason {
            return;
        }
        match (&reason, &place) {
            (Some(why), _) => tracing::error!(?trouble, why, "the journal is not healthy"),
            (None, _) => tracing::info!(?trouble, "the journal has recovered"),
        }
        *place = reason;
        self.bad
            .store(reasons.iter().any(Option::is_some), Ordering::Release);
    }

    /// Closed in order: as unusable as one that stopped, and nothing to alarm anyone about.
    pub(crate) fn close(&self) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons[Trouble::Stopped as usize] = Some("it was closed".to_owned());
        self.bad.store(true, Ordering::Release);
    }

    pub(crate) fn is_good(&self) -> bool {
        !self.bad.load(Ordering::Acquire)
    }

    pub(crate) fn reason(&self) -> Option<String> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().rev().flatten().next().cloned()
    }

    pub(crate) fn why(&self, trouble: Trouble) -> Option<String> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)[trouble as usize].clone()
    }
}
