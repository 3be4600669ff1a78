//! The journal's own thread: takes what waits, writes it as one group, frees slots, acknowledges.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use weir_contracts::{entry::UsageRecord, ids::LeaseId};

use super::{
    Shared,
    books::Books,
    disk::SegmentKey,
    health::Trouble,
    segment::{SegmentFile, SegmentInfo},
    types::{Durability, JournalError, LeaseRecord, SessionRecord},
};

/// Commands in one group.
const GROUP_MAX: usize = 512;
/// Between two tries of a write that fails.
const WRITE_PAUSE: Duration = Duration::from_millis(200);
/// Tries after everybody has let go of the journal: then nobody waits, and slots on disk keep what was open.
const LAST_TRIES: u32 = 5;

pub(crate) type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

/// What the thread is asked.
#[derive(Debug)]
pub(crate) enum Command {
    BeginSession(SessionRecord, Answer<u32>),
    AmendSession(u32, SessionRecord, Answer<()>),
    BeginLease(LeaseRecord, Answer<()>),
    Close {
        slot: (u32, u32),
        record: Box<UsageRecord>,
        answer: Option<Answer<()>>,
    },
    CloseLease(LeaseId, Answer<()>),
    Flush(Answer<u64>),
    /// A slot was dropped; see the table's orphans.
    Orphan,
}

impl Command {
    /// True if nobody waits for it.
    const fn may_wait(&self) -> bool {
        matches!(self, Self::Close { answer: None, .. } | Self::Orphan)
    }
}

