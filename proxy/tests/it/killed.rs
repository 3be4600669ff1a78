//! A real process, killed with SIGKILL at any instant: what it said it had delivered is recovered, and at most one chunk more.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use weir_contracts::entry::{Entry, EntryBody, RequestKind};
use weir_proxy::journal::{Journal, JournalError, JournalOptions, SessionRecord, SlotHead, SlotState};

/// Tells this test binary that it is the child.
const DIR: &str = "WEIR_TEST_KILLED_DIR";
const CHUNK_ROWS: u64 = 7;
const SESSIONS: u32 = 3;

fn options() -> JournalOptions {
    JournalOptions {
        slots_max: 4096,
        segment_bytes: 16 << 10,
        ..JournalOptions::default()
    }
}

/// Not a test of its own: the body of the process that is killed. Each chunk is journaled, then "delivered": told to the parent.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(deliver(Path::new(&dir)));
}

async fn deliver(dir: &Path) {
    let journal = Journal::open(dir, options()).unwrap();
    let session = SessionRecord {
        account: "demo".parse().unwrap(),
        principal: "demo".into(),
        upstream: String::new(),
        tariff: "demo@1".into(),
    };
    let mut out = std::io::stdout();
    // The test runner has begun a line with this test's name: without an end to it the first chunk would not be seen.
    writeln!(out).unwrap();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(journal.begin_session(session.clone()).await.unwrap());
    }
    for request in 1.. {
        for number in &sessions {
            let kind = RequestKind::Batch;
            let head = SlotHead {
                session: *number,
                request,
                kind,
                started_unix_nanos: 0,
            };
            let mut slot = journal.open_slot(head).unwrap();
            let mut state = SlotState::default();
            for _ in 0..request % 5 {
                state.rows += CHUNK_ROWS;
                state.cost_nanos += i64::try_from(CHUNK_ROWS).unwrap();
                slot.write(&state).unwrap();
                writeln!(out, "D {number} {CHUNK_ROWS}").unwrap();
            }
            let record = crate::journal::plain_record(u64::from(*number), u64::from(request), state.rows);
            journal.close(slot, record).await.unwrap();
        }
        out.flush().unwrap();
        if request % 16 == 0 {
            journal.flush().await.unwrap();
        }
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["killed::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn what_was_delivered_before_the_kill_is_recovered_and_at_most_a_chunk_more() {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let mut rng = fastrand::Rng::with_seed(11);
    let mut delivered = 0;
    let kills = 12;
    for _ in 0..kills {
        let mut child = spawn(dir.path());
        let lines = rng.usize(50..3_000);
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let rows = |line: String| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
        let mut seen = 0;
        while seen < lines {
            let line = told.next().expect("the child ended by itself").unwrap();
            if line.starts_with("D ") {
                delivered += rows(line).unwrap();
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was in the pipe had been delivered too; a line cut off in the middle had not been told.
        delivered += told
            .map_while(Result::ok)
            .filter(|l| l.starts_with("D "))
            .filter_map(rows)
            .sum::<u64>();
    }
    let journal = reopen(dir.path());
    let (mut reader, mut recovered, mut last) = (journal.reader(None), 0, (0, 0));
    loop {
        let batch = reader.read(500, 1 << 20).unwrap();
        if batch.entries.is_empty() {
            break;
        }
        for (place, json) in batch.entries {
            let follows = if place.epoch == last.0 { last.1 + 1 } else { 1 };
            assert_eq!(place.sequence, follows, "a gap at {place}");
            last = (place.epoch, place.sequence);
            if let EntryBody::Usage(usage) = serde_json::from_slice::<Entry>(&json).unwrap().body {
                recovered += usage.rows;
            }
        }
    }
    assert!(
        recovered >= delivered,
        "{recovered} recovered of {delivered} delivered"
    );
    // Standard output is a pipe behind a line buffer: per kill at most the one chunk whose line was not written yet.
    assert!(
        recovered <= delivered + kills * CHUNK_ROWS,
        "{recovered} recovered of {delivered} delivered"
    );
}

fn reopen(dir: &Path) -> Journal {
    loop {
        match Journal::open(dir, options()) {
            Ok(journal) => return journal,
            Err(JournalError::Locked(_)) => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
}
