//! The outbox on Redis: stream `usage:<proxy id>` under the installation's prefix.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use weir_contracts::ids::ProxyId;
use weir_servers::{
    ServerUrl,
    redis::{self, Log, RedisError},
};

use crate::{
    journal::Position,
    ports::outbox::{Appended, Outbox, OutboxError},
};

/// One proxy's stream on a Redis server.
#[derive(Debug)]
pub struct RedisOutbox {
    log: Log,
    stream: String,
}

impl RedisOutbox {
    /// The stream of `proxy`.
    #[must_use]
    pub fn new(log: Log, proxy: ProxyId) -> Self {
        Self {
            log,
            stream: format!("usage:{proxy}"),
        }
    }
}

/// The log at `url`, after its server answered (within `wait`) and its settings were found right. Says what could not be checked.
///
/// # Errors
/// As [`Log::ready`]: [`RedisError::is_unavailable`] tells a server that is away from one that is set up wrong.
pub async fn ready(url: &ServerUrl, prefix: &str, wait: Duration) -> Result<(Log, Vec<String>), RedisError> {
    let log = Log::connect(url, prefix)?;
    let warnings = log.ready(wait).await?;
    Ok((log, warnings))
}

fn outer(place: redis::Position) -> Position {
    Position {
        epoch: place.epoch,
        sequence: place.sequence,
    }
}

fn inner(place: Position) -> redis::Position {
    redis::Position {
        epoch: place.epoch,
        sequence: place.sequence,
    }
}

fn failed(error: RedisError) -> OutboxError {
    match error {
        RedisError::Conflict(_) | RedisError::Order(_) => OutboxError::Conflict(error.to_string()),
        _ => OutboxError::Unavailable(error.to_string()),
    }
}

impl Outbox for RedisOutbox {
    fn append_after(
        &self,
        after: Option<Position>,
        entries: Vec<(Position, Vec<u8>)>,
    ) -> BoxFuture<'_, Result<Appended, OutboxError>> {
        let entries = entries
            .into_iter()
            .map(|(place, body)| (inner(place), body))
            .collect();
        async move {
            let appended = self
                .log
                .append_after(&self.stream, after.map(inner), entries)
                .await
                .map_err(failed)?;
            Ok(match appended {
                redis::Appended::Done => Appended::Done,
                redis::Appended::LastIs(last) => Appended::LastIs(last.map(outer)),
            })
        }
        .boxed()
    }

    fn last(&self) -> BoxFuture<'_, Result<Option<Position>, OutboxError>> {
        async move { Ok(self.log.last(&self.stream).await.map_err(failed)?.map(outer)) }.boxed()
    }

    fn confirmed(&self) -> BoxFuture<'_, Result<Option<Position>, OutboxError>> {
        async move { Ok(self.log.confirmed(&self.stream).await.map_err(failed)?.map(outer)) }.boxed()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.log.changed().boxed()
    }
}
