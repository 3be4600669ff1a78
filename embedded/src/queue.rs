//! The broker: topics bound to queues, durable publishes, claims that a dead consumer loses, dead letters with their cause.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    owner,
    store::{Store, StoreError},
};

/// Messages in one claim, and dead letters in one list.
const MESSAGES_MAX: usize = 1000;
/// A claim that is neither acknowledged nor given back is open to others after this time; a dead process's at once.
pub const CLAIM_TTL: Duration = Duration::from_secs(30);
/// How long a claim waits for a first message.
pub const CLAIM_WAIT: Duration = Duration::from_secs(1);
/// Messages published by other processes are seen within this time.
const POLL: Duration = Duration::from_millis(100);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS bindings (topic TEXT NOT NULL, queue TEXT NOT NULL, PRIMARY KEY (topic, queue)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    tag INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, topic TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, visible_ms INTEGER NOT NULL DEFAULT 0,
    owner TEXT, claimed_until_ms INTEGER NOT NULL DEFAULT 0, cause TEXT,
    UNIQUE (queue, topic, id)
);
CREATE INDEX IF NOT EXISTS messages_in_order ON messages (queue, tag);
CREATE INDEX IF NOT EXISTS messages_claimed ON messages (queue, owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS dead_letters (
    tag INTEGER PRIMARY KEY, queue TEXT NOT NULL, topic TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
    attempt INTEGER NOT NULL, cause TEXT NOT NULL, died_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS dead_letters_in_order ON dead_letters (queue, tag);";

/// A claimed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names it in answers.
    pub tag: u64,
    /// From 1; counts claims.
    pub attempt: u32,
    /// The topic that it was published to.
    pub topic: String,
    /// The publisher's id.
    pub id: String,
    /// As published.
    pub body: Vec<u8>,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it for [`Queue::replay`].
    pub tag: u64,
    /// Claims it had.
    pub attempt: u32,
    /// The topic that it was published to.
    pub topic: String,
    /// The publisher's id.
    pub id: String,
    /// Why.
    pub cause: String,
    /// When, Unix milliseconds.
    pub died_ms: u64,
    /// As published.
    pub body: Vec<u8>,
}

/// A broker file. Clones share their claims; the last one dropped gives them back.
#[derive(Debug, Clone)]
pub struct Queue {
    store: Arc<Store>,
    claimant: Arc<Claimant>,
}

#[derive(Debug)]
struct Claimant {
    name: String,
    store: Arc<Store>,
}

impl Drop for Claimant {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.store.post(move |c| {
            release(c, &name)?;
            Ok(())
        });
    }
}

