//! Readers of an event store beside its writers: one that follows the events, one that restarts all the time, one that relays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use weir_wallet::ports::event_store::EventStore;

/// Longest wait for what the writers wrote.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three readers that began before the writers they watch.
pub(crate) struct Subscribers {
    /// The position to read up to; `u64::MAX` until the writers are done.
    last: Arc<AtomicU64>,
    readers: Vec<JoinHandle<Vec<u64>>>,
    relay: JoinHandle<Vec<String>>,
    /// How far the first reader is.
    seen: Arc<AtomicU64>,
}

impl Subscribers {
    pub(crate) fn start(store: &Arc<dyn EventStore>) -> Self {
        let last = Arc::new(AtomicU64::new(u64::MAX));
        let seen = Arc::new(AtomicU64::new(0));
        let readers = [false, true].map(|restarts| {
            let (store, last, seen) = (Arc::clone(store), Arc::clone(&last), Arc::clone(&seen));
            std::thread::spawn(move || follow(store.as_ref(), &last, restarts, &seen))
        });
        let relay = {
            let (store, last) = (Arc::clone(store), Arc::clone(&last));
            std::thread::spawn(move || relay(store.as_ref(), &last))
        };
        Self {
            last,
            readers: readers.into(),
            relay,
            seen,
        }
    }

    /// Waits until the reader has seen this position.
    pub(crate) fn wait_for(&self, position: u64) {
        let until = Instant::now() + PATIENCE;
        while self.seen.load(Ordering::SeqCst) < position {
            assert!(Instant::now() < until, "position {position} was not seen");
            std::thread::yield_now();
        }
    }

    /// The writers are done at `last`: each reader saw each position once and in order, and each message was relayed once and in
    /// order. Returns the messages' ids.
    pub(crate) fn saw_all_up_to(self, last: u64) -> Vec<String> {
        self.last.store(last, Ordering::SeqCst);
        let all: Vec<u64> = (1..=last).collect();
        for reader in self.readers {
            assert_eq!(reader.join().unwrap(), all);
        }
        self.relay.join().unwrap()
    }
}

fn follow(store: &dyn EventStore, last: &AtomicU64, restarts: bool, progress: &AtomicU64) -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut seen: Vec<u64> = Vec::new();
    let mut until = Instant::now() + PATIENCE;
    loop {
        if restarts && rng.u8(0..8) == 0 {
            // From any cursor it has had: what follows must be what followed then.
            seen.truncate(rng.usize(0..=seen.len()));
        }
        let cursor = seen.last().copied().unwrap_or(0);
        if cursor >= last.load(Ordering::SeqCst) {
            return seen;
        }
        let found = store.events_after(cursor, rng.usize(1..200)).unwrap();
        if !found.is_empty() {
            until = Instant::now() + PATIENCE;
        }
        assert!(Instant::now() < until, "nothing came after {cursor}");
        seen.extend(found.iter().map(|event| event.position));
        if !restarts {
            progress.store(seen.last().copied().unwrap_or(0), Ordering::SeqCst);
        }
        std::thread::yield_now();
    }
}

/// Takes messages out of the outbox until it stays empty after the writers' end.
fn relay(store: &dyn EventStore, last: &AtomicU64) -> Vec<String> {
    let mut sent = Vec::new();
    let mut before = 0;
    loop {
        let ended = last.load(Ordering::SeqCst) != u64::MAX;
        let waiting = store.outbox(50).unwrap();
        let Some(newest) = waiting.last().map(|item| item.sequence) else {
            if ended {
                return sent;
            }
            std::thread::yield_now();
            continue;
        };
        for item in waiting {
            assert!(item.sequence > before, "out of order, or twice");
            before = item.sequence;
            sent.push(item.message.id);
        }
        store.relayed(newest).unwrap();
    }
}
