//! Publishing: one task owns the connection and its channel, sends what waits in one go and answers when the broker has confirmed it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    error::RabbitError,
    link::{Link, call},
    message::Letter,
    topology::{Home, short},
};

/// Messages sent before their confirms are awaited.
const BATCH_MAX: usize = 256;
/// Bytes of bodies sent before their confirms are awaited, but for the last message.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Publishes that may wait for their turn; beyond it callers wait, within their deadline.
const WAITING_MAX: usize = 256;
/// From the call until its answer, whatever the broker does.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);
/// First pause between attempts to connect, doubled up to the longest.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between attempts to connect.
pub(super) const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    /// To every queue of its topic.
    Topic,
    /// To the queue of that full name.
    Queue(String),
}

/// A queue that was deleted is made again after this time, not at once: RabbitMQ first has to tell its consumers, or it hands them
/// messages of the new queue which never reach them (seen with 3.10).
const RESTORE_AFTER: Duration = Duration::from_secs(3);

type Outcome = Result<(), RabbitError>;

struct Request {
    parcels: Vec<(To, Letter)>,
    deadline: Instant,
    reply: oneshot::Sender<Vec<Outcome>>,
}

/// The way to the task; it ends when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
}

impl Publisher {
    pub(super) fn start(home: Arc<Home>) -> Self {
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let task = Task {
            home,
            line: None,
            unroutable_since: None,
        };
        tokio::spawn(task.run(waiting));
        Self { requests }
    }

    /// Sends messages in order; one outcome for each. Those that have none in time are [`RabbitError::Unavailable`] and may or may not
    /// be in their queues.
    pub(super) async fn publish(&self, parcels: Vec<(To, Letter)>) -> Vec<Outcome> {
        let count = parcels.len();
        let deadline = Instant::now() + PUBLISH_DEADLINE;
        let (reply, answer) = oneshot::channel();
        let request = Request {
            parcels,
            deadline,
            reply,
        };
        let asking = async {
            self.requests.send(request).await.ok()?;
            answer.await.ok()
        };
        let late = || vec![Err(RabbitError::deadline("publishing", PUBLISH_DEADLINE)); count];
        match timeout_at(deadline, asking).await {
            Ok(Some(outcomes)) => outcomes,
            Ok(None) => vec![Err(RabbitError::Unavailable("the publisher has ended".to_owned())); count],
            Err(_) => late(),
        }
    }

    /// Sends one message.
    pub(super) async fn publish_one(&self, to: To, letter: Letter) -> Outcome {
        let outcomes = self.publish(vec![(to, letter)]).await;
        outcomes.into_iter().next().unwrap_or(Ok(()))
    }
}

struct Line {
    link: Arc<Link>,
    channel: Option<Channel>,
}

