//! Reads entries back in order, for the shipper; moves the confirmed cursor and trims behind it.

use std::{fs, path::PathBuf};

use super::{
    Journal,
    disk::{self, SegmentKey, sync_dir},
    frame::{Frame, FrameReader, Next},
    health::Trouble,
    segment::{Position, SegmentInfo},
    types::JournalError,
};

/// Entries in order, and the place before the first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The place just before the first entry, as the outbox must end for it.
    pub after: Option<Position>,
    /// `(place, JSON)`.
    pub entries: Vec<(Position, Vec<u8>)>,
}

/// A place in the journal from which entries are read. Blocking.
#[derive(Debug)]
pub struct JournalReader {
    journal: Journal,
    after: Option<Position>,
    /// Where the entry after `after` begins, when it is known.
    mark: Option<(SegmentKey, u64)>,
    /// The outbox is empty: the first batch follows nothing there, wherever it begins here.
    into_empty: bool,
    /// The entry at `after` was met, so the next one really is the next.
    met: bool,
}

impl JournalReader {
    pub(crate) fn new(journal: Journal, after: Option<Position>) -> Self {
        Self {
            journal,
            after,
            mark: None,
            into_empty: false,
            met: false,
        }
    }

    /// The same place, but the first batch says that it follows nothing: for an outbox that is empty.
    #[must_use]
    pub fn into_empty(self) -> Self {
        Self {
            into_empty: true,
            ..self
        }
    }

    /// The place after which [`Self::read`] goes on.
    #[must_use]
    pub fn after(&self) -> Option<Position> {
        self.after
    }

    /// Goes to another place, back or forward.
    pub fn seek(&mut self, after: Option<Position>) {
        (self.after, self.mark, self.met) = (after, None, false);
    }

    /// Reads up to `entries_max` entries and about `bytes_max` bytes, on disk before they are returned; moves on behind them.
    ///
    /// # Errors
    /// Damage, a gap, or a place that this journal does not have (the outbox knows more than the journal: a restored directory).
    pub fn read(&mut self, entries_max: usize, bytes_max: usize) -> Result<Batch, JournalError> {
        let segments = self.journal.durable_segments()?;
        let after = self.after.filter(|_| !self.into_empty);
        let mut batch = Batch {
            after,
            entries: Vec::new(),
        };
        let mut bytes = 0;
        let (mut index, mut offset) = self.start(&segments);
        while let Some(info) = segments.get(index) {
            let path = self.path(info);
            let mut reader = FrameReader::open(&path, offset)?;
            while reader.offset < info.len && batch.entries.len() < entries_max && bytes < bytes_max {
                let entry = match reader.next().map_err(JournalError::io(&path))? {
                    Next::Frame(Frame::Entry(entry)) => entry,
                    Next::Frame(_) => continue,
                    Next::End => {
                        return Err(JournalError::damaged(&path, reader.offset, "it ends too early"));
                    }
                    Next::Bad(what) => return Err(JournalError::damaged(&path, reader.offset, what)),
                };
                let place = Position {
                    epoch: entry.epoch,
                    sequence: entry.sequence,
                };
                if self.after.is_some_and(|a| place <= a) {
                    self.met |= self.after == Some(place);
                    continue;
                }
                self.follows(place, &path, reader.offset)?;
                (self.after, self.into_empty, self.met) = (Some(place), false, true);
                bytes += entry.json.len();
                batch.entries.push((place, entry.json));
            }
            self.mark = Some((info.key, reader.offset));
            if reader.offset < info.len {
                return Ok(batch);
            }
            (index, offset) = (index + 1, 0);
        }
        self.known()?;
        Ok(batch)
    }

    fn start(&self, segments: &[SegmentInfo]) -> (usize, u64) {
        if let Some((key, offset)) = self.mark
            && let Some(index) = segments.iter().position(|s| s.key == key)
        {
            return (index, offset);
        }
        (
            self.journal
                .shared()
                .catalog()
                .find(self.after)
                .min(segments.len().saturating_sub(1)),
            0,
        )
    }

    fn path(&self, info: &SegmentInfo) -> PathBuf {
        let place = &self.journal.shared().place;
        let name = info.key.file_name();
        if info.archived {
            place.archive().join(name)
        } else {
            place.0.join(name)
        }
    }

    /// An entry without the one before it is never shipped: a gap would be taken for the truth.
    fn follows(&self, place: Position, path: &std::path::Path, offset: u64) -> Result<(), JournalError> {
        let fits = match self.after {
            Some(a) if a.epoch == place.epoch => place.sequence == a.sequence + 1,
            Some(a) => place.sequence == 1 && (self.met || self.journal.confirmed() == Some(a)),
            None => true,
        };
        let expected = self.after.map_or_else(String::new, |a| format!(" after {a}"));
        if fits {
            Ok(())
        } else {
            Err(JournalError::damaged(
                path,
                offset,
                format!("entry {place}{expected}"),
            ))
        }
    }