impl Queue {
    /// Opens or makes the file. Blocking, bounded by SQLite's busy time-out.
    ///
    /// # Errors
    /// The directory does not exist, or the file is not a broker.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::over(Store::open(path, SCHEMA)?))
    }

    /// As [`Queue::open`], with a connection of its own even within one process: for tests of what other processes see.
    ///
    /// # Errors
    /// As [`Queue::open`].
    #[doc(hidden)]
    pub fn open_alone(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::over(Store::open_alone(path, SCHEMA)?))
    }

    fn over(store: Arc<Store>) -> Self {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let name = owner::name(OPENED.fetch_add(1, Ordering::Relaxed));
        let claimant = Arc::new(Claimant {
            name,
            store: Arc::clone(&store),
        });
        Self { store, claimant }
    }

    /// Binds a queue to a topic; doing it again changes nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn bind(&self, queue: &str, topic: &str) -> Result<(), StoreError> {
        let (queue, topic) = (queue.to_owned(), topic.to_owned());
        self.store
            .call(move |c| {
                c.execute(
                    "INSERT OR IGNORE INTO bindings (topic, queue) VALUES (?1, ?2)",
                    [topic, queue],
                )?;
                Ok(())
            })
            .await
    }

    /// Stores a message in every queue bound to the topic; durable in all of them when it returns.
    ///
    /// The same id again while the message waits changes nothing; once it was acknowledged it is delivered again.
    ///
    /// # Errors
    /// [`StoreError::Unroutable`] when no queue is bound; [`StoreError::Conflict`] when the id waits with other content.
    pub async fn publish(&self, topic: &str, id: &str, body: Vec<u8>) -> Result<(), StoreError> {
        let (topic, id) = (topic.to_owned(), id.to_owned());
        self.store.call(move |c| publish(c, &topic, &id, &body)).await?;
        self.store.touch();
        Ok(())
    }

    /// Claims up to `max` messages, oldest first; waits up to [`CLAIM_WAIT`] for the first, then returns none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn claim(&self, queue: &str, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let deadline = Instant::now() + CLAIM_WAIT;
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            let (queue, name) = (queue.to_owned(), self.claimant.name.clone());
            let claimed = self
                .store
                .call(move |c| claim(c, &queue, &name, max.min(MESSAGES_MAX)))
                .await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !claimed.is_empty() || left.is_zero() {
                return Ok(claimed);
            }
            // Either outcome means: look again.
            let _ = tokio::time::timeout(left.min(POLL), changes.changed()).await;
        }
    }

    /// Removes messages that are dealt with. Unknown tags are ignored: an answer given twice is given once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn ack(&self, queue: &str, tags: &[u64]) -> Result<(), StoreError> {
        let (queue, tags) = (queue.to_owned(), tags.to_vec());
        self.store
            .call(move |c| {
                let mut delete = c.prepare_cached("DELETE FROM messages WHERE queue = ?1 AND tag = ?2")?;
                for tag in tags {
                    delete.execute(params![queue, tag.cast_signed()])?;
                }
                Ok(())
            })
            .await
    }

    /// Gives a message back, to be delivered again after a time. Others pass it meanwhile.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn retry(&self, queue: &str, tag: u64, after: Duration, cause: &str) -> Result<(), StoreError> {
        let (queue, cause) = (queue.to_owned(), cause.to_owned());
        let sql = "UPDATE messages SET owner = NULL, claimed_until_ms = 0, visible_ms = ?3, cause = ?4
                   WHERE queue = ?1 AND tag = ?2";
        self.store
            .call(move |c| {
                let visible = owner::unix_ms().saturating_add(millis(after));
                c.prepare_cached(sql)?
                    .execute(params![queue, tag.cast_signed(), visible, cause])?;
                Ok(())
            })
            .await
    }

    /// Gives a message up, with the cause.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn dead_letter(&self, queue: &str, tag: u64, cause: &str) -> Result<(), StoreError> {
        let (queue, cause) = (queue.to_owned(), cause.to_owned());
        let sql = "INSERT OR REPLACE INTO dead_letters (tag, queue, topic, id, body, attempt, cause, died_ms)
                   SELECT tag, queue, topic, id, body, attempt, ?3, ?4 FROM messages WHERE queue = ?1 AND tag = ?2";
        self.store
            .call(move |c| {
                c.prepare_cached(sql)?
                    .execute(params![queue, tag.cast_signed(), cause, owner::unix_ms()])?;
                c.prepare_cached("DELETE FROM messages WHERE queue = ?1 AND tag = ?2")?
                    .execute(params![queue, tag.cast_signed()])?;
                Ok(())
            })
            .await
    }

    /// What was given up, oldest first, at most a thousand.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, StoreError> {
        let queue = queue.to_owned();
        self.store.call(move |c| dead_letters(c, &queue)).await
    }

    /// Puts a dead letter back into its queue, at the end, as if never delivered. False when there is none of that tag.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`] when the same id waits in the queue again.
    pub async fn replay(&self, queue: &str, tag: u64) -> Result<bool, StoreError> {
        let queue = queue.to_owned();
        let sql = "INSERT INTO messages (queue, topic, id, body)
                   SELECT queue, topic, id, body FROM dead_letters WHERE queue = ?1 AND tag = ?2";
        let moved = self
            .store
            .call(move |c| {
                let moved = c
                    .prepare_cached(sql)?
                    .execute(params![queue, tag.cast_signed()])?;
                c.prepare_cached("DELETE FROM dead_letters WHERE queue = ?1 AND tag = ?2")?
                    .execute(params![queue, tag.cast_signed()])?;
                Ok(moved > 0)
            })
            .await?;
        self.store.touch();
        Ok(moved)
    }

    /// Messages that wait or are claimed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn depth(&self, queue: &str) -> Result<u64, StoreError> {
        let queue = queue.to_owned();
        let count = |c: &Connection, queue: String| -> Result<i64, StoreError> {
            Ok(
                c.prepare_cached("SELECT count(*) FROM messages WHERE queue = ?1")?
                    .query_row([queue], |r| r.get(0))?,
            )
        };
        Ok(self.store.call(move |c| count(c, queue)).await?.cast_unsigned())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn publish(c: &Connection, topic: &str, id: &str, body: &[u8]) -> Result<(), StoreError> {
    let queues: Vec<String> = c
        .prepare_cached("SELECT queue FROM bindings WHERE topic = ?1")?
        .query_map([topic], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    if queues.is_empty() {
        return Err(StoreError::Unroutable(topic.to_owned()));
    }
    for queue in queues {
        let waiting: Option<Vec<u8>> = c
            .prepare_cached("SELECT body FROM messages WHERE queue = ?1 AND topic = ?2 AND id = ?3")?
            .query_row([&queue, topic, id], |r| r.get(0))
            .optional()?;
        match waiting {
            Some(other) if other != body => return Err(StoreError::Conflict(format!("{topic} {id}"))),
            Some(_) => {}
            None => {
                c.prepare_cached("INSERT INTO messages (queue, topic, id, body) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![queue, topic, id, body])?;
            }
        }
    }
    Ok(())
}

fn claim(c: &Connection, queue: &str, name: &str, max: usize) -> Result<Vec<Delivery>, StoreError> {
    let now = owner::unix_ms();
    release_dead(c, queue)?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let claimed: Vec<Delivery> = c
        .prepare_cached(
            "SELECT tag, attempt + 1, topic, id, body FROM messages
             WHERE queue = ?1 AND visible_ms <= ?2 AND claimed_until_ms <= ?2 ORDER BY tag LIMIT ?3",
        )?
        .query_map(params![queue, now, limit], delivery)?
        .collect::<Result<_, _>>()?;
    let mut mark = c.prepare_cached(
        "UPDATE messages SET attempt = ?2, owner = ?3, claimed_until_ms = ?4 WHERE tag = ?1",
    )?;
    for message in &claimed {
        let until = now.saturating_add(millis(CLAIM_TTL));
        mark.execute(params![message.tag.cast_signed(), message.attempt, name, until])?;
    }
    Ok(claimed)
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        tag: row.get::<_, i64>(0)?.cast_unsigned(),
        attempt: row.get(1)?,
        topic: row.get(2)?,
        id: row.get(3)?,
        body: row.get(4)?,
    })
}

