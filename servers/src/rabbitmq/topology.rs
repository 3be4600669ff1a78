//! What stands in RabbitMQ: two exchanges, and per queue a quorum queue and the queue of its dead letters. Made when missing, compared
//! when there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
    uri::AMQPUri,
};

use tokio::time::timeout;

use super::{
    error::{RabbitError, is_not_found},
    link::{CALL_DEADLINE, Link, call},
    message,
};

/// Deliveries of one message that may be lost (its consumer died) before the broker puts it aside.
pub const DELIVERY_LIMIT: u32 = 20;
/// Bytes of messages that a queue holds; beyond it publishers are refused, nothing is dropped.
pub const QUEUE_BYTES_MAX: u64 = 1 << 30;
/// A queue of dead letters has no limit in practice: listing gives them back, which counts as a delivery each time. (Newer brokers set
/// 20 when it is left out, older ones refuse "no limit".)
const DEAD_DELIVERY_LIMIT: u32 = i32::MAX as u32;

/// What bounds a queue. Written into the queue when it is made; a queue made with other bounds is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Lost deliveries of one message before it is put aside.
    pub deliveries: u32,
    /// Bytes that the queue holds.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            deliveries: DELIVERY_LIMIT,
            bytes: QUEUE_BYTES_MAX,
        }
    }
}

/// Where the broker is and what this process has bound there: made again on every new connection, since a broker may have lost all.
pub(super) struct Home {
    pub(super) uri: AMQPUri,
    pub(super) name: String,
    bounds: Bounds,
    bindings: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Home {
    pub(super) fn new(uri: AMQPUri, name: &str, bounds: Bounds) -> Result<Self, RabbitError> {
        message::name("name of exchanges", name)?;
        Ok(Self {
            uri,
            name: name.to_owned(),
            bounds,
            bindings: Mutex::default(),
        })
    }

    /// Where topics are published to.
    pub(super) fn exchange(&self) -> String {
        self.name.clone()
    }

    /// Where the broker puts what it gives up itself.
    fn dead_exchange(&self) -> String {
        format!("{}.dead", self.name)
    }

    /// What a queue is called in the broker.
    pub(super) fn queue(&self, queue: &str) -> Result<String, RabbitError> {
        message::name("queue", queue)?;
        let full = format!("{}.{queue}", self.name);
        message::name("queue", &full)?;
        Ok(full)
    }

    /// What the queue of its dead letters is called in the broker.
    pub(super) fn dead_queue(&self, queue: &str) -> Result<String, RabbitError> {
        Ok(format!("{}.dead", self.queue(queue)?))
    }

    pub(super) fn delivery_limit(&self) -> u32 {
        self.bounds.deliveries
    }

    fn bindings(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the queue and binds it; remembered for later connections once it worked.
    pub(super) async fn bind(&self, link: &Link, queue: &str, topic: &str) -> Result<(), RabbitError> {
        message::name("topic", topic)?;
        // A refused declaration closes its channel: each time one of its own.
        let channel = link.channel().await?;
        self.declare(&channel, queue, std::iter::once(topic)).await?;
        self.bindings()
            .entry(queue.to_owned())
            .or_default()
            .insert(topic.to_owned());
        Ok(())
    }

    /// Makes again all that this process has bound.
    pub(super) async fn restore(&self, link: &Link) -> Result<(), RabbitError> {
        let bindings = self.bindings().clone();
        if bindings.is_empty() {
            return Ok(());
        }
        let channel = link.channel().await?;
        for (queue, topics) in &bindings {
            self.declare(&channel, queue, topics.iter().map(String::as_str))
                .await?;
        }
        Ok(())
    }

    /// Compares the exchanges and the two queues, as far as they exist, with what is needed.
    pub(super) async fn compare(&self, link: &Link, queue: &str) -> Result<(), RabbitError> {
        let (full, dead) = (self.queue(queue)?, self.dead_queue(queue)?);
        let exchanges = [
            (self.exchange(), ExchangeKind::Topic),
            (self.dead_exchange(), ExchangeKind::Direct),
        ];
        for (name, kind) in exchanges {
            let passive = ExchangeDeclareOptions {
                passive: true,
                ..Default::default()
            };
            let channel = link.channel().await?;
            let asking = channel.exchange_declare(short(&name), kind.clone(), passive, FieldTable::default());
            if exists(&format!("looking at exchange `{name}`"), asking).await? {
                declare_exchange(&channel, &name, kind).await?;
            }
        }
        let arguments = arguments(self.bounds, &self.dead_exchange(), &full);
        for (name, arguments) in [(full, arguments), (dead, dead_arguments())] {
            let channel = link.channel().await?;
            let asking = channel.queue_declare(short(&name), PASSIVE, FieldTable::default());
            if exists(&format!("looking at queue `{name}`"), asking).await? {
                declare_queue(&channel, &name, arguments).await?;
            }
        }
        Ok(())
    }

    #[cfg(feature = "testing")]
    pub(super) async fn erase(&self, link: &Link, queues: &[&str]) -> Result<(), RabbitError> {
        let channel = link.channel().await?;
        for queue in queues {
            self.bindings().remove(*queue);
            for name in [self.queue(queue)?, self.dead_queue(queue)?] {
                let options = lapin::options::QueueDeleteOptions::default();
                call("deleting a queue", channel.queue_delete(short(&name), options)).await?;
            }
        }
        for name in [self.exchange(), self.dead_exchange()] {
            let options = lapin::options::ExchangeDeleteOptions::default();
            call(
                "deleting an exchange",
                channel.exchange_delete(short(&name), options),
            )
            .await?;
        }
        Ok(())
    }

    async fn declare(
        &self,
        channel: &Channel,
        queue: &str,
        topics: impl Iterator<Item = &str>,
    ) -> Result<(), RabbitError> {
        let (exchange, dead_exchange) = (self.exchange(), self.dead_exchange());
        let (full, dead) = (self.queue(queue)?, self.dead_queue(queue)?);
        declare_exchange(channel, &exchange, ExchangeKind::Topic).await?;
        declare_exchange(channel, &dead_exchange, ExchangeKind::Direct).await?;
        declare_queue(channel, &dead, dead_arguments()).await?;
        bind(channel, &dead, &dead_exchange, &full).await?;
        let arguments = arguments(self.bounds, &dead_exchange, &full);
        declare_queue(channel, &full, arguments).await?;
        for topic in topics {
            bind(channel, &full, &exchange, topic).await?;
        }
        Ok(())
    }
}

/// Asks, makes nothing.
const PASSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: true,
    durable: false,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

/// Whether what was asked for is there; when it is not, the broker has ended the channel.
async fn exists<T>(what: &str, asking: impl Future<Output = lapin::Result<T>>) -> Result<bool, RabbitError> {
    match timeout(CALL_DEADLINE, asking).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(e)) if is_not_found(&e) => Ok(false),
        Ok(Err(e)) => Err(RabbitError::from_lapin(what, &e)),
        Err(_) => Err(RabbitError::deadline(what, CALL_DEADLINE)),
    }
}

