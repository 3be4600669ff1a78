//! The projector: takes messages from the broker into the read model and acknowledges them after the commit.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_contracts::event::{TRANSACTION_CREATED_TOPIC, WALLET_UPDATED_TOPIC};

use super::change;
use crate::{
    health::Part,
    meters::{Meters, add},
    ports::{
        broker::{BrokerError, Delivery, EventsIn},
        read_model::{Applied, ReadModel},
    },
    relay::blocking,
};

/// The queue that feeds the read model.
pub const PROJECTION_QUEUE: &str = "wallet.read-model";
/// Messages in one commit.
pub const PROJECTION_MESSAGES_MAX: usize = 200;
/// Wait before a message is tried again after the store failed: the message is innocent, so it is tried for ever.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The projector's parts.
pub struct Projector {
    /// Where messages come from.
    pub broker: Arc<dyn EventsIn>,
    /// Where documents go.
    pub read_model: Arc<dyn ReadModel>,
    /// Highest position that the read model reflects.
    pub position: watch::Sender<u64>,
    /// Where trouble is shown.
    pub health: Arc<Part>,
    /// Counters.
    pub meters: Arc<Meters>,
}

impl Projector {
    /// Binds the queue: before anything is published, or it would be lost to the read model.
    pub async fn bind(&self) -> Result<(), BrokerError> {
        self.broker
            .bind(
                PROJECTION_QUEUE,
                &[WALLET_UPDATED_TOPIC, TRANSACTION_CREATED_TOPIC],
            )
            .await
    }

    /// Works until it is stopped; messages claimed and not acknowledged come again.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let step = tokio::select! {
                step = self.step() => step,
                () = stop.cancelled() => break,
            };
            match step {
                Ok(_) => self.health.well(),
                Err(cause) => {
                    tracing::warn!(%cause, "the wallet read model was not brought forward; it will be tried again");
                    self.health.failing(cause);
                    tokio::select! {
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Takes one claim's messages; returns how many.
    pub async fn step(&self) -> Result<usize, String> {
        let deliveries = self
            .broker
            .claim(PROJECTION_QUEUE, PROJECTION_MESSAGES_MAX)
            .await
            .map_err(|e| e.to_string())?;
        if deliveries.is_empty() {
            self.refresh_position().await?;
            return Ok(0);
        }
        let count = deliveries.len();
        if let Err(cause) = self.take(&deliveries).await {
            for delivery in &deliveries {
                // When this fails too, the claim runs out and the message comes again.
                let _ = self
                    .broker
                    .retry(PROJECTION_QUEUE, delivery.tag, RETRY_AFTER, &cause)
                    .await;
            }
            return Err(cause);
        }
        self.refresh_position().await?;
        Ok(count)
    }

    async fn take(&self, deliveries: &[Delivery]) -> Result<(), String> {
        let (mut tags, mut changes, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for delivery in deliveries {
            match change::read(&delivery.body) {
                Ok(change) => {
                    tags.push(delivery.tag);
                    changes.push(change);
                }
                Err(poison) => dead.push((delivery.tag, poison.to_string())),
            }
        }
        let read_model = Arc::clone(&self.read_model);
        let applied = blocking(move || read_model.apply(&changes)).await?;
        let mut done = Vec::new();
        for (tag, applied) in tags.into_iter().zip(applied) {
            match applied {
                Applied::Stored | Applied::Known => done.push(tag),
                Applied::OtherContent => {
                    dead.push((tag, "the same id is stored with other content".to_owned()))
                }
            }
        }
        add(&self.meters.messages_dead_lettered, dead.len());
        add(&self.meters.messages_projected, done.len());
        for (tag, cause) in dead {
            tracing::error!(tag, %cause, queue = PROJECTION_QUEUE, "a message goes to the dead letters");
            self.broker
                .dead_letter(PROJECTION_QUEUE, tag, &cause)
                .await
                .map_err(|e| e.to_string())?;
        }
        self.broker
            .ack(PROJECTION_QUEUE, &done)
            .await
            .map_err(|e| e.to_string())
    }

    async fn refresh_position(&self) -> Result<(), String> {
        let read_model = Arc::clone(&self.read_model);
        let position = blocking(move || read_model.position()).await?;
        self.position.send_replace(position);
        Ok(())
    }
}
