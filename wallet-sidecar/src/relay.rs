//! The relay: takes committed messages from the outbox to the broker, in commit order, at least once.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    health::Part,
    meters::{Meters, add},
    ports::{
        broker::EventsOut,
        event_store::{EventStore, StoreError},
    },
    writer::Board,
};

/// Messages sent in one go.
pub const RELAY_MESSAGES_MAX: usize = 256;
/// The outbox is looked at this often even when nothing was committed here (another instance may have).
const POLL: Duration = Duration::from_secs(1);
/// First wait after a failure; doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest wait after a failure.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// The relay's parts.
pub struct Relay {
    /// Where the outbox is.
    pub store: Arc<dyn EventStore>,
    /// Where it goes.
    pub broker: Arc<dyn EventsOut>,
    /// Tells of commits.
    pub board: Arc<Board>,
    /// Where trouble is shown.
    pub health: Arc<Part>,
    /// Counters.
    pub meters: Arc<Meters>,
}

impl Relay {
    /// Works until it is stopped; what is left then is sent by the next start.
    pub async fn run(self, stop: CancellationToken) {
        let mut commits = self.board.commits();
        let mut wait = RETRY_FIRST;
        while !stop.is_cancelled() {
            commits.mark_unchanged();
            let pause = match self.step().await {
                Ok(0) => {
                    self.health.well();
                    wait = RETRY_FIRST;
                    POLL
                }
                Ok(_) => {
                    self.health.well();
                    wait = RETRY_FIRST;
                    continue;
                }
                Err(cause) => {
                    tracing::warn!(%cause, "the wallet outbox was not relayed; it will be tried again");
                    self.health.failing(cause);
                    let now = wait;
                    wait = (wait * 2).min(RETRY_LONGEST);
                    tokio::select! {
                        () = tokio::time::sleep(now) => continue,
                        () = stop.cancelled() => break,
                    }
                }
            };
            tokio::select! {
                // The sender lives as long as the board.
                _ = commits.changed() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Sends the oldest messages; returns how many went out.
    pub async fn step(&self) -> Result<usize, String> {
        let store = Arc::clone(&self.store);
        let items = blocking(move || store.outbox(RELAY_MESSAGES_MAX)).await?;
        if items.is_empty() {
            return Ok(0);
        }
        let sequences: Vec<u64> = items.iter().map(|i| i.sequence).collect();
        let messages: Vec<_> = items.into_iter().map(|i| i.message).collect();
        let sent = self.broker.publish(&messages).await.map_err(|e| e.to_string())?;
        let Some(last) = sent.checked_sub(1).and_then(|n| sequences.get(n)).copied() else {
            return Err("the broker took no message".to_owned());
        };
        let store = Arc::clone(&self.store);
        blocking(move || store.relayed(last)).await?;
        add(&self.meters.messages_relayed, sent);
        Ok(sent)
    }
}

/// Runs a call that blocks off the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome.map_err(|e| e.to_string()),
        Err(e) => Err(format!("the call did not end: {e}")),
    }
}
