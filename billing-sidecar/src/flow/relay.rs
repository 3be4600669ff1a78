//! The relay: outbox → broker. It publishes contiguous batches in order and moves the confirmed cursor only behind what
//! the broker has confirmed; so a lost confirm publishes again, and rating drops the duplicate.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_contracts::{
    entry::{Entry, EntryBody},
    event::{CloudEvent, Place, USAGE_BATCH_ENTRIES_MAX, USAGE_TOPIC, UsageBatch},
    ids::ProxyId,
};

use super::meters::{Meters, count};
use crate::{
    domain::settle::backoff,
    ports::{PortError, broker::Broker, outbox_source::OutboxSource},
};

/// Streams that carry usage begin with this; the proxy's id follows.
const STREAM_PREFIX: &str = "usage:";

/// Relays one outbox.
pub struct Relay {
    /// From where.
    pub outbox: Arc<dyn OutboxSource>,
    /// To where.
    pub broker: Arc<dyn Broker>,
    /// Counts.
    pub meters: Arc<Meters>,
}

/// Why a stream stands still.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A port failed; it is tried again.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The outbox holds what is no journal entry, or not the one that its place says: an operator has to look.
    #[error("stream {stream}, place {}-{}: {cause}", place.epoch, place.sequence)]
    Entry {
        /// Whose.
        stream: String,
        /// Where.
        place: Place,
        /// What is wrong.
        cause: String,
    },
}

impl Relay {
    /// Relays until told to stop. A failing stream never stops another one.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0_u32;
        while !stop.is_cancelled() {
            let pause = match self.pass().await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures = 0;
                    None
                }
                Err(e) => {
                    failures = failures.saturating_add(1);
                    count(&self.meters.relay_failures);
                    tracing::warn!(failures, "relay: {e}");
                    Some(backoff(failures))
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = async { match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => self.outbox.changed().await,
                } } => {}
            }
        }
    }

    /// Moves at most one batch of each stream; true when there may be more.
    pub async fn pass(&self) -> Result<bool, RelayError> {
        let mut more = false;
        let mut failed = None;
        for stream in self.outbox.streams().await? {
            match self.stream(&stream).await {
                Ok(moved) => {
                    more |= moved;
                    self.meters.unblock(&format!("outbox {stream}"));
                }
                Err(e) => {
                    self.meters.block(&format!("outbox {stream}"), &e.to_string());
                    failed = Some(e);
                }
            }
        }
        match failed {
            Some(e) if !more => Err(e),
            _ => Ok(more),
        }
    }

    async fn stream(&self, stream: &str) -> Result<bool, RelayError> {
        let Some(Ok(proxy)) = stream.strip_prefix(STREAM_PREFIX).map(str::parse::<ProxyId>) else {
            return Ok(false);
        };
        let after = self.outbox.confirmed(stream).await?;
        let read = self
            .outbox
            .read_after(stream, after, USAGE_BATCH_ENTRIES_MAX)
            .await?;
        let entries = contiguous(stream, proxy, read)?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(false);
        };
        let up_to = Place {
            epoch: last.id.epoch,
            sequence: last.id.sequence,
        };
        let id = format!("{}-{}", first.id, last.id.sequence);
        let source = format!("weir/proxy/{proxy}");
        let batch = UsageBatch { after, entries };
        let time = newest(&batch.entries);
        let event = CloudEvent::new(USAGE_TOPIC, source, id.clone(), time, batch);
        let unreadable = |e: serde_json::Error| RelayError::Entry {
            stream: stream.to_owned(),
            place: up_to,
            cause: e.to_string(),
        };
        let body = serde_json::to_vec(&event).map_err(unreadable)?;
        self.broker.publish(USAGE_TOPIC, &id, body).await?;
        self.outbox.confirm(stream, up_to).await?;
        count(&self.meters.batches_published);
        Ok(true)
    }
}

/// When the newest record of a batch was closed, RFC 3339. Not the clock: publishing again must be the same message.
fn newest(entries: &[Entry]) -> String {
    let ended = entries.iter().filter_map(|entry| match &entry.body {
        EntryBody::Usage(record) => Some(record.ended_unix_nanos),
        EntryBody::LeaseClosed(_) => None,
    });
    let nanos = i128::from(ended.max().unwrap_or(0));
    jiff::Timestamp::from_nanosecond(nanos)
        .unwrap_or_default()
        .to_string()
}

/// The longest beginning that is one epoch without a gap.
fn contiguous(stream: &str, proxy: ProxyId, read: Vec<(Place, Vec<u8>)>) -> Result<Vec<Entry>, RelayError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(read.len());
    for (place, body) in read {
        let wrong = |cause: String| RelayError::Entry {
            stream: stream.to_owned(),
            place,
            cause,
        };
        if entries
            .last()
            .is_some_and(|e| (e.id.epoch, e.id.sequence + 1) != (place.epoch, place.sequence))
        {
            break;
        }
        let entry: Entry = serde_json::from_slice(&body).map_err(|e| wrong(e.to_string()))?;
        if (entry.id.epoch, entry.id.sequence) != (place.epoch, place.sequence) || entry.id.proxy != proxy {
            return Err(wrong(format!("it holds entry {}", entry.id)));
        }
        entries.push(entry);
    }
    Ok(entries)
}
