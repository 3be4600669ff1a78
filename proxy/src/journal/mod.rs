//! The journal: what was delivered, on local disk, before it is delivered. Slots for open responses, segments for closed records.
//!
//! Invariants: (1) an epoch is durable before its first record, and one process at a time has the directory; (2) sequences of an epoch start
//! at 1 and have no gap; (3) a slot becomes exactly one record, by its session, by the journal's thread or by the next start; (4) only what
//! is on disk is shipped; (5) only what the broker confirmed is trimmed, into an archive.

mod books;
mod disk;
mod frame;
mod health;
mod reader;
mod recovery;
mod segment;
mod slot;
mod types;
mod writer;

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;
use weir_contracts::{
    entry::UsageRecord,
    ids::{AccountId, LeaseId, ProxyId},
};

pub use reader::{Batch, JournalReader};
pub use recovery::Recovered;
pub use segment::Position;
pub use slot::Slot;
pub use types::{
    ARCHIVE_KEEP, BYTES_MAX, Durability, GATHER, JournalError, JournalOptions, LeaseRecord, REQUESTS_MAX,
    SEGMENT_BYTES, SLOTS_MAX, SessionRecord, SlotHead, SlotState, SlotsExhausted,
};

use self::{
    books::Books,
    disk::{Identity, Place, SegmentKey},
    health::{Health, Trouble},
    segment::{Catalog, SegmentFile, SegmentInfo},
    slot::SlotTable,
    writer::{Command, Writer},
};

/// Commands that may wait for the journal's thread; beyond it closers wait.
const COMMANDS_MAX: usize = 8192;
/// What a session or a lease waits at most for its record.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// The wall clock, read for the stamps of records that the journal makes by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock;

impl WallClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the journal's clock adapter; nothing is decided by it"
    )]
    pub(crate) fn unix_nanos(self) -> u64 {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What the journal's thread, its callers and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    place: Place,
    options: JournalOptions,
    identity: Identity,
    recovered: Recovered,
    slots: Arc<SlotTable>,
    catalog: Mutex<Catalog>,
    appended: watch::Sender<u64>,
    health: Health,
    ended_sessions: Mutex<Vec<u32>>,
    clock: WallClock,
    /// Held as long as anything of this journal lives; the system frees it with the process.
    _lock: File,
}

impl Shared {
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_ended(&self) -> Vec<u32> {
        std::mem::take(&mut *self.ended_sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn check_size(&self, live: u64) {
        let max = self.options.bytes_max;
        let reason = (live > max).then(|| format!("more than {max} bytes are not yet shipped"));
        self.health.set(Trouble::Full, reason);
    }
}

/// The journal of one proxy start. Clones share it; when the last one is dropped, what was given is written and the directory is free.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Open>);

#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // The thread ends when no sender is left; bounded by one group, or by the last tries of a write that fails.
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Journal {
    /// Opens or makes a journal directory, recovers what an earlier start left open, and begins a new epoch. Blocking.
    ///
    /// # Errors
    /// Another process holds it, the disk refuses, or a file is damaged in its middle.
    pub fn open(dir: &Path, options: JournalOptions) -> Result<Self, JournalError> {
        let (shared, books, segment) = prepare(dir, options)?;
        let shared = Arc::new(shared);
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        shared.slots.wake_by(commands.downgrade());
        let writer = Writer::new(Arc::clone(&shared), books, segment, queue);
        let thread = std::thread::Builder::new()
            .name("weir-journal".into())
            .spawn(move || writer.run())
            .map_err(|e| JournalError::Stopped(format!("no thread: {e}")))?;
        let journal = Self(Arc::new(Open {
            shared,
            commands: Some(commands),
            thread: Some(thread),
        }));
        journal.sweep_archive()?;
        Ok(journal)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Made with the directory.
    #[must_use]
    pub fn proxy(&self) -> ProxyId {
        self.shared().identity.proxy
    }

    /// Of this start.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared().identity.epoch
    }

    /// Of this start.
    #[must_use]
    pub fn boot_nonce(&self) -> Uuid {
        self.shared().identity.boot_nonce
    }

    /// Of the start before.
    #[must_use]
    pub fn previous_boot_nonce(&self) -> Option<Uuid> {
        self.shared().identity.previous_boot_nonce
    }

    /// What this start found left open by the one before.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        self.shared().recovered
    }

    /// False when the disk refuses, too much is unshipped or the shipper is stuck: the gate must deny new requests.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared().health.is_good()
    }

    /// Why [`Self::healthy`] is false.
    #[must_use]
    pub fn unhealthy_reason(&self) -> Option<String> {
        self.shared().health.reason()
    }

