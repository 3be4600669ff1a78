//! What every event store must do, its unhappy half included.

use jiff::Timestamp;
use weir_contracts::money::{Amount, Currency};
use weir_wallet::{
    adapters::sqlite::SqliteEventStore,
    ledger::posting::postings,
    ports::event_store::{Append, Batch, EventStore, OutMessage, StoreError, StoredAnswer},
    wallet::{Event, Recorded, WalletId},
};

fn wallet(name: &str) -> WalletId {
    WalletId::of_user(&name.parse().unwrap())
}

fn opened(user: &str) -> Event {
    Event::Opened {
        user: user.parse().unwrap(),
        currency: Currency::USD,
    }
}

fn topped_up(nanos: i128) -> Event {
    Event::ToppedUp {
        amount: Amount::from_nanos(nanos),
        to_receivable: Amount::ZERO,
        balance_after: Amount::from_nanos(nanos),
        reference_id: "pay-1".to_owned(),
        reference_type: "payment".to_owned(),
        description: "ünï'\u{0}".to_owned(),
    }
}

fn append(user: &str, first_position: u64, first_version: u64, events: Vec<Event>, key: &str) -> Append {
    let recorded = events.into_iter().enumerate().map(|(n, event)| {
        let posted = postings(&event);
        let recorded = Recorded {
            position: first_position + n as u64,
            wallet: wallet(user),
            version: first_version + n as u64,
            at: "2026-11-21T10:00:00.123456Z".parse::<Timestamp>().unwrap(),
            event,
        };
        (recorded, posted)
    });
    Append {
        wallet: wallet(user),
        currency: Currency::USD,
        events: recorded.collect(),
        answer: (!key.is_empty()).then(|| StoredAnswer {
            key: key.to_owned(),
            hash: [7; 32],
            body: format!("{{\"of\":\"{key}\"}}"),
        }),
        messages: vec![OutMessage {
            topic: "t".to_owned(),
            id: format!("{user}/{first_position}"),
            body: vec![0, 159, 146, 150],
        }],
    }
}

fn batch(expected_head: u64, appends: Vec<Append>) -> Batch {
    Batch {
        expected_head,
        appends,
    }
}

/// Runs the whole suite. `open` opens the same store again each time it is called.
pub(crate) fn event_store_contract(open: &dyn Fn() -> Box<dyn EventStore>) {
    let store = open();
    an_empty_store_is_empty(store.as_ref());
    all_of_a_batch_is_written_and_read_back(store.as_ref());
    what_does_not_fit_is_a_conflict_and_writes_nothing(store.as_ref());
    messages_wait_in_order_until_relayed(store.as_ref());
    transactions_and_postings_are_found_by_position(store.as_ref());
    drop(store);
    let store = open();
    assert_eq!(store.head().unwrap(), 4, "what was committed survives");
    assert!(store.answer("k1").unwrap().is_some());
    two_openers_cannot_both_write(store.as_ref(), open().as_ref());
    snapshots_only_move_forward(store.as_ref());
    store.check_writable().unwrap();
}

fn snapshots_only_move_forward(store: &dyn EventStore) {
    let of = |texts: &[(&str, &str)]| -> Vec<(WalletId, String)> {
        texts
            .iter()
            .map(|(user, text)| (wallet(user), (*text).to_owned()))
            .collect()
    };
    let seen = || {
        let mut snapshot = store.snapshot().unwrap().unwrap();
        snapshot.wallets.sort();
        (snapshot.format, snapshot.position, snapshot.wallets.join(" "))
    };
    assert_eq!(store.snapshot().unwrap(), None);
    assert!(
        store
            .save_snapshot(1, 3, &of(&[("a", "a3"), ("b", "b3")]))
            .unwrap()
    );
    assert!(store.save_snapshot(1, 5, &of(&[("a", "a5")])).unwrap());
    assert_eq!(seen(), (1, 5, "a5 b3".to_owned()));
    assert!(!store.save_snapshot(1, 4, &of(&[("a", "a4")])).unwrap());
    assert!(!store.save_snapshot(1, 5, &of(&[("a", "other")])).unwrap());
    assert_eq!(seen(), (1, 5, "a5 b3".to_owned()));
    assert!(store.save_snapshot(2, 5, &of(&[("a", "new")])).unwrap());
    assert_eq!(
        seen(),
        (2, 5, "new".to_owned()),
        "another format replaces all of it"
    );
}

fn an_empty_store_is_empty(store: &dyn EventStore) {
    assert_eq!(store.head().unwrap(), 0);
    assert_eq!(store.events_after(0, 10).unwrap(), []);
    assert_eq!(store.postings_after(0, 10).unwrap(), []);
    assert_eq!(store.outbox(10).unwrap(), []);
    assert_eq!(store.answer("k1").unwrap(), None);
    store.relayed(5).unwrap();
}