/// Answers that wait for their group.
enum Pending {
    Done(Answer<()>),
    Number(Answer<u32>, u32),
    Sequence(Answer<u64>),
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) books: Books,
    pub(crate) segment: SegmentFile,
    pub(crate) queue: mpsc::Receiver<Command>,
    buffer: Vec<u8>,
    pending: Vec<Pending>,
    freed: Vec<u32>,
    syncs: bool,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        books: Books,
        segment: SegmentFile,
        queue: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            shared,
            books,
            segment,
            queue,
            buffer: Vec::new(),
            pending: Vec::new(),
            freed: Vec::new(),
            syncs: false,
        }
    }

    /// Runs until nobody holds the journal any more. Sessions that ended and slots that were dropped are looked at in every group.
    pub(crate) fn run(mut self) {
        let outcome = loop {
            let Some(first) = self.queue.blocking_recv() else {
                break self.group(None);
            };
            if first.may_wait() && self.queue.len() < GROUP_MAX {
                // Ended early by whoever gives a command and waits, see `Journal::hurry`.
                std::thread::park_timeout(self.shared.options.gather);
            }
            if let Err(e) = self.group(Some(first)) {
                break Err(e);
            }
        };
        let outcome = outcome.and_then(|()| self.segment.sync().map_err(|e| self.io(e)));
        match outcome {
            Ok(()) => self.shared.health.close(),
            Err(e) => self.shared.health.set(Trouble::Stopped, Some(e.to_string())),
        }
    }

    fn group(&mut self, first: Option<Command>) -> Result<(), JournalError> {
        self.take_orphans()?;
        let mut next = first;
        let mut taken = 0;
        while let Some(command) = next.take() {
            self.take_in_order(command)?;
            taken += 1;
            if taken < GROUP_MAX {
                next = self.queue.try_recv().ok();
            }
        }
        self.write()?;
        if self.syncs {
            self.segment.sync().map_err(|e| self.io(e))?;
            self.syncs = false;
        }
        self.shared.slots.release(&mut self.freed);
        self.publish();
        self.answer();
        if self.segment.len >= self.shared.options.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Takes a command after the orphans that were dropped before it was given: a slot's record stands before the end of its lease, else
    /// it names a lease that is over, and no record can be made of it.
    fn take_in_order(&mut self, command: Command) -> Result<(), JournalError> {
        if matches!(command, Command::CloseLease(..) | Command::Flush(_)) {
            self.take_orphans()?;
        }
        self.take(command)
            .map_err(|e| JournalError::damaged(&self.path(), self.segment.len, e.to_string()))
    }

    fn take(&mut self, command: Command) -> Result<(), serde_json::Error> {
        match command {
            Command::BeginSession(record, answer) => {
                let number = self.books.begin_session(record, &mut self.buffer)?;
                self.pending.push(Pending::Number(answer, number));
            }
            Command::AmendSession(number, record, answer) => {
                self.books.amend_session(number, record, &mut self.buffer)?;
                self.pending.push(Pending::Done(answer));
            }
            Command::BeginLease(record, answer) => {
                self.books.begin_lease(record, &mut self.buffer)?;
                self.pending.push(Pending::Done(answer));
            }
            Command::Close { slot, record, answer } => {
                self.books.usage(slot, *record, &mut self.buffer)?;
                self.freed.push(slot.0);
                self.syncs |= self.shared.options.durability == Durability::Record;
                self.pending.extend(answer.map(Pending::Done));
            }
            Command::CloseLease(lease, answer) => {
                self.books.close_lease(lease, &mut self.buffer)?;
                self.pending.push(Pending::Done(answer));
            }
            Command::Flush(answer) => self.pending.push(Pending::Sequence(answer)),
            Command::Orphan => {}
        }
        Ok(())
    }

    /// Slots whose session died become `interrupted` records, as recovery would make them.
    fn take_orphans(&mut self) -> Result<(), JournalError> {
        // Looked at before the orphans, forgotten after them: a session that ended has dropped its slots, so they are all seen below.
        let ended = self.shared.take_ended();
        for (number, generation) in self.shared.slots.take_orphans() {
            let image = self.shared.slots.read(number).map_err(|e| self.io(e))?;
            let now = self.shared.clock.unix_nanos();
            let record = image.ok().flatten().and_then(|i| self.books.interrupted(&i, now));
            let Some(record) = record else {
                tracing::error!(
                    slot = number,
                    "no record can be made of a dropped slot; the next start tries again"
                );
                continue;
            };
            let written = self.books.usage((number, generation), record, &mut self.buffer);
            written.map_err(|e| JournalError::damaged(&self.path(), self.segment.len, e.to_string()))?;
            self.freed.push(number);
        }
        for session in ended {
            self.books.end_session(session);
        }
        Ok(())
    }

    /// Writes the group; when the disk refuses, the gate denies and the same bytes are tried again in the same place until it does not.
    fn write(&mut self) -> Result<(), JournalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut last_tries = LAST_TRIES;
        while let Err(e) = self.segment.append(&self.buffer) {
            self.shared
                .health
                .set(Trouble::Disk, Some(format!("{}: {e}", self.path().display())));
            if self.queue.is_closed() {
                last_tries -= 1;
                if last_tries == 0 {
                    return Err(self.io(e));
                }
            }
            std::thread::park_timeout(WRITE_PAUSE);
        }
        self.shared.health.set(Trouble::Disk, None);
        self.buffer.clear();
        Ok(())
    }

    fn publish(&self) {
        let mut catalog = self.shared.catalog();
        if let Some(last) = catalog.segments.last_mut() {
            last.len = self.segment.len;
        }
        let sequence = self.books.last_sequence();
        let grown = catalog.last_sequence != sequence;
        catalog.last_sequence = sequence;
        let live = catalog.live_bytes();
        drop(catalog);
        self.shared.check_size(live);
        if grown {
            self.shared.appended.send_replace(sequence);
        }
    }

    fn answer(&mut self) {
        let sequence = self.books.last_sequence();
        for pending in self.pending.drain(..) {
            // Whoever stopped waiting is not owed an answer.
            match pending {
                Pending::Done(answer) => drop(answer.send(Ok(()))),
                Pending::Number(answer, number) => drop(answer.send(Ok(number))),
                Pending::Sequence(answer) => drop(answer.send(Ok(sequence))),
            }
        }
    }

    /// Starts a new segment. Slots and the old segment are on disk before, so the new one alone tells all of this epoch.
    ///
    /// A disk too full for it is no reason to stop: the old segment grows on.
    fn rotate(&mut self) -> Result<(), JournalError> {
        self.segment.sync().map_err(|e| self.io(e))?;
        self.shared.slots.sync().map_err(|e| self.io(e))?;
        let key = SegmentKey {
            number: self.segment.key.number + 1,
            ..self.segment.key
        };
        match SegmentFile::create(&self.shared.place, key, &self.books) {
            Ok(segment) => self.segment = segment,
            Err(e) => {
                tracing::error!(error = %e, "no new journal segment; the old one grows on");
                return Ok(());
            }
        }
        let first = self.books.next_sequence;
        let info = SegmentInfo {
            key,
            first,
            len: self.segment.len,
            archived: false,
        };
        self.shared.catalog().segments.push(info);
        Ok(())
    }

    fn path(&self) -> std::path::PathBuf {
        self.shared.place.segment(self.segment.key)
    }

    fn io(&self, e: std::io::Error) -> JournalError {
        JournalError::io(&self.path())(e)
    }
}