struct Task {
    home: Arc<Home>,
    line: Option<Line>,
    /// Since when messages find no queue.
    unroutable_since: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        while let Some(first) = waiting.recv().await {
            let mut batch = vec![first];
            let weight = |batch: &[Request]| {
                let all = || batch.iter().flat_map(|r| &r.parcels);
                (
                    all().count(),
                    all().map(|(_, letter)| letter.body.len()).sum::<usize>(),
                )
            };
            while let (count, bytes) = weight(&batch)
                && count < BATCH_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(next) = waiting.try_recv()
            {
                batch.push(next);
            }
            // The oldest has the nearest deadline.
            let Some(deadline) = batch.first().map(|r| r.deadline) else {
                continue;
            };
            let parcels: Vec<&(To, Letter)> = batch.iter().flat_map(|r| &r.parcels).collect();
            let mut outcomes = Vec::with_capacity(parcels.len());
            let mut rest = parcels.as_slice();
            while !rest.is_empty() {
                let (part, later) = rest.split_at(part(rest));
                outcomes.extend(self.send(part, deadline).await);
                rest = later;
            }
            let mut outcomes = outcomes.into_iter();
            for request in batch {
                let own = outcomes.by_ref().take(request.parcels.len()).collect();
                // Who stopped waiting asks again.
                let _ = request.reply.send(own);
            }
        }
    }

    /// Sends messages on a line that stands, connecting when needed until the deadline.
    async fn send(&mut self, parcels: &[&(To, Letter)], deadline: Instant) -> Vec<Outcome> {
        let (link, channel) = match self.line(deadline).await {
            Ok(line) => line,
            Err(e) => return vec![Err(e); parcels.len()],
        };
        let sent = tokio::select! {
            sent = timeout_at(deadline, transfer(&self.home, &channel, parcels)) => {
                sent.map_err(|_| RabbitError::deadline("waiting for confirms", PUBLISH_DEADLINE))
            }
            reason = link.becomes_blocked() => Err(reason),
        };
        match sent {
            Ok(outcomes) => {
                if !link.is_alive() || !channel.status().connected() {
                    self.line = None;
                } else {
                    self.restore(&link, &outcomes).await;
                }
                outcomes
            }
            // What the channel still has to say would be taken for answers to later messages: it is left. A connection that is only
            // blocked is kept; one that does not answer is not.
            Err(e) if link.blocked().is_some() => {
                self.line = Some(Line { link, channel: None });
                vec![Err(e); parcels.len()]
            }
            Err(e) => {
                link.cut();
                self.line = None;
                vec![Err(e); parcels.len()]
            }
        }
    }

    /// Makes again what this process has bound, when somebody deleted it.
    async fn restore(&mut self, link: &Link, outcomes: &[Outcome]) {
        let unroutable = |outcome: &Outcome| matches!(outcome, Err(RabbitError::Unroutable(_)));
        if !outcomes.iter().any(unroutable) {
            self.unroutable_since = None;
            return;
        }
        let since = *self.unroutable_since.get_or_insert_with(Instant::now);
        if since + RESTORE_AFTER > Instant::now() {
            return;
        }
        self.unroutable_since = None;
        if let Err(e) = self.home.restore(link).await {
            tracing::warn!("binding queues again: {e}");
            self.line = None;
        }
    }

    /// A line that takes messages now.
    async fn line(&mut self, deadline: Instant) -> Result<(Arc<Link>, Channel), RabbitError> {
        let mut pause = PAUSE_FIRST;
        let mut cause = None;
        loop {
            if self.line.as_ref().is_some_and(|line| !line.link.is_alive()) {
                self.line = None;
            }
            if let Some(reason) = self.line.as_ref().and_then(|line| line.link.blocked()) {
                return Err(reason);
            }
            match timeout_at(deadline, self.open()).await {
                Ok(Ok(line)) => return Ok(line),
                Ok(Err(e)) if !e.is_unavailable() => return Err(e),
                Ok(Err(e)) => cause = Some(e),
                Err(_) => {}
            }
            self.line = None;
            if Instant::now() + pause >= deadline {
                return Err(cause.unwrap_or_else(|| RabbitError::deadline("connecting", PUBLISH_DEADLINE)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    async fn open(&mut self) -> Result<(Arc<Link>, Channel), RabbitError> {
        if let Some(Line {
            link,
            channel: Some(channel),
        }) = &self.line
            && channel.status().connected()
        {
            return Ok((Arc::clone(link), channel.clone()));
        }
        let link = match self.line.take() {
            Some(line) => line.link,
            None => {
                let link = Link::open(&self.home.uri, &format!("{} publisher", self.home.name)).await?;
                self.home.restore(&link).await?;
                link
            }
        };
        let channel = link.channel().await?;
        call(
            "asking for confirms",
            channel.confirm_select(ConfirmSelectOptions::default()),
        )
        .await?;
        self.line = Some(Line {
            link: Arc::clone(&link),
            channel: Some(channel.clone()),
        });
        Ok((link, channel))
    }
}

/// How many of these go at once.
fn part(parcels: &[&(To, Letter)]) -> usize {
    let mut bytes = 0;
    let within = parcels.iter().take(BATCH_MAX).take_while(|(_, letter)| {
        let fits = bytes < BATCH_BYTES_MAX;
        bytes += letter.body.len();
        fits
    });
    within.count()
}

/// Writes all messages, then waits until each is answered; a connection that ends answers for all.
///
/// lapin hands a returned message to whichever confirm comes next, so one that was returned is known by its id, and only once all are
/// answered.
async fn transfer(home: &Home, channel: &Channel, parcels: &[&(To, Letter)]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(parcels.len());
    let mut confirms = FuturesUnordered::new();
    for (to, letter) in parcels {
        let (exchange, key) = way(home, to, letter);
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let sending = channel.basic_publish(
            short(&exchange),
            short(&key),
            options,
            &letter.body,
            letter.properties(),
        );
        match sending.await {
            Ok(confirm) => {
                let at = outcomes.len();
                confirms.push(async move { (at, confirm.await) });
                outcomes.push(Ok(()));
            }
            Err(e) => outcomes.push(Err(lost(&e))),
        }
    }
    let mut returned = HashSet::new();
    while let Some((at, answer)) = confirms.next().await {
        let outcome = match answer {
            Ok(Confirmation::Ack(message)) => {
                returned.extend(message.map(address));
                Ok(())
            }
            Ok(Confirmation::Nack(message)) => {
                returned.extend(message.map(address));
                Err(RabbitError::Unavailable(
                    "it refused the message: a queue is at its limit of bytes, or most of its nodes are away"
                        .to_owned(),
                ))
            }
            Ok(Confirmation::NotRequested) => Err(RabbitError::Unavailable("it does not confirm".to_owned())),
            Err(e) => Err(lost(&e)),
        };
        if let Some(place) = outcomes.get_mut(at) {
            *place = outcome;
        }
    }
    for (place, (to, letter)) in outcomes.iter_mut().zip(parcels) {
        let (exchange, key) = way(home, to, letter);
        if place.is_ok() && returned.contains(&(exchange, key, letter.id.clone())) {
            *place = Err(RabbitError::Unroutable(match to {
                To::Topic => letter.topic.clone(),
                To::Queue(queue) => queue.clone(),
            }));
        }
    }
    outcomes
}

/// Exchange and routing key.
fn way(home: &Home, to: &To, letter: &Letter) -> (String, String) {
    match to {
        To::Topic => (home.exchange(), letter.topic.clone()),
        To::Queue(queue) => (String::new(), queue.clone()),
    }
}

/// Which message was returned: exchange, routing key and id.
fn address(returned: BasicReturnMessage) -> (String, String, String) {
    let delivery = returned.delivery;
    let id = delivery
        .properties
        .message_id()
        .as_ref()
        .map(|id| id.as_str().to_owned());
    (
        delivery.exchange.into(),
        delivery.routing_key.into(),
        id.unwrap_or_default(),
    )
}

fn lost(error: &lapin::Error) -> RabbitError {
    RabbitError::Unavailable(format!(
        "the connection ended before the message was confirmed: {error}"
    ))
}
