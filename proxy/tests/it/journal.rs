//! The journal under crashes: copied at each write point, cut at every byte of its tail, bits flipped; Σ recovered = Σ written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use weir_contracts::{
    entry::{Entry, EntryBody, LeaseClosed, Outcome, RequestKind, UsageRecord},
    ids::{AccountId, LeaseId},
};
use weir_proxy::journal::{
    Durability, Journal, JournalError, JournalOptions, LeaseRecord, Position, SessionRecord, SlotHead,
    SlotState,
};

/// In memory where the system has it: thousands of directories are made and synced here, and no test pulls the plug.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn options() -> JournalOptions {
    JournalOptions {
        slots_max: 64,
        segment_bytes: 8 << 10,
        ..JournalOptions::default()
    }
}

fn account() -> AccountId {
    "demo".parse().unwrap()
}

fn session() -> SessionRecord {
    SessionRecord {
        account: account(),
        principal: "demo".into(),
        upstream: "db:1433".into(),
        tariff: "demo@1".into(),
    }
}

fn lease(journal: &Journal, number: u32) -> LeaseRecord {
    let lease = LeaseId {
        proxy: journal.proxy(),
        epoch: journal.epoch(),
        number,
    };
    LeaseRecord {
        lease,
        account: account(),
        tariff: "demo@1".into(),
    }
}

fn head(session: u32, request: u32) -> SlotHead {
    SlotHead {
        session,
        request,
        kind: RequestKind::Batch,
        started_unix_nanos: 1_000,
    }
}

fn state(rows: u64) -> SlotState {
    SlotState {
        lease_number: 1,
        rows,
        bytes_out: rows * 10,
        cost_nanos: i64::try_from(rows).unwrap() * 10_000,
        requests: 1,
        ..SlotState::default()
    }
}

fn record(journal: &Journal, session: u32, request: u32, rows: u64) -> UsageRecord {
    UsageRecord {
        lease: Some(lease(journal, 1).lease),
        cost_nanos: i64::try_from(rows).unwrap() * 10_000,
        ..plain_record(u64::from(session), u64::from(request), rows)
    }
}

/// Everything in a journal, in order, checked to be without a gap.
fn all(journal: &Journal) -> Vec<(Position, Entry)> {
    let mut reader = journal.reader(None);
    let mut entries = Vec::new();
    loop {
        let batch = reader.read(7, 4096).unwrap();
        if batch.entries.is_empty() {
            break;
        }
        for (place, json) in batch.entries {
            let entry: Entry = serde_json::from_slice(&json).unwrap();
            assert_eq!(
                (entry.id.proxy, entry.id.epoch, entry.id.sequence),
                (journal.proxy(), place.epoch, place.sequence)
            );
            entries.push((place, entry));
        }
    }
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for (place, _) in &entries {
        let before = last.insert(place.epoch, place.sequence).unwrap_or(0);
        assert_eq!(place.sequence, before + 1, "gap in epoch {}", place.epoch);
    }
    entries
}

fn usage(entries: &[(Position, Entry)]) -> Vec<&UsageRecord> {
    entries
        .iter()
        .filter_map(|(_, e)| {
            if let EntryBody::Usage(u) = &e.body {
                Some(u)
            } else {
                None
            }
        })
        .collect()
}

fn closings(entries: &[(Position, Entry)]) -> Vec<&LeaseClosed> {
    entries
        .iter()
        .filter_map(|(_, e)| {
            if let EntryBody::LeaseClosed(c) = &e.body {
                Some(c)
            } else {
                None
            }
        })
        .collect()
}

fn rows(entries: &[(Position, Entry)]) -> u64 {
    usage(entries).iter().map(|u| u.rows).sum()
}

/// A copy of the directory as a crash at this moment would leave it (the lock is the process's, so a copy is free).
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn last_segment(dir: &Path) -> PathBuf {
    let mut segments: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    segments.pop().unwrap()
}

