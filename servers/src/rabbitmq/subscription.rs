//! One queue's channel: who is subscribed on it, how much may come, and in which order it is passed on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{Instant, timeout};

use super::{
    error::{RabbitError, is_not_found},
    link::{CALL_DEADLINE, Link, call},
    topology::{self, short},
};

/// Messages of one queue in this process, waiting ones included: what it can hold in memory at worst is this times the longest body.
const IN_HAND_MAX: u16 = 128;
/// With nothing delivered for this long, the broker is asked whether we are still subscribed: a broken consumer must not look like an
/// idle one.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A channel with its consumers. The first one may have one message in hand; the second comes when it is safe to have many.
pub(super) struct Subscription {
    /// Keeps the connection.
    link: Arc<Link>,
    channel: Channel,
    first: Consumer,
    rest: Option<Consumer>,
    /// What came on either, until it is in order.
    arrived: BTreeMap<u64, Delivery>,
    /// The broker's number of the next delivery on this channel.
    next: u64,
    /// When the broker last delivered something or was asked.
    heard: Instant,
}

impl Subscription {
    /// Subscribes with one message in hand; none when there is no such queue.
    pub(super) async fn open(link: Arc<Link>, queue: &str) -> Result<Option<Self>, RabbitError> {
        let channel = link.channel().await?;
        limit(&channel, 1).await?;
        let first = consume(&channel, queue).await?;
        Ok(first.map(|first| Self {
            link,
            channel,
            first,
            rest: None,
            arrived: BTreeMap::new(),
            next: 1,
            heard: Instant::now(),
        }))
    }

    /// Lets many messages be in hand.
    pub(super) async fn widen(&mut self, queue: &str) -> Result<(), RabbitError> {
        if self.rest.is_none() {
            limit(&self.channel, IN_HAND_MAX - 1).await?;
            self.rest = consume(&self.channel, queue).await?;
        }
        Ok(())
    }

    /// The next message in the broker's order, if it has arrived.
    pub(super) fn take(&mut self) -> Option<Delivery> {
        let delivery = self.arrived.remove(&self.next)?;
        self.next += 1;
        self.heard = Instant::now();
        Some(delivery)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.link.is_alive() && self.channel.status().connected()
    }

    /// After a long silence: fails when the queue is gone or has no subscribers, so not us either.
    pub(super) async fn ask(&mut self, queue: &str) -> Result<(), RabbitError> {
        if self.heard.elapsed() < IDLE_MAX {
            return Ok(());
        }
        let (_, subscribers) = topology::state(&self.channel, queue).await?;
        self.heard = Instant::now();
        if subscribers == 0 {
            return Err(RabbitError::Unavailable(
                "the broker no longer knows of the subscription: its queue was made anew".to_owned(),
            ));
        }
        Ok(())
    }

    /// Takes what has arrived, without waiting.
    pub(super) fn drain(&mut self) -> Result<(), RabbitError> {
        loop {
            let mut some = false;
            for consumer in std::iter::once(&mut self.first).chain(&mut self.rest) {
                while let Some(next) = consumer.next().now_or_never() {
                    let delivery = delivered(next)?;
                    self.arrived.insert(delivery.delivery_tag, delivery);
                    some = true;
                }
            }
            if !some {
                return Ok(());
            }
        }
    }

    /// Waits for a message.
    pub(super) async fn arrives(&mut self) -> Result<(), RabbitError> {
        let next = match &mut self.rest {
            None => self.first.next().await,
            Some(rest) => tokio::select! {
                next = self.first.next() => next,
                next = rest.next() => next,
            },
        };
        let delivery = delivered(next)?;
        self.arrived.insert(delivery.delivery_tag, delivery);
        Ok(())
    }
}

fn delivered(next: Option<lapin::Result<Delivery>>) -> Result<Delivery, RabbitError> {
    match next {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(e)) => Err(RabbitError::Unavailable(format!("receiving: {e}"))),
        None => Err(RabbitError::Unavailable(
            "the broker ended the subscription: its queue was deleted or is moving".to_owned(),
        )),
    }
}

async fn limit(channel: &Channel, messages: u16) -> Result<(), RabbitError> {
    let options = BasicQosOptions::default();
    call("limiting what is in hand", channel.basic_qos(messages, options)).await
}

/// None when there is no such queue.
async fn consume(channel: &Channel, queue: &str) -> Result<Option<Consumer>, RabbitError> {
    let what = format!("subscribing to queue `{queue}`");
    let options = BasicConsumeOptions::default();
    let asking = channel.basic_consume(short(queue), short(""), options, FieldTable::default());
    match timeout(CALL_DEADLINE, asking).await {
        Ok(Ok(consumer)) => Ok(Some(consumer)),
        Ok(Err(e)) if is_not_found(&e) => Ok(None),
        Ok(Err(e)) => Err(RabbitError::from_lapin(&what, &e)),
        Err(_) => Err(RabbitError::deadline(&what, CALL_DEADLINE)),
    }
}
