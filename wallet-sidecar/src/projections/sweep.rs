//! The sweep: brings to the read model what the broker lost. The broker is transport and may be flushed; the event store is the truth.
//!
//! It reads the events after its own mark, so a read model that was dropped is rebuilt by it, and one that is complete costs one query.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    health::Part,
    meters::{Meters, add},
    ports::{
        event_store::{EventStore, READ_ROWS_MAX, StoreError},
        read_model::{Applied, Change, ReadModel},
    },
    relay::blocking,
    writer::Board,
};

/// Time between sweeps: how long a lost message can be missing.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Time until the next sweep after one that failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The sweep's parts.
pub struct Sweep {
    /// The truth.
    pub store: Arc<dyn EventStore>,
    /// The wallets as committed.
    pub board: Arc<Board>,
    /// What is made complete.
    pub read_model: Arc<dyn ReadModel>,
    /// Highest position that the read model reflects.
    pub position: watch::Sender<u64>,
    /// Where trouble is shown.
    pub health: Arc<Part>,
    /// Counters.
    pub meters: Arc<Meters>,
}

impl Sweep {
    /// Sweeps at once and then from time to time until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.all().await {
                Ok(()) => {
                    self.health.well();
                    SWEEP_EVERY
                }
                Err(cause) => {
                    tracing::warn!(%cause, "the wallet read model was not swept; it will be tried again");
                    self.health.failing(cause);
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Reads on from the mark to the last event.
    pub async fn all(&self) -> Result<(), String> {
        loop {
            let (store, board, read_model) = (
                Arc::clone(&self.store),
                Arc::clone(&self.board),
                Arc::clone(&self.read_model),
            );
            let swept = blocking(move || step(store.as_ref(), &board, read_model.as_ref())).await?;
            add(&self.meters.documents_swept, swept.unwrap_or(0));
            let read_model = Arc::clone(&self.read_model);
            self.position
                .send_replace(blocking(move || read_model.position()).await?);
            if swept.is_none() {
                return Ok(());
            }
        }
    }
}

/// One batch: how many documents were missing; `None` when there was nothing left.
fn step(
    store: &dyn EventStore,
    board: &Board,
    read_model: &dyn ReadModel,
) -> Result<Option<usize>, StoreError> {
    // Only what the board shows already: a commit may be stored a moment before it is shown.
    let head = board.head();
    let mut events = store.events_after(read_model.swept()?, READ_ROWS_MAX)?;
    events.retain(|e| e.position <= head);
    let Some(last) = events.last().map(|e| e.position) else {
        return Ok(None);
    };
    let transactions = events
        .iter()
        .filter_map(|e| e.transaction().map(Change::Transaction));
    let touched: BTreeSet<_> = events.iter().map(|e| e.wallet).collect();
    // The state now: it is later than the batch, and documents move only forward.
    let wallets = touched
        .into_iter()
        .filter_map(|id| board.wallet(id))
        .map(|view| Change::Wallet(view.as_ref().clone()));
    let changes: Vec<Change> = transactions.chain(wallets).collect();
    let applied = read_model.apply(&changes)?;
    let found = applied.iter().filter(|a| **a == Applied::Stored).count();
    let other = applied.iter().filter(|a| **a == Applied::OtherContent).count();
    if other > 0 {
        tracing::error!(
            documents = other,
            last,
            "the read model differs from the event store: drop it and start anew"
        );
    }
    tracing::debug!(events = events.len(), found, last, "swept the wallet read model");
    read_model.set_swept(last)?;
    Ok(Some(found))
}
