//! The broker port on RabbitMQ.

use std::time::Duration;

use async_trait::async_trait;
use weir_servers::{
    ServerUrl,
    rabbitmq::{Queue, RabbitError},
};

use crate::ports::{
    PortError,
    broker::{Broker, DeadLetter, Message},
};

const NAME: &str = "the broker";

#[allow(clippy::needless_pass_by_value, reason = "used as `map_err(port_error)`")]
fn port_error(error: RabbitError) -> PortError {
    match error {
        RabbitError::Setting(what) => PortError::Settings(NAME, what),
        other => PortError::Unavailable(NAME, other.to_string()),
    }
}

/// A RabbitMQ server.
#[derive(Debug, Clone)]
pub struct RabbitBroker(Queue);

impl RabbitBroker {
    /// Connects and checks the server, once, within ten seconds or so. `name` is what exchanges and queues are named after.
    pub async fn connect(url: &ServerUrl, name: &str) -> Result<Self, PortError> {
        Queue::connect(url, name).await.map(Self).map_err(port_error)
    }

    /// Compares the queues of these names, where they exist, with what is needed; changes nothing.
    pub async fn check(&self, queues: &[&str]) -> Result<(), PortError> {
        self.0.check_topology(queues).await.map_err(port_error)
    }
}

impl From<Queue> for RabbitBroker {
    fn from(queue: Queue) -> Self {
        Self(queue)
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    async fn bind(&self, queue: &str, topic: &str) -> Result<(), PortError> {
        self.0.bind(queue, topic).await.map_err(port_error)
    }

    async fn publish(&self, topic: &str, id: &str, body: Vec<u8>) -> Result<(), PortError> {
        self.0.publish(topic, id, body).await.map_err(port_error)
    }

    async fn claim(&self, queue: &str, max: usize) -> Result<Vec<Message>, PortError> {
        let deliveries = self.0.claim(queue, max).await.map_err(port_error)?;
        let message = |d: weir_servers::rabbitmq::Delivery| Message {
            tag: d.tag,
            attempt: d.attempt,
            body: d.body,
        };
        Ok(deliveries.into_iter().map(message).collect())
    }

    async fn ack(&self, queue: &str, tags: &[u64]) -> Result<(), PortError> {
        self.0.ack(queue, tags).await.map_err(port_error)
    }

    async fn retry(&self, queue: &str, tag: u64, after: Duration, cause: &str) -> Result<(), PortError> {
        self.0.retry(queue, tag, after, cause).await.map_err(port_error)
    }

    async fn dead_letter(&self, queue: &str, tag: u64, cause: &str) -> Result<(), PortError> {
        self.0.dead_letter(queue, tag, cause).await.map_err(port_error)
    }

    async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, PortError> {
        let letters = self.0.dead_letters(queue).await.map_err(port_error)?;
        let letter = |d: weir_servers::rabbitmq::DeadLetter| DeadLetter {
            tag: d.tag,
            cause: d.cause,
            body: d.body,
        };
        Ok(letters.into_iter().map(letter).collect())
    }

    async fn replay(&self, queue: &str, tag: u64) -> Result<(), PortError> {
        self.0.replay(queue, tag).await.map(drop).map_err(port_error)
    }
}
