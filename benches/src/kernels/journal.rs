//! The journal: a slot overwritten for a chunk, and usage records appended to a segment by the journal's thread.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir_contracts::entry::{RequestKind, UsageRecord};
use weir_contracts::ids::LeaseId;
use weir_proxy::journal::{Journal, JournalOptions, Slot, SlotHead, SlotState};

use super::Work;
use crate::failure::{Failure, Trying};

/// Writes of a turn.
const WRITES: u64 = 500;
/// Usage records of a turn: half of what the journal's thread writes at once.
const RECORDS: u64 = 256;
/// Slots of a journal: so few for one slot that looking for it is no part of the measurement; enough for the records of a turn.
const SLOTS_OF_ONE: u32 = 16;
const SLOTS_OF_MANY: u32 = 1024;
/// Usage records after which the journal begins anew, so that no measurement fills the disk.
const RECORDS_MAX: u64 = 100_000;
/// So long that a turn's records are always one group: how many there were would hang on the machine's load.
const GATHER: Duration = Duration::from_secs(60);
/// Bytes of a slot in its file.
const SLOT_BYTES: usize = 64;

/// A journal in a directory of its own.
struct Opened {
    journal: Journal,
    runtime: Runtime,
    directory: TempDir,
}

impl Opened {
    fn new(slots_max: u32) -> Result<Self, Failure> {
        let directory = tempfile::tempdir().trying("temporary directory")?;
        let options = JournalOptions {
            slots_max,
            archive_keep: Duration::ZERO,
            gather: GATHER,
            ..JournalOptions::default()
        };
        let journal = Journal::open(directory.path(), options).trying("journal")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            journal,
            runtime: runtime.trying("runtime")?,
            directory,
        })
    }

    fn slot(&self) -> Result<Slot, Failure> {
        let head = SlotHead {
            session: 1,
            request: 1,
            kind: RequestKind::Batch,
            started_unix_nanos: 1_700_000_000_000_000_000,
        };
        self.journal.open_slot(head).trying("slot")
    }

    /// True if one slot on disk, and no other, ends as the last write of this row count must have left it.
    fn holds(&self, rows: u64) -> Result<bool, Failure> {
        let mut found = 0;
        for file in fs::read_dir(self.directory.path())? {
            let path = file?.path();
            let slots = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains("slots"));
            let bytes = if slots { fs::read(path)? } else { Vec::new() };
            // The slot begins with its rows, 48 bits [proxy/src/journal/slot.rs].
            let rows = rows.to_le_bytes();
            let of_rows = |slot: &&[u8]| slot.get(..6) == rows.get(..6);
            found += bytes.chunks_exact(SLOT_BYTES).filter(of_rows).count();
        }
        Ok(found == 1)
    }
}

/// One slot, written for each chunk.
pub(super) fn slot() -> Result<Work, Failure> {
    let opened = Opened::new(SLOTS_OF_ONE)?;
    let mut slot = opened.slot()?;
    let mut state = SlotState::default();
    Ok(Box::new(move || {
        for _ in 0..WRITES {
            state.rows += 810;
            state.bytes_out += 256 * 1024;
            state.cost_nanos += 8_868;
            slot.write(&state).trying("slot")?;
        }
        opened
            .holds(state.rows)?
            .then_some(WRITES)
            .trying("the slot is not on disk")
    }))
}

/// Slots that become usage records, until all of them are in the segment.
pub(super) fn segment() -> Result<Work, Failure> {
    let mut opened = Opened::new(SLOTS_OF_MANY)?;
    Ok(Box::new(move || {
        let mut last = opened.journal.last().map_or(0, |last| last.sequence);
        if last > RECORDS_MAX {
            (opened, last) = (Opened::new(SLOTS_OF_MANY)?, 0);
        }
        let journal = &opened.journal;
        let written = opened.runtime.block_on(async {
            for _ in 0..RECORDS {
                journal
                    .close(opened.slot()?, record(journal)?)
                    .await
                    .trying("close")?;
            }
            journal.flush().await.trying("flush")
        })?;
        super::streams::check("usage records", written - last, RECORDS)
    }))
}

fn record(journal: &Journal) -> Result<UsageRecord, Failure> {
    let lease = LeaseId {
        proxy: journal.proxy(),
        epoch: journal.epoch(),
        number: 1,
    };
    super::rating::record(lease)
}
