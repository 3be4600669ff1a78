//! The log over a Redis server: the same surface as the embedded one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use redis::streams::StreamRangeReply;
use tokio::time::Instant;

use super::{
    RedisError,
    connection::Server,
    script::{APPEND_SCRIPT, CONFIRM_SCRIPT, EMPTY_IF_HOLED_SCRIPT, LAST_SCRIPT},
};
use crate::ServerUrl;

/// Entries in one append, and in one read.
pub const ENTRIES_MAX: usize = 1000;
/// How often the change counter is looked at while somebody waits for it.
const POLL: Duration = Duration::from_millis(50);
/// [`Log::changed`] returns after this long at the latest: a counter that was lost can stand where it stood.
const CHANGED_LIMIT: Duration = Duration::from_millis(500);
/// Before the first change was seen.
const NOTHING_SEEN: i64 = -1;

/// An entry's place in a stream. Ordered by epoch, then sequence; both fit 63 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The writer's start.
    pub epoch: u64,
    /// Within the epoch.
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl std::str::FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, sequence) = text.split_once('-').ok_or(())?;
        Ok(Self {
            epoch: epoch.parse().map_err(drop)?,
            sequence: sequence.parse().map_err(drop)?,
        })
    }
}

/// Answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// All of it is stored.
    Done,
    /// Nothing is stored: the stream ends here (`None`: it is not there). Go there and try again.
    LastIs(Option<Position>),
}

/// The streams under one prefix of a Redis server. Clones share the connection; each has its own view of what [`Log::changed`] already told.
#[derive(Debug)]
pub struct Log {
    pub(super) server: Arc<Server>,
    prefix: Arc<str>,
    seen: AtomicI64,
}

impl Clone for Log {
    fn clone(&self) -> Self {
        Self {
            server: Arc::clone(&self.server),
            prefix: Arc::clone(&self.prefix),
            seen: AtomicI64::new(self.seen.load(Ordering::Relaxed)),
        }
    }
}

impl Log {
    /// A log at `url`, with all its keys under `prefix:`. Connects with the first call, and again after each loss.
    ///
    /// # Errors
    /// [`RedisError::Address`]: no `redis://` or `rediss://` address, or its file cannot be read.
    pub fn connect(url: &ServerUrl, prefix: &str) -> Result<Self, RedisError> {
        Ok(Self {
            server: Arc::new(Server::new(url)?),
            prefix: prefix.into(),
            seen: AtomicI64::new(NOTHING_SEEN),
        })
    }

    /// Appends `entries` (at most [`ENTRIES_MAX`], ascending) if the stream ends at `after` (`None`: if it is not there); all or nothing.
    ///
    /// A stream whose entries were all confirmed and trimmed still ends where it ended.
    ///
    /// # Errors
    /// [`RedisError::Conflict`] when one of them is stored with other content; [`RedisError::Order`] when the batch does not ascend
    /// from `after`; [`RedisError::Unavailable`]: it may or may not be stored, [`Log::last`] tells.
    pub async fn append_after(
        &self,
        stream: &str,
        after: Option<Position>,
        entries: Vec<(Position, Vec<u8>)>,
    ) -> Result<Appended, RedisError> {
        check_order(after, &entries)?;
        let mut call = APPEND_SCRIPT.prepare_invoke();
        call.key(self.stream_key(stream))
            .key(self.key("streams"))
            .key(self.key("changes"))
            .arg(stream)
            .arg(after.map_or_else(String::new, |p| p.to_string()));
        for (position, body) in &entries {
            call.arg(position.to_string()).arg(body.as_slice());
        }
        let call = &call;
        let answer: String = self
            .server
            .call(|mut c| async move { call.invoke_async(&mut c).await })
            .await?;
        match answer.split_once(' ') {
            None if answer == "done" => Ok(Appended::Done),
            Some(("last", "")) => Ok(Appended::LastIs(None)),
            Some(("last", id)) => Ok(Appended::LastIs(Some(self.position(id)?))),
            Some(("conflict", id)) => Err(RedisError::Conflict(format!("{stream} {id}"))),
            _ => Err(self.server.refused(format!("it answers {answer:?} to an append"))),
        }
    }

    /// Up to `limit` (capped at [`ENTRIES_MAX`]) entries after a place (`None`: from the start), oldest first. Confirmed ones may be gone.
    ///
    /// # Errors
    /// Redis is away; the stream holds what no append of this program made; or somebody removed entries right behind the cursor: the stream
    /// is emptied then, so that its writer ships it again from there.
    pub async fn read_after(
        &self,
        stream: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Position, Vec<u8>)>, RedisError> {
        let mut range = redis::cmd("XRANGE");
        range
            .arg(self.stream_key(stream))
            .arg(after.map_or_else(|| "-".to_owned(), |p| format!("({p}")))
            .arg("+")
            .arg("COUNT")
            .arg(limit.min(ENTRIES_MAX));
        let range = &range;
        let reply: StreamRangeReply = self
            .server
            .call(|mut c| async move { range.query_async(&mut c).await })
            .await?;
        let mut entries = Vec::with_capacity(reply.ids.len());
        let mut before = after;
        for entry in &reply.ids {
            let (Some(body), Some(prior)) = (entry.get::<Vec<u8>>("e"), entry.get::<String>("a")) else {
                return Err(self
                    .server
                    .refused(format!("{stream} {} is no entry of ours", entry.id)));
            };
            let position = self.position(&entry.id)?;
            if !prior.is_empty() && before.is_some_and(|b| self.position(&prior).is_ok_and(|p| p > b)) {
                // What was between them is gone. What is before the hole is good.
                break;
            }
            entries.push((position, body));
            before = Some(position);
        }
        if entries.is_empty() && limit > 0 {
            self.empty_if_holed(stream, after).await?;
        }
        Ok(entries)
    }

