//! The shipper: journal → outbox, by conditional appends from its own durable cursor; the broker's confirmations come back and trim.
//!
//! Where the stream ends is the outbox's word, never remembered: after a lost reply, a flushed or an older outbox it goes there, back or
//! forward. The confirmed cursor only moves forward, whatever the outbox forgot.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    journal::{Batch, Journal, JournalError, JournalReader, Position},
    ports::outbox::{Appended, Outbox, OutboxError},
};

/// Entries in one append.
pub const BATCH_ENTRIES_MAX: usize = 500;
/// Bytes in one append, about.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long entries may gather before they are shipped: each round costs a sync of the journal and a commit of the outbox, so that under
/// load one of them carries many entries.
const GATHER: Duration = Duration::from_millis(20);
/// First and longest pause after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The outbox may be away for this long before the gate denies: an hour is promised, and what is unshipped meanwhile is bounded by the
/// journal's size limit, which denies by itself.
const STUCK_AFTER: Duration = Duration::from_secs(2 * 3600);
/// One call to the outbox takes at most this.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// Times in a row that the outbox may say to stand elsewhere.
const TURNS_MAX: u32 = 5;
/// The cursor is made durable at most this often: each time costs an `fsync`, and being late only delays trimming.
const CONFIRM_PAUSE: Duration = Duration::from_millis(200);
/// While something that was shipped is not confirmed, the outbox is looked at this often: it may have forgotten it with nothing new to ship.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why one round of shipping failed.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Internal(String),
}

impl ShipError {
    /// True when time does not heal it: the gate denies at once.
    fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Outbox(OutboxError::Conflict(_)) | Self::Journal(JournalError::Damaged { .. })
        )
    }
}

/// How far shipping is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Last entry that the outbox has, as far as is known.
    pub shipped: Option<Position>,
    /// The own copy of the confirmed cursor.
    pub confirmed: Option<Position>,
    /// Entries of this epoch that the outbox does not have.
    pub unshipped: u64,
    /// For how long there have been some without pause.
    pub behind_for: Duration,
}

#[derive(Debug, Default)]
struct Progress {
    shipped: Option<Position>,
    behind_since: Option<Instant>,
}

/// A running shipper.
#[derive(Debug)]
pub struct Shipper {
    journal: Journal,
    progress: Arc<Mutex<Progress>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Shipper {
    /// Starts shipping on the current runtime.
    #[must_use]
    pub fn start(journal: Journal, outbox: Arc<dyn Outbox>) -> Self {
        let progress = Arc::new(Mutex::new(Progress {
            shipped: journal.confirmed(),
            behind_since: None,
        }));
        let stop = watch::Sender::new(false);
        let ship = Ship {
            journal: journal.clone(),
            outbox: Arc::clone(&outbox),
            progress: Arc::clone(&progress),
        };
        let tasks = vec![
            tokio::spawn(ship.run(stop.subscribe())),
            tokio::spawn(confirm(journal.clone(), outbox, stop.subscribe())),
        ];
        Self {
            journal,
            progress,
            stop,
            tasks,
        }
    }

    /// How far it is now.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let shipped = progress.shipped;
        let last = self.journal.last();
        let unshipped = match (last, shipped) {
            (Some(last), Some(shipped)) if shipped.epoch == last.epoch => {
                last.sequence.saturating_sub(shipped.sequence)
            }
            (Some(last), _) => last.sequence,
            (None, _) => 0,
        };
        let behind_for = progress
            .behind_since
            .filter(|_| unshipped > 0)
            .map_or(Duration::ZERO, |since| since.elapsed());
        Lag {
            shipped,
            confirmed: self.journal.confirmed(),
            unshipped,
            behind_for,
        }
    }

