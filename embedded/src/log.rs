//! The outbox: per stream an ordered log with conditional appends, and the cursor up to which the broker has confirmed.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::{Store, StoreError};

/// Entries in one append, and in one read.
pub const ENTRIES_MAX: usize = 1000;
/// Changes of other processes are seen within this time.
const POLL: Duration = Duration::from_millis(100);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS streams (
    stream TEXT PRIMARY KEY, last_epoch INTEGER, last_sequence INTEGER, confirmed_epoch INTEGER, confirmed_sequence INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    stream TEXT NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (stream, epoch, sequence)
) WITHOUT ROWID;";

/// An entry's place in a stream. Ordered by epoch, then sequence; both fit 63 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The writer's start.
    pub epoch: u64,
    /// Within the epoch.
    pub sequence: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

/// Answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// All of it is stored.
    Done,
    /// Nothing is stored: the stream ends here (`None`: it is empty). Go there and try again.
    LastIs(Option<Position>),
}

/// An outbox file. Clones share it; each clone has its own view of what [`Log::changed`] already told.
#[derive(Debug)]
pub struct Log {
    store: Arc<Store>,
    seen: AtomicU64,
}

impl Clone for Log {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            seen: AtomicU64::new(self.seen.load(Ordering::Relaxed)),
        }
    }
}

impl Log {
    /// Opens or makes the file. Blocking, bounded by SQLite's busy time-out.
    ///
    /// # Errors
    /// The directory does not exist, or the file is not a log.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open(path, SCHEMA)?,
            seen: AtomicU64::new(0),
        })
    }

    /// As [`Log::open`], with a connection of its own even within one process: for tests of what other processes see.
    ///
    /// # Errors
    /// As [`Log::open`].
    #[doc(hidden)]
    pub fn open_alone(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open_alone(path, SCHEMA)?,
            seen: AtomicU64::new(0),
        })
    }

    /// Appends `entries` (at most [`ENTRIES_MAX`], ascending) if the stream ends at `after`; all or nothing, durable when it returns.
    ///
    /// A stream whose entries were all confirmed and dropped still ends where it ended.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one of them is stored with other content; [`StoreError::Order`] when the batch does not ascend from `after`.
    pub async fn append_after(
        &self,
        stream: &str,
        after: Option<Position>,
        entries: Vec<(Position, Vec<u8>)>,
    ) -> Result<Appended, StoreError> {
        check_order(after, &entries)?;
        let name = stream.to_owned();
        let appended = self
            .store
            .call(move |c| append(c, &name, after, &entries))
            .await?;
        if appended == Appended::Done {
            self.store.touch();
        }
        Ok(appended)
    }

    /// Up to `limit` (capped at [`ENTRIES_MAX`]) entries after a place (`None`: from the start), oldest first. Confirmed ones may be gone.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn read_after(
        &self,
        stream: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Position, Vec<u8>)>, StoreError> {
        let name = stream.to_owned();
        self.store
            .call(move |c| read(c, &name, after, limit.min(ENTRIES_MAX)))
            .await
    }

    /// Names of all streams that ever had an entry.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn streams(&self) -> Result<Vec<String>, StoreError> {
        let query = |c: &Connection| {
            let mut statement = c.prepare_cached("SELECT stream FROM streams ORDER BY stream")?;
            let names = statement
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(names)
        };
        self.store.call(query).await
    }

    /// Where the stream ends.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn last(&self, stream: &str) -> Result<Option<Position>, StoreError> {
        let name = stream.to_owned();
        self.store.call(move |c| Ok(ends(c, &name)?.0)).await
    }

    /// Moves the confirmed cursor forward (never back) and drops what is at or before it.
    ///
    /// # Errors
    /// [`StoreError::Order`] when `up_to` is beyond the stream's end.
    pub async fn confirm(&self, stream: &str, up_to: Position) -> Result<(), StoreError> {
        let name = stream.to_owned();
        self.store.call(move |c| confirm(c, &name, up_to)).await?;
        self.store.touch();
        Ok(())
    }

    /// The longest prefix that the broker has confirmed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn confirmed(&self, stream: &str) -> Result<Option<Position>, StoreError> {
        let name = stream.to_owned();
        self.store.call(move |c| Ok(ends(c, &name)?.1)).await
    }

    /// Returns when something was appended or confirmed since this clone was last told, or after a short time (other processes).
    pub async fn changed(&self) {
        let seen = self.seen.load(Ordering::Relaxed);
        let mut changes = self.store.changes();
        if let Ok(Ok(now)) = tokio::time::timeout(POLL, changes.wait_for(|n| *n != seen)).await {
            self.seen.store(*now, Ordering::Relaxed);
        }
    }
}