    /// The shipper's word on the outbox: a reason makes the gate deny, `None` clears it.
    pub fn set_outbox_trouble(&self, reason: Option<String>) {
        self.shared().health.set(Trouble::Outbox, reason);
    }

    /// Tells each new last sequence.
    #[must_use]
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.shared().appended.subscribe()
    }

    /// The last entry of this epoch, if there is one.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        let sequence = self.shared().catalog().last_sequence;
        (sequence > 0).then(|| Position {
            epoch: self.epoch(),
            sequence,
        })
    }

    /// Bytes in segments that are not confirmed.
    #[must_use]
    pub fn unshipped_bytes(&self) -> u64 {
        self.shared().catalog().live_bytes()
    }

    /// Appends a session record; returns its number, from 1. Call [`Self::end_session`] when no slot will name it again.
    ///
    /// # Errors
    /// The journal has stopped, or is too slow (a full disk).
    pub async fn begin_session(&self, record: SessionRecord) -> Result<u32, JournalError> {
        self.ask_soon(|answer| Command::BeginSession(record, answer))
            .await
    }

    /// Replaces a session's record: another tariff, another upstream. Slots that are open now count as of the new one.
    ///
    /// # Errors
    /// The journal has stopped, or is too slow (a full disk).
    pub async fn amend_session(&self, session: u32, record: SessionRecord) -> Result<(), JournalError> {
        self.ask_soon(|answer| Command::AmendSession(session, record, answer))
            .await
    }

    /// The session's last slot is closed or dropped.
    pub fn end_session(&self, session: u32) {
        self.shared()
            .ended_sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(session);
    }

    /// Appends a lease record; returns after it is written.
    ///
    /// # Errors
    /// The journal has stopped, or is too slow (a full disk).
    pub async fn begin_lease(&self, record: LeaseRecord) -> Result<(), JournalError> {
        self.ask_soon(|answer| Command::BeginLease(record, answer)).await
    }

    /// Takes a free slot. Nothing is written until [`Slot::write`].
    ///
    /// # Errors
    /// All slots are in use: deny the request.
    pub fn open_slot(&self, head: SlotHead) -> Result<Slot, SlotsExhausted> {
        self.shared().slots.open(head)
    }

    /// Appends the slot's record and frees the slot. Waits for room in the journal's queue, and with [`Durability::Record`] for the disk.
    ///
    /// # Errors
    /// The journal has stopped; the slot stays on disk and the next start recovers it.
    pub async fn close(&self, slot: Slot, record: UsageRecord) -> Result<(), JournalError> {
        // The room first: a caller that is dropped while it waits leaves the slot to its own drop.
        let room = self.commands()?.reserve().await.map_err(|_| self.stopped())?;
        let (answer, answered) = match self.shared().options.durability {
            Durability::None => (None, None),
            Durability::Record => {
                let (answer, answered) = oneshot::channel();
                (Some(answer), Some(answered))
            }
        };
        room.send(Command::Close {
            slot: slot.into_parts(),
            record: Box::new(record),
            answer,
        });
        match answered {
            None => Ok(()),
            Some(answered) => {
                self.hurry();
                answered.await.map_err(|_| self.stopped())?
            }
        }
    }

    /// Appends a `LeaseClosed` with the lease's sums. Records that name the lease must have been closed before. A second time does nothing.
    ///
    /// # Errors
    /// The journal has stopped.
    pub async fn close_lease(&self, lease: LeaseId, _account: AccountId) -> Result<(), JournalError> {
        self.ask(|answer| Command::CloseLease(lease, answer)).await
    }

    /// Waits until all that was given before is appended; returns this epoch's last sequence (0: none yet).
    ///
    /// # Errors
    /// The journal has stopped.
    pub async fn flush(&self) -> Result<u64, JournalError> {
        self.ask(Command::Flush).await
    }

    /// As [`Self::ask`], within [`ASK_LIMIT`]: a login or a lease must not hang on a full disk. What is late may still be appended, unused.
    async fn ask_soon<T>(
        &self,
        command: impl FnOnce(writer::Answer<T>) -> Command,
    ) -> Result<T, JournalError> {
        let late = |_| JournalError::Busy(ASK_LIMIT, self.unhealthy_reason().unwrap_or_default());
        tokio::time::timeout(ASK_LIMIT, self.ask(command))
            .await
            .map_err(late)?
    }

    async fn ask<T>(&self, command: impl FnOnce(writer::Answer<T>) -> Command) -> Result<T, JournalError> {
        let (answer, answered) = oneshot::channel();
        self.commands()?
            .send(command(answer))
            .await
            .map_err(|_| self.stopped())?;
        self.hurry();
        answered.await.map_err(|_| self.stopped())?
    }

    /// Somebody waits: the journal's thread gathers no longer.
    fn hurry(&self) {
        if let Some(thread) = &self.0.thread {
            thread.thread().unpark();
        }
    }

    fn commands(&self) -> Result<&mpsc::Sender<Command>, JournalError> {
        self.0.commands.as_ref().ok_or_else(|| self.stopped())
    }

    fn stopped(&self) -> JournalError {
        JournalError::Stopped(
            self.shared()
                .health
                .why(Trouble::Stopped)
                .unwrap_or_else(|| "its thread has ended".to_owned()),
        )
    }
}

