//! Crashes at each point around a commit: nothing lost, nothing twice, and the writer goes on.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use weir_wallet::{
    ports::event_store::{Batch, EventStore, OutboxItem, Posted, Snapshot, StoreError, StoredAnswer},
    wallet::{Recorded, WalletId},
    writer::CommandError,
};

use crate::desk::{capture, create, desk_over, ledger, one, open, place, release, top_up, wallet, work};

const WELL: u8 = 0;
/// The connection is lost before the write.
const BEFORE: u8 = 1;
/// The connection is lost after the write, before the answer.
const AFTER: u8 = 2;
/// Every call fails.
const AWAY: u8 = 3;

/// A store whose commits fail as told.
struct Faulty {
    inner: Arc<dyn EventStore>,
    fault: AtomicU8,
}

impl Faulty {
    fn lost<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable("connection lost".to_owned()))
    }

    fn present(&self) -> Result<&dyn EventStore, StoreError> {
        match self.fault.load(Ordering::SeqCst) {
            AWAY => Self::lost(),
            _ => Ok(self.inner.as_ref()),
        }
    }
}

impl EventStore for Faulty {
    fn head(&self) -> Result<u64, StoreError> {
        self.present()?.head()
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let store = self.present()?;
        match self.fault.load(Ordering::SeqCst) {
            BEFORE => Self::lost(),
            AFTER => {
                store.commit(batch)?;
                Self::lost()
            }
            _ => store.commit(batch),
        }
    }

    fn answer(&self, key: &str) -> Result<Option<StoredAnswer>, StoreError> {
        self.present()?.answer(key)
    }

    fn events_after(&self, position: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        self.present()?.events_after(position, limit)
    }

    fn transactions_after(
        &self,
        wallet: Option<WalletId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, StoreError> {
        self.present()?.transactions_after(wallet, position, limit)
    }

    fn postings_after(&self, position: u64, limit: usize) -> Result<Vec<Posted>, StoreError> {
        self.present()?.postings_after(position, limit)
    }

    fn outbox(&self, limit: usize) -> Result<Vec<OutboxItem>, StoreError> {
        self.present()?.outbox(limit)
    }

    fn relayed(&self, up_to: u64) -> Result<(), StoreError> {
        self.present()?.relayed(up_to)
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        self.present()?.snapshot()
    }

    fn save_snapshot(
        &self,
        format: u32,
        position: u64,
        changed: &[(WalletId, String)],
    ) -> Result<bool, StoreError> {
        self.present()?.save_snapshot(format, position, changed)
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.present()?.check_writable()
    }
}

#[test]
fn a_command_repeated_after_a_crash_is_done_once_wherever_the_crash_was() {
    let dirs = std::cell::RefCell::new(Vec::new());
    repeated_after_a_crash(&|| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        dirs.borrow_mut().push(dir);
        store
    });
}

/// `fresh` makes an empty store each time it is called.
pub(crate) fn repeated_after_a_crash(fresh: &dyn Fn() -> Arc<dyn EventStore>) {
    for fault in [BEFORE, AFTER, AWAY] {
        for restart in [false, true] {
            let store = Arc::new(Faulty {
                inner: fresh(),
                fault: AtomicU8::new(WELL),
            });
            let (mut desk, mut board) = desk_over(store.clone());
            one(&mut desk, create("c", "5")).unwrap();
            for request in [
                || top_up("t", "1"),
                || place("h", "4"),
                || capture("x", "h", "1.5"),
                || release("h"),
            ] {
                store.fault.store(fault, Ordering::SeqCst);
                for _ in 0..2 {
                    match one(&mut desk, request()) {
                        Err(CommandError::Store(StoreError::Unavailable(_))) => {}
                        // The first commit was found written: this is the answer to it.
                        Ok(_) if fault == AFTER => {}
                        other => panic!("fault {fault}: {other:?}"),
                    }
                }
                store.fault.store(WELL, Ordering::SeqCst);
                if restart {
                    (desk, board) = desk_over(store.clone());
                }
                one(&mut desk, request()).unwrap();
            }
            let shown = board.wallet(wallet()).unwrap();
            let seen = (
                shown.balance.as_str(),
                shown.held.as_str(),
                shown.available.as_str(),
            );
            assert_eq!(seen, ("4.50", "0.00", "4.50"), "fault {fault}, restart {restart}");
            assert!(ledger(store.as_ref()).is_zero());
            assert_eq!(store.head().unwrap(), 6, "fault {fault}: each event once");
        }
    }
}

#[test]
fn a_failed_group_leaves_nothing_of_any_command_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Faulty {
        inner: open(dir.path()),
        fault: AtomicU8::new(WELL),
    });
    let (mut desk, board) = desk_over(store.clone());
    one(&mut desk, create("c", "5")).unwrap();
    store.fault.store(BEFORE, Ordering::SeqCst);
    let answers = work(
        &mut desk,
        vec![top_up("t", "1"), place("h", "6"), capture("y", "h", "6")],
    );
    assert!(answers.iter().all(|a| matches!(a, Err(CommandError::Store(_)))));
    assert_eq!(board.wallet(wallet()).unwrap().balance, "5.00");
    store.fault.store(WELL, Ordering::SeqCst);
    // Decided on what is stored, not on what was only drafted.
    let answer = one(&mut desk, place("h", "6")).unwrap();
    assert_eq!(answer.held_total.unwrap().to_string(), "5.00");
}

#[test]
fn a_writer_that_another_one_overtook_reads_on_and_decides_anew() {
    let dir = tempfile::tempdir().unwrap();
    overtaken(&|| open(dir.path()));
}

/// `again` opens the same store each time it is called.
pub(crate) fn overtaken(again: &dyn Fn() -> Arc<dyn EventStore>) {
    let (mut one_desk, _) = desk_over(again());
    one(&mut one_desk, create("c", "5")).unwrap();
    let (mut other_desk, board) = desk_over(again());
    one(&mut one_desk, place("h", "4")).unwrap();
    // The other still believes that 5 are available.
    let answer = one(&mut other_desk, place("i", "4")).unwrap();
    assert_eq!(answer.held_total.unwrap().to_string(), "1.00");
    assert_eq!(board.wallet(wallet()).unwrap().held, "5.00");
    assert_eq!(
        one(&mut one_desk, place("j", "1"))
            .unwrap()
            .held_total
            .unwrap()
            .to_string(),
        "0.00"
    );
}
