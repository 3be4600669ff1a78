//! What every outbox owes the relay, whatever happens to the connection.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use weir_billing::{
    adapters::EmbeddedOutbox,
    ports::{PortError, outbox_source::OutboxSource},
};
use weir_contracts::event::Place;
use weir_embedded::{Log, Position};

/// Entries as they are appended and read.
pub(crate) type Entries = Vec<(Place, Vec<u8>)>;
/// All of it, reconnects included.
const LIMIT: Duration = Duration::from_secs(60);
/// By then a wake-up is due.
const WOKEN: Duration = Duration::from_secs(3);

/// A call whose connection is lost, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    /// Nothing of the request arrived.
    Before,
    /// A part of it arrived.
    During,
    /// It was carried out; the answer is lost.
    After,
}

/// An outbox, and what the relay does not see of it.
#[async_trait]
pub(crate) trait Side: Sync {
    /// A handle as a relay that just started has it.
    async fn source(&self) -> Arc<dyn OutboxSource>;
    /// What a proxy does: appends where the stream ends.
    async fn append(&self, stream: &str, entries: Entries);
    /// A confirmation whose connection is lost. Returns when the loss has happened.
    async fn lost_confirm(&self, lost: Lost, stream: &str, up_to: Place);
    /// A read whose connection is lost, before the request or in the answer.
    async fn lost_read(&self, lost: Lost, stream: &str);
}

pub(crate) fn at(epoch: u64, sequence: u64) -> Place {
    Place { epoch, sequence }
}

pub(crate) fn batch(epoch: u64, sequences: std::ops::RangeInclusive<u64>) -> Entries {
    sequences
        .map(|s| (at(epoch, s), format!("{{\"at\":\"{epoch}-{s}\"}}").into_bytes()))
        .collect()
}

const A: &str = "usage:a";
const B: &str = "usage:b";

/// All of it.
pub(crate) async fn whole(side: &dyn Side) {
    let all = async {
        read_in_order(side).await;
        cursor_moves_forward_only(side).await;
        relay_restarted(side).await;
        connection_lost(side).await;
        wakes(side).await;
    };
    tokio::time::timeout(LIMIT, all)
        .await
        .expect("the contract took too long");
}

async fn read_in_order(side: &dyn Side) {
    let source = side.source().await;
    assert_eq!(source.streams().await.unwrap(), Vec::<String>::new());
    assert_eq!(source.last(A).await.unwrap(), None);
    assert_eq!(source.confirmed(A).await.unwrap(), None);
    assert_eq!(source.read_after(A, None, 10).await.unwrap(), Entries::new());
    side.append(B, batch(7, 1..=1)).await;
    side.append(A, batch(1, 1..=3)).await;
    side.append(A, batch(2, 1..=9)).await;
    assert_eq!(source.streams().await.unwrap(), [A, B]);
    assert_eq!(source.last(A).await.unwrap(), Some(at(2, 9)));
    let all = [batch(1, 1..=3), batch(2, 1..=9)].concat();
    assert_eq!(source.read_after(A, None, 100).await.unwrap(), all);
    assert_eq!(source.read_after(A, None, 5).await.unwrap(), all[..5]);
    // Over an epoch's end; after a place between two epochs; at the end and beyond it.
    assert_eq!(source.read_after(A, Some(at(1, 2)), 3).await.unwrap(), all[2..5]);
    assert_eq!(
        source.read_after(A, Some(at(1, 50)), 100).await.unwrap(),
        all[3..]
    );
    assert_eq!(
        source.read_after(A, Some(at(2, 10)), 100).await.unwrap(),
        Entries::new()
    );
    assert_eq!(source.read_after(B, None, 100).await.unwrap(), batch(7, 1..=1));
}

async fn cursor_moves_forward_only(side: &dyn Side) {
    let source = side.source().await;
    let beyond = source.confirm(A, at(2, 10)).await;
    assert!(matches!(beyond, Err(PortError::Unavailable(..))), "{beyond:?}");
    let nowhere = source.confirm("usage:nobody", at(1, 1)).await;
    assert!(matches!(nowhere, Err(PortError::Unavailable(..))), "{nowhere:?}");
    assert_eq!(source.confirmed(A).await.unwrap(), None);
    for (up_to, then) in [(at(1, 2), at(1, 2)), (at(2, 3), at(2, 3)), (at(1, 3), at(2, 3))] {
        source.confirm(A, up_to).await.unwrap();
        assert_eq!(source.confirmed(A).await.unwrap(), Some(then));
    }
    assert_eq!(
        source.read_after(A, Some(at(2, 3)), 100).await.unwrap(),
        batch(2, 4..=9)
    );
    // What is confirmed may be gone, and nothing else.
    let left = source.read_after(A, None, 100).await.unwrap();
    assert!(left.ends_with(&batch(2, 4..=9)) && left.len() <= 7, "{left:?}");
    assert_eq!(source.last(A).await.unwrap(), Some(at(2, 9)));
    assert_eq!(
        source.confirmed(B).await.unwrap(),
        None,
        "another stream is as it was"
    );
    source.confirm(B, at(7, 1)).await.unwrap();
    assert_eq!(
        source.last(B).await.unwrap(),
        Some(at(7, 1)),
        "it ends where it ended"
    );
    assert_eq!(source.streams().await.unwrap(), [A, B]);
}

