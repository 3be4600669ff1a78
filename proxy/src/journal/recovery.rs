//! What an earlier start left open is closed under its own epoch: torn tail cut off, open slots to `interrupted` records, open leases ended.
//!
//! May itself be killed at any point and run again: a slot whose generation, or a later one, stands in an appended record is not appended twice, an ended lease
//! is not ended twice, and the slots file goes only after all of it is on disk.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::UNIX_EPOCH,
};

use weir_contracts::ids::ProxyId;

use super::{
    books::Books,
    disk::{Place, SegmentKey, segments_in, sync_dir},
    frame::{BODY_MAX, FRAME_HEAD, Frame, FrameReader, NO_SLOT, Next},
    segment::{Position, SegmentFile, head_of},
    slot::{SLOT_BYTES, SlotImage},
    types::JournalError,
};

/// What recovery found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    /// Open slots that became `interrupted` records.
    pub interrupted: u64,
    /// Leases that were ended.
    pub leases: u64,
    /// Slots that no record could be made of: damaged, or of an unknown session or lease.
    pub lost_slots: u64,
}

/// An epoch's last segment, read.
struct Ledger {
    books: Books,
    /// Last generation appended, by slot number.
    appended: HashMap<u32, u32>,
    /// Bytes that are whole frames.
    len: u64,
    checkpointed: bool,
    closed: bool,
}

/// Closes what epoch `epoch` left open. Nothing to do is no error.
pub(crate) fn recover(
    place: &Place,
    proxy: ProxyId,
    epoch: u64,
    confirmed: Option<Position>,
) -> Result<Recovered, JournalError> {
    let slots_path = place.slots(epoch);
    let Some((key, mut ledger)) = last_segment(place, proxy, epoch)? else {
        if confirmed.is_some_and(|c| c.epoch == epoch) {
            return Err(JournalError::damaged(
                &place.0,
                0,
                format!("no segment of epoch {epoch}, though it was shipped"),
            ));
        }
        if fs::read(&slots_path).is_ok_and(|slots| slots.iter().any(|b| *b != 0)) {
            return Err(JournalError::damaged(
                &slots_path,
                0,
                "responses were open, but the epoch's segments are missing",
            ));
        }
        remove(place, &slots_path)?;
        return Ok(Recovered::default());
    };
    let path = place.segment(key);
    let size = fs::metadata(&path).map_err(JournalError::io(&path))?.len();
    let mut found = Recovered {
        torn_bytes: size - ledger.len,
        ..Recovered::default()
    };
    if confirmed.is_some_and(|c| c.epoch == epoch && c.sequence > ledger.books.last_sequence()) {
        return Err(JournalError::damaged(
            &path,
            ledger.len,
            "entries that were already shipped are missing",
        ));
    }
    if ledger.closed {
        remove(place, &slots_path)?;
        return Ok(found);
    }
    let mut segment = SegmentFile::reopen(place, key, ledger.len)?;
    let mut bytes = Vec::new();
    close_slots(&slots_path, &mut ledger, &mut found, &mut bytes)?;
    let encode = |e: serde_json::Error| JournalError::damaged(&path, 0, e.to_string());
    for lease in ledger.books.open_leases() {
        ledger.books.close_lease(lease, &mut bytes).map_err(encode)?;
        found.leases += 1;
    }
    Frame::EpochClosed.encode(&mut bytes).map_err(encode)?;
    segment
        .append(&bytes)
        .and_then(|()| segment.sync())
        .map_err(JournalError::io(&path))?;
    remove(place, &slots_path)?;
    Ok(found)
}

/// The last segment that was made whole; one that was still being made holds no entry and is removed.
fn last_segment(
    place: &Place,
    proxy: ProxyId,
    epoch: u64,
) -> Result<Option<(SegmentKey, Ledger)>, JournalError> {
    let mut keys = segments_in(&place.0)?;
    keys.retain(|k| k.epoch == epoch);
    while let Some(key) = keys.pop() {
        let path = place.segment(key);
        let ledger = read_segment(&path, proxy, epoch)?;
        if ledger.checkpointed {
            return Ok(Some((key, ledger)));
        }
        tracing::warn!(file = %path.display(), "a segment that was never finished is removed");
        fs::remove_file(&path).map_err(JournalError::io(&path))?;
    }
    Ok(None)
}