fn quorum() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    table
}

/// At-least-once dead-lettering needs `reject-publish`: a queue whose dead letters have no place fills up, and says so to publishers.
fn arguments(bounds: Bounds, dead_exchange: &str, queue: &str) -> FieldTable {
    let mut table = quorum();
    table.insert("x-delivery-limit".into(), number(u64::from(bounds.deliveries)));
    table.insert("x-dead-letter-exchange".into(), text(dead_exchange));
    table.insert("x-dead-letter-routing-key".into(), text(queue));
    table.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    table.insert("x-overflow".into(), text("reject-publish"));
    table.insert("x-max-length-bytes".into(), number(bounds.bytes));
    table
}

fn dead_arguments() -> FieldTable {
    let mut table = quorum();
    table.insert("x-delivery-limit".into(), number(u64::from(DEAD_DELIVERY_LIMIT)));
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn number(number: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Names were checked by [`Home::queue`]; what is derived from them stays below AMQP's 255 bytes.
pub(super) fn short(name: &str) -> ShortString {
    ShortString::try_new(name).unwrap_or_default()
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), RabbitError> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declaring = channel.exchange_declare(short(name), kind, options, FieldTable::default());
    call(&format!("declaring exchange `{name}`"), declaring).await
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), RabbitError> {
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declaring = channel.queue_declare(short(name), options, arguments);
    call(&format!("declaring queue `{name}`"), declaring)
        .await
        .map(drop)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), RabbitError> {
    let options = QueueBindOptions::default();
    let binding = channel.queue_bind(
        short(queue),
        short(exchange),
        short(key),
        options,
        FieldTable::default(),
    );
    call(&format!("binding queue `{queue}` to `{key}`"), binding).await
}

/// Messages that wait in a queue, and who is subscribed to it.
pub(super) async fn state(channel: &Channel, name: &str) -> Result<(u64, u32), RabbitError> {
    let asking = channel.queue_declare(short(name), PASSIVE, FieldTable::default());
    let queue = call(&format!("looking at queue `{name}`"), asking).await?;
    Ok((u64::from(queue.message_count()), queue.consumer_count()))
}
