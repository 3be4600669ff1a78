//! The committed state of every wallet, and who is told of changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{mpsc, watch};
use weir_contracts::event::WalletUpdated;

use crate::wallet::WalletId;

/// Changes that a watcher may lag behind before it is dropped.
pub const WATCH_CHANGES_MAX: usize = 1024;
/// Watchers at once: one per billing instance, with room.
pub const WATCHERS_MAX: usize = 256;

struct Watcher {
    only: BTreeSet<WalletId>,
    changes: mpsc::Sender<Arc<WalletUpdated>>,
    dropped: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    views: BTreeMap<WalletId, Arc<WalletUpdated>>,
    watchers: Vec<Watcher>,
}

/// Shows what is committed, in commit order.
pub struct Board {
    state: Mutex<State>,
    head: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            head: watch::Sender::new(0),
        }
    }
}

/// What a watcher was given: the states now, and every change after them.
pub struct Watching {
    /// By wallet id.
    pub current: Vec<Arc<WalletUpdated>>,
    /// In commit order; ends when the watcher was too slow or the service stops.
    pub changes: mpsc::Receiver<Arc<WalletUpdated>>,
    dropped: Arc<AtomicBool>,
}

impl Watching {
    /// True when the end of `changes` means that the watcher was too slow.
    #[must_use]
    pub fn was_too_slow(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A wallet as last committed.
    #[must_use]
    pub fn wallet(&self, id: WalletId) -> Option<Arc<WalletUpdated>> {
        self.state().views.get(&id).cloned()
    }

    /// Position of the last committed event.
    #[must_use]
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Woken at each commit.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Shows changes and tells the watchers; only the writer calls it, after the commit.
    pub fn publish(&self, changes: impl IntoIterator<Item = (WalletId, WalletUpdated)>, head: u64) {
        {
            let state = &mut *self.state();
            for (id, view) in changes {
                let view = Arc::new(view);
                state.watchers.retain(|watcher| watcher.tell(id, &view));
                state.views.insert(id, view);
            }
        }
        self.head.send_replace(head);
    }

    /// Starts a watch of the named wallets, or of all when none is named. `None` when there are too many watchers.
    #[must_use]
    pub fn watch(&self, only: BTreeSet<WalletId>) -> Option<Watching> {
        let (sender, changes) = mpsc::channel(WATCH_CHANGES_MAX);
        let dropped = Arc::new(AtomicBool::new(false));
        let state = &mut *self.state();
        state.watchers.retain(|w| !w.changes.is_closed());
        if state.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let current = state
            .views
            .iter()
            .filter(|(id, _)| only.is_empty() || only.contains(id))
            .map(|(_, view)| Arc::clone(view))
            .collect();
        state.watchers.push(Watcher {
            only,
            changes: sender,
            dropped: Arc::clone(&dropped),
        });
        Some(Watching {
            current,
            changes,
            dropped,
        })
    }

    /// Wallets shown, and watchers told.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        let state = self.state();
        (state.views.len(), state.watchers.len())
    }

    /// Ends every watch: the service stops.
    pub fn end_watches(&self) {
        self.state().watchers.clear();
    }
}

impl Watcher {
    /// False when the watcher is to be dropped.
    fn tell(&self, id: WalletId, view: &Arc<WalletUpdated>) -> bool {
        if !self.only.is_empty() && !self.only.contains(&id) {
            return true;
        }
        match self.changes.try_send(Arc::clone(view)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.dropped.store(true, Ordering::Release);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(position: u64) -> WalletUpdated {
        serde_json::from_value(serde_json::json!({
            "wallet_id": "w", "user_id": "u", "currency": "USD", "status": "ACTIVE", "balance": "1", "held": "0",
            "available": "1", "receivable": "0", "created_at": "", "updated_at": "", "position": position,
        }))
        .unwrap()
    }

    #[test]
    fn a_watcher_that_does_not_keep_up_is_dropped_and_told_and_the_others_are_not() {
        let board = Board::default();
        let id = WalletId::of_user(&"u".parse().unwrap());
        let mut slow = board.watch(BTreeSet::new()).unwrap();
        let mut quick = board.watch(BTreeSet::new()).unwrap();
        let changes = WATCH_CHANGES_MAX as u64 + 2;
        for position in 1..=changes {
            board.publish([(id, view(position))], position);
            assert_eq!(quick.changes.try_recv().unwrap().position, position);
        }
        let mut seen = 0;
        while let Some(change) = slow.changes.blocking_recv() {
            seen = change.position;
        }
        assert_eq!(
            seen, WATCH_CHANGES_MAX as u64,
            "what fitted, in order, then the end"
        );
        assert!(slow.was_too_slow() && !quick.was_too_slow());
        assert_eq!((board.head(), board.sizes()), (changes, (1, 1)));
        let again = board.watch(BTreeSet::new()).unwrap();
        assert_eq!(again.current[0].position, changes);
    }

    #[test]
    fn watchers_have_a_limit_and_those_that_left_do_not_count() {
        let board = Board::default();
        let watching: Vec<_> = (0..WATCHERS_MAX).map(|_| board.watch(BTreeSet::new())).collect();
        assert!(watching.iter().all(Option::is_some));
        assert!(board.watch(BTreeSet::new()).is_none());
        drop(watching);
        assert!(board.watch(BTreeSet::new()).is_some());
    }
}
