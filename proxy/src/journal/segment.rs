//! The segment being written, and the catalog of all segments that readers and trimming work from.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
};

use super::{
    books::Books,
    disk::{Place, SegmentKey, sync_dir},
    frame::{Frame, FrameReader, Next},
    types::JournalError,
};

/// An entry's place: epoch, then sequence within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Which start of the proxy.
    pub epoch: u64,
    /// From 1, without a gap.
    pub sequence: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

/// The open end of the journal. Written by position only, so that a write repeated after an error lands in the same place.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) key: SegmentKey,
    pub(crate) len: u64,
    file: File,
}

impl SegmentFile {
    /// Makes a segment with head and checkpoint, durable before it returns. A half-made one is made anew.
    pub(crate) fn create(place: &Place, key: SegmentKey, books: &Books) -> Result<Self, JournalError> {
        let path = place.segment(key);
        let mut bytes = Vec::new();
        books
            .checkpoint(key.number, &mut bytes)
            .map_err(|e| JournalError::damaged(&path, 0, e.to_string()))?;
        let make = || -> io::Result<File> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(JournalError::io(&path))?;
        sync_dir(&place.0)?;
        Ok(Self {
            key,
            len: bytes.len() as u64,
            file,
        })
    }

    /// Opens a segment of an earlier run, cutting off what follows `len`.
    pub(crate) fn reopen(place: &Place, key: SegmentKey, len: u64) -> Result<Self, JournalError> {
        let path = place.segment(key);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(JournalError::io(&path))?;
        file.set_len(len).map_err(JournalError::io(&path))?;
        Ok(Self { key, len, file })
    }

    /// Writes at the end; `len` moves only when all of it is written.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A segment as readers see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentInfo {
    pub(crate) key: SegmentKey,
    /// Sequence of the first entry that stands, or would stand, in it.
    pub(crate) first: u64,
    /// Bytes that are whole frames.
    pub(crate) len: u64,
    pub(crate) archived: bool,
}

/// All segments, oldest first; the last one is being written.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) last_sequence: u64,
    pub(crate) confirmed: Option<Position>,
}

impl Catalog {
    /// Bytes that the broker has not confirmed, whole segments counted.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments.iter().filter(|s| !s.archived).map(|s| s.len).sum()
    }

    /// Segments that hold confirmed entries only. The last one stays, whatever is confirmed.
    pub(crate) fn trimmable(&self) -> Vec<SegmentKey> {
        let Some(confirmed) = self.confirmed else {
            return Vec::new();
        };
        let behind = |pair: &&[SegmentInfo]| {
            let (this, next) = (pair[0], pair[1]);
            let rest_confirmed = next.key.epoch == this.key.epoch
                && confirmed.epoch == this.key.epoch
                && confirmed.sequence + 1 >= next.first;
            !this.archived && (confirmed.epoch > this.key.epoch || rest_confirmed)
        };
        self.segments
            .windows(2)
            .take_while(|p| p[0].archived || behind(p))
            .filter(behind)
            .map(|p| p[0].key)
            .collect()
    }

    /// Index of the segment in which the entry after `after` stands or will stand.
    pub(crate) fn find(&self, after: Option<Position>) -> usize {
        let Some(after) = after else { return 0 };
        let covers = |s: &SegmentInfo| {
            s.key.epoch < after.epoch || (s.key.epoch == after.epoch && s.first <= after.sequence)
        };
        self.segments.iter().rposition(covers).unwrap_or(0)
    }
}

/// Reads a segment's head.
pub(crate) fn head_of(path: &std::path::Path) -> Result<Option<super::frame::Head>, JournalError> {
    let mut reader = FrameReader::open(path, 0)?;
    match reader.next().map_err(JournalError::io(path))? {
        Next::Frame(Frame::Head(head)) => Ok(Some(head)),
        _ => Ok(None),
    }
}
