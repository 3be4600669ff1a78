//! What every outbox owes the shipper, whatever happens to the connection.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use weir_contracts::ids::ProxyId;
use weir_embedded::Log;
use weir_proxy::{
    adapters::embedded_outbox::EmbeddedOutbox,
    journal::Position,
    ports::outbox::{Appended, Outbox, OutboxError},
};

/// Entries as they are appended and read.
pub(crate) type Entries = Vec<(Position, Vec<u8>)>;
/// Nothing here takes longer, a reconnect included.
const SOON: Duration = Duration::from_secs(20);
/// More than a call's deadline: by then a wake-up is due.
const WOKEN: Duration = Duration::from_secs(3);

/// When the connection is lost, as seen from the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    /// Nothing of the request arrived.
    Before,
    /// A part of it arrived.
    During,
    /// All of it arrived and was carried out; the answer is lost.
    After,
    /// As `After`, with a part of the answer.
    InAnswer,
}

/// An outbox of one proxy, and what the shipper does not see of it.
pub(crate) trait Side: Sync {
    /// A handle as a writer that just started has it.
    fn outbox(&self) -> Arc<dyn Outbox>;
    /// What billing reads.
    fn entries(&self) -> BoxFuture<'_, Entries>;
    /// What the relay says.
    fn confirm(&self, up_to: Position) -> BoxFuture<'_, ()>;
    /// An append whose connection is lost. Returns when the loss has happened.
    fn lost_append(&self, lost: Lost, after: Option<Position>, entries: Entries) -> BoxFuture<'_, ()>;
}

pub(crate) fn at(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

pub(crate) fn batch(epoch: u64, sequences: std::ops::RangeInclusive<u64>) -> Entries {
    sequences
        .map(|s| (at(epoch, s), format!("{{\"at\":\"{epoch}-{s}\"}}").into_bytes()))
        .collect()
}

/// All of it.
pub(crate) async fn whole(side: &dyn Side) {
    let all = async {
        appends_only_at_the_end(side).await;
        same_id(side).await;
        broken_order(side).await;
        writer_restarted(side).await;
        connection_lost(side).await;
        cursor(side).await;
        wakes(side).await;
    };
    tokio::time::timeout(SOON * 3, all)
        .await
        .expect("the contract took too long");
}

async fn appends_only_at_the_end(side: &dyn Side) {
    let outbox = side.outbox();
    assert_eq!(outbox.last().await, Ok(None));
    assert_eq!(outbox.confirmed().await, Ok(None));
    let nowhere = outbox.append_after(Some(at(1, 3)), batch(1, 4..=5)).await;
    assert_eq!(nowhere, Ok(Appended::LastIs(None)));
    assert_eq!(side.entries().await, Entries::new());
    assert_eq!(
        outbox.append_after(None, batch(1, 1..=3)).await,
        Ok(Appended::Done)
    );
    let gap = outbox.append_after(Some(at(1, 4)), batch(1, 5..=6)).await;
    assert_eq!(gap, Ok(Appended::LastIs(Some(at(1, 3)))));
    // A new epoch follows the old one; numbers beyond 53 bits are exact.
    let far = (1 << 62) + 1;
    let next = vec![(at(2, 1), b"{}".to_vec()), (at(far - 1, far), b"{}".to_vec())];
    assert_eq!(
        outbox.append_after(Some(at(1, 3)), next.clone()).await,
        Ok(Appended::Done)
    );
    assert_eq!(outbox.last().await, Ok(Some(at(far - 1, far))));
    let again = vec![(at(far, 1), b"{}".to_vec())];
    assert_eq!(
        outbox.append_after(Some(at(far - 1, far)), again.clone()).await,
        Ok(Appended::Done)
    );
    assert_eq!(side.entries().await, [batch(1, 1..=3), next, again].concat());
}

/// Where the stream ends.
async fn end(side: &dyn Side) -> Position {
    side.outbox().last().await.unwrap().unwrap()
}

async fn same_id(side: &dyn Side) {
    let (outbox, end, before) = (side.outbox(), end(side).await, side.entries().await);
    let ends = Ok(Appended::LastIs(Some(end)));
    assert_eq!(
        outbox.append_after(None, batch(1, 1..=3)).await,
        ends,
        "the same once more"
    );
    assert_eq!(outbox.append_after(Some(at(1, 1)), batch(1, 2..=2)).await, ends);
    for other in [
        vec![(at(1, 1), b"{}".to_vec())],
        [batch(1, 1..=2), vec![(at(1, 3), b"{\"other\":1}".to_vec())]].concat(),
    ] {
        let answer = outbox.append_after(None, other).await;
        assert!(matches!(answer, Err(OutboxError::Conflict(_))), "{answer:?}");
    }
    assert_eq!(side.entries().await, before);
}

async fn broken_order(side: &dyn Side) {
    let (outbox, end, before) = (side.outbox(), end(side).await, side.entries().await);
    let next = |n| at(end.epoch, end.sequence + n);
    for wrong in [
        vec![(next(2), b"{}".to_vec()), (next(1), b"{}".to_vec())],
        vec![(next(1), b"{}".to_vec()), (next(1), b"{}".to_vec())],
        vec![(end, b"{}".to_vec())],
        (1..=1001).map(|n| (next(n), b"{}".to_vec())).collect(),
    ] {
        let answer = outbox.append_after(Some(end), wrong).await;
        assert!(matches!(answer, Err(OutboxError::Conflict(_))), "{answer:?}");
    }
    assert_eq!(side.entries().await, before);
    assert_eq!(
        outbox.append_after(Some(end), Entries::new()).await,
        Ok(Appended::Done)
    );
}

async fn writer_restarted(side: &dyn Side) {
    let end = end(side).await;
    let (old, new) = (side.outbox(), side.outbox());
    let next = |n| at(end.epoch + 1, n);
    let entry = |n| vec![(next(n), b"{}".to_vec())];
    assert_eq!(old.append_after(Some(end), entry(1)).await, Ok(Appended::Done));
    drop(old);
    assert_eq!(new.last().await, Ok(Some(next(1))));
    assert_eq!(
        new.append_after(Some(next(1)), entry(2)).await,
        Ok(Appended::Done)
    );
}

/// After each loss `last` tells what became of the batch; all of it or nothing; and going on from there leaves each entry once.
async fn connection_lost(side: &dyn Side) {
    let mut end = end(side).await;
    let mut before = side.entries().await;
    for lost in [Lost::Before, Lost::During, Lost::After, Lost::InAnswer] {
        let outbox = side.outbox();
        let epoch = end.epoch + 1;
        let more: Entries = (1..=50).map(|n| (at(epoch, n), vec![b'x'; 2000])).collect();
        side.lost_append(lost, Some(end), more.clone()).await;
        let whole = at(epoch, 50);
        let there = outbox.last().await;
        match lost {
            Lost::Before | Lost::During => assert_eq!(there, Ok(Some(end)), "{lost:?}"),
            Lost::After | Lost::InAnswer => assert_eq!(there, Ok(Some(whole)), "{lost:?}"),
        }
        let again = outbox.append_after(Some(end), more.clone()).await;
        assert!(
            matches!(again, Ok(Appended::Done)) || again == Ok(Appended::LastIs(Some(whole))),
            "{lost:?}: {again:?}"
        );
        before.extend(more);
        end = whole;
        assert!(
            side.entries().await == before,
            "{lost:?}: entries are missing or twice"
        );
    }
}

async fn cursor(side: &dyn Side) {
    let (outbox, end) = (side.outbox(), end(side).await);
    for (up_to, then) in [
        (at(1, 2), at(1, 2)),
        (at(2, 1), at(2, 1)),
        (at(1, 3), at(2, 1)),
        (end, end),
    ] {
        side.confirm(up_to).await;
        assert_eq!(outbox.confirmed().await, Ok(Some(then)));
        assert_eq!(
            outbox.last().await,
            Ok(Some(end)),
            "confirming does not move the end"
        );
    }
    let next = at(end.epoch, end.sequence + 1);
    let entry = vec![(next, b"{}".to_vec())];
    assert_eq!(
        outbox.append_after(None, entry.clone()).await,
        Ok(Appended::LastIs(Some(end)))
    );
    assert_eq!(
        outbox.append_after(Some(end), entry.clone()).await,
        Ok(Appended::Done)
    );
    let kept = side.entries().await;
    assert_eq!(kept.last(), entry.last());
    assert!(
        kept.len() <= 2,
        "what is confirmed is dropped, but for the last: {kept:?}"
    );
}

async fn wakes(side: &dyn Side) {
    let (outbox, end) = (side.outbox(), end(side).await);
    let woken = async {
        while outbox.confirmed().await != Ok(Some(end)) {
            outbox.changed().await;
        }
    };
    let (woken, ()) = tokio::join!(tokio::time::timeout(WOKEN, woken), side.confirm(end));
    woken.expect("the shipper was not woken");
}

/// The embedded outbox; what is lost there is the caller's future.
struct Embedded {
    dir: tempfile::TempDir,
    log: Log,
    proxy: ProxyId,
}

impl Embedded {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            log: Log::open(&dir.path().join("outbox.db")).unwrap(),
            dir,
            proxy: ProxyId(uuid::Uuid::from_u128(7)),
        }
    }

    fn stream(&self) -> String {
        format!("usage:{}", self.proxy)
    }
}

