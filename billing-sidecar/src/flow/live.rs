//! Live numbers: a sample of every account's totals each second, and the rates between samples.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_contracts::ids::AccountId;

use crate::ports::{
    billing_store::{AccountTotals, BillingStore},
    outbox_source::OutboxSource,
};

/// Between samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples kept: the rates cover this many seconds at most.
const SAMPLES_MAX: usize = 60;
/// Samples that the current rate is taken over.
const RATE_OVER: usize = 5;

/// One account's rates per second, over the last few samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs, reason = "each field is a rate per second named by its unit")]
pub struct Rates {
    pub requests: f64,
    pub rows: f64,
    pub bytes: f64,
}

type Sample = (Instant, BTreeMap<AccountId, AccountTotals>);

/// What was sampled.
#[derive(Debug, Default)]
pub struct Live {
    samples: Mutex<VecDeque<Sample>>,
    lag: Mutex<Lag>,
}

/// How far the relay is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Streams that are not confirmed to their end.
    pub streams: u64,
    /// Entries not confirmed, counted within the newest epoch of each stream.
    pub entries: u64,
}

impl Live {
    fn put(&self, sample: Sample) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The rates of every account now.
    #[must_use]
    pub fn rates(&self) -> BTreeMap<AccountId, Rates> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = samples.back();
        let before = samples.iter().rev().nth(RATE_OVER).or_else(|| samples.front());
        let (Some((now, newest)), Some((then, before))) = (newest, before) else {
            return BTreeMap::new();
        };
        let seconds = now.duration_since(*then).as_secs_f64();
        let rate = |new: u64, old: u64| {
            if seconds > 0.0 {
                to_f64(new.saturating_sub(old)) / seconds
            } else {
                0.0
            }
        };
        let rates = newest.iter().map(|(account, new)| {
            let old = before.get(account).copied().unwrap_or_default().totals;
            let new = new.totals;
            let rates = Rates {
                requests: rate(new.requests, old.requests),
                rows: rate(new.rows, old.rows),
                bytes: rate(new.bytes_out, old.bytes_out),
            };
            (account.clone(), rates)
        });
        rates.collect()
    }

    /// How far the relay is behind.
    #[must_use]
    pub fn lag(&self) -> Lag {
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rate for people; counts above 2^53 lose their last digits.
#[allow(clippy::cast_precision_loss, reason = "for display only")]
fn to_f64(n: u64) -> f64 {
    n as f64
}

/// Samples until told to stop.
pub async fn run(
    live: Arc<Live>,
    store: Arc<dyn BillingStore>,
    outboxes: Vec<Arc<dyn OutboxSource>>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Ok(totals) = store.totals().await {
            live.put((Instant::now(), totals));
        }
        let mut sum = Lag::default();
        for outbox in &outboxes {
            if let Ok(lag) = lag(&**outbox).await {
                sum.streams += lag.streams;
                sum.entries += lag.entries;
            }
        }
        *live.lag.lock().unwrap_or_else(PoisonError::into_inner) = sum;
    }
}

async fn lag(outbox: &dyn OutboxSource) -> Result<Lag, crate::ports::PortError> {
    let mut sum = Lag::default();
    for stream in outbox.streams().await? {
        let (last, confirmed) = (outbox.last(&stream).await?, outbox.confirmed(&stream).await?);
        let Some(last) = last.filter(|last| Some(*last) != confirmed) else {
            continue;
        };
        let from = confirmed
            .filter(|c| c.epoch == last.epoch)
            .map_or(0, |c| c.sequence);
        sum.streams += 1;
        sum.entries += last.sequence.saturating_sub(from);
    }
    Ok(sum)
}
