//! The relay between a real embedded outbox and a broker that loses answers.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use weir_billing::{
    adapters::EmbeddedOutbox,
    flow::{meters::Meters, relay::Relay},
    ports::{
        PortError,
        broker::{Broker, DeadLetter, Message},
    },
};
use weir_contracts::event::{CloudEvent, Place, UsageBatch};
use weir_embedded::{Log, Position};

use crate::world::{Journal, record};

/// Keeps what is published; the first `lost` answers are lost after keeping, the first `away` publishes are not kept.
#[derive(Default)]
struct Keeper {
    kept: Mutex<Vec<(String, Vec<u8>)>>,
    lost: AtomicU32,
    away: AtomicU32,
}

fn take(n: &AtomicU32) -> bool {
    n.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

#[async_trait]
impl Broker for Keeper {
    async fn bind(&self, _: &str, _: &str) -> Result<(), PortError> {
        Ok(())
    }

    async fn publish(&self, _: &str, id: &str, body: Vec<u8>) -> Result<(), PortError> {
        let fault = || PortError::Unavailable("the broker", "scripted".into());
        if take(&self.away) {
            return Err(fault());
        }
        self.kept.lock().unwrap().push((id.to_owned(), body));
        if take(&self.lost) { Err(fault()) } else { Ok(()) }
    }

    async fn claim(&self, _: &str, _: usize) -> Result<Vec<Message>, PortError> {
        Ok(Vec::new())
    }

    async fn ack(&self, _: &str, _: &[u64]) -> Result<(), PortError> {
        Ok(())
    }

    async fn retry(&self, _: &str, _: u64, _: Duration, _: &str) -> Result<(), PortError> {
        Ok(())
    }

    async fn dead_letter(&self, _: &str, _: u64, _: &str) -> Result<(), PortError> {
        Ok(())
    }

    async fn dead_letters(&self, _: &str) -> Result<Vec<DeadLetter>, PortError> {
        Ok(Vec::new())
    }

    async fn replay(&self, _: &str, _: u64) -> Result<(), PortError> {
        Ok(())
    }
}

fn relay(dir: &tempfile::TempDir, broker: &Arc<Keeper>) -> Relay {
    Relay {
        outbox: Arc::new(EmbeddedOutbox::open(&dir.path().join("outbox.db")).unwrap()),
        broker: Arc::clone(broker) as Arc<dyn Broker>,
        meters: Arc::new(Meters::default()),
    }
}

#[tokio::test]
async fn a_lost_confirm_publishes_the_same_message_again_and_nothing_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&dir.path().join("outbox.db")).unwrap();
    let mut journal = Journal::new(1);
    for request in 1..=700 {
        journal.usage(record(None, request, 1));
    }
    journal.epoch = 2;
    journal.usage(record(None, 701, 1));
    journal.ship(&log, 0).await;
    let broker = Arc::new(Keeper::default());
    broker.lost.store(2, Ordering::SeqCst);
    broker.away.store(1, Ordering::SeqCst);
    let relay = relay(&dir, &broker);
    let mut failed = 0;
    loop {
        match relay.pass().await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => failed += 1,
        }
    }
    assert_eq!(failed, 3);
    let kept = broker.kept.lock().unwrap().clone();
    let sizes: Vec<usize> = kept
        .iter()
        .map(|(_, body)| batch_of(body).entries.len())
        .collect();
    assert_eq!(sizes, [500, 500, 500, 200, 1]);
    assert_eq!(kept[0], kept[1], "published again is the same message");
    let befores: Vec<_> = kept
        .iter()
        .skip(2)
        .map(|(_, body)| batch_of(body).after)
        .collect();
    let place = |epoch, sequence| Some(Place { epoch, sequence });
    assert_eq!(befores, [None, place(1, 500), place(1, 700)]);
    let stream = format!("usage:{}", journal.proxy);
    assert_eq!(relay.outbox.confirmed(&stream).await.unwrap(), place(2, 1));
}

fn batch_of(body: &[u8]) -> UsageBatch {
    serde_json::from_slice::<CloudEvent<UsageBatch>>(body)
        .unwrap()
        .data
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_stops_its_stream_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&dir.path().join("outbox.db")).unwrap();
    let bad = format!("usage:{}", Journal::new(1).proxy);
    let at = Position {
        epoch: 1,
        sequence: 1,
    };
    log.append_after(&bad, None, vec![(at, b"{}".to_vec())])
        .await
        .unwrap();
    let mut good = Journal::new(2);
    good.usage(record(None, 1, 1));
    good.ship(&log, 0).await;
    let broker = Arc::new(Keeper::default());
    let relay = relay(&dir, &broker);
    assert!(relay.pass().await.unwrap());
    assert!(relay.pass().await.is_err());
    assert_eq!(broker.kept.lock().unwrap().len(), 1);
    assert_eq!(relay.outbox.confirmed(&bad).await.unwrap(), None);
}