/// Frees what processes claimed that are no more. Few owners ever exist at a time, so this is one short index scan.
fn release_dead(c: &Connection, queue: &str) -> Result<(), StoreError> {
    let owners: Vec<String> = c
        .prepare_cached("SELECT DISTINCT owner FROM messages WHERE queue = ?1 AND owner IS NOT NULL")?
        .query_map([queue], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    for dead in owners.iter().filter(|o| !owner::is_alive(o)) {
        release(c, dead)?;
    }
    Ok(())
}

fn release(c: &Connection, name: &str) -> Result<usize, StoreError> {
    let sql = "UPDATE messages SET owner = NULL, claimed_until_ms = 0 WHERE owner = ?1";
    Ok(c.prepare_cached(sql)?.execute([name])?)
}

fn dead_letters(c: &Connection, queue: &str) -> Result<Vec<DeadLetter>, StoreError> {
    let limit = i64::try_from(MESSAGES_MAX).unwrap_or(i64::MAX);
    let mut statement = c.prepare_cached(
        "SELECT tag, attempt, topic, id, cause, died_ms, body FROM dead_letters WHERE queue = ?1 ORDER BY tag LIMIT ?2",
    )?;
    let letters = statement.query_map(params![queue, limit], |row| {
        Ok(DeadLetter {
            tag: row.get::<_, i64>(0)?.cast_unsigned(),
            attempt: row.get(1)?,
            topic: row.get(2)?,
            id: row.get(3)?,
            cause: row.get(4)?,
            died_ms: row.get::<_, i64>(5)?.cast_unsigned(),
            body: row.get(6)?,
        })
    })?;
    Ok(letters.collect::<Result<_, _>>()?)
}
