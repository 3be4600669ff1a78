//! The rating consumer: takes usage batches from the broker and answers for each, after the store has it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use weir_contracts::{
    event::{CloudEvent, USAGE_TOPIC, UsageBatch},
    ids::ProxyId,
};

use super::{
    hub::Hub,
    meters::{Meters, count},
};
use crate::{
    domain::{rating::Batch, settle::backoff},
    ports::{
        PortError,
        billing_store::{BillingStore, RateOutcome},
        broker::{Broker, Message},
    },
};

/// The queue that rating works off.
pub const RATING_QUEUE: &str = "billing.rating";
/// Messages claimed at a time: each holds at most 500 entries.
const CLAIM_MAX: usize = 16;
/// A batch that cannot be rated yet comes again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A blocked batch (unknown tariff or account) comes again after this long: it waits for a person.
const BLOCKED_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Rates what the broker brings.
pub struct Rater {
    /// From where.
    pub broker: Arc<dyn Broker>,
    /// To where.
    pub store: Arc<dyn BillingStore>,
    /// Who is woken.
    pub hub: Arc<Hub>,
    /// Counts.
    pub meters: Arc<Meters>,
    /// Wakes the settler.
    pub charged: Arc<tokio::sync::Notify>,
    /// The wall clock, for stamps.
    pub now: fn() -> String,
}

/// What is answered to the broker.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Ack,
    Again(Duration, String),
    Dead(String),
}

impl Rater {
    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let pass = tokio::select! {
                () = stop.cancelled() => return,
                pass = self.pass() => pass,
            };
            match pass {
                Ok(_) => failures = 0,
                Err(e) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(failures, "rating: {e}");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(backoff(failures)) => {}
                    }
                }
            }
        }
    }

    /// Claims and answers for some messages; says how many. A message that was rated and not acknowledged comes again
    /// and is a duplicate then.
    ///
    /// # Errors
    /// The broker or the store failed. What was claimed is given back by then.
    pub async fn pass(&self) -> Result<usize, PortError> {
        let messages = self.broker.claim(RATING_QUEUE, CLAIM_MAX).await?;
        let mut work: Vec<(u64, Result<Arc<Batch>, String>)> =
            messages.iter().map(|m| (m.tag, batch_of(m))).collect();
        // By place and not as they came: after a failure the broker may bring a proxy's batches in another order, and those behind a gap
        // must not hold up the one that fills it.
        work.sort_by_key(|(tag, batch)| (batch.as_ref().ok().and_then(|batch| place_of(batch)), *tag));
        let claimed = work.len();
        let mut done = Vec::with_capacity(claimed);
        let mut waiting: BTreeMap<ProxyId, (Duration, String)> = BTreeMap::new();
        let mut failed: Option<PortError> = None;
        for (tag, batch) in work {
            // A store that fails is asked once, and gives its messages back at once: a claim that is kept would stand for its whole time.
            let reply = match (batch, &failed) {
                (Err(cause), _) => Reply::Dead(cause),
                (Ok(_), Some(e)) => Reply::Again(AGAIN_AFTER, e.to_string()),
                (Ok(batch), None) => self.batch(batch, &mut waiting).await.unwrap_or_else(|e| {
                    let cause = e.to_string();
                    failed = Some(e);
                    Reply::Again(AGAIN_AFTER, cause)
                }),
            };
            match reply {
                Reply::Ack => done.push(tag),
                Reply::Again(after, cause) => {
                    self.broker.retry(RATING_QUEUE, tag, after, &cause).await?;
                }
                Reply::Dead(cause) => {
                    count(&self.meters.batches_rejected);
                    tracing::error!("rating: a usage batch is rejected: {cause}");
                    self.broker.dead_letter(RATING_QUEUE, tag, &cause).await?;
                }
            }
        }
        if !done.is_empty() {
            self.broker.ack(RATING_QUEUE, &done).await?;
        }
        failed.map_or(Ok(claimed), Err)
    }

    async fn batch(
        &self,
        batch: Arc<Batch>,
        waiting: &mut BTreeMap<ProxyId, (Duration, String)>,
    ) -> Result<Reply, PortError> {
        let proxy = batch.proxy;
        if let Some((after, cause)) = waiting.get(&proxy) {
            return Ok(Reply::Again(*after, cause.clone()));
        }
        let outcome = self.store.rate(batch, &(self.now)()).await?;
        let reply = self.answer(proxy, outcome);
        if let Reply::Again(after, cause) = &reply {
            waiting.insert(proxy, (*after, cause.clone()));
        }
        Ok(reply)
    }

    fn answer(&self, proxy: ProxyId, outcome: RateOutcome) -> Reply {
        let stream = format!("rating of proxy {proxy}");
        match outcome {
            RateOutcome::Rated {
                entries, mistakes, ..
            } => {
                let add = |counter: &std::sync::atomic::AtomicU64, n: usize| {
                    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
                };
                add(&self.meters.entries_rated, entries);
                add(&self.meters.mistakes, mistakes);
                if mistakes > 0 {
                    tracing::error!(%proxy, mistakes, "rating: usage does not add up, see reconcile");
                }
                self.meters.unblock(&stream);
                self.charged.notify_one();
                self.hub.bump();
                Reply::Ack
            }
            RateOutcome::Duplicate => {
                count(&self.meters.batches_duplicate);
                Reply::Ack
            }
            RateOutcome::Gap { mark, first } => {
                count(&self.meters.batches_gap);
                let mark =
                    mark.map_or_else(|| "nothing".to_owned(), |m| format!("{}-{}", m.epoch, m.sequence));
                let cause = format!(
                    "a batch begins at {}-{}, rated is {mark}: what is between is missing",
                    first.epoch, first.sequence
                );
                self.meters.block(&stream, &cause);
                Reply::Again(AGAIN_AFTER, cause)
            }
            RateOutcome::Blocked(cause) => {
                count(&self.meters.batches_blocked);
                let cause = cause.to_string();
                self.meters.block(&stream, &cause);
                Reply::Again(BLOCKED_AGAIN_AFTER, cause)
            }
            RateOutcome::OtherContent(id) => {
                Reply::Dead(format!("entry {id} was rated before with other content"))
            }
        }
    }
}

/// The batch in a message, or why it can never be rated.
fn batch_of(message: &Message) -> Result<Arc<Batch>, String> {
    let event: CloudEvent<UsageBatch> =
        serde_json::from_slice(&message.body).map_err(|e| format!("not a usage batch: {e}"))?;
    if event.r#type != USAGE_TOPIC {
        return Err(format!("not a usage batch but `{}`", event.r#type));
    }
    Batch::try_from(event.data)
        .map(Arc::new)
        .map_err(|e| e.to_string())
}

/// Where in its proxy's stream a batch begins.
fn place_of(batch: &Batch) -> Option<(ProxyId, u64, u64)> {
    let (first, _) = batch.entries.first()?;
    Some((batch.proxy, batch.epoch, first.id.sequence))
}
