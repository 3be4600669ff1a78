//! The one thing that crosses from a connection's task into the thread that runs its request: stop.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

/// Set by an ATTENTION or by the end of the connection; seen between rows, in waits, and by SQLite.
#[derive(Default)]
pub(crate) struct Cancel {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    interrupt: Option<InterruptHandle>,
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel")
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Cancel {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes ready for the next request; called before it is handed over.
    pub(crate) fn clear(&self) {
        self.lock().cancelled = false;
    }

    /// Stops the running request.
    pub(crate) fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        if let Some(handle) = &state.interrupt {
            handle.interrupt();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// True once the running request is to stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Lets `cancel` reach into SQLite while the request runs there; `None` when it runs there no more.
    pub(crate) fn interrupts(&self, handle: Option<InterruptHandle>) {
        self.lock().interrupt = handle;
    }

    /// Waits; true if it was cut short by a stop.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.lock();
        while !state.cancelled {
            let Some(left) = deadline
                .checked_duration_since(Instant::now())
                .filter(|d| !d.is_zero())
            else {
                return false;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}
