//! What the journal's thread knows of its epoch: next numbers, live sessions, open leases and their sums. Recovery knows the same.

use std::collections::BTreeMap;

use weir_contracts::{
    entry::{Entry, EntryBody, LeaseClosed, Outcome, RequestKind, UsageRecord},
    ids::{EntryId, LeaseId, ProxyId},
};

use super::{
    frame::{EntryFrame, Frame, Head, LeaseTally, NO_SLOT},
    slot::SlotImage,
    types::{LeaseRecord, SessionRecord},
};

/// Slots in one frame: far below the longest body.
const CLOSED_IN_FRAME: usize = 64 * 1024;

/// State of one epoch.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) proxy: ProxyId,
    pub(crate) epoch: u64,
    pub(crate) next_sequence: u64,
    next_session: u32,
    sessions: BTreeMap<u32, SessionRecord>,
    leases: BTreeMap<u32, LeaseTally>,
    /// Last generation that was recorded, by slot number; 0 for none. As long as as many slots as were ever open at once.
    closed: Vec<u32>,
}

impl Books {
    pub(crate) fn new(proxy: ProxyId, epoch: u64) -> Self {
        Self {
            proxy,
            epoch,
            next_sequence: 1,
            next_session: 1,
            sessions: BTreeMap::new(),
            leases: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    /// Sequence of the last entry, 0 for none.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Head and checkpoint of a new segment.
    pub(crate) fn checkpoint(&self, number: u64, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let head = Head {
            proxy: self.proxy,
            epoch: self.epoch,
            number,
            next_sequence: self.next_sequence,
            next_session: self.next_session,
        };
        Frame::Head(head).encode(out)?;
        for (number, record) in &self.sessions {
            Frame::Session(*number, record.clone()).encode(out)?;
        }
        for tally in self.leases.values() {
            Frame::Lease(tally.clone()).encode(out)?;
        }
        for slots in self.closed_slots().chunks(CLOSED_IN_FRAME) {
            Frame::ClosedSlots(slots.to_vec()).encode(out)?;
        }
        Frame::CheckpointEnd.encode(out)
    }

    fn closed_slots(&self) -> Vec<(u32, u32)> {
        let closed = (0..).zip(self.closed.iter().copied());
        closed.filter(|(_, generation)| *generation > 0).collect()
    }

    fn note_closed(&mut self, (number, generation): (u32, u32)) {
        let Ok(at) = usize::try_from(number) else { return };
        if number == NO_SLOT {
            return;
        }
        if self.closed.len() <= at {
            self.closed.resize(at + 1, 0);
        }
        if let Some(last) = self.closed.get_mut(at) {
            *last = generation;
        }
    }

    pub(crate) fn begin_session(
        &mut self,
        record: SessionRecord,
        out: &mut Vec<u8>,
    ) -> Result<u32, serde_json::Error> {
        let number = self.next_session;
        self.next_session = number.wrapping_add(1);
        self.amend_session(number, record, out)?;
        Ok(number)
    }

    pub(crate) fn amend_session(
        &mut self,
        number: u32,
        record: SessionRecord,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        Frame::Session(number, record.clone()).encode(out)?;
        self.sessions.insert(number, record);
        Ok(())
    }

    pub(crate) fn end_session(&mut self, number: u32) {
        self.sessions.remove(&number);
    }

    pub(crate) fn begin_lease(
        &mut self,
        record: LeaseRecord,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let number = record.lease.number;
        let tally = LeaseTally {
            record,
            records: 0,
            cost_nanos: 0,
            last_sequence: 0,
        };
        Frame::Lease(tally.clone()).encode(out)?;
        self.leases.insert(number, tally);
        Ok(())
    }

    /// Gives a usage record its sequence.
    pub(crate) fn usage(
        &mut self,
        slot: (u32, u32),
        record: UsageRecord,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let (lease, cost) = (record.lease, record.cost_nanos);
        let sequence = self.entry(slot, EntryBody::Usage(record), out)?;
        self.note_closed(slot);
        self.tally(lease, cost, sequence);
        Ok(())
    }

    /// Ends a lease; one that is unknown or already ended leaves no second record.
    pub(crate) fn close_lease(&mut self, lease: LeaseId, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let known = self
            .leases
            .get(&lease.number)
            .is_some_and(|t| t.record.lease == lease);
        let Some(tally) = known.then(|| self.leases.remove(&lease.number)).flatten() else {
            return Ok(());
        };
        let closed = LeaseClosed {
            lease,
            account: tally.record.account,
            records: tally.records,
            cost_nanos: tally.cost_nanos,
            last_sequence: tally.last_sequence,
        };
        self.entry((NO_SLOT, 0), EntryBody::LeaseClosed(closed), out)?;
        Ok(())
    }

    pub(crate) fn open_leases(&self) -> Vec<LeaseId> {
        self.leases.values().map(|t| t.record.lease).collect()
    }

    fn entry(
        &mut self,
        slot: (u32, u32),
        body: EntryBody,
        out: &mut Vec<u8>,
    ) -> Result<u64, serde_json::Error> {
        let sequence = self.next_sequence;
        let id = EntryId {
            proxy: self.proxy,
            epoch: self.epoch,
            sequence,
        };
        let json = serde_json::to_vec(&Entry { id, body })?;
        Frame::Entry(EntryFrame {
            slot,
            epoch: self.epoch,
            sequence,
            json,
        })
        .encode(out)?;
        self.next_sequence += 1;
        Ok(sequence)
    }

    fn tally(&mut self, lease: Option<LeaseId>, cost_nanos: i64, sequence: u64) {
        let Some(tally) = lease.and_then(|l| self.leases.get_mut(&l.number)) else {
            return;
        };
        tally.records += 1;
        tally.cost_nanos = tally.cost_nanos.saturating_add(cost_nanos);
        tally.last_sequence = sequence;
    }

    /// Takes in a frame of an earlier run, in order. What it cannot make sense of is named.
    pub(crate) fn replay(&mut self, frame: &Frame) -> Result<(), String> {
        match frame {
            Frame::Head(head) => {
                (self.next_sequence, self.next_session) = (head.next_sequence, head.next_session);
            }
            Frame::Session(number, record) => {
                self.sessions.insert(*number, record.clone());
                self.next_session = self.next_session.max(number.wrapping_add(1));
            }
            Frame::Lease(tally) => {
                self.leases.insert(tally.record.lease.number, tally.clone());
            }
            Frame::Entry(entry) => self.replay_entry(entry)?,
            Frame::ClosedSlots(_) | Frame::CheckpointEnd | Frame::EpochClosed => {}
        }
        Ok(())
    }

    fn replay_entry(&mut self, frame: &EntryFrame) -> Result<(), String> {
        if (frame.epoch, frame.sequence) != (self.epoch, self.next_sequence) {
            return Err(format!(
                "entry {}-{} stands where {} is due",
                frame.epoch, frame.sequence, self.next_sequence
            ));
        }
        self.next_sequence += 1;
        let entry: Entry = serde_json::from_slice(&frame.json).map_err(|e| e.to_string())?;
        match entry.body {
            EntryBody::Usage(record) => self.tally(record.lease, record.cost_nanos, frame.sequence),
            EntryBody::LeaseClosed(closed) => {
                self.leases.remove(&closed.lease.number);
            }
        }
        Ok(())
    }

    /// The record of a slot that nobody will close any more. `None` when its session or lease is not known here.
    pub(crate) fn interrupted(&self, image: &SlotImage, ended_unix_nanos: u64) -> Option<UsageRecord> {
        let (head, state) = (&image.head, &image.state);
        let session = self.sessions.get(&head.session)?;
        let lease = match state.lease_number {
            0 => None,
            number => Some(&self.leases.get(&number)?.record),
        };
        let bulk = head.kind == RequestKind::BulkLoad;
        Some(UsageRecord {
            account: session.account.clone(),
            principal: session.principal.clone(),
            session: u64::from(head.session),
            request: u64::from(head.request),
            kind: head.kind,
            requests: u64::from(state.requests),
            rows: if bulk { 0 } else { state.rows },
            rows_affected: 0,
            result_sets: u64::from(state.result_sets),
            bytes_out: state.bytes_out,
            bytes_in: state.bytes_in,
            bulk_rows: if bulk { state.rows } else { 0 },
            bulk_bytes: if bulk { state.bytes_in } else { 0 },
            server_nanos: state.server_nanos,
            started_unix_nanos: head.started_unix_nanos,
            ended_unix_nanos: ended_unix_nanos.max(head.started_unix_nanos),
            outcome: Outcome::Interrupted,
            drift: false,
            unparsed: state.unparsed,
            tariff: lease.map_or_else(|| session.tariff.clone(), |l| l.tariff.clone()),
            lease: lease.map(|l| l.lease),
            cost_nanos: state.cost_nanos,
        })
    }
}
