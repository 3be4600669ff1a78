//! The broker on RabbitMQ: topics bound to quorum queues, confirmed publishes, messages that are answered for, dead letters with their
//! cause. The counterpart of `weir_embedded::Queue`.

mod consumer;
mod dead;
mod error;
mod link;
mod message;
mod publisher;
mod server;
mod subscription;
mod topology;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::uri::AMQPUri;

pub use self::{
    consumer::{CLAIM_TTL, CLAIM_WAIT},
    error::RabbitError,
    publisher::PUBLISH_DEADLINE,
    topology::{Bounds, DELIVERY_LIMIT, QUEUE_BYTES_MAX},
};
use self::{
    consumer::{Consuming, Worker},
    message::Letter,
    publisher::{Publisher, To},
    topology::Home,
};
use crate::ServerUrl;

/// What addresses begin with.
pub const SCHEMES: &[&str] = &["amqp://", "amqps://"];
/// What exchanges and queues are named after unless told otherwise.
pub const DEFAULT_NAME: &str = "weir";

/// A claimed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names it in answers, in this process only.
    pub tag: u64,
    /// From 1; counts claims, lost ones included.
    pub attempt: u32,
    /// The topic that it was published to.
    pub topic: String,
    /// The publisher's id.
    pub id: String,
    /// As published.
    pub body: Vec<u8>,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it for [`Queue::replay`]; made of its content, the same in every list.
    pub tag: u64,
    /// Claims it had.
    pub attempt: u32,
    /// The topic that it was published to.
    pub topic: String,
    /// The publisher's id.
    pub id: String,
    /// Why.
    pub cause: String,
    /// When, Unix milliseconds; 0 when the broker did not say.
    pub died_ms: u64,
    /// As published.
    pub body: Vec<u8>,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub topic: String,
    /// The same each time that it is sent.
    pub id: String,
    /// Its content.
    pub body: Vec<u8>,
}

/// A client of one broker, with a connection for publishing and one for consuming. Clones share their claims; when the last one is
/// dropped, the broker gives what they had to others.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    home: Arc<Home>,
    consuming: Arc<Consuming>,
    publisher: Publisher,
    workers: Mutex<HashMap<String, Arc<Worker>>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({})", self.0.home.name)
    }
}

impl Queue {
    /// Connects, and checks that it is a RabbitMQ that is new enough; about ten seconds at worst. `name` is what all exchanges and
    /// queues are named after; installations that share a virtual host need different ones.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when it does not answer; [`RabbitError::Setting`] when asking again does not help.
    pub async fn connect(url: &ServerUrl, name: &str) -> Result<Self, RabbitError> {
        Self::connect_with(url, name, Bounds::default()).await
    }

    /// As [`Queue::connect`], with other bounds for the queues that it makes.
    ///
    /// # Errors
    /// As [`Queue::connect`].
    pub async fn connect_with(url: &ServerUrl, name: &str, bounds: Bounds) -> Result<Self, RabbitError> {
        // What the parser says of a wrong address could hold parts of it.
        let wrong = || {
            RabbitError::Setting(format!(
                "amqp_url is not amqp://USER:PASSWORD@HOST:PORT/VHOST: {url}"
            ))
        };
        let uri: AMQPUri = url.reveal().parse().map_err(|_| wrong())?;
        let home = Arc::new(Home::new(uri, name, bounds)?);
        server::check(&home.uri).await?;
        let consuming = Arc::new(Consuming::new(Arc::clone(&home)));
        consuming.link().await?;
        let publisher = Publisher::start(Arc::clone(&home));
        Ok(Self(Arc::new(Inner {
            home,
            consuming,
            publisher,
            workers: Mutex::default(),
        })))
    }

    /// Compares the queues of these names, where they exist, with what is needed; makes and changes nothing.
    ///
    /// # Errors
    /// [`RabbitError::Setting`] names the queue, the argument and the remedy; [`RabbitError::Unavailable`] when it does not answer.
    pub async fn check_topology(&self, queues: &[&str]) -> Result<(), RabbitError> {
        let link = self.0.consuming.link().await?;
        for queue in queues {
            self.0.home.compare(&link, queue).await?;
        }
        Ok(())
    }

    /// Makes the queue and that of its dead letters, and binds it to a topic; doing it again changes nothing.
    ///
    /// # Errors
    /// [`RabbitError::Setting`] when there is a queue of that name with other arguments.
    pub async fn bind(&self, queue: &str, topic: &str) -> Result<(), RabbitError> {
        let link = self.0.consuming.link().await?;
        self.0.home.bind(&link, queue, topic).await
    }

