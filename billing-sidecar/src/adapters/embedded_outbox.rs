//! The outbox port on the embedded log.

use std::path::Path;

use async_trait::async_trait;
use weir_contracts::event::Place;
use weir_embedded::{Log, Position};

use super::embedded_broker::port_error;
use crate::ports::{PortError, outbox_source::OutboxSource};

const NAME: &str = "the outbox";

/// One embedded outbox file.
#[derive(Debug)]
pub struct EmbeddedOutbox(Log);

impl EmbeddedOutbox {
    /// Opens or makes the file. Blocking.
    pub fn open(path: &Path) -> Result<Self, PortError> {
        Log::open(path).map(Self).map_err(|e| port_error(NAME, e))
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

#[async_trait]
impl OutboxSource for EmbeddedOutbox {
    async fn streams(&self) -> Result<Vec<String>, PortError> {
        self.0.streams().await.map_err(|e| port_error(NAME, e))
    }

    async fn read_after(
        &self,
        stream: &str,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Vec<u8>)>, PortError> {
        let read = self.0.read_after(stream, after.map(position), limit).await;
        let entries = read.map_err(|e| port_error(NAME, e))?;
        Ok(entries.into_iter().map(|(at, body)| (place(at), body)).collect())
    }

    async fn confirm(&self, stream: &str, up_to: Place) -> Result<(), PortError> {
        let confirmed = self.0.confirm(stream, position(up_to)).await;
        confirmed.map_err(|e| port_error(NAME, e))
    }

    async fn confirmed(&self, stream: &str) -> Result<Option<Place>, PortError> {
        let confirmed = self.0.confirmed(stream).await.map_err(|e| port_error(NAME, e))?;
        Ok(confirmed.map(place))
    }

    async fn last(&self, stream: &str) -> Result<Option<Place>, PortError> {
        let last = self.0.last(stream).await.map_err(|e| port_error(NAME, e))?;
        Ok(last.map(place))
    }

    async fn changed(&self) {
        self.0.changed().await;
    }
}
