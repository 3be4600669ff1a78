//! A broker in memory, for tests and for a single process that may lose it: queues, topics, redelivery, dead letters.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::Notify, time::Instant};

use crate::ports::{
    broker::{BrokerError, Delivery, EventsIn, EventsOut},
    event_store::OutMessage,
};

/// Longest wait of a claim for a first message.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

struct Waiting {
    tag: u64,
    attempt: u32,
    not_before: Instant,
    body: Vec<u8>,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Waiting>,
    claimed: BTreeMap<u64, Waiting>,
    dead: Vec<(Vec<u8>, String)>,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, QueueState>,
    routes: BTreeMap<String, Vec<String>>,
    next_tag: u64,
    away: bool,
}

/// The broker; clones share it.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl MemoryBroker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every call fail (`true`) or work again.
    pub fn set_away(&self, away: bool) {
        self.state().away = away;
        self.changed.notify_waiters();
    }

    /// Bodies and causes of a queue's dead letters, oldest first.
    #[must_use]
    pub fn dead_letters(&self, queue: &str) -> Vec<(Vec<u8>, String)> {
        self.state()
            .queues
            .get(queue)
            .map(|q| q.dead.clone())
            .unwrap_or_default()
    }

    /// Messages not yet acknowledged.
    #[must_use]
    pub fn depth(&self, queue: &str) -> usize {
        self.state()
            .queues
            .get(queue)
            .map_or(0, |q| q.waiting.len() + q.claimed.len())
    }

    /// Puts every claimed message back, as when its consumer died.
    pub fn redeliver(&self, queue: &str) {
        if let Some(q) = self.state().queues.get_mut(queue) {
            let claimed = std::mem::take(&mut q.claimed);
            for waiting in claimed.into_values().rev() {
                q.waiting.push_front(waiting);
            }
        }
        self.changed.notify_waiters();
    }

    fn present(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.state();
        if state.away {
            Err(BrokerError("away".to_owned()))
        } else {
            Ok(state)
        }
    }

    fn publish_one(&self, message: &OutMessage) -> Result<(), BrokerError> {
        let mut guard = self.present()?;
        let state = &mut *guard;
        let queues = state
            .routes
            .get(&message.topic)
            .ok_or_else(|| BrokerError(format!("no queue is bound to {}", message.topic)))?;
        for name in queues {
            state.next_tag += 1;
            state
                .queues
                .entry(name.clone())
                .or_default()
                .waiting
                .push_back(Waiting {
                    tag: state.next_tag,
                    attempt: 1,
                    not_before: Instant::now(),
                    body: message.body.clone(),
                });
        }
        Ok(())
    }

    /// When the next message that waits for its time may be taken.
    fn next_visible(&self, queue: &str) -> Instant {
        let waits = |q: &QueueState| q.waiting.iter().map(|w| w.not_before).min();
        let next = self.state().queues.get(queue).and_then(waits);
        next.unwrap_or_else(|| Instant::now() + CLAIM_WAIT)
    }

    fn take(&self, queue: &str, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.present()?;
        let Some(q) = state.queues.get_mut(queue) else {
            return Ok(Vec::new());
        };
        let now = Instant::now();
        let mut taken = Vec::new();
        let mut later = VecDeque::new();
        while let Some(waiting) = q.waiting.pop_front() {
            if taken.len() < max && waiting.not_before <= now {
                taken.push(Delivery {
                    tag: waiting.tag,
                    attempt: waiting.attempt,
                    body: waiting.body.clone(),
                });
                q.claimed.insert(waiting.tag, waiting);
            } else {
                later.push_back(waiting);
            }
        }
        q.waiting = later;
        Ok(taken)
    }
}

impl EventsOut for MemoryBroker {
    fn publish<'a>(&'a self, messages: &'a [OutMessage]) -> BoxFuture<'a, Result<usize, BrokerError>> {
        Box::pin(async move {
            for (done, message) in messages.iter().enumerate() {
                match self.publish_one(message) {
                    Ok(()) => {}
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => return Ok(done),
                }
            }
            self.changed.notify_waiters();
            Ok(messages.len())
        })
    }
}

impl EventsIn for MemoryBroker {
    fn bind<'a>(&'a self, queue: &'a str, topics: &'a [&'a str]) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let mut state = self.present()?;
            state.queues.entry(queue.to_owned()).or_default();
            for topic in topics {
                let bound = state.routes.entry((*topic).to_owned()).or_default();
                if !bound.iter().any(|q| q == queue) {
                    bound.push(queue.to_owned());
                }
            }
            Ok(())
        })
    }

    fn claim<'a>(&'a self, queue: &'a str, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>, BrokerError>> {
        Box::pin(async move {
            let until = Instant::now() + CLAIM_WAIT;
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let taken = self.take(queue, max)?;
                if !taken.is_empty() || Instant::now() >= until {
                    return Ok(taken);
                }
                // Either outcome means: look again.
                let _ = tokio::time::timeout_at(self.next_visible(queue).min(until), changed).await;
            }
        })
    }

    fn ack<'a>(&'a self, queue: &'a str, tags: &'a [u64]) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            if let Some(q) = self.present()?.queues.get_mut(queue) {
                q.claimed.retain(|tag, _| !tags.contains(tag));
            }
            Ok(())
        })
    }

    fn retry<'a>(
        &'a self,
        queue: &'a str,
        tag: u64,
        after: Duration,
        _cause: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            if let Some(q) = self.present()?.queues.get_mut(queue)
                && let Some(mut waiting) = q.claimed.remove(&tag)
            {
                waiting.attempt += 1;
                waiting.not_before = Instant::now() + after;
                q.waiting.push_back(waiting);
            }
            Ok(())
        })
    }

    fn dead_letter<'a>(
        &'a self,
        queue: &'a str,
        tag: u64,
        cause: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            if let Some(q) = self.present()?.queues.get_mut(queue)
                && let Some(waiting) = q.claimed.remove(&tag)
            {
                q.dead.push((waiting.body, cause.to_owned()));
            }
            Ok(())
        })
    }
}