async fn relay_restarted(side: &dyn Side) {
    let old = side.source().await;
    old.confirm(A, at(2, 5)).await.unwrap();
    drop(old);
    let new = side.source().await;
    assert_eq!(new.confirmed(A).await.unwrap(), Some(at(2, 5)));
    assert_eq!(
        new.read_after(A, Some(at(2, 5)), 100).await.unwrap(),
        batch(2, 6..=9)
    );
}

/// A lost read takes nothing; after a lost confirmation `confirmed` tells what became of it, and it can be given again.
async fn connection_lost(side: &dyn Side) {
    let source = side.source().await;
    for (lost, up_to, was) in [
        (Lost::Before, at(2, 6), at(2, 5)),
        (Lost::During, at(2, 7), at(2, 6)),
        (Lost::After, at(2, 8), at(2, 7)),
    ] {
        side.lost_read(lost, A).await;
        assert_eq!(
            source.read_after(A, Some(was), 1).await.unwrap().len(),
            1,
            "{lost:?}"
        );
        side.lost_confirm(lost, A, up_to).await;
        let then = source.confirmed(A).await.unwrap();
        match lost {
            Lost::Before | Lost::During => assert_eq!(then, Some(was), "{lost:?}"),
            Lost::After => assert_eq!(then, Some(up_to), "{lost:?}"),
        }
        source.confirm(A, up_to).await.unwrap();
        assert_eq!(source.confirmed(A).await.unwrap(), Some(up_to), "{lost:?}");
    }
    assert_eq!(
        source.read_after(A, Some(at(2, 8)), 100).await.unwrap(),
        batch(2, 9..=9)
    );
}

async fn wakes(side: &dyn Side) {
    let source = side.source().await;
    let woken = async {
        while source.last(A).await.unwrap() != Some(at(3, 1)) {
            source.changed().await;
        }
    };
    let (woken, ()) = tokio::join!(
        tokio::time::timeout(WOKEN, woken),
        side.append(A, batch(3, 1..=1))
    );
    woken.expect("the relay was not woken");
}

/// The embedded outbox; what is lost there is the caller's future.
struct Embedded {
    dir: tempfile::TempDir,
    log: Log,
}

fn inner(place: Place) -> Position {
    Position {
        epoch: place.epoch,
        sequence: place.sequence,
    }
}

#[async_trait]
impl Side for Embedded {
    async fn source(&self) -> Arc<dyn OutboxSource> {
        Arc::new(EmbeddedOutbox::open(&self.dir.path().join("outbox.db")).unwrap())
    }

    async fn append(&self, stream: &str, entries: Entries) {
        // As another process.
        let log = Log::open_alone(&self.dir.path().join("outbox.db")).unwrap();
        let after = log.last(stream).await.unwrap();
        let entries = entries.into_iter().map(|(at, body)| (inner(at), body)).collect();
        let appended = log.append_after(stream, after, entries).await;
        assert_eq!(appended, Ok(weir_embedded::Appended::Done));
    }

    async fn lost_confirm(&self, lost: Lost, stream: &str, up_to: Place) {
        let mut call = Box::pin(self.log.confirm(stream, inner(up_to)));
        if matches!(lost, Lost::After) {
            // Polled once, so the command is given; then the reply is lost.
            std::future::poll_fn(|cx| {
                let _ = call.as_mut().poll(cx);
                std::task::Poll::Ready(())
            })
            .await;
        }
        drop(call);
        // Commands are carried out in turn: after this one the lost one is done.
        self.log.last(stream).await.unwrap();
    }

    async fn lost_read(&self, lost: Lost, stream: &str) {
        let mut call = Box::pin(self.log.read_after(stream, None, 100));
        if !matches!(lost, Lost::Before) {
            std::future::poll_fn(|cx| {
                let _ = call.as_mut().poll(cx);
                std::task::Poll::Ready(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&dir.path().join("outbox.db")).unwrap();
    whole(&Embedded { dir, log }).await;
}
