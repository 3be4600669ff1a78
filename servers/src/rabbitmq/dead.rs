//! Dead letters: looking at them without taking them, and putting one back.

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions},
};
use tokio::time::{Instant, timeout_at};

use super::{
    DeadLetter,
    consumer::Consuming,
    error::RabbitError,
    link::{CALL_DEADLINE, Link, call},
    message::{self, Letter},
    publisher::{Publisher, To},
    topology::{Home, short},
};

/// Dead letters in one list.
const LETTERS_MAX: usize = 1000;
/// Bytes of bodies in one list, but for the last letter.
const LETTERS_BYTES_MAX: usize = 64 << 20;
/// Longest time for reading a list.
const LIST_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// A letter as it lies there, and the broker's number for it on the channel that looks.
struct Found {
    number: u64,
    dead: DeadLetter,
    letter: Letter,
}

/// A look into the queue of dead letters. What it has seen stays there: [`Look::end`] gives all back that was not removed.
struct Look {
    link: std::sync::Arc<Link>,
    channel: Channel,
    queue: String,
    /// Deliveries after which the broker gives a message up.
    limit: u32,
}

impl Look {
    async fn begin(home: &Home, consuming: &Consuming, queue: &str) -> Result<Self, RabbitError> {
        let link = consuming.link().await?;
        let channel = link.channel().await?;
        Ok(Self {
            link,
            channel,
            queue: home.dead_queue(queue)?,
            limit: home.delivery_limit(),
        })
    }

    async fn next(&self) -> Result<Option<Found>, RabbitError> {
        let getting = self
            .channel
            .basic_get(short(&self.queue), BasicGetOptions::default());
        let Some(got) = call("looking at dead letters", getting).await? else {
            return Ok(None);
        };
        let delivery = got.delivery;
        let letter = Letter::read(&delivery.properties, delivery.routing_key.as_str(), delivery.data);
        // What this queue counts are the looks at it; the broker's own dead letters keep no count.
        let death = message::death(&delivery.properties);
        let lost = if letter.cause.is_none() && death.is_some() {
            self.limit
        } else {
            0
        };
        let (cause, died_ms) = match (&letter.cause, death) {
            (Some(cause), _) => (cause.clone(), letter.died_ms),
            (None, Some(death)) => death,
            (None, None) => ("unknown: somebody else put it here".to_owned(), 0),
        };
        let dead = DeadLetter {
            tag: letter.tag(),
            attempt: letter.attempt.saturating_add(lost),
            topic: letter.topic.clone(),
            id: letter.id.clone(),
            cause,
            died_ms,
            body: letter.body.clone(),
        };
        Ok(Some(Found {
            number: delivery.delivery_tag,
            dead,
            letter,
        }))
    }

    async fn remove(&self, found: &Found) -> Result<(), RabbitError> {
        let removing = self.channel.basic_ack(found.number, BasicAckOptions::default());
        call("removing a dead letter", removing).await
    }

    /// Gives all back in order, and returns when the broker has done it.
    async fn end(self) -> Result<(), RabbitError> {
        let options = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        // Number 0 with `multiple` is all that this channel has.
        let ended = async {
            call("giving dead letters back", self.channel.basic_nack(0, options)).await?;
            call(
                "ending a look at dead letters",
                self.channel.close(200, short("OK")),
            )
            .await
        };
        let ended = ended.await;
        if ended.is_err() {
            // So they are free at last.
            self.link.cut();
        }
        ended
    }
}

/// What lies there, oldest first: at most [`LETTERS_MAX`]. Another look at the same moment misses what this one has seen so far.
pub(super) async fn list(
    home: &Home,
    consuming: &Consuming,
    queue: &str,
) -> Result<Vec<DeadLetter>, RabbitError> {
    let look = Look::begin(home, consuming, queue).await?;
    let deadline = Instant::now() + LIST_DEADLINE;
    let mut letters = Vec::new();
    let mut bytes = 0;
    let listing = async {
        while letters.len() < LETTERS_MAX
            && bytes < LETTERS_BYTES_MAX
            && let Some(found) = look.next().await?
        {
            bytes += found.dead.body.len();
            letters.push(found.dead);
        }
        Ok::<(), RabbitError>(())
    };
    let listed = timeout_at(deadline, listing).await;
    look.end().await?;
    match listed {
        Ok(listed) => listed.map(|()| {
            // What was given back may come before or behind what was not.
            letters.sort_by(|a, b| (a.died_ms, &a.id).cmp(&(b.died_ms, &b.id)));
            letters
        }),
        Err(_) => Err(RabbitError::deadline("listing dead letters", LIST_DEADLINE)),
    }
}

/// Puts one back at the end of its queue, as if it had never been delivered; false when there is none of that tag among the first
/// [`LETTERS_MAX`]. A crash in between leaves it in both places.
pub(super) async fn replay(
    home: &Home,
    consuming: &Consuming,
    publisher: &Publisher,
    queue: &str,
    tag: u64,
) -> Result<bool, RabbitError> {
    let look = Look::begin(home, consuming, queue).await?;
    let moving = async {
        for _ in 0..LETTERS_MAX {
            let Some(found) = look.next().await? else {
                return Ok(false);
            };
            if found.dead.tag != tag {
                continue;
            }
            let fresh = Letter {
                topic: found.letter.topic.clone(),
                id: found.letter.id.clone(),
                body: found.letter.body.clone(),
                ..Letter::default()
            };
            publisher
                .publish_one(To::Queue(home.queue(queue)?), fresh)
                .await?;
            look.remove(&found).await?;
            return Ok(true);
        }
        Ok(false)
    };
    let moved = timeout_at(Instant::now() + LIST_DEADLINE + CALL_DEADLINE, moving).await;
    look.end().await?;
    match moved {
        Ok(moved) => moved,
        Err(_) => Err(RabbitError::deadline("putting a dead letter back", LIST_DEADLINE)),
    }
}