/// All that [`Journal::open`] does before the journal's thread starts. Blocking.
fn prepare(dir: &Path, options: JournalOptions) -> Result<(Shared, Books, SegmentFile), JournalError> {
    let place = Place(dir.to_owned());
    fs::create_dir_all(place.archive()).map_err(JournalError::io(dir))?;
    let lock = lock(&place)?;
    let confirmed: Option<Position> = disk::read(&place.cursor())?;
    let (identity, recovered) = begin_epoch(&place, confirmed)?;
    let slots = Arc::new(SlotTable::create(
        &place.slots(identity.epoch),
        options.slots_max,
    )?);
    let books = Books::new(identity.proxy, identity.epoch);
    let key = SegmentKey {
        epoch: identity.epoch,
        number: 1,
    };
    let segment = SegmentFile::create(&place, key, &books)?;
    let catalog = list(&place, &segment, confirmed)?;
    let shared = Shared {
        place,
        options,
        identity,
        recovered,
        slots,
        catalog: Mutex::new(catalog),
        appended: watch::Sender::new(0),
        health: Health::default(),
        ended_sessions: Mutex::new(Vec::new()),
        clock: WallClock,
        _lock: lock,
    };
    Ok((shared, books, segment))
}

fn lock(place: &Place) -> Result<File, JournalError> {
    let path = place.lock();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(JournalError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(JournalError::Locked(place.0.clone())),
        Err(fs::TryLockError::Error(e)) => Err(JournalError::io(&path)(e)),
    }
}

/// Recovers the last epoch, then makes the next one durable.
fn begin_epoch(place: &Place, confirmed: Option<Position>) -> Result<(Identity, Recovered), JournalError> {
    let path = place.identity();
    let known: Option<Identity> = disk::read(&path)?;
    let (identity, recovered) = match known {
        Some(old) => {
            let recovered = recovery::recover(place, old.proxy, old.epoch, confirmed)?;
            if recovered != Recovered::default() {
                tracing::info!(
                    epoch = old.epoch,
                    ?recovered,
                    "an earlier start left the journal open"
                );
            }
            let fresh = Identity {
                proxy: old.proxy,
                epoch: old.epoch + 1,
                boot_nonce: Uuid::new_v4(),
                previous_boot_nonce: Some(old.boot_nonce),
            };
            (fresh, recovered)
        }
        None if disk::segments_in(&place.0)?.is_empty() && confirmed.is_none() => {
            let fresh = Identity {
                proxy: ProxyId(Uuid::new_v4()),
                epoch: 1,
                boot_nonce: Uuid::new_v4(),
                previous_boot_nonce: None,
            };
            (fresh, Recovered::default())
        }
        None => {
            return Err(JournalError::damaged(
                &path,
                0,
                "it is missing, but the directory holds a journal",
            ));
        }
    };
    disk::replace(&path, &identity)?;
    Ok((identity, recovered))
}

fn list(place: &Place, current: &SegmentFile, confirmed: Option<Position>) -> Result<Catalog, JournalError> {
    let mut catalog = Catalog {
        confirmed,
        ..Catalog::default()
    };
    for (dir, archived) in [(place.archive(), true), (place.0.clone(), false)] {
        for key in disk::segments_in(&dir)? {
            let path = dir.join(key.file_name());
            let len = fs::metadata(&path).map_err(JournalError::io(&path))?.len();
            let Some(head) = segment::head_of(&path)? else {
                return Err(JournalError::damaged(&path, 0, "it has no head"));
            };
            let len = if key == current.key { current.len } else { len };
            catalog.segments.push(SegmentInfo {
                key,
                first: head.next_sequence,
                len,
                archived,
            });
        }
    }
    catalog.segments.sort_by_key(|s| s.key);
    Ok(catalog)
}