    async fn empty_if_holed(&self, stream: &str, after: Option<Position>) -> Result<(), RedisError> {
        let mut call = EMPTY_IF_HOLED_SCRIPT.prepare_invoke();
        call.key(self.stream_key(stream))
            .key(self.cursor_key(stream))
            .key(self.key("changes"))
            .arg(after.map_or_else(String::new, |p| p.to_string()));
        let call = &call;
        let answer: String = self
            .server
            .call(|mut c| async move { call.invoke_async(&mut c).await })
            .await?;
        if answer == "whole" {
            return Ok(());
        }
        let after = after.map_or_else(|| "its beginning".to_owned(), |p| p.to_string());
        Err(self.server.unavailable(format!(
            "entries of {stream} after {after} were removed by somebody else; it was emptied, so that its proxy ships them again"
        )))
    }

    /// Names of all streams that had an entry since Redis was last emptied, in order.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn streams(&self) -> Result<Vec<String>, RedisError> {
        let key = self.key("streams");
        let mut names: Vec<String> = self
            .server
            .call(|mut c| async move { redis::cmd("SMEMBERS").arg(key).query_async(&mut c).await })
            .await?;
        names.sort_unstable();
        Ok(names)
    }

    /// Where the stream ends; `None`: it is not there.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn last(&self, stream: &str) -> Result<Option<Position>, RedisError> {
        let mut call = LAST_SCRIPT.prepare_invoke();
        call.key(self.stream_key(stream));
        let call = &call;
        let last: Option<String> = self
            .server
            .call(|mut c| async move { call.invoke_async(&mut c).await })
            .await?;
        last.map(|id| self.position(&id)).transpose()
    }

    /// Moves the confirmed cursor forward (never back) and trims what is before it.
    ///
    /// # Errors
    /// [`RedisError::Order`] when `up_to` is beyond the stream's end: Redis went back since it was read, and the writer ships the rest again.
    pub async fn confirm(&self, stream: &str, up_to: Position) -> Result<(), RedisError> {
        let mut call = CONFIRM_SCRIPT.prepare_invoke();
        call.key(self.stream_key(stream))
            .key(self.cursor_key(stream))
            .key(self.key("changes"))
            .arg(up_to.to_string());
        let call = &call;
        let answer: String = self
            .server
            .call(|mut c| async move { call.invoke_async(&mut c).await })
            .await?;
        match answer.split_once(' ') {
            None if answer == "done" => Ok(()),
            Some(("last", last)) => {
                let ends = if last.is_empty() {
                    "is not there".to_owned()
                } else {
                    format!("ends at {last}")
                };
                Err(RedisError::Order(format!(
                    "{stream} cannot be confirmed up to {up_to}: it {ends}"
                )))
            }
            _ => Err(self.server.refused(format!("it answers {answer:?} to a confirm"))),
        }
    }

    /// The longest prefix that the broker has confirmed, as far as Redis knows it.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn confirmed(&self, stream: &str) -> Result<Option<Position>, RedisError> {
        let key = self.cursor_key(stream);
        let cursor: Option<String> = self.get(key).await?;
        cursor.map(|id| self.position(&id)).transpose()
    }

    /// Returns soon after something was appended or confirmed, by whomever, since this clone was last told; or after a short time. Never fails:
    /// the caller's next call does.
    pub async fn changed(&self) {
        let end = Instant::now() + CHANGED_LIMIT;
        let seen = self.seen.load(Ordering::Relaxed);
        loop {
            // A lost counter starts again: any difference is a change.
            let Ok(now) = self.get::<Option<i64>>(self.key("changes")).await else {
                tokio::time::sleep(POLL).await;
                return;
            };
            let now = now.unwrap_or_default();
            if now != seen {
                self.seen.store(now, Ordering::Relaxed);
                return;
            }
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn get<T: redis::FromRedisValue>(&self, key: String) -> Result<T, RedisError> {
        self.server
            .call(|mut c| async move { redis::cmd("GET").arg(key).query_async(&mut c).await })
            .await
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    fn stream_key(&self, stream: &str) -> String {
        self.key(stream)
    }

    fn cursor_key(&self, stream: &str) -> String {
        format!("{}:{stream}:confirmed", self.prefix)
    }

    fn position(&self, id: &str) -> Result<Position, RedisError> {
        id.parse().map_err(|()| {
            self.server
                .refused(format!("{id:?} is no place in a stream of ours"))
        })
    }
}

fn check_order(after: Option<Position>, entries: &[(Position, Vec<u8>)]) -> Result<(), RedisError> {
    if entries.len() > ENTRIES_MAX {
        return Err(RedisError::Order(format!(
            "{} entries in one append, at most {ENTRIES_MAX}",
            entries.len()
        )));
    }
    let mut before = after;
    for (position, _) in entries {
        if before.is_some_and(|b| b >= *position) {
            return Err(RedisError::Order(format!("{position} does not follow")));
        }
        before = Some(*position);
    }
    Ok(())
}