    /// Ships what is there, within `deadline`, then ends. What is left is shipped by the next start.
    pub async fn stop(self, deadline: Duration) {
        self.stop.send_replace(true);
        let end = tokio::time::Instant::now() + deadline;
        for mut task in self.tasks {
            if tokio::time::timeout_at(end, &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
    }
}

struct Ship {
    journal: Journal,
    outbox: Arc<dyn Outbox>,
    progress: Arc<Mutex<Progress>>,
}

impl Ship {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut appended = self.journal.appended();
        let mut pause = PAUSE_MIN;
        let mut failing_since: Option<Instant> = None;
        let mut reader = None;
        let mut look = false;
        loop {
            appended.mark_unchanged();
            match self.drain(&mut reader, std::mem::take(&mut look)).await {
                Ok(()) => {
                    (pause, failing_since) = (PAUSE_MIN, None);
                    self.journal.set_outbox_trouble(None);
                    if *stop.borrow() {
                        return;
                    }
                    tokio::select! {
                        changed = appended.changed() => {
                            if changed.is_err() {
                                return;
                            }
                            let _ = tokio::time::timeout(GATHER, stop.changed()).await;
                        }
                        _ = stop.changed() => {}
                        () = tokio::time::sleep(LOOK_AGAIN), if self.awaits_confirmation(reader.as_ref()) => look = true,
                    }
                }
                Err(e) => {
                    tracing::warn!(error = %e, "usage is not shipped");
                    // Where the outbox stands is asked anew.
                    reader = None;
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if e.is_lasting() || since.elapsed() > STUCK_AFTER {
                        self.journal.set_outbox_trouble(Some(e.to_string()));
                    }
                    let _ = tokio::time::timeout(pause, stop.changed()).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn awaits_confirmation(&self, reader: Option<&JournalReader>) -> bool {
        reader.is_some_and(|r| r.after() > self.journal.confirmed())
    }

    /// Ships until nothing is left; with `look`, first sees whether the outbox still ends where it was left.
    async fn drain(&self, kept: &mut Option<JournalReader>, look: bool) -> Result<(), ShipError> {
        let mut reader = match kept.take() {
            Some(reader) if !look => reader,
            left => match (limited(self.outbox.last()).await?, left) {
                (last, Some(reader)) if last == reader.after() => reader,
                (last, _) => self.start_at(last),
            },
        };
        let mut turns = 0;
        loop {
            let (back, batch) = read(reader).await?;
            reader = back;
            let end = batch.entries.last().map(|(place, _)| *place);
            self.note(reader.after(), end.is_some());
            let Some(end) = end else { break };
            match limited(self.outbox.append_after(batch.after, batch.entries)).await? {
                Appended::Done => {
                    turns = 0;
                    self.note(Some(end), true);
                }
                Appended::LastIs(last) => {
                    turns += 1;
                    if turns > TURNS_MAX {
                        return Err(OutboxError::Conflict(
                            "somebody else writes to this proxy's stream".to_owned(),
                        )
                        .into());
                    }
                    tracing::info!(?last, "the outbox ends elsewhere; shipping goes on from there");
                    reader = self.start_at(last);
                }
            }
        }
        *kept = Some(reader);
        Ok(())
    }

    /// After where the stream ends. An empty stream is filled from the own cursor on; the entry at the cursor is sent once more, if it is
    /// still kept: rating drops it as seen, and over an epoch's end only it can tell that nothing is missing before the next one.
    fn start_at(&self, last: Option<Position>) -> JournalReader {
        match last {
            Some(last) => self.journal.reader(Some(last)),
            None => {
                let from = self.journal.confirmed().map(|at| Position {
                    sequence: at.sequence.saturating_sub(u64::from(self.journal.keeps(at))),
                    ..at
                });
                self.journal.reader(from).into_empty()
            }
        }
    }

    fn note(&self, shipped: Option<Position>, behind: bool) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.shipped = shipped;
        progress.behind_since = if behind {
            progress.behind_since.or_else(|| Some(Instant::now()))
        } else {
            None
        };
    }
}

/// Files are read off the runtime.
async fn read(mut reader: JournalReader) -> Result<(JournalReader, Batch), ShipError> {
    let work = move || {
        let batch = reader.read(BATCH_ENTRIES_MAX, BATCH_BYTES_MAX)?;
        Ok((reader, batch))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ShipError::Internal(e.to_string()))?
}

async fn limited<T>(call: impl Future<Output = Result<T, OutboxError>>) -> Result<T, OutboxError> {
    let late = |_| OutboxError::Unavailable(format!("no answer within {CALL_LIMIT:?}"));
    tokio::time::timeout(CALL_LIMIT, call).await.map_err(late)?
}

/// Brings the confirmed cursor home: own durable copy first, then trimming.
async fn confirm(journal: Journal, outbox: Arc<dyn Outbox>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        match limited(outbox.confirmed()).await {
            Ok(Some(up_to)) if journal.confirmed().is_none_or(|own| up_to > own) => {
                let journal = journal.clone();
                let moved = tokio::task::spawn_blocking(move || journal.confirm(up_to)).await;
                match moved {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::error!(error = %e, "the confirmed cursor is not moved"),
                    Err(e) => tracing::error!(error = %e, "the confirmed cursor is not moved"),
                }
                let _ = tokio::time::timeout(CONFIRM_PAUSE, stop.changed()).await;
            }
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(error = %e, "the confirmed cursor cannot be read");
                let _ = tokio::time::timeout(PAUSE_MAX, stop.changed()).await;
            }
        }
        tokio::select! {
            () = outbox.changed() => {}
            _ = stop.changed() => {}
        }
    }
}