fn check_order(after: Option<Position>, entries: &[(Position, Vec<u8>)]) -> Result<(), StoreError> {
    if entries.len() > ENTRIES_MAX {
        return Err(StoreError::Order(format!(
            "{} entries in one append, at most {ENTRIES_MAX}",
            entries.len()
        )));
    }
    let mut before = after;
    for (position, _) in entries {
        if before.is_some_and(|b| b >= *position) {
            return Err(StoreError::Order(format!("{position} does not follow")));
        }
        before = Some(*position);
    }
    Ok(())
}

/// Last and confirmed position.
fn ends(c: &Connection, stream: &str) -> Result<(Option<Position>, Option<Position>), StoreError> {
    let place = |epoch: Option<i64>, sequence: Option<i64>| match (epoch, sequence) {
        (Some(e), Some(s)) => Some(Position {
            epoch: e.cast_unsigned(),
            sequence: s.cast_unsigned(),
        }),
        _ => None,
    };
    let row = c
        .prepare_cached(
            "SELECT last_epoch, last_sequence, confirmed_epoch, confirmed_sequence FROM streams WHERE stream = ?1",
        )?
        .query_row([stream], |r| Ok((place(r.get(0)?, r.get(1)?), place(r.get(2)?, r.get(3)?))))
        .optional()?;
    Ok(row.unwrap_or_default())
}

fn append(
    c: &Connection,
    stream: &str,
    after: Option<Position>,
    entries: &[(Position, Vec<u8>)],
) -> Result<Appended, StoreError> {
    let (last, _) = ends(c, stream)?;
    if last != after {
        for (position, body) in entries.iter().filter(|(p, _)| last.is_some_and(|l| *p <= l)) {
            same_content(c, stream, *position, body)?;
        }
        return Ok(Appended::LastIs(last));
    }
    let Some((end, _)) = entries.last() else {
        return Ok(Appended::Done);
    };
    let mut insert =
        c.prepare_cached("INSERT INTO entries (stream, epoch, sequence, body) VALUES (?1, ?2, ?3, ?4)")?;
    for (position, body) in entries {
        insert.execute(params![
            stream,
            position.epoch.cast_signed(),
            position.sequence.cast_signed(),
            body
        ])?;
    }
    c.prepare_cached(
        "INSERT INTO streams (stream, last_epoch, last_sequence) VALUES (?1, ?2, ?3)
         ON CONFLICT (stream) DO UPDATE SET last_epoch = ?2, last_sequence = ?3",
    )?
    .execute(params![
        stream,
        end.epoch.cast_signed(),
        end.sequence.cast_signed()
    ])?;
    Ok(Appended::Done)
}

fn same_content(c: &Connection, stream: &str, position: Position, body: &[u8]) -> Result<(), StoreError> {
    let stored: Option<Vec<u8>> = c
        .prepare_cached("SELECT body FROM entries WHERE stream = ?1 AND epoch = ?2 AND sequence = ?3")?
        .query_row(
            params![
                stream,
                position.epoch.cast_signed(),
                position.sequence.cast_signed()
            ],
            |r| r.get(0),
        )
        .optional()?;
    match stored {
        Some(other) if other != body => Err(StoreError::Conflict(format!("{stream} {position}"))),
        _ => Ok(()),
    }
}

fn read(
    c: &Connection,
    stream: &str,
    after: Option<Position>,
    limit: usize,
) -> Result<Vec<(Position, Vec<u8>)>, StoreError> {
    let after = after.unwrap_or(Position {
        epoch: 0,
        sequence: 0,
    });
    let mut statement = c.prepare_cached(
        "SELECT epoch, sequence, body FROM entries WHERE stream = ?1 AND (epoch, sequence) > (?2, ?3)
         ORDER BY epoch, sequence LIMIT ?4",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(
        params![
            stream,
            after.epoch.cast_signed(),
            after.sequence.cast_signed(),
            limit
        ],
        |r| {
            let (epoch, sequence): (i64, i64) = (r.get(0)?, r.get(1)?);
            Ok((
                Position {
                    epoch: epoch.cast_unsigned(),
                    sequence: sequence.cast_unsigned(),
                },
                r.get(2)?,
            ))
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn confirm(c: &Connection, stream: &str, up_to: Position) -> Result<(), StoreError> {
    let (last, confirmed) = ends(c, stream)?;
    if last.is_none_or(|l| up_to > l) {
        return Err(StoreError::Order(format!(
            "{stream} cannot be confirmed up to {up_to}: it ends before"
        )));
    }
    if confirmed.is_some_and(|c| c >= up_to) {
        return Ok(());
    }
    let (epoch, sequence) = (up_to.epoch.cast_signed(), up_to.sequence.cast_signed());
    c.prepare_cached("UPDATE streams SET confirmed_epoch = ?2, confirmed_sequence = ?3 WHERE stream = ?1")?
        .execute(params![stream, epoch, sequence])?;
    c.prepare_cached("DELETE FROM entries WHERE stream = ?1 AND (epoch, sequence) <= (?2, ?3)")?
        .execute(params![stream, epoch, sequence])?;
    Ok(())
}
