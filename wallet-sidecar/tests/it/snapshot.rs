//! Snapshots are a shortcut: with one, with a wrong one and without one the wallets are the same.

use std::{path::Path, sync::Arc};

use weir_contracts::event::WalletUpdated;
use weir_wallet::{
    ports::event_store::EventStore,
    writer::{
        Board,
        snapshot::{SNAPSHOT_EVENTS, SNAPSHOT_FORMAT},
    },
};

use crate::desk::{capture, create, desk_over, one, open, place, top_up, wallet, work};

/// Commands that make a snapshot due, in groups.
fn busy(path: &Path) -> Arc<Board> {
    let (mut desk, board) = desk_over(open(path));
    one(&mut desk, create("c", "5")).unwrap();
    one(&mut desk, place("h", "2.5")).unwrap();
    for round in 0..=SNAPSHOT_EVENTS / 1000 {
        let group = (0..1000)
            .map(|n| top_up(&format!("{round}-{n}"), "0.01"))
            .collect();
        work(&mut desk, group);
    }
    one(&mut desk, capture("x", "h", "0.5")).unwrap();
    board
}

fn shown(path: &Path) -> WalletUpdated {
    let (_, board) = desk_over(open(path));
    board.wallet(wallet()).unwrap().as_ref().clone()
}

fn tamper(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path.join("events.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn a_start_from_a_snapshot_a_damaged_one_and_none_show_the_same_wallets() {
    let dir = tempfile::tempdir().unwrap();
    let board = busy(dir.path());
    let expected = board.wallet(wallet()).unwrap().as_ref().clone();
    let snapshot = open(dir.path()).snapshot().unwrap().unwrap();
    assert_eq!(snapshot.format, SNAPSHOT_FORMAT);
    assert!(snapshot.position < expected.position, "events follow it");
    assert_eq!(shown(dir.path()), expected, "snapshot and the events after it");
    // From it a wallet goes on as if it had never been away.
    let (mut desk, _) = desk_over(open(dir.path()));
    let more = one(&mut desk, place("h", "3")).unwrap();
    assert_eq!(more.held_total.unwrap().to_string(), "3.00");
    let expected = more.wallet;
    for damage in [
        "UPDATE snapshot_wallets SET body = replace(body, '\"version\":', '\"version\":1')",
        "UPDATE snapshot_wallets SET body = 'x'",
        "UPDATE snapshot SET format = 99",
        "UPDATE snapshot SET position = 99999999",
        "DELETE FROM snapshot",
    ] {
        tamper(dir.path(), damage);
        assert_eq!(shown(dir.path()), expected, "{damage}");
    }
}
