//! The 64 bytes of an open response, and the table of slots.
//!
//! A slot of all zeros was never used. Another one carries a check sum over itself and its number, so that neither a torn nor a misplaced
//! one is taken for a measurement. The generation tells whether a record that was appended came from what the slot says now: then it is
//! free, and is not written again before somebody uses it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::mpsc;
use weir_contracts::entry::RequestKind;

use super::{
    types::{JournalError, REQUESTS_MAX, SlotHead, SlotState, SlotsExhausted},
    writer::Command,
};

/// Bytes of a slot; divides every sector size, so a slot never straddles two sectors.
pub(crate) const SLOT_BYTES: usize = 64;
const QUANTITY_MAX: u64 = (1 << 48) - 1;
const RESULT_SETS_MAX: u32 = (1 << 16) - 1;
const KIND_MASK: u8 = 0b0000_0111;
const UNPARSED: u8 = 0b0000_1000;
const COUNTS_REQUEST: u8 = 0b0001_0000;
/// Shift of the upper three bits of the further requests.
const FURTHER_SHIFT: u32 = 5;

/// What a slot on disk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotImage {
    pub(crate) generation: u32,
    pub(crate) head: SlotHead,
    pub(crate) state: SlotState,
}

/// Why 64 bytes are no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadSlot;

fn kind_code(kind: RequestKind) -> u8 {
    match kind {
        RequestKind::Batch => 1,
        RequestKind::Rpc => 2,
        RequestKind::BulkLoad => 3,
        RequestKind::TransactionManager => 4,
    }
}

fn check_sum(number: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(0x5745_4952);
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

impl SlotImage {
    /// Layout: rows, bytes out, bytes in, server nanos (6 bytes each), cost, start (8 each), session, request, lease (4 each), result
    /// sets (2), further requests (1 and three bits of the next), kind and flags (1), generation (4), check sum (4); all little-endian.
    pub(crate) fn encode(&self, number: u32) -> io::Result<[u8; SLOT_BYTES]> {
        let (head, state) = (&self.head, &self.state);
        let mut out = [0; SLOT_BYTES];
        let quantities = [state.rows, state.bytes_out, state.bytes_in, state.server_nanos];
        for (at, quantity) in (0..).step_by(6).zip(quantities) {
            if quantity > QUANTITY_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a quantity does not fit its slot: end the part",
                ));
            }
            out[at..at + 6].copy_from_slice(&quantity.to_le_bytes()[..6]);
        }
        out[24..32].copy_from_slice(&state.cost_nanos.to_le_bytes());
        out[32..40].copy_from_slice(&head.started_unix_nanos.to_le_bytes());
        out[40..44].copy_from_slice(&head.session.to_le_bytes());
        out[44..48].copy_from_slice(&head.request.to_le_bytes());
        out[48..52].copy_from_slice(&state.lease_number.to_le_bytes());
        out[52..54].copy_from_slice(&state.result_sets.min(RESULT_SETS_MAX).to_le_bytes()[..2]);
        if state.requests > REQUESTS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more requests than a slot counts: end the part",
            ));
        }
        let [low, high, ..] = state.requests.saturating_sub(1).to_le_bytes();
        out[54] = low;
        out[55] = kind_code(head.kind)
            | high << FURTHER_SHIFT
            | if state.unparsed { UNPARSED } else { 0 }
            | if state.requests > 0 { COUNTS_REQUEST } else { 0 };
        out[56..60].copy_from_slice(&self.generation.to_le_bytes());
        let sum = check_sum(number, &out[..60]);
        out[60..].copy_from_slice(&sum.to_le_bytes());
        Ok(out)
    }

    /// `Ok(None)` for a slot that was never used.
    pub(crate) fn decode(number: u32, bytes: &[u8; SLOT_BYTES]) -> Result<Option<Self>, BadSlot> {
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if check_sum(number, &bytes[..60]).to_le_bytes() != bytes[60..] {
            return Err(BadSlot);
        }
        let word = |at: usize, len: usize| {
            let mut wide = [0; 8];
            wide[..len].copy_from_slice(&bytes[at..at + len]);
            u64::from_le_bytes(wide)
        };
        let half = |at: usize| u32::try_from(word(at, 4)).unwrap_or(u32::MAX);
        let flags = bytes[55];
        let further = u32::from(bytes[54]) | u32::from(flags >> FURTHER_SHIFT) << 8;
        let kind = match flags & KIND_MASK {
            1 => RequestKind::Batch,
            2 => RequestKind::Rpc,
            3 => RequestKind::BulkLoad,
            4 => RequestKind::TransactionManager,
            _ => return Err(BadSlot),
        };
        Ok(Some(Self {
            generation: half(56),
            head: SlotHead {
                session: half(40),
                request: half(44),
                kind,
                started_unix_nanos: word(32, 8),
            },
            state: SlotState {
                lease_number: half(48),
                requests: if flags & COUNTS_REQUEST == 0 {
                    0
                } else {
                    further + 1
                },
                rows: word(0, 6),
                bytes_out: word(6, 6),
                bytes_in: word(12, 6),
                server_nanos: word(18, 6),
                result_sets: u32::try_from(word(52, 2)).unwrap_or(RESULT_SETS_MAX),
                cost_nanos: word(24, 8).cast_signed(),
                unparsed: flags & UNPARSED != 0,
            },
        }))
    }
}

/// All slots of an epoch. The file is made at its full length, so that a full disk cannot stop a measurement.
#[derive(Debug)]
pub(crate) struct SlotTable {
    file: File,
    generations: Vec<AtomicU32>,
    free: Mutex<Vec<u32>>,
    /// Written slots whose session ended without closing them; the journal's thread makes records of them.
    orphans: Mutex<Vec<(u32, u32)>>,
    /// Tells the journal's thread of an orphan.
    wake: OnceLock<mpsc::WeakSender<Command>>,
}

