//! Shipping under an outbox that fails, forgets, goes back, or is written by somebody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use weir_contracts::{entry::Entry, ids::LeaseId};
use weir_embedded::Log;
use weir_proxy::{
    adapters::embedded_outbox::EmbeddedOutbox,
    credit::LeaseView,
    journal::{Journal, JournalError, JournalOptions, Position, SessionRecord, SlotHead},
    ports::outbox::{Appended, Outbox, OutboxError},
    ship::Shipper,
};

use crate::{fake_billing::account, journal::record_of};

/// An outbox that fails now and then: before the write, or after it (the reply is lost).
struct Flaky {
    inner: EmbeddedOutbox,
    calls: AtomicU32,
    seed: u32,
}

impl Flaky {
    fn fails(&self) -> u32 {
        let n = self.calls.fetch_add(1, Ordering::Relaxed);
        (n.wrapping_mul(2_654_435_761) ^ self.seed) % 5
    }
}

impl Outbox for Flaky {
    fn append_after(
        &self,
        after: Option<Position>,
        entries: Vec<(Position, Vec<u8>)>,
    ) -> BoxFuture<'_, Result<Appended, OutboxError>> {
        async move {
            let lost = || OutboxError::Unavailable("lost".into());
            match self.fails() {
                0 => Err(lost()),
                1 => {
                    self.inner.append_after(after, entries).await?;
                    Err(lost())
                }
                _ => self.inner.append_after(after, entries).await,
            }
        }
        .boxed()
    }

    fn last(&self) -> BoxFuture<'_, Result<Option<Position>, OutboxError>> {
        self.inner.last()
    }

    fn confirmed(&self) -> BoxFuture<'_, Result<Option<Position>, OutboxError>> {
        self.inner.confirmed()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.inner.changed()
    }
}

/// A journal in a directory of its own.
pub(crate) struct Yard {
    dir: tempfile::TempDir,
    pub(crate) journal: Journal,
}