impl Side for Embedded {
    fn outbox(&self) -> Arc<dyn Outbox> {
        let alone = Log::open_alone(&self.dir.path().join("outbox.db")).unwrap();
        Arc::new(EmbeddedOutbox::new(alone, self.proxy))
    }

    fn entries(&self) -> BoxFuture<'_, Entries> {
        async move {
            let read = self.log.read_after(&self.stream(), None, 1000).await;
            let outer = |p: weir_embedded::Position| at(p.epoch, p.sequence);
            read.unwrap()
                .into_iter()
                .map(|(p, body)| (outer(p), body))
                .collect()
        }
        .boxed()
    }

    fn confirm(&self, up_to: Position) -> BoxFuture<'_, ()> {
        let up_to = weir_embedded::Position {
            epoch: up_to.epoch,
            sequence: up_to.sequence,
        };
        async move { self.log.confirm(&self.stream(), up_to).await.unwrap() }.boxed()
    }

    fn lost_append(&self, lost: Lost, after: Option<Position>, entries: Entries) -> BoxFuture<'_, ()> {
        async move {
            let outbox = EmbeddedOutbox::new(self.log.clone(), self.proxy);
            let mut call = outbox.append_after(after, entries);
            if matches!(lost, Lost::After | Lost::InAnswer) {
                // Polled once, so the command is given; then the reply is lost.
                std::future::poll_fn(|cx| {
                    let _ = call.as_mut().poll(cx);
                    std::task::Poll::Ready(())
                })
                .await;
            }
            drop(call);
            // Commands are carried out in turn: after this one the lost one is done.
            outbox.last().await.unwrap();
        }
        .boxed()
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    whole(&Embedded::new()).await;
}
