//! The outbox port on Redis streams.

use std::time::Duration;

use async_trait::async_trait;
use weir_contracts::event::Place;
use weir_servers::{
    ServerUrl,
    redis::{Log, Position, RedisError},
};

use crate::ports::{PortError, outbox_source::OutboxSource};

const NAME: &str = "the outbox";

/// The streams of all proxies on one Redis server.
#[derive(Debug)]
pub struct RedisOutbox(Log);

impl RedisOutbox {
    /// Streams whose keys begin with `prefix:`. Connects with the first call, and again after each loss.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn connect(url: &ServerUrl, prefix: &str) -> Result<Self, RedisError> {
        Log::connect(url, prefix).map(Self)
    }

    /// Waits up to `wait` for the server, and checks its version, role and settings. Answers warnings: what could not be checked.
    ///
    /// # Errors
    /// As [`Log::ready`]: [`RedisError::is_unavailable`] tells a server that is away from one that is set up wrong.
    pub async fn ready(&self, wait: Duration) -> Result<Vec<String>, RedisError> {
        self.0.ready(wait).await
    }
}

fn position(place: Place) -> Position {
    Position {
        epoch: place.epoch,
        sequence: place.sequence,
    }
}

fn place(position: Position) -> Place {
    Place {
        epoch: position.epoch,
        sequence: position.sequence,
    }
}

fn port_error(error: RedisError) -> PortError {
    match error {
        RedisError::Conflict(what) => PortError::OtherContent(NAME, what),
        other => PortError::Unavailable(NAME, other.to_string()),
    }
}

#[async_trait]
impl OutboxSource for RedisOutbox {
    async fn streams(&self) -> Result<Vec<String>, PortError> {
        self.0.streams().await.map_err(port_error)
    }

    async fn read_after(
        &self,
        stream: &str,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Vec<u8>)>, PortError> {
        let read = self.0.read_after(stream, after.map(position), limit).await;
        let entries = read.map_err(port_error)?;
        Ok(entries.into_iter().map(|(at, body)| (place(at), body)).collect())
    }

    async fn confirm(&self, stream: &str, up_to: Place) -> Result<(), PortError> {
        self.0.confirm(stream, position(up_to)).await.map_err(port_error)
    }

    async fn confirmed(&self, stream: &str) -> Result<Option<Place>, PortError> {
        Ok(self.0.confirmed(stream).await.map_err(port_error)?.map(place))
    }

    async fn last(&self, stream: &str) -> Result<Option<Place>, PortError> {
        Ok(self.0.last(stream).await.map_err(port_error)?.map(place))
    }

    async fn changed(&self) {
        self.0.changed().await;
    }
}
