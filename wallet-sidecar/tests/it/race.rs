//! Several desks on one event store, as several instances have: conflicts are decided anew, nothing is lost, nothing done twice.

use std::{collections::BTreeSet, sync::Arc};

use weir_wallet::{
    ports::event_store::{EventStore, StoreError},
    writer::{CommandError, Desk},
};

use crate::desk::{Request, capture, create, desk_over, ledger, one, open, place, top_up, wallet};

const DESKS: usize = 3;
const ROUNDS: usize = 20;

/// Asks until the others were slow enough.
fn done(desk: &mut Desk, request: &dyn Fn() -> Request) {
    loop {
        match one(desk, request()) {
            Ok(_) => return,
            Err(CommandError::Store(StoreError::Conflict { .. })) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// `open` opens the same store each time it is called.
pub(crate) fn desks_that_race(open: &(dyn Fn() -> Arc<dyn EventStore> + Sync)) {
    let (mut first, _) = desk_over(open());
    done(&mut first, &|| create("c", "10"));
    done(&mut first, &|| place("h", "5"));
    std::thread::scope(|scope| {
        for desk in 0..DESKS {
            scope.spawn(move || {
                let (mut own, _) = desk_over(open());
                for round in 0..ROUNDS {
                    // The same command under the same key at every desk, as a caller does who has had no answer.
                    done(&mut own, &|| top_up(&format!("same-{round}"), "0.01"));
                    done(&mut own, &|| top_up(&format!("{desk}-{round}"), "0.10"));
                    done(&mut own, &|| capture(&format!("c{desk}-{round}"), "h", "0.02"));
                }
            });
        }
    });
    let (_, board) = desk_over(open());
    let shown = board.wallet(wallet()).unwrap();
    // 10 + 20 × 0.01 + 60 × 0.10 − 60 × 0.02; held 5 − 60 × 0.02.
    assert_eq!((shown.balance.as_str(), shown.held.as_str()), ("15.00", "3.80"));
    let store = open();
    assert!(ledger(store.as_ref()).is_zero());
    let events = 3 + ROUNDS + DESKS * ROUNDS * 2;
    assert_eq!(store.head().unwrap(), events as u64);
    let sent = store.outbox(1000).unwrap();
    let ids: BTreeSet<_> = sent
        .iter()
        .map(|item| (&item.message.topic, &item.message.id))
        .collect();
    assert_eq!(ids.len(), sent.len(), "each message once");
}

#[test]
fn desks_that_race_on_sqlite_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    desks_that_race(&|| open(dir.path()));
}