    /// Stores a message in every queue bound to the topic; durable in all of them when it returns, within [`PUBLISH_DEADLINE`].
    ///
    /// The same id again is delivered again: whoever consumes knows ids that it has had, and refuses one with other content.
    ///
    /// # Errors
    /// [`RabbitError::Unroutable`] when no queue is bound; [`RabbitError::Unavailable`] when it is not known to be stored.
    pub async fn publish(&self, topic: &str, id: &str, body: Vec<u8>) -> Result<(), RabbitError> {
        let letter = Letter::new(topic, id, body)?;
        self.0.publisher.publish_one(To::Topic, letter).await
    }

    /// Publishes messages in order; returns how many of the first ones are stored, and why not more.
    pub async fn publish_all(&self, messages: Vec<Outgoing>) -> (usize, Option<RabbitError>) {
        let mut parcels = Vec::with_capacity(messages.len());
        let mut wrong = None;
        for message in messages {
            match Letter::new(&message.topic, &message.id, message.body) {
                Ok(letter) => parcels.push((To::Topic, letter)),
                Err(e) => {
                    wrong = Some(e);
                    break;
                }
            }
        }
        let outcomes = self.0.publisher.publish(parcels).await;
        let mut done = 0;
        for outcome in outcomes {
            match outcome {
                Ok(()) => done += 1,
                Err(e) => return (done, Some(e)),
            }
        }
        (done, wrong)
    }

    /// Claims up to `max` messages in order of publication (but for those that come again); waits up to [`CLAIM_WAIT`] for the first, then returns none. One that is not answered
    /// for within [`CLAIM_TTL`] is claimed again. Returns within a few seconds when the broker is away.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when the broker is away, or nobody has bound the queue.
    pub async fn claim(&self, queue: &str, max: usize) -> Result<Vec<Delivery>, RabbitError> {
        self.worker(queue)?.claim(max).await
    }

    /// Removes messages that are dealt with. Unknown tags are ignored, also those of a connection that was lost: such a message comes
    /// again, under another tag.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when it does not answer; the message comes again.
    pub async fn ack(&self, queue: &str, tags: &[u64]) -> Result<(), RabbitError> {
        self.worker(queue)?.ack(tags).await
    }

    /// Gives a message back, to be delivered again after a time. Others pass it meanwhile.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when it does not answer; the message comes again.
    pub async fn retry(
        &self,
        queue: &str,
        tag: u64,
        after: Duration,
        cause: &str,
    ) -> Result<(), RabbitError> {
        tracing::debug!(queue, tag, cause, "a message is tried again later");
        self.worker(queue)?.retry(tag, after).await
    }

    /// Gives a message up, with the cause.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when it does not answer; the message comes again, and may be among the dead letters too.
    pub async fn dead_letter(&self, queue: &str, tag: u64, cause: &str) -> Result<(), RabbitError> {
        self.worker(queue)?.dead_letter(tag, cause).await
    }

    /// What was given up, oldest first, at most a thousand.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when it does not answer, or nobody has bound the queue.
    pub async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, RabbitError> {
        dead::list(&self.0.home, &self.0.consuming, queue).await
    }

    /// Puts a dead letter back into its queue, at the end, as if never delivered. False when there is none of that tag.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when it does not answer; the message may be in both places then.
    pub async fn replay(&self, queue: &str, tag: u64) -> Result<bool, RabbitError> {
        let inner = &self.0;
        dead::replay(&inner.home, &inner.consuming, &inner.publisher, queue, tag).await
    }

    /// Messages that wait, or are claimed by this process.
    ///
    /// # Errors
    /// [`RabbitError::Unavailable`] when it does not answer, or nobody has bound the queue.
    pub async fn depth(&self, queue: &str) -> Result<u64, RabbitError> {
        let channel = self.0.consuming.link().await?.channel().await?;
        let (waiting, _) = topology::state(&channel, &self.0.home.queue(queue)?).await?;
        Ok(waiting + self.worker(queue)?.in_hand())
    }

    /// Loses the consuming connection, as a crash does: for tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub async fn crash(&self) {
        self.0.consuming.cut().await;
    }

    /// Deletes these queues with all that is in them, and the exchanges: for tests, which clean up.
    ///
    /// # Errors
    /// As [`Queue::bind`].
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub async fn erase(self, queues: &[&str]) -> Result<(), RabbitError> {
        let link = self.0.consuming.link().await?;
        self.0.home.erase(&link, queues).await
    }

    fn worker(&self, queue: &str) -> Result<Arc<Worker>, RabbitError> {
        let inner = &self.0;
        let mut workers = inner.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(queue) {
            return Ok(Arc::clone(worker));
        }
        let worker = Arc::new(Worker::new(
            &inner.home,
            &inner.consuming,
            &inner.publisher,
            queue,
        )?);
        workers.insert(queue.to_owned(), Arc::clone(&worker));
        Ok(worker)
    }
}
