//! Working off one queue: what was delivered is held here, unacknowledged, until it is answered for; a retry waits here too.
//!
//! A quorum queue counts deliveries that were lost, so nothing is ever given back for a retry, and what lost deliveries have in hand is
//! taken one by one: see [`Held::goes_back`].

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lapin::{Acker, options::BasicAckOptions};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Delivery,
    error::RabbitError,
    link::{CALL_DEADLINE, Link},
    message::{self, Letter},
    publisher::{PAUSE_FIRST, PAUSE_LONGEST, Publisher, To},
    subscription::Subscription,
    topology::Home,
};

/// Messages in hand that wait for a retry; more are put at the end of the queue, so that others are reached.
const WAITING_MAX: usize = 64;
/// A message is held no longer than this: RabbitMQ ends a channel that keeps one for 30 minutes.
const HELD_MAX: Duration = Duration::from_secs(20 * 60);
/// A claim that is not answered for is handed out again after this time.
pub const CLAIM_TTL: Duration = Duration::from_secs(30);
/// How long a claim waits for a first message.
pub const CLAIM_WAIT: Duration = Duration::from_secs(1);

/// The connection on which all queues of a process are worked off; another one than the publisher's, which the broker may block.
pub(super) struct Consuming {
    home: Arc<Home>,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

impl Consuming {
    pub(super) fn new(home: Arc<Home>) -> Self {
        Self {
            home,
            link: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, made anew with all that was bound when it is not alive.
    pub(super) async fn link(&self) -> Result<Arc<Link>, RabbitError> {
        let mut current = self.link.lock().await;
        if let Some(link) = current.as_ref().filter(|link| link.is_alive()) {
            return Ok(Arc::clone(link));
        }
        *current = None;
        let link = Link::open(&self.home.uri, &format!("{} consumer", self.home.name)).await?;
        self.home.restore(&link).await?;
        *current = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Ends the connection without a word, as a crash does.
    #[cfg(feature = "testing")]
    pub(super) async fn cut(&self) {
        if let Some(link) = self.link.lock().await.take() {
            link.cut();
        }
    }
}

/// One queue's consumer.
pub(super) struct Worker {
    home: Arc<Home>,
    consuming: Arc<Consuming>,
    publisher: Publisher,
    /// The queue's full name.
    queue: String,
    dead_queue: String,
    subscription: tokio::sync::Mutex<Option<Subscription>>,
    held: Mutex<Held>,
    /// A message was answered, or may be handed out at another time than before.
    changed: Notify,
}

/// What is in hand, by our tag. All of it came on the present channel; when that ends, the broker gives it to somebody again.
#[derive(Default)]
struct Held {
    entries: BTreeMap<u64, Entry>,
    /// A message that nobody ever lost was answered.
    proved: bool,
    /// Many may be in hand.
    wide: bool,
}

#[derive(Clone)]
struct Entry {
    acker: Acker,
    letter: Letter,
    /// Claims so far, lost ones and those of earlier copies included.
    attempt: u32,
    /// Deliveries that were lost.
    lost: u32,
    received: Instant,
    /// From when on it may be handed out.
    visible: Instant,
    /// It waits for a retry.
    waits: bool,
}

impl Held {
    /// Whether a message to be retried is put at the end of its queue as a copy, rather than kept here.
    ///
    /// While messages come one by one because one of them may kill us, another must not be in hand when that one comes: each time, it
    /// would count as lost too, until it reached the limit. A copy begins to count from nothing.
    fn goes_back(&self, entry: &Entry, now: Instant) -> bool {
        let waiting = self.entries.values().filter(|e| e.waits).count();
        (!self.wide && entry.lost > 0) || waiting >= WAITING_MAX || entry.received + HELD_MAX <= now
    }

    fn answered(&mut self, tag: u64) -> Option<Entry> {
        let entry = self.entries.remove(&tag)?;
        self.proved |= entry.lost == 0;
        Some(entry)
    }
}

impl Worker {
    pub(super) fn new(
        home: &Arc<Home>,
        consuming: &Arc<Consuming>,
        publisher: &Publisher,
        queue: &str,
    ) -> Result<Self, RabbitError> {
        Ok(Self {
            queue: home.queue(queue)?,
            dead_queue: home.dead_queue(queue)?,
            home: Arc::clone(home),
            consuming: Arc::clone(consuming),
            publisher: publisher.clone(),
            subscription: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages in hand.
    pub(super) fn in_hand(&self) -> u64 {
        u64::try_from(self.held().entries.len()).unwrap_or(u64::MAX)
    }

    /// Hands out up to `max` messages; waits up to [`CLAIM_WAIT`] for the first.
    pub(super) async fn claim(&self, max: usize) -> Result<Vec<Delivery>, RabbitError> {
        let deadline = Instant::now() + CLAIM_WAIT;
        let Ok(mut subscription) = timeout_at(deadline, self.subscription.lock()).await else {
            // Somebody else waits for the same queue's messages.
            return Ok(Vec::new());
        };
        let mut pause = PAUSE_FIRST;
        loop {
            self.put_back_overdue().await;
            let received = self.receive(&mut subscription, deadline, max).await;
            if let Err(e) = received {
                // What is in hand is no longer ours.
                self.forget(&mut subscription);
                if !e.is_unavailable() || Instant::now() + pause >= deadline {
                    return Err(e);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LONGEST);
                continue;
            }
            let claimed = self.take(max);
            if !claimed.is_empty() || Instant::now() >= deadline {
                return Ok(claimed);
            }
        }
    }

    /// The channel is gone, and with it the right to answer for what came on it.
    fn forget(&self, subscription: &mut Option<Subscription>) {
        *subscription = None;
        *self.held() = Held::default();
    }

    /// Hands out what is due, what is due longest first: in order of arrival, and none that waits is passed over for ever by those that
    /// come back.
    fn take(&self, max: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let mut held = self.held();
        let mut due: Vec<(Instant, u64)> = held
            .entries
            .iter()
            .filter(|(_, entry)| entry.visible <= now)
            .map(|(tag, entry)| (entry.visible, *tag))
            .collect();
        due.sort_unstable();
        due.truncate(max);
        due.into_iter()
            .filter_map(|(_, tag)| {
                let entry = held.entries.get_mut(&tag)?;
                entry.attempt = entry.attempt.saturating_add(1);
                entry.visible = now + CLAIM_TTL;
                entry.waits = false;
                Some(Delivery {
                    tag,
                    attempt: entry.attempt,
                    topic: entry.letter.topic.clone(),
                    id: entry.letter.id.clone(),
                    body: entry.letter.body.clone(),
                })
            })
            .collect()
    }

    /// Takes in what has arrived; when nothing is due, waits until something may be, or the deadline.
    async fn receive(
        &self,
        subscription: &mut Option<Subscription>,
        deadline: Instant,
        max: usize,
    ) -> Result<(), RabbitError> {
        if subscription.as_ref().is_some_and(|s| !s.is_alive()) {
            self.forget(subscription);
        }
        let subscription = match subscription {
            Some(subscription) => subscription,
            None => {
                let opened = self.subscribe().await?;
                *self.held() = Held::default();
                subscription.insert(opened)
            }
        };
        // One that no consumer ever lost was answered for: those in front of it were not the kind that kills who takes it.
        let (proved, wide) = {
            let held = self.held();
            (held.proved, held.wide)
        };
        if proved && !wide {
            subscription.widen(&self.queue).await?;
            self.held().wide = true;
        }
        subscription.ask(&self.queue).await?;
        subscription.drain()?;
        self.keep(subscription);
        let due = |now: Instant| {
            let held = self.held();
            let visible = || held.entries.values().map(|e| e.visible);
            (visible().filter(|v| *v <= now).count(), visible().min())
        };
        let (count, next) = due(Instant::now());
        if count > 0 || max == 0 {
            return Ok(());
        }
        let until = next.map_or(deadline, |next| next.min(deadline));
        let changed = self.changed.notified();
        tokio::select! {
            arrived = subscription.arrives() => arrived?,
            () = changed => {}
            () = tokio::time::sleep_until(until) => {}
        }
        // What came with it.
        subscription.drain()?;
        self.keep(subscription);
        Ok(())
    }

    /// Moves what is in order into our hands.
    fn keep(&self, subscription: &mut Subscription) {
        let (now, now_ms) = (Instant::now(), message::unix_ms());
        let mut held = self.held();
        while let Some(delivery) = subscription.take() {
            let lost = message::lost_deliveries(&delivery.properties);
            let letter = Letter::read(&delivery.properties, delivery.routing_key.as_str(), delivery.data);
            let wait = letter.due_in(now_ms);
            let entry = Entry {
                acker: delivery.acker,
                attempt: letter.attempt.saturating_add(lost),
                lost,
                received: now,
                visible: now + wait,
                waits: !wait.is_zero(),
                letter,
            };
            held.entries.insert(next_tag(), entry);
        }
    }

    async fn subscribe(&self) -> Result<Subscription, RabbitError> {
        let link = self.consuming.link().await?;
        if let Some(subscription) = Subscription::open(Arc::clone(&link), &self.queue).await? {
            return Ok(subscription);
        }
        // Deleted under us, with what this process had bound.
        self.home.restore(&link).await?;
        Err(RabbitError::Unavailable(format!(
            "queue `{}` does not exist: binding it to a topic makes it",
            self.queue
        )))
    }

    /// Done.
    pub(super) async fn ack(&self, tags: &[u64]) -> Result<(), RabbitError> {
        let entries: Vec<Entry> = {
            let mut held = self.held();
            tags.iter().filter_map(|tag| held.answered(*tag)).collect()
        };
        self.changed.notify_one();
        for entry in entries {
            acknowledge(&entry.acker).await?;
        }
        Ok(())
    }

    /// Again after a pause.
    pub(super) async fn retry(&self, tag: u64, after: Duration) -> Result<(), RabbitError> {
        let after = after.min(message::WAIT_MAX);
        let goes_back = {
            let mut held = self.held();
            let now = Instant::now();
            let Some(entry) = held.entries.get(&tag) else {
                return Ok(());
            };
            let goes_back = held.goes_back(entry, now);
            if let Some(entry) = held.entries.get_mut(&tag) {
                entry.visible = now + after;
                entry.waits = true;
                let fresh = entry.lost == 0;
                held.proved |= fresh;
            }
            goes_back
        };
        if goes_back {
            self.put_back(tag, after).await?;
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Puts a copy at the end of the queue, then removes the message. A broker that takes no copy now leaves it in hand.
    async fn put_back(&self, tag: u64, after: Duration) -> Result<(), RabbitError> {
        let Some(entry) = self.held().entries.get(&tag).cloned() else {
            return Ok(());
        };
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let copy = Letter {
            attempt: entry.attempt,
            not_before_ms: message::unix_ms().saturating_add(after),
            ..entry.letter
        };
        let to = To::Queue(self.queue.clone());
        if let Err(e) = self.publisher.publish_one(to, copy).await {
            tracing::debug!(queue = self.queue, "a message that waits is kept in hand: {e}");
            return Ok(());
        }
        let answered = self.held().answered(tag);
        match answered {
            Some(_) => acknowledge(&entry.acker).await,
            None => Ok(()),
        }
    }

    /// Messages that wait for longer than a channel may keep them.
    async fn put_back_overdue(&self) {
        let now = Instant::now();
        let overdue = |(_, e): &(&u64, &Entry)| e.waits && e.visible > now && e.received + HELD_MAX <= now;
        let found = {
            let held = self.held();
            let first = held.entries.iter().find(overdue);
            first.map(|(tag, e)| (*tag, e.visible - now))
        };
        // One per claim: they are few, and a claim is not to wait.
        if let Some((tag, wait)) = found
            && let Err(e) = self.put_back(tag, wait).await
        {
            tracing::warn!(queue = self.queue, "putting a message back: {e}");
        }
    }

    /// Never: into the queue of dead letters, then out of this one. Between the two a crash leaves it in both.
    pub(super) async fn dead_letter(&self, tag: u64, cause: &str) -> Result<(), RabbitError> {
        let Some(entry) = self.held().entries.get(&tag).cloned() else {
            return Ok(());
        };
        let letter = Letter {
            attempt: entry.attempt,
            cause: Some(cause.to_owned()),
            died_ms: message::unix_ms(),
            not_before_ms: 0,
            ..entry.letter
        };
        self.publisher
            .publish_one(To::Queue(self.dead_queue.clone()), letter)
            .await?;
        let answered = self.held().answered(tag);
        self.changed.notify_one();
        match answered {
            Some(entry) => acknowledge(&entry.acker).await,
            None => Ok(()),
        }
    }
}

/// Tags are never used twice in a process, so that one of a channel that has ended names nothing.
fn next_tag() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// On a channel that has ended this does nothing: the broker delivers the message again.
async fn acknowledge(acker: &Acker) -> Result<(), RabbitError> {
    match timeout(CALL_DEADLINE, acker.ack(BasicAckOptions::default())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => {
            tracing::debug!("an acknowledgement was lost, the message comes again: {e}");
            Ok(())
        }
        Err(_) => Err(RabbitError::deadline("acknowledging", CALL_DEADLINE)),
    }
}
