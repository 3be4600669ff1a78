//! The outbox on the embedded log: stream `usage:<proxy id>`.

use futures_util::{FutureExt, future::BoxFuture};
use weir_contracts::ids::ProxyId;
use weir_embedded::{Log, StoreError};

use crate::{
    journal::Position,
    ports::outbox::{Appended, Outbox, OutboxError},
};

/// One proxy's stream in a log file.
#[derive(Debug)]
pub struct EmbeddedOutbox {
    log: Log,
    stream: String,
}

impl EmbeddedOutbox {
    /// The stream of `proxy`.
    #[must_use]
    pub fn new(log: Log, proxy: ProxyId) -> Self {
        Self {
            log,
            stream: format!("usage:{proxy}"),
        }
    }
}

fn outer(place: weir_embedded::Position) -> Position {
    Position {
        epoch: place.epoch,
        sequence: place.sequence,
    }
}

fn inner(place: Position) -> weir_embedded::Position {
    weir_embedded::Position {
        epoch: place.epoch,
        sequence: place.sequence,
    }
}

fn failed(error: StoreError) -> OutboxError {
    match error {
        StoreError::Conflict(_) | StoreError::Order(_) => OutboxError::Conflict(error.to_string()),
        _ => OutboxError::Unavailable(error.to_string()),
    }
}

impl Outbox for EmbeddedOutbox {
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
                weir_embedded::Appended::Done => Appended::Done,
                weir_embedded::Appended::LastIs(last) => Appended::LastIs(last.map(outer)),
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