impl Yard {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let journal = Journal::open(&dir.path().join("journal"), options()).unwrap();
        Self { dir, journal }
    }

    fn log(&self, name: &str) -> Log {
        Log::open_alone(&self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn stream(&self) -> String {
        format!("usage:{}", self.journal.proxy())
    }

    fn outbox(&self, log: &Log) -> EmbeddedOutbox {
        EmbeddedOutbox::new(log.clone(), self.journal.proxy())
    }

    /// A new epoch on the same directory.
    pub(crate) fn restart(self) -> Self {
        let Self { dir, journal } = self;
        drop(journal);
        // A read that was under way when the shipper was stopped may still hold the directory.
        loop {
            match Journal::open(&dir.path().join("journal"), options()) {
                Ok(journal) => return Self { dir, journal },
                Err(JournalError::Locked(_)) => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Adds so many records of one session.
    pub(crate) async fn work(&self, records: u32) {
        let session = SessionRecord {
            account: account(),
            principal: "demo".into(),
            upstream: String::new(),
            tariff: "demo@1".into(),
        };
        let session = self.journal.begin_session(session).await.unwrap();
        let tariff = Arc::new(tariff());
        let id = LeaseId {
            proxy: self.journal.proxy(),
            epoch: self.journal.epoch(),
            number: 1,
        };
        for request in 0..records {
            let kind = weir_contracts::entry::RequestKind::Batch;
            let slot = self
                .journal
                .open_slot(SlotHead {
                    session,
                    request,
                    kind,
                    started_unix_nanos: 0,
                })
                .unwrap();
            let view = LeaseView {
                number: 1,
                id,
                tariff: Arc::clone(&tariff),
            };
            self.journal.close(slot, record_of(&view, 1)).await.unwrap();
        }
        self.journal.flush().await.unwrap();
    }
}

fn options() -> JournalOptions {
    JournalOptions {
        slots_max: 1024,
        segment_bytes: 32 << 10,
        ..JournalOptions::default()
    }
}

fn tariff() -> weir_contracts::tariff::Tariff {
    weir_contracts::tariff::Tariff {
        version: "demo@1".into(),
        per_request_nanos: 0,
        per_row_nanos: 1,
        per_kib_out_nanos: 0,
        per_kib_in_nanos: 0,
        per_bulk_row_nanos: 0,
        per_server_second_nanos: 0,
    }
}

/// Waits until the stream ends at `end`.
async fn reaches(log: &Log, stream: &str, end: Position) {
    let wanted = Some(weir_embedded::Position {
        epoch: end.epoch,
        sequence: end.sequence,
    });
    let there = async {
        while log.last(stream).await.unwrap() != wanted {
            log.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there)
        .await
        .expect("not shipped in time");
}

/// All entries from `first` on, without a gap in any epoch.
async fn entries(log: &Log, stream: &str) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    let mut after = None;
    loop {
        let part = log.read_after(stream, after, 100).await.unwrap();
        let Some((last, _)) = part.last() else { break };
        after = Some(*last);
        for (place, body) in part {
            let entry: Entry = serde_json::from_slice(&body).unwrap();
            assert_eq!((entry.id.epoch, entry.id.sequence), (place.epoch, place.sequence));
            if let Some(before) = all.last().filter(|b| b.id.epoch == entry.id.epoch) {
                assert_eq!(entry.id.sequence, before.id.sequence + 1);
            }
            all.push(entry);
        }
    }
    all
}

#[tokio::test]
async fn everything_arrives_once_and_in_order_through_a_flaky_outbox_and_restarts() {
    for seed in 0..4 {
        let mut yard = Yard::new();
        let log = yard.log("outbox.db");
        let stream = yard.stream();
        for epoch in 1..=3 {
            let flaky = Flaky {
                inner: yard.outbox(&log),
                calls: AtomicU32::new(0),
                seed,
            };
            let shipper = Shipper::start(yard.journal.clone(), Arc::new(flaky));
            yard.work(700).await;
            if epoch == 3 {
                reaches(&log, &stream, Position { epoch, sequence: 700 }).await;
                shipper.stop(Duration::from_secs(5)).await;
            } else {
                // Stopped in the middle: the next start goes on.
                shipper.stop(Duration::ZERO).await;
            }
            yard = yard.restart();
        }
        assert_eq!(entries(&log, &stream).await.len(), 3 * 700);
    }
}

#[tokio::test]
async fn the_cursor_comes_home_and_trims_and_never_goes_back() {
    let yard = Yard::new();
    let log = yard.log("outbox.db");
    let shipper = Shipper::start(yard.journal.clone(), Arc::new(yard.outbox(&log)));
    for _ in 0..10 {
        yard.work(30).await;
    }
    let end = Position {
        epoch: 1,
        sequence: 300,
    };
    reaches(&log, &yard.stream(), end).await;
    let before = yard.journal.unshipped_bytes();
    log.confirm(
        &yard.stream(),
        weir_embedded::Position {
            epoch: 1,
            sequence: 250,
        },
    )
    .await
    .unwrap();
    let home = async {
        while yard.journal.unshipped_bytes() >= before / 2 {
            log.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), home)
        .await
        .expect("the cursor did not come home");
    assert!(shipper.lag().confirmed.is_some_and(|c| c.sequence == 250));
    assert_eq!((shipper.lag().unshipped, shipper.lag().shipped), (0, Some(end)));
    shipper.stop(Duration::from_secs(5)).await;

    // The outbox is lost: a new one is filled from the entry at the own cursor on, and the cursor stays.
    let empty = yard.log("second.db");
    let shipper = Shipper::start(yard.journal.clone(), Arc::new(yard.outbox(&empty)));
    reaches(&empty, &yard.stream(), end).await;
    let found = entries(&empty, &yard.stream()).await;
    assert_eq!(found.first().map(|e| e.id.sequence), Some(250));
    assert_eq!(found.len(), 51);
    assert_eq!(
        yard.journal.confirmed(),
        Some(Position {
            epoch: 1,
            sequence: 250
        })
    );
    shipper.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_outbox_lost_at_an_epochs_end_still_tells_what_the_next_epoch_follows() {
    let yard = Yard::new();
    yard.work(20).await;
    let end = yard.journal.last().unwrap();
    yard.journal.confirm(end).unwrap();
    let yard = yard.restart();
    yard.work(3).await;
    let next = yard.journal.last().unwrap();
    let empty = yard.log("second.db");
    let shipper = Shipper::start(yard.journal.clone(), Arc::new(yard.outbox(&empty)));
    reaches(&empty, &yard.stream(), next).await;
    let found = entries(&empty, &yard.stream()).await;
    let places: Vec<_> = found.iter().map(|e| (e.id.epoch, e.id.sequence)).collect();
    assert_eq!(places[..2], [(end.epoch, end.sequence), (2, 1)]);
    shipper.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_stale_outbox_is_filled_from_the_archive() {
    let yard = Yard::new();
    let log = yard.log("outbox.db");
    yard.work(300).await;
    // A replica that stopped at 20, long behind what the broker confirmed.
    let mut reader = yard.journal.reader(None);
    let first = reader.read(20, usize::MAX).unwrap();
    let stale = yard.outbox(&log);
    assert_eq!(stale.append_after(None, first.entries).await, Ok(Appended::Done));
    yard.journal
        .confirm(Position {
            epoch: 1,
            sequence: 280,
        })
        .unwrap();
    let shipper = Shipper::start(yard.journal.clone(), Arc::new(yard.outbox(&log)));
    reaches(
        &log,
        &yard.stream(),
        Position {
            epoch: 1,
            sequence: 300,
        },
    )
    .await;
    assert_eq!(entries(&log, &yard.stream()).await.len(), 300);
    shipper.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_outbox_that_knows_more_than_the_journal_shuts_the_gate() {
    let yard = Yard::new();
    let log = yard.log("outbox.db");
    yard.work(5).await;
    let foreign = vec![(
        Position {
            epoch: 7,
            sequence: 9,
        },
        b"?".to_vec(),
    )];
    yard.outbox(&log).append_after(None, foreign).await.unwrap();
    let shipper = Shipper::start(yard.journal.clone(), Arc::new(yard.outbox(&log)));
    let shut = async {
        while yard.journal.healthy() {
            log.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shut)
        .await
        .expect("the gate stayed open");
    assert!(yard.journal.unhealthy_reason().unwrap().contains("older copy"));
    shipper.stop(Duration::ZERO).await;
}