fn read_segment(path: &Path, proxy: ProxyId, epoch: u64) -> Result<Ledger, JournalError> {
    let books = Books::new(proxy, epoch);
    let mut ledger = Ledger {
        books,
        appended: HashMap::new(),
        len: 0,
        checkpointed: false,
        closed: false,
    };
    if head_of(path)?.is_some_and(|h| h.proxy != proxy || h.epoch != epoch) {
        return Err(JournalError::damaged(
            path,
            0,
            "it belongs to another proxy or epoch",
        ));
    }
    let mut reader = FrameReader::open(path, 0)?;
    loop {
        match reader.next().map_err(JournalError::io(path))? {
            Next::Frame(frame) => {
                ledger
                    .books
                    .replay(&frame)
                    .map_err(|what| JournalError::damaged(path, ledger.len, what))?;
                match &frame {
                    Frame::Entry(entry) if entry.slot.0 != NO_SLOT => {
                        ledger.appended.insert(entry.slot.0, entry.slot.1);
                    }
                    Frame::ClosedSlots(slots) => ledger.appended.extend(slots.iter().copied()),
                    Frame::CheckpointEnd => ledger.checkpointed = true,
                    Frame::EpochClosed => ledger.closed = true,
                    _ => {}
                }
                ledger.len = reader.offset;
            }
            Next::End => return Ok(ledger),
            Next::Bad(what) => {
                if resumes(path, ledger.len)? {
                    return Err(JournalError::damaged(
                        path,
                        ledger.len,
                        format!("{what}, and whole frames follow it"),
                    ));
                }
                tracing::warn!(file = %path.display(), offset = ledger.len, what, "a torn tail is cut off");
                return Ok(ledger);
            }
        }
    }
}

/// True when a whole frame stands somewhere behind a bad one: then it is no torn tail. A hole of zeros is what a power loss leaves of
/// pages that were never written, and counts as torn. Worst case: one segment is read into memory and walked once.
fn resumes(path: &Path, offset: u64) -> Result<bool, JournalError> {
    let bytes = fs::read(path).map_err(JournalError::io(path))?;
    let tail = bytes
        .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
        .unwrap_or_default();
    if tail.iter().take(FRAME_HEAD as usize).all(|b| *b == 0) {
        return Ok(false);
    }
    Ok((1..tail.len()).any(|at| is_whole_frame(&tail[at..])))
}

fn is_whole_frame(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    (1..=BODY_MAX).contains(&len) && rest.get(..len).is_some_and(|body| crc32fast::hash(body) == sum)
}

fn close_slots(
    path: &Path,
    ledger: &mut Ledger,
    found: &mut Recovered,
    out: &mut Vec<u8>,
) -> Result<(), JournalError> {
    let file = File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            JournalError::damaged(path, 0, "the slots of an epoch that was not closed are missing")
        }
        _ => JournalError::io(path)(e),
    })?;
    let meta = file.metadata().map_err(JournalError::io(path))?;
    // When the last slot was written is the best that is known of when the responses ended.
    let ended = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    let ended = u64::try_from(ended.as_nanos()).unwrap_or(u64::MAX);
    let slots = u32::try_from(meta.len() / SLOT_BYTES as u64).unwrap_or(u32::MAX);
    let mut bytes = [0; SLOT_BYTES];
    for number in 0..slots {
        file.read_exact_at(&mut bytes, u64::from(number) * SLOT_BYTES as u64)
            .map_err(JournalError::io(path))?;
        let image = match SlotImage::decode(number, &bytes) {
            Ok(None) => continue,
            Ok(Some(image)) if is_recorded(&image, ledger.appended.get(&number)) => continue,
            Ok(Some(image)) => Some(image),
            Err(_) => None,
        };
        let record = image.and_then(|i| ledger.books.interrupted(&i, ended).map(|r| (i.generation, r)));
        let Some((generation, record)) = record else {
            tracing::error!(file = %path.display(), slot = number, "no record can be made of an open slot");
            found.lost_slots += 1;
            continue;
        };
        let written = ledger.books.usage((number, generation), record, out);
        written.map_err(|e| JournalError::damaged(path, 0, e.to_string()))?;
        found.interrupted += 1;
    }
    Ok(())
}

/// True if what a slot says was recorded: its generation, or a later one. A slot is used again only after it was recorded, and
/// a later use may have ended before it wrote anything. Generations wrap.
fn is_recorded(image: &SlotImage, appended: Option<&u32>) -> bool {
    appended.is_some_and(|last| last.wrapping_sub(image.generation) <= u32::MAX / 2)
}

fn remove(place: &Place, path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(&place.0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(JournalError::io(path)(e)),
    }
}