#[cfg(test)]
mod tests {
    use weir_contracts::entry::{Entry, EntryBody, RequestKind};

    use super::*;
    use crate::journal::{
        JournalOptions, SlotHead, SlotState,
        frame::{Frame, FrameReader, Next},
        prepare,
    };

    fn entries(writer: &Writer) -> Vec<EntryBody> {
        let mut reader = FrameReader::open(&writer.path(), 0).unwrap();
        let mut found = Vec::new();
        while let Next::Frame(frame) = reader.next().unwrap() {
            if let Frame::Entry(entry) = frame {
                found.push(serde_json::from_slice::<Entry>(&entry.json).unwrap().body);
            }
        }
        found
    }

    #[test]
    fn a_slot_dropped_while_a_group_is_gathered_is_recorded_before_its_lease_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, books, segment) = prepare(dir.path(), JournalOptions::default()).unwrap();
        let lease = LeaseId {
            proxy: shared.identity.proxy,
            epoch: shared.identity.epoch,
            number: 1,
        };
        let (_commands, queue) = mpsc::channel(1);
        let mut writer = Writer::new(Arc::new(shared), books, segment, queue);
        let session = SessionRecord {
            account: "demo".parse().unwrap(),
            principal: "demo".into(),
            upstream: "here".into(),
            tariff: "t@1".into(),
        };
        let record = LeaseRecord {
            lease,
            account: "demo".parse().unwrap(),
            tariff: "t@1".into(),
        };
        let begin = [
            Command::BeginSession(session, oneshot::channel().0),
            Command::BeginLease(record, oneshot::channel().0),
        ];
        for command in begin {
            writer.take_in_order(command).unwrap();
        }
        let head = SlotHead {
            session: 1,
            request: 1,
            kind: RequestKind::Batch,
            started_unix_nanos: 1,
        };
        let mut slot = writer.shared.slots.open(head).unwrap();
        let state = SlotState {
            lease_number: 1,
            cost_nanos: 70,
            ..SlotState::default()
        };
        slot.write(&state).unwrap();
        drop(slot);
        let close = Command::CloseLease(lease, oneshot::channel().0);
        writer.take_in_order(close).unwrap();
        writer.group(None).unwrap();
        let found = entries(&writer);
        let [EntryBody::Usage(usage), EntryBody::LeaseClosed(closed)] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((usage.lease, usage.cost_nanos), (Some(lease), 70));
        assert_eq!(
            (closed.records, closed.cost_nanos, closed.last_sequence),
            (1, 70, 1)
        );
    }
}
