//! The broker: integration events go out to topics and come in from queues, at least once.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::event_store::OutMessage;

/// The broker cannot be used now; asking again later may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker cannot be used now: {0}")]
pub struct BrokerError(pub String);

/// A message to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names the delivery in the answer.
    pub tag: u64,
    /// From 1.
    pub attempt: u32,
    /// As it was published.
    pub body: Vec<u8>,
}

/// Sends integration events.
pub trait EventsOut: Send + Sync + 'static {
    /// Publishes in order; returns how many of the first messages are durable in every bound queue. Fewer than all comes with the
    /// cause only when it is zero: the rest is simply asked again.
    fn publish<'a>(&'a self, messages: &'a [OutMessage]) -> BoxFuture<'a, Result<usize, BrokerError>>;
}

/// Receives integration events.
pub trait EventsIn: Send + Sync + 'static {
    /// Makes the queue receive each topic from now on; again changes nothing.
    fn bind<'a>(&'a self, queue: &'a str, topics: &'a [&'a str]) -> BoxFuture<'a, Result<(), BrokerError>>;
    /// Takes up to `max` messages; waits a bounded time for the first and may return none.
    fn claim<'a>(&'a self, queue: &'a str, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>, BrokerError>>;
    /// These are done.
    fn ack<'a>(&'a self, queue: &'a str, tags: &'a [u64]) -> BoxFuture<'a, Result<(), BrokerError>>;
    /// Not now: deliver it again after a while.
    fn retry<'a>(
        &'a self,
        queue: &'a str,
        tag: u64,
        after: Duration,
        cause: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;
    /// Never: keep it aside with the cause.
    fn dead_letter<'a>(
        &'a self,
        queue: &'a str,
        tag: u64,
        cause: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;
}
