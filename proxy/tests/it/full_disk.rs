//! A full disk makes the gate deny; nothing is lost; it heals by itself when there is room again.

use std::{path::Path, process::Command, time::Duration};

use weir_contracts::entry::{Entry, EntryBody, RequestKind};
use weir_proxy::journal::{Journal, JournalError, JournalOptions, SessionRecord, SlotHead, SlotState};

use crate::journal::plain_record;

/// A small file system of its own, gone with the test.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None` where this user may not mount (then there is nothing to test with; the message says so).
    fn new(size: &str) -> Option<Self> {
        let mount = Self(tempfile::tempdir().unwrap());
        let options = format!("size={size}");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(mount.0.path())
            .output();
        if done.is_ok_and(|o| o.status.success()) {
            return Some(mount);
        }
        eprintln!("not tested: mounting a small tmpfs needs root");
        None
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(
            Command::new("mount")
                .args(["-o", &options])
                .arg(self.0.path())
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

fn options() -> JournalOptions {
    JournalOptions {
        slots_max: 1024,
        segment_bytes: 64 << 10,
        ..JournalOptions::default()
    }
}

async fn begin(journal: &Journal) -> Result<u32, JournalError> {
    let session = SessionRecord {
        account: "demo".parse().unwrap(),
        principal: "demo".into(),
        upstream: String::new(),
        tariff: "demo@1".into(),
    };
    journal.begin_session(session).await
}

fn rows(dir: &Path) -> u64 {
    let journal = Journal::open(dir, options()).unwrap();
    let (mut reader, mut rows) = (journal.reader(None), 0);
    loop {
        let batch = reader.read(500, 1 << 20).unwrap();
        if batch.entries.is_empty() {
            return rows;
        }
        for (_, json) in batch.entries {
            if let EntryBody::Usage(usage) = serde_json::from_slice::<Entry>(&json).unwrap().body {
                rows += usage.rows;
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_denies_and_heals_and_loses_nothing() {
    let Some(mount) = Mount::new("1m") else { return };
    let dir = mount.0.path().join("journal");
    let journal = Journal::open(&dir, options()).unwrap();
    let session = begin(&journal).await.unwrap();
    let mut delivered = 0;
    let mut request = 0;
    while journal.healthy() {
        request += 1;
        assert!(request < 20_000, "the disk is never full");
        let kind = RequestKind::Batch;
        let opened = journal.open_slot(SlotHead {
            session,
            request,
            kind,
            started_unix_nanos: 0,
        });
        let Ok(mut slot) = opened else {
            // All slots wait for the thread, which writes, or waits for the disk.
            let _ = tokio::time::timeout(Duration::from_millis(50), journal.flush()).await;
            continue;
        };
        let state = SlotState {
            rows: 3,
            cost_nanos: 3,
            ..SlotState::default()
        };
        // Slots were allocated at the start: a full disk does not keep a measurement out.
        slot.write(&state).unwrap();
        delivered += 3;
        journal
            .close(slot, plain_record(u64::from(session), u64::from(request), 3))
            .await
            .unwrap();
    }
    assert!(
        journal.unhealthy_reason().unwrap().contains("No space"),
        "{:?}",
        journal.unhealthy_reason()
    );
    let waiting = tokio::time::timeout(Duration::from_millis(300), journal.flush()).await;
    assert!(waiting.is_err(), "flushed to a full disk");
    let late = begin(&journal).await;
    assert!(matches!(late, Err(JournalError::Busy(..))), "{late:?}");
    mount.grow("8m");
    tokio::time::timeout(Duration::from_secs(10), journal.flush())
        .await
        .expect("it did not heal")
        .unwrap();
    assert!(journal.healthy());
    drop(journal);
    assert_eq!(rows(&dir), delivered);
}

#[tokio::test]
async fn killed_while_the_disk_is_full_the_slots_still_tell() {
    let Some(mount) = Mount::new("1m") else { return };
    let dir = mount.0.path().join("journal");
    let mut delivered = 0;
    {
        let journal = Journal::open(&dir, options()).unwrap();
        let session = begin(&journal).await.unwrap();
        let fill = std::fs::write(mount.0.path().join("ballast"), vec![1; 2 << 20]);
        assert!(fill.is_err(), "the disk is not full");
        for request in 0..50 {
            let kind = RequestKind::Batch;
            let mut slot = journal
                .open_slot(SlotHead {
                    session,
                    request,
                    kind,
                    started_unix_nanos: 0,
                })
                .unwrap();
            slot.write(&SlotState {
                rows: 3,
                cost_nanos: 3,
                ..SlotState::default()
            })
            .unwrap();
            delivered += 3;
            journal
                .close(slot, plain_record(u64::from(session), u64::from(request), 3))
                .await
                .unwrap();
        }
        // The last holder lets go: after its last tries the thread gives up, as if the process had died.
    }
    std::fs::remove_file(mount.0.path().join("ballast")).unwrap();
    assert_eq!(rows(&dir), delivered);
}
