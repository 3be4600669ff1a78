//! The broker: topics that are published to, queues that are worked off.

use std::time::Duration;

use async_trait::async_trait;

use super::PortError;

/// A message that was claimed and is answered for with exactly one of ack, retry, dead letter.
#[derive(Debug, Clone)]
pub struct Message {
    /// What to answer with.
    pub tag: u64,
    /// From 1.
    pub attempt: u32,
    /// Its content.
    pub body: Vec<u8>,
}

/// A message that nobody could work off.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// What to replay with.
    pub tag: u64,
    /// Why.
    pub cause: String,
    /// Its content.
    pub body: Vec<u8>,
}

/// A broker with durable queues.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Makes a durable queue that receives a topic.
    async fn bind(&self, queue: &str, topic: &str) -> Result<(), PortError>;
    /// Returns when the message is durable in every queue of the topic.
    async fn publish(&self, topic: &str, id: &str, body: Vec<u8>) -> Result<(), PortError>;
    /// Waits a bounded time for messages.
    async fn claim(&self, queue: &str, max: usize) -> Result<Vec<Message>, PortError>;
    /// Done.
    async fn ack(&self, queue: &str, tags: &[u64]) -> Result<(), PortError>;
    /// Again after a pause.
    async fn retry(&self, queue: &str, tag: u64, after: Duration, cause: &str) -> Result<(), PortError>;
    /// Aside, with the cause.
    async fn dead_letter(&self, queue: &str, tag: u64, cause: &str) -> Result<(), PortError>;
    /// What lies aside.
    async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, PortError>;
    /// Back into the queue.
    async fn replay(&self, queue: &str, tag: u64) -> Result<(), PortError>;
}
