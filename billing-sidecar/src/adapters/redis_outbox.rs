//! The outbox port on Redis streams.

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
    /// Connects to the streams whose keys begin with `prefix:`, and checks the server's version, role and settings; what could not be
    /// checked is logged. Later losses of the connection mend themselves.
    ///
    /// # Errors
    /// [`PortError::Unavailable`]: it is away, or still loading. [`PortError::Settings`]: waiting does not help.
    pub async fn open(url: &ServerUrl, prefix: &str) -> Result<Self, PortError> {
        let log = Log::connect(url, prefix).map_err(start_error)?;
        for warning in log.check_settings().await.map_err(start_error)? {
            tracing::warn!("{warning}");
        }
        Ok(Self(log))
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

fn start_error(error: RedisError) -> PortError {
    if error.is_unavailable() {
        PortError::Unavailable(NAME, error.to_string())
    } else {
        PortError::Settings(NAME, error.to_string())
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
