//! The broker port on the embedded queue.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use weir_embedded::{Queue, StoreError};

use crate::ports::{
    PortError,
    broker::{Broker, DeadLetter, Message},
};

const NAME: &str = "the broker";

pub(super) fn port_error(name: &'static str, error: StoreError) -> PortError {
    match error {
        StoreError::Conflict(what) => PortError::OtherContent(name, what),
        other => PortError::Unavailable(name, other.to_string()),
    }
}

/// The embedded broker file.
#[derive(Debug, Clone)]
pub struct EmbeddedBroker(Queue);

impl EmbeddedBroker {
    /// Opens or makes the file. Blocking.
    pub fn open(path: &Path) -> Result<Self, PortError> {
        Queue::open(path).map(Self).map_err(|e| port_error(NAME, e))
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn bind(&self, queue: &str, topic: &str) -> Result<(), PortError> {
        self.0.bind(queue, topic).await.map_err(|e| port_error(NAME, e))
    }

    async fn publish(&self, topic: &str, id: &str, body: Vec<u8>) -> Result<(), PortError> {
        self.0
            .publish(topic, id, body)
            .await
            .map_err(|e| port_error(NAME, e))
    }

    async fn claim(&self, queue: &str, max: usize) -> Result<Vec<Message>, PortError> {
        let deliveries = self.0.claim(queue, max).await.map_err(|e| port_error(NAME, e))?;
        let message = |d: weir_embedded::Delivery| Message {
            tag: d.tag,
            attempt: d.attempt,
            body: d.body,
        };
        Ok(deliveries.into_iter().map(message).collect())
    }

    async fn ack(&self, queue: &str, tags: &[u64]) -> Result<(), PortError> {
        self.0.ack(queue, tags).await.map_err(|e| port_error(NAME, e))
    }

    async fn retry(&self, queue: &str, tag: u64, after: Duration, cause: &str) -> Result<(), PortError> {
        self.0
            .retry(queue, tag, after, cause)
            .await
            .map_err(|e| port_error(NAME, e))
    }

    async fn dead_letter(&self, queue: &str, tag: u64, cause: &str) -> Result<(), PortError> {
        self.0
            .dead_letter(queue, tag, cause)
            .await
            .map_err(|e| port_error(NAME, e))
    }

    async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, PortError> {
        let letters = self
            .0
            .dead_letters(queue)
            .await
            .map_err(|e| port_error(NAME, e))?;
        let letter = |d: weir_embedded::DeadLetter| DeadLetter {
            tag: d.tag,
            cause: d.cause,
            body: d.body,
        };
        Ok(letters.into_iter().map(letter).collect())
    }

    async fn replay(&self, queue: &str, tag: u64) -> Result<(), PortError> {
        self.0
            .replay(queue, tag)
            .await
            .map(|_| ())
            .map_err(|e| port_error(NAME, e))
    }
}
