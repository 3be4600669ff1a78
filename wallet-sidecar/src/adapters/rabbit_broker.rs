//! RabbitMQ behind the service's ports.

use std::time::Duration;

use futures_util::future::BoxFuture;
use weir_servers::{
    ServerUrl,
    rabbitmq::{Outgoing, Queue, RabbitError},
};

use crate::ports::{
    broker::{BrokerError, Delivery, EventsIn, EventsOut},
    event_store::OutMessage,
};

/// A RabbitMQ server; clones share its connections.
#[derive(Debug, Clone)]
pub struct RabbitBroker {
    queue: Queue,
}

impl RabbitBroker {
    /// Connects and checks the server, once, within ten seconds or so. `name` is what exchanges and queues are named after.
    pub async fn connect(url: &ServerUrl, name: &str) -> Result<Self, RabbitError> {
        let queue = Queue::connect(url, name).await?;
        Ok(Self { queue })
    }

    /// Compares the queues of these names, where they exist, with what is needed; changes nothing.
    pub async fn check(&self, queues: &[&str]) -> Result<(), RabbitError> {
        self.queue.check_topology(queues).await
    }
}

impl From<Queue> for RabbitBroker {
    fn from(queue: Queue) -> Self {
        Self { queue }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as `map_err(failed)`")]
fn failed(error: RabbitError) -> BrokerError {
    BrokerError(error.to_string())
}

impl EventsOut for RabbitBroker {
    fn publish<'a>(&'a self, messages: &'a [OutMessage]) -> BoxFuture<'a, Result<usize, BrokerError>> {
        let outgoing = |m: &OutMessage| Outgoing {
            topic: m.topic.clone(),
            id: m.id.clone(),
            body: m.body.clone(),
        };
        let messages: Vec<_> = messages.iter().map(outgoing).collect();
        Box::pin(async move {
            match self.queue.publish_all(messages).await {
                (0, Some(e)) => Err(failed(e)),
                (done, _) => Ok(done),
            }
        })
    }
}

impl EventsIn for RabbitBroker {
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
            let delivery = |d: weir_servers::rabbitmq::Delivery| Delivery {
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