    /// At the end of everything: the place that was asked for must exist.
    fn known(&self) -> Result<(), JournalError> {
        let shared = self.journal.shared();
        let last = shared.catalog().last_sequence;
        let end = Position {
            epoch: self.journal.epoch(),
            sequence: last,
        };
        match self.after {
            Some(after) if after > end => Err(JournalError::damaged(
                &shared.place.0,
                0,
                format!(
                    "the outbox ends at {after}, the journal at {end}: an older copy of the directory was put back"
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl Journal {
    /// A reader that goes on after a place.
    #[must_use]
    pub fn reader(&self, after: Option<Position>) -> JournalReader {
        JournalReader::new(self.clone(), after)
    }

    /// The own durable copy of the confirmed cursor.
    #[must_use]
    pub fn confirmed(&self) -> Option<Position> {
        self.shared().catalog().confirmed
    }

    /// True while the entry at a place can still be read, from the archive too.
    #[must_use]
    pub fn keeps(&self, at: Position) -> bool {
        let catalog = self.shared().catalog();
        let segment = catalog.segments.get(catalog.find(Some(at)));
        segment.is_some_and(|s| s.key.epoch == at.epoch && s.first <= at.sequence)
    }

    /// Moves the own copy forward, durably, and trims behind it: segments go to the archive, old ones of the archive go for good. Blocking.
    ///
    /// # Errors
    /// The disk refuses; a cursor beyond the journal's end is refused as damage.
    pub fn confirm(&self, up_to: Position) -> Result<(), JournalError> {
        let shared = self.shared();
        let end = Position {
            epoch: self.epoch(),
            sequence: shared.catalog().last_sequence,
        };
        if up_to > end {
            let what = format!("confirmed up to {up_to}, but the journal ends at {end}");
            return Err(JournalError::damaged(&shared.place.cursor(), 0, what));
        }
        if self.confirmed().is_some_and(|c| c >= up_to) {
            return Ok(());
        }
        disk::replace(&shared.place.cursor(), &up_to)?;
        let trimmable = {
            let mut catalog = shared.catalog();
            catalog.confirmed = Some(up_to);
            catalog.trimmable()
        };
        for key in trimmable {
            self.archive(key)?;
        }
        Ok(())
    }

    fn archive(&self, key: SegmentKey) -> Result<(), JournalError> {
        let shared = self.shared();
        let (from, to) = (
            shared.place.segment(key),
            shared.place.archive().join(key.file_name()),
        );
        let mut catalog = shared.catalog();
        fs::rename(&from, &to).map_err(JournalError::io(&from))?;
        if let Some(info) = catalog.segments.iter_mut().find(|s| s.key == key) {
            info.archived = true;
        }
        let live = catalog.live_bytes();
        drop(catalog);
        sync_dir(&shared.place.archive())?;
        sync_dir(&shared.place.0)?;
        shared.check_size(live);
        self.sweep_archive()
    }

    /// Removes archived segments whose last write is older than the limit.
    pub(crate) fn sweep_archive(&self) -> Result<(), JournalError> {
        let shared = self.shared();
        let dir = shared.place.archive();
        for key in disk::segments_in(&dir)? {
            let path = dir.join(key.file_name());
            let age = fs::metadata(&path)
                .and_then(|m| m.modified())
                .ok()
                .and_then(|t| t.elapsed().ok());
            if age.is_some_and(|a| a > shared.options.archive_keep) {
                shared
                    .catalog()
                    .segments
                    .retain(|s| !(s.archived && s.key == key));
                fs::remove_file(&path).map_err(JournalError::io(&path))?;
            }
        }
        Ok(())
    }

    /// The catalog as it stands, after what it lists is on disk: nothing is shipped that a power loss could take back, or a sequence would be
    /// given twice with other content.
    fn durable_segments(&self) -> Result<Vec<SegmentInfo>, JournalError> {
        let shared = self.shared();
        if let Some(why) = shared.health.why(Trouble::Sync) {
            return Err(JournalError::Stopped(why));
        }
        let segments = shared.catalog().segments.clone();
        if let Some(last) = segments.last().filter(|s| !s.archived) {
            let path = shared.place.segment(last.key);
            if let Err(e) = fs::File::open(&path).and_then(|f| f.sync_data()) {
                let why = format!("{} cannot be brought to disk: {e}", path.display());
                shared.health.set(Trouble::Sync, Some(why.clone()));
                return Err(JournalError::Stopped(why));
            }
        }
        Ok(segments)
    }
}
