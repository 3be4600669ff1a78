//! The embedded broker (`weir_embedded::Queue`) behind the service's ports.

use std::{path::Path, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream};
use weir_embedded::{Queue, StoreError};

use crate::ports::{
    broker::{BrokerError, Delivery, EventsIn, EventsOut},
    event_store::OutMessage,
};

/// Publishes under way at once: the broker commits those that wait together.
const PUBLISHES_MAX: usize = 64;

/// The broker file; clones share it.
#[derive(Clone)]
pub struct EmbeddedBroker {
    queue: Queue,
}

impl EmbeddedBroker {
    /// Opens the file, made when it is missing. Blocks.
    pub fn open(path: &Path) -> Result<Self, BrokerError> {
        Ok(Self {
            queue: Queue::open(path).map_err(failed)?,
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as `map_err(failed)`")]
fn failed(error: StoreError) -> BrokerError {
    BrokerError(error.to_string())
}

impl EventsOut for EmbeddedBroker {
    fn publish<'a>(&'a self, messages: &'a [OutMessage]) -> BoxFuture<'a, Result<usize, BrokerError>> {
        Box::pin(async move {
            // `buffered` starts the calls in order and yields their ends in order, so the count is of a prefix.
            let calls: Vec<_> = messages
                .iter()
                .map(|m| self.queue.publish(&m.topic, &m.id, m.body.clone()))
                .collect();
            let mut sent = stream::iter(calls).buffered(PUBLISHES_MAX);
            let mut done = 0;
            while let Some(outcome) = sent.next().await {
                match outcome {
                    Ok(()) => done += 1,
                    Err(e) if done == 0 => return Err(failed(e)),
                    Err(_) => break,
                }
            }
            Ok(done)
        })
    }
}

impl EventsIn for EmbeddedBroker {
    fn bind<'a>(&'a self, queue: &'a str, topics: &'a [&'a str]) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            for topic in topics {
                self.queue.bind(queue, topic).await.map_err(failed)?;
            }
            Ok(())
        })
    }

    fn claim<'a>(&'a self, queue: &'a str, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>, BrokerError>> {
        Box::pin(async move {
            let claimed = self.queue.claim(queue, max).await.map_err(failed)?;
            let delivery = |d: weir_embedded::Delivery| Delivery {
                tag: d.tag,
                attempt: d.attempt,
                body: d.body,
            };
            Ok(claimed.into_iter().map(delivery).collect())
        })
    }

    fn ack<'a>(&'a self, queue: &'a str, tags: &'a [u64]) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move { self.queue.ack(queue, tags).await.map_err(failed) })
    }

    fn retry<'a>(
        &'a self,
        queue: &'a str,
        tag: u64,
        after: Duration,
        cause: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move { self.queue.retry(queue, tag, after, cause).await.map_err(failed) })
    }

    fn dead_letter<'a>(
        &'a self,
        queue: &'a str,
        tag: u64,
        cause: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move { self.queue.dead_letter(queue, tag, cause).await.map_err(failed) })
    }
}