#[tokio::test]
async fn records_come_back_in_order_under_their_epoch_over_many_segments() {
    let dir = memory();
    for epoch in 1..=3 {
        let journal = Journal::open(dir.path(), options()).unwrap();
        assert_eq!(journal.epoch(), epoch);
        let session = journal.begin_session(session()).await.unwrap();
        journal.begin_lease(lease(&journal, 1)).await.unwrap();
        for n in 1..=50 {
            let mut slot = journal.open_slot(head(session, n)).unwrap();
            slot.write(&state(u64::from(n))).unwrap();
            journal
                .close(slot, record(&journal, session, n, u64::from(n)))
                .await
                .unwrap();
        }
        journal
            .close_lease(lease(&journal, 1).lease, account())
            .await
            .unwrap();
        journal
            .close_lease(lease(&journal, 1).lease, account())
            .await
            .unwrap();
        assert_eq!(journal.flush().await.unwrap(), 51);
        assert!(journal.healthy());
    }
    let journal = Journal::open(dir.path(), options()).unwrap();
    let entries = all(&journal);
    assert_eq!(rows(&entries), 3 * (50 * 51 / 2));
    for closed in closings(&entries) {
        assert_eq!(
            (closed.records, closed.cost_nanos, closed.last_sequence),
            (50, 1275 * 10_000, 50)
        );
    }
    assert_eq!(closings(&entries).len(), 3);
}

#[tokio::test]
async fn a_second_process_is_refused_and_a_copied_directory_shows_by_its_nonce() {
    let dir = memory();
    let first = Journal::open(dir.path(), options()).unwrap();
    assert!(matches!(
        Journal::open(dir.path(), options()),
        Err(JournalError::Locked(_))
    ));
    let nonce = first.boot_nonce();
    let copied = memory();
    copy(dir.path(), copied.path());
    drop(first);
    let second = Journal::open(dir.path(), options()).unwrap();
    let clone = Journal::open(copied.path(), options()).unwrap();
    assert_eq!((second.epoch(), second.previous_boot_nonce()), (2, Some(nonce)));
    assert_eq!((clone.proxy(), clone.epoch()), (second.proxy(), 2));
    assert_ne!(clone.boot_nonce(), second.boot_nonce());
}

/// One life of a journal: sessions open slots, write chunks, close some; after each step the directory is copied and recovered.
#[tokio::test]
async fn a_crash_after_any_step_loses_nothing_and_doubles_nothing() {
    for (seed, segment_bytes) in [(7, 8 << 10), (8, 1 << 20), (9, 3 << 10)] {
        crash_after_each_step(seed, segment_bytes).await;
    }
}

async fn crash_after_each_step(seed: u64, segment_bytes: u64) {
    let dir = memory();
    let journal = Journal::open(
        dir.path(),
        JournalOptions {
            segment_bytes,
            ..options()
        },
    )
    .unwrap();
    let number = journal.begin_session(session()).await.unwrap();
    journal.begin_lease(lease(&journal, 1)).await.unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut open: Vec<(u32, u64, weir_proxy::journal::Slot)> = Vec::new();
    let (mut closed_rows, mut request) = (0, 0);
    for _ in 0..120 {
        let before = fs::read(dir.path().join("slots-00000001")).unwrap();
        let mut closed = false;
        match rng.u32(0..4) {
            0 if open.len() < 20 => {
                request += 1;
                open.push((request, 0, journal.open_slot(head(number, request)).unwrap()));
            }
            1 if !open.is_empty() => {
                let (request, rows, slot) = open.swap_remove(rng.usize(0..open.len()));
                journal
                    .close(slot, record(&journal, number, request, rows))
                    .await
                    .unwrap();
                closed_rows += rows;
                closed = true;
            }
            _ if !open.is_empty() => {
                let at = rng.usize(0..open.len());
                open[at].1 += rng.u64(1..1000);
                let rows = open[at].1;
                open[at].2.write(&state(rows)).unwrap();
            }
            _ => {}
        }
        journal.flush().await.unwrap();
        let written = closed_rows + open.iter().map(|(_, rows, _)| rows).sum::<u64>();
        check_crash(dir.path(), None, written);
        if closed && segment_bytes == 1 << 20 {
            // Killed between the append and the freeing of the slot (which comes before any rotation).
            check_crash(dir.path(), Some(&before), written);
        }
    }
}