impl SlotTable {
    pub(crate) fn create(path: &Path, slots: u32) -> Result<Self, JournalError> {
        let make = || -> io::Result<File> {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)?;
            let zeros = vec![0; SLOT_BYTES * 1024];
            let mut left = u64::from(slots) * SLOT_BYTES as u64;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(zeros.len()).min(zeros.len());
                file.write_all(&zeros[..part])?;
                left -= part as u64;
            }
            file.sync_all()?;
            Ok(file)
        };
        Ok(Self {
            file: make().map_err(JournalError::io(path))?,
            generations: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            free: Mutex::new((0..slots).rev().collect()),
            orphans: Mutex::new(Vec::new()),
            wake: OnceLock::new(),
        })
    }

    pub(crate) fn open(self: &Arc<Self>, head: SlotHead) -> Result<Slot, SlotsExhausted> {
        let number = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(number) = number else {
            return Err(SlotsExhausted(
                u32::try_from(self.generations.len()).unwrap_or(u32::MAX),
            ));
        };
        let generation = self.generations[number as usize]
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        Ok(Slot {
            table: Arc::clone(self),
            number,
            generation,
            head,
            written: false,
            closed: false,
        })
    }

    /// Lets slots be used again after their records are appended.
    pub(crate) fn release(&self, numbers: &mut Vec<u32>) {
        if !numbers.is_empty() {
            self.free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(numbers);
        }
    }

    pub(crate) fn read(&self, number: u32) -> io::Result<Result<Option<SlotImage>, BadSlot>> {
        let mut bytes = [0; SLOT_BYTES];
        self.file.read_exact_at(&mut bytes, offset(number))?;
        Ok(SlotImage::decode(number, &bytes))
    }

    pub(crate) fn wake_by(&self, commands: mpsc::WeakSender<Command>) {
        let _ = self.wake.set(commands);
    }

    pub(crate) fn take_orphans(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut *self.orphans.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn offset(number: u32) -> u64 {
    u64::from(number) * SLOT_BYTES as u64
}

/// One open response's 64 bytes on disk. Dropped without [`super::Journal::close`], it becomes an `interrupted` record by itself.
#[derive(Debug)]
pub struct Slot {
    table: Arc<SlotTable>,
    number: u32,
    generation: u32,
    head: SlotHead,
    written: bool,
    closed: bool,
}

impl Slot {
    /// Overwrites the slot in place: one 64-byte `pwrite`, done before the chunk's first byte goes to the client.
    ///
    /// # Errors
    /// The system refused, or a quantity is out of its bound: deliver nothing, end the response.
    pub fn write(&mut self, state: &SlotState) -> io::Result<()> {
        let image = SlotImage {
            generation: self.generation,
            head: self.head,
            state: *state,
        };
        let bytes = image.encode(self.number)?;
        self.written = true;
        self.table.file.write_all_at(&bytes, offset(self.number))
    }

    /// What it was opened with.
    #[must_use]
    pub fn head(&self) -> &SlotHead {
        &self.head
    }

    /// Its number and generation; from here on the journal's thread frees it.
    pub(crate) fn into_parts(mut self) -> (u32, u32) {
        self.closed = true;
        (self.number, self.generation)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        if !self.written {
            self.table
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self.number);
            return;
        }
        let orphan = (self.number, self.generation);
        self.table
            .orphans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(orphan);
        // A full queue wakes the thread as well.
        if let Some(commands) = self.table.wake.get().and_then(mpsc::WeakSender::upgrade) {
            let _ = commands.try_send(Command::Orphan);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> SlotImage {
        SlotImage {
            generation: 0xDEAD_BEEF,
            head: SlotHead {
                session: 7,
                request: 9,
                kind: RequestKind::BulkLoad,
                started_unix_nanos: 1 << 60,
            },
            state: SlotState {
                lease_number: 3,
                requests: REQUESTS_MAX,
                rows: QUANTITY_MAX,
                bytes_out: 1,
                bytes_in: 2,
                server_nanos: 3,
                result_sets: 4,
                cost_nanos: -5,
                unparsed: true,
            },
        }
    }

    #[test]
    fn a_slot_reads_as_it_was_written_and_in_its_own_place_only() {
        let bytes = image().encode(12).unwrap();
        assert_eq!(SlotImage::decode(12, &bytes), Ok(Some(image())));
        assert_eq!(SlotImage::decode(13, &bytes), Err(BadSlot));
        assert_eq!(SlotImage::decode(13, &[0; SLOT_BYTES]), Ok(None));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let good = image().encode(12).unwrap();
        for bit in 0..SLOT_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SlotImage::decode(12, &bytes), Err(BadSlot), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_slot_is_noticed_at_every_byte() {
        let (old, new) = (image().encode(1).unwrap(), {
            let mut next = image();
            next.state = SlotState {
                rows: 1,
                cost_nanos: 77,
                ..next.state
            };
            next.encode(1).unwrap()
        });
        for cut in 0..SLOT_BYTES {
            let mut torn = old;
            torn[..cut].copy_from_slice(&new[..cut]);
            let read = SlotImage::decode(1, &torn);
            assert!(torn == old || torn == new || read == Err(BadSlot), "cut at {cut}");
        }
    }

    #[test]
    fn a_quantity_beyond_its_field_is_refused_not_wrapped() {
        let mut wide = image();
        wide.state.rows = QUANTITY_MAX + 1;
        assert!(wide.encode(0).is_err());
    }
}