fn all_of_a_batch_is_written_and_read_back(store: &dyn EventStore) {
    let one = append("a", 1, 1, vec![opened("a"), topped_up(5)], "k1");
    let two = append("b", 3, 1, vec![opened("b")], "");
    store.commit(&batch(0, vec![one.clone(), two.clone()])).unwrap();
    let expected: Vec<Recorded> = [&one, &two]
        .iter()
        .flat_map(|a| a.events.iter().map(|(r, _)| r.clone()))
        .collect();
    assert_eq!(store.events_after(0, 10).unwrap(), expected);
    assert_eq!(store.events_after(1, 1).unwrap(), expected[1..2]);
    assert_eq!(store.head().unwrap(), 3);
    assert_eq!(store.answer("k1").unwrap(), one.answer);
    // A command that changed nothing still keeps its answer.
    store
        .commit(&batch(3, vec![append("a", 4, 3, vec![], "k2")]))
        .unwrap();
    assert_eq!(store.head().unwrap(), 3);
    assert!(store.answer("k2").unwrap().is_some());
}

fn what_does_not_fit_is_a_conflict_and_writes_nothing(store: &dyn EventStore) {
    let good = append("b", 4, 2, vec![topped_up(7)], "k3");
    let wrong = [
        (
            2,
            append("a", 4, 3, vec![topped_up(1)], ""),
            "a head that moved on",
        ),
        (
            9,
            append("a", 10, 3, vec![topped_up(1)], ""),
            "a head that is not there yet",
        ),
        (
            3,
            append("a", 5, 2, vec![topped_up(1)], ""),
            "a version that exists",
        ),
        (
            3,
            append("a", 5, 3, vec![topped_up(1)], "k1"),
            "a key that exists",
        ),
    ];
    for (head, bad, what) in wrong {
        let outcome = store.commit(&batch(head, vec![good.clone(), bad]));
        assert!(
            matches!(outcome, Err(StoreError::Conflict { .. })),
            "{what}: {outcome:?}"
        );
        assert_eq!(store.head().unwrap(), 3, "{what}");
        assert_eq!(
            store.answer("k3").unwrap(),
            None,
            "{what}: the good neighbour is not written either"
        );
        assert_eq!(store.outbox(10).unwrap().len(), 3, "{what}");
    }
    store.commit(&batch(3, vec![good])).unwrap();
}

fn messages_wait_in_order_until_relayed(store: &dyn EventStore) {
    let waiting = store.outbox(10).unwrap();
    let ids: Vec<_> = waiting.iter().map(|i| i.message.id.as_str()).collect();
    assert_eq!(ids, ["a/1", "b/3", "a/4", "b/4"]);
    assert!(waiting.windows(2).all(|w| w[0].sequence < w[1].sequence));
    assert_eq!(waiting[0].message.body, vec![0, 159, 146, 150]);
    store.relayed(waiting[1].sequence).unwrap();
    store.relayed(waiting[0].sequence).unwrap();
    assert_eq!(store.outbox(1).unwrap(), waiting[2..3]);
    store.relayed(waiting[3].sequence).unwrap();
    assert_eq!(store.outbox(10).unwrap(), []);
}

fn transactions_and_postings_are_found_by_position(store: &dyn EventStore) {
    let positions = |wallet, after, limit| -> Vec<u64> {
        let found = store.transactions_after(wallet, after, limit).unwrap();
        found.iter().map(|r| r.position).collect()
    };
    assert_eq!(positions(None, 0, 10), [2, 4]);
    assert_eq!(positions(None, 0, 1), [2]);
    assert_eq!(positions(None, 2, 10), [4]);
    assert_eq!(positions(Some(wallet("b")), 0, 10), [4]);
    assert!(positions(Some(wallet("none")), 0, 10).is_empty());
    let posted = store.postings_after(0, 1).unwrap();
    assert_eq!(
        posted.iter().map(|p| p.position).collect::<Vec<_>>(),
        [2, 2],
        "all of one event"
    );
    assert_eq!(posted.iter().map(|p| p.posting.amount.nanos()).sum::<i128>(), 0);
    assert_eq!(store.postings_after(2, 10).unwrap().len(), 2);
    assert_eq!(store.postings_after(4, 10).unwrap(), []);
}

fn two_openers_cannot_both_write(one: &dyn EventStore, other: &dyn EventStore) {
    one.commit(&batch(4, vec![append("a", 5, 3, vec![topped_up(1)], "")]))
        .unwrap();
    let late = other.commit(&batch(4, vec![append("b", 5, 3, vec![topped_up(1)], "")]));
    assert_eq!(
        late,
        Err(StoreError::Conflict {
            expected: 4,
            found: 5
        })
    );
    assert_eq!(other.events_after(4, 10).unwrap().len(), 1);
}

#[test]
fn sqlite_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    event_store_contract(&|| Box::new(SqliteEventStore::open(&path).unwrap()));
}

#[test]
fn what_is_not_a_store_of_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert!(matches!(
        SqliteEventStore::open(&path),
        Err(StoreError::Damaged(_))
    ));
    let newer = dir.path().join("newer.db");
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(matches!(
        SqliteEventStore::open(&newer),
        Err(StoreError::Damaged(_))
    ));
}