fn check_crash(dir: &Path, slots: Option<&[u8]>, written: u64) {
    let copied = memory();
    copy(dir, copied.path());
    if let Some(slots) = slots {
        fs::write(copied.path().join("slots-00000001"), slots).unwrap();
    }
    let recovered = Journal::open(copied.path(), options()).unwrap();
    let entries = all(&recovered);
    assert_eq!(rows(&entries), written);
    let mut seen: Vec<u64> = usage(&entries).iter().map(|u| u.request).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), usage(&entries).len(), "a request was recorded twice");
    let closed = closings(&entries);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].cost_nanos, i64::try_from(written).unwrap() * 10_000);
    assert_eq!(closed[0].records, usage(&entries).len() as u64);
    assert_eq!(recovered.recovered().lost_slots, 0);
}

/// What a crash within recovery leaves: the epoch's segment cut at every byte of what recovery appends, slots still there.
#[tokio::test]
async fn recovery_killed_at_any_byte_and_run_again_gives_the_same() {
    let dir = memory();
    let before = memory();
    {
        let journal = Journal::open(dir.path(), options()).unwrap();
        let number = journal.begin_session(session()).await.unwrap();
        journal.begin_lease(lease(&journal, 1)).await.unwrap();
        let slots: Vec<_> = (1..=5)
            .map(|n| {
                let mut slot = journal.open_slot(head(number, n)).unwrap();
                slot.write(&state(u64::from(n))).unwrap();
                slot
            })
            .collect();
        journal.flush().await.unwrap();
        copy(dir.path(), before.path());
        drop(slots);
    }
    let length_before = fs::metadata(last_segment(before.path())).unwrap().len();
    let after = memory();
    copy(before.path(), after.path());
    drop(Journal::open(after.path(), options()).unwrap());
    let recovered_segment = after
        .path()
        .join(last_segment(before.path()).file_name().unwrap());
    let full = fs::read(&recovered_segment).unwrap();
    for cut in usize::try_from(length_before).unwrap()..=full.len() {
        let again = memory();
        copy(before.path(), again.path());
        fs::write(last_segment(again.path()), &full[..cut]).unwrap();
        let journal = Journal::open(again.path(), options()).unwrap();
        let entries = all(&journal);
        assert_eq!(rows(&entries), 15, "cut at {cut}");
        assert_eq!(usage(&entries).len(), 5);
        assert!(
            usage(&entries)
                .iter()
                .all(|u| u.outcome == Outcome::Interrupted && u.requests == 1)
        );
        assert_eq!(closings(&entries).len(), 1);
        assert_eq!(closings(&entries)[0].records, 5);
    }
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_keeps_every_whole_record() {
    let dir = memory();
    let big = JournalOptions {
        segment_bytes: 1 << 20,
        ..options()
    };
    let copied = memory();
    let head_bytes;
    {
        let journal = Journal::open(dir.path(), big.clone()).unwrap();
        head_bytes = fs::metadata(last_segment(dir.path())).unwrap().len() as usize;
        let number = journal.begin_session(session()).await.unwrap();
        journal.begin_lease(lease(&journal, 1)).await.unwrap();
        for n in 1..=3 {
            let mut slot = journal.open_slot(head(number, n)).unwrap();
            slot.write(&state(1)).unwrap();
            journal.close(slot, record(&journal, number, n, 1)).await.unwrap();
        }
        journal.flush().await.unwrap();
        copy(dir.path(), copied.path());
    }
    let full = fs::read(last_segment(copied.path())).unwrap();
    let mut last_seen = 0;
    for cut in (0..=full.len()).filter(|c| c % 3 == 0 || *c + 300 > full.len()) {
        let torn = memory();
        copy(copied.path(), torn.path());
        fs::write(last_segment(torn.path()), &full[..cut]).unwrap();
        let opened = Journal::open(torn.path(), big.clone());
        if cut < head_bytes {
            // The head is on disk before the first slot is used: without it, what the slots say was recorded is gone.
            assert!(
                matches!(opened, Err(JournalError::Damaged { .. })),
                "cut at {cut}"
            );
            continue;
        }
        let seen = rows(&all(&opened.unwrap()));
        assert!(
            seen >= last_seen && seen <= 3,
            "cut at {cut}: {seen} after {last_seen}"
        );
        last_seen = seen;
    }
    assert_eq!(last_seen, 3);
}

#[tokio::test]
async fn a_flipped_bit_is_a_torn_tail_at_the_end_and_damage_before_it() {
    let dir = memory();
    let big = JournalOptions {
        segment_bytes: 1 << 20,
        ..options()
    };
    let copied = memory();
    {
        let journal = Journal::open(dir.path(), big.clone()).unwrap();
        let number = journal.begin_session(session()).await.unwrap();
        journal.begin_lease(lease(&journal, 1)).await.unwrap();
        for n in 1..=2 {
            let slot = journal.open_slot(head(number, n)).unwrap();
            journal.close(slot, record(&journal, number, n, 1)).await.unwrap();
        }
        journal.flush().await.unwrap();
        copy(dir.path(), copied.path());
    }
    let full = fs::read(last_segment(copied.path())).unwrap();
    for at in (0..full.len()).step_by(5) {
        let hurt = memory();
        copy(copied.path(), hurt.path());
        let mut bytes = full.clone();
        bytes[at] ^= 0x10;
        fs::write(last_segment(hurt.path()), &bytes).unwrap();
        match Journal::open(hurt.path(), big.clone()) {
            // Only the last record may go, as a torn tail.
            Ok(journal) => assert!(rows(&all(&journal)) == 1, "byte {at}"),
            Err(JournalError::Damaged { .. }) => {}
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[tokio::test]
async fn entries_already_shipped_that_are_missing_are_damage_not_a_fresh_start() {
    let dir = memory();
    let copied = memory();
    {
        let journal = Journal::open(dir.path(), options()).unwrap();
        let number = journal.begin_session(session()).await.unwrap();
        copy(dir.path(), copied.path());
        let slot = journal.open_slot(head(number, 1)).unwrap();
        journal.close(slot, record(&journal, number, 1, 1)).await.unwrap();
        journal.flush().await.unwrap();
        journal
            .confirm(Position {
                epoch: 1,
                sequence: 1,
            })
            .unwrap();
        fs::copy(dir.path().join("cursor.json"), copied.path().join("cursor.json")).unwrap();
    }
    assert!(matches!(
        Journal::open(copied.path(), options()),
        Err(JournalError::Damaged { .. })
    ));
    fs::remove_file(dir.path().join("identity.json")).unwrap();
    assert!(matches!(
        Journal::open(dir.path(), options()),
        Err(JournalError::Damaged { .. })
    ));
}

#[tokio::test]
async fn a_session_that_dies_leaves_an_interrupted_record_and_its_slot_is_used_again() {
    let dir = memory();
    let journal = Journal::open(
        dir.path(),
        JournalOptions {
            slots_max: 1,
            ..options()
        },
    )
    .unwrap();
    let number = journal.begin_session(session()).await.unwrap();
    journal.begin_lease(lease(&journal, 1)).await.unwrap();
    for n in 1..=3 {
        let mut slot = journal.open_slot(head(number, n)).unwrap();
        assert!(journal.open_slot(head(number, 99)).is_err());
        slot.write(&state(5)).unwrap();
        drop(slot);
        journal.flush().await.unwrap();
    }
    drop(journal.open_slot(head(number, 4)).unwrap());
    journal.end_session(number);
    journal
        .close_lease(lease(&journal, 1).lease, account())
        .await
        .unwrap();
    let entries = all(&journal);
    assert_eq!((usage(&entries).len(), rows(&entries)), (3, 15));
    assert_eq!(closings(&entries)[0].records, 3);
}

#[tokio::test]
async fn trimming_follows_the_cursor_and_a_reader_goes_on_behind_it() {
    let dir = memory();
    {
        let journal = Journal::open(dir.path(), options()).unwrap();
        let number = journal.begin_session(session()).await.unwrap();
        closed_requests(&journal, number, 1..=100).await;
        let before = journal.unshipped_bytes();
        journal
            .confirm(Position {
                epoch: 1,
                sequence: 90,
            })
            .unwrap();
        assert!(
            journal.unshipped_bytes() < before / 2,
            "{} of {before}",
            journal.unshipped_bytes()
        );
        assert!(
            journal
                .confirm(Position {
                    epoch: 1,
                    sequence: 1000
                })
                .is_err()
        );
        journal
            .confirm(Position {
                epoch: 1,
                sequence: 10,
            })
            .unwrap();
        assert_eq!(
            journal.confirmed(),
            Some(Position {
                epoch: 1,
                sequence: 90
            })
        );
    }
    let journal = Journal::open(dir.path(), options()).unwrap();
    let mut reader = journal.reader(journal.confirmed());
    let batch = reader.read(1, 1).unwrap();
    assert_eq!(
        batch.after,
        Some(Position {
            epoch: 1,
            sequence: 90
        })
    );
    assert_eq!(
        batch.entries[0].0,
        Position {
            epoch: 1,
            sequence: 91
        }
    );
    let mut reader = journal.reader(journal.confirmed()).into_empty();
    assert_eq!(reader.read(1, 1).unwrap().after, None);
    assert_eq!(
        reader.read(1, 1).unwrap().after,
        Some(Position {
            epoch: 1,
            sequence: 91
        })
    );
    reader.seek(Some(Position {
        epoch: 9,
        sequence: 1,
    }));
    assert!(reader.read(1, 1).is_err(), "a place that the journal never had");
}

#[tokio::test]
async fn a_long_response_outlives_the_segment_of_its_session_and_lease() {
    let dir = memory();
    let journal = Journal::open(dir.path(), options()).unwrap();
    let number = journal.begin_session(session()).await.unwrap();
    journal.begin_lease(lease(&journal, 1)).await.unwrap();
    let mut long = journal.open_slot(head(number, 1)).unwrap();
    long.write(&state(7)).unwrap();
    closed_requests(&journal, number, 2..=100).await;
    journal
        .confirm(Position {
            epoch: 1,
            sequence: 90,
        })
        .unwrap();
    let copied = memory();
    copy(dir.path(), copied.path());
    let recovered = Journal::open(copied.path(), options()).unwrap();
    let entries = all(&recovered);
    assert_eq!(rows(&entries), 99 + 7);
    assert_eq!(closings(&entries)[0].records, 100);
    assert_eq!(closings(&entries)[0].cost_nanos, (99 + 7) * 10_000);
}

async fn closed_requests(journal: &Journal, session: u32, requests: std::ops::RangeInclusive<u32>) {
    for n in requests {
        let slot = journal.open_slot(head(session, n)).unwrap();
        journal.close(slot, record(journal, session, n, 1)).await.unwrap();
        journal.flush().await.unwrap();
    }
}

#[tokio::test]
async fn durability_record_and_too_much_unshipped() {
    let dir = memory();
    let strict = JournalOptions {
        durability: Durability::Record,
        bytes_max: 20 << 10,
        ..options()
    };
    let journal = Journal::open(dir.path(), strict).unwrap();
    let number = journal.begin_session(session()).await.unwrap();
    let mut n = 0;
    while journal.healthy() {
        n += 1;
        let slot = journal.open_slot(head(number, n)).unwrap();
        journal.close(slot, record(&journal, number, n, 1)).await.unwrap();
        assert!(n < 1000, "never too full");
    }
    assert!(journal.unhealthy_reason().unwrap().contains("not yet shipped"));
    let last = journal.flush().await.unwrap();
    journal
        .confirm(Position {
            epoch: 1,
            sequence: last,
        })
        .unwrap();
    assert!(journal.healthy());
}

/// A record of a lease's view, for tests of the credit cache.
pub(crate) fn record_of(lease: &weir_proxy::credit::LeaseView, cost_nanos: i64) -> UsageRecord {
    let (tariff, lease) = (lease.tariff.version.clone(), Some(lease.id));
    UsageRecord {
        tariff,
        lease,
        cost_nanos,
        ..plain_record(1, 1, 1)
    }
}

/// A record without a lease.
pub(crate) fn plain_record(session: u64, request: u64, rows: u64) -> UsageRecord {
    UsageRecord {
        account: account(),
        principal: "demo".into(),
        session,
        request,
        kind: RequestKind::Batch,
        requests: 1,
        rows,
        rows_affected: 0,
        result_sets: 1,
        bytes_out: rows,
        bytes_in: 1,
        bulk_rows: 0,
        bulk_bytes: 0,
        server_nanos: 0,
        started_unix_nanos: 0,
        ended_unix_nanos: 0,
        outcome: Outcome::Completed,
        drift: false,
        unparsed: false,
        tariff: "demo@1".into(),
        lease: None,
        cost_nanos: i64::try_from(rows).unwrap(),
    }
}
