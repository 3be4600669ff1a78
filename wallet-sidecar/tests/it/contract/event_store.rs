//! What every event store must do, its unhappy half included.

use std::sync::Arc;

use jiff::Timestamp;
use weir_contracts::money::{Amount, Currency};
use weir_wallet::{
    adapters::sqlite::SqliteEventStore,
    ledger::posting::postings,
    ports::event_store::{Append, Batch, EventStore, OutMessage, StoreError, StoredAnswer},
    wallet::{Event, Recorded, WalletId},
};

use super::subscriber::Subscribers;

pub(crate) fn wallet(name: &str) -> WalletId {
    WalletId::of_user(&name.parse().unwrap())
}

pub(crate) fn opened(user: &str) -> Event {
    Event::Opened {
        user: user.parse().unwrap(),
        currency: Currency::USD,
    }
}

pub(crate) fn topped_up(nanos: i128) -> Event {
    Event::ToppedUp {
        amount: Amount::from_nanos(nanos),
        to_receivable: Amount::ZERO,
        balance_after: Amount::from_nanos(nanos),
        reference_id: "pay-1".to_owned(),
        reference_type: "payment".to_owned(),
        description: "ünï'\u{0}".to_owned(),
    }
}

pub(crate) fn append(
    user: &str,
    first_position: u64,
    first_version: u64,
    events: Vec<Event>,
    key: &str,
) -> Append {
    let recorded = events.into_iter().enumerate().map(|(n, event)| {
        let posted = postings(&event);
        let recorded = Recorded {
            position: first_position + n as u64,
            wallet: wallet(user),
            version: first_version + n as u64,
            at: "2026-11-21T10:00:00.123456789Z".parse::<Timestamp>().unwrap(),
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

pub(crate) fn batch(expected_head: u64, appends: Vec<Append>) -> Batch {
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
    positions_that_do_not_go_on_are_refused(store.as_ref());
    messages_wait_in_order_until_relayed(store.as_ref());
    transactions_and_postings_are_found_by_position(store.as_ref());
    drop(store);
    let store = open();
    assert_eq!(store.head().unwrap(), 4, "what was committed survives");
    assert!(store.answer("k1").unwrap().is_some());
    two_openers_cannot_both_write(store.as_ref(), open().as_ref());
    snapshots_only_move_forward(store.as_ref());
    the_same_again_changes_nothing(store.as_ref());
    amounts_come_back_exactly(store.as_ref());
    of_writers_that_race_each_event_is_written_once(open);
    a_reader_may_begin_again_anywhere(open().as_ref());
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
    let good = |head| append("b", head + 1, 2, vec![topped_up(7)], "k3");
    let wrong = [
        (2, 3, "", "a head that moved on"),
        (9, 3, "", "a head that is not there yet"),
        (3, 2, "", "a version that exists"),
        (3, 3, "k1", "a key that exists"),
    ];
    for (head, version, key, what) in wrong {
        let bad = append("a", head + 2, version, vec![topped_up(1)], key);
        let outcome = store.commit(&batch(head, vec![good(head), bad]));
        assert!(
            matches!(outcome, Err(StoreError::Conflict { expected, .. }) if expected == head),
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
    store.commit(&batch(3, vec![good(3)])).unwrap();
}

fn positions_that_do_not_go_on_are_refused(store: &dyn EventStore) {
    let sent = store.outbox(10).unwrap();
    for (first, second) in [(6, 7), (5, 7), (4, 5), (5, 5), (6, 5)] {
        let appends = vec![
            append("a", first, 3, vec![topped_up(1)], "k9"),
            append("b", second, 3, vec![topped_up(1)], ""),
        ];
        let outcome = store.commit(&batch(4, appends));
        assert!(
            matches!(outcome, Err(StoreError::Damaged(_))),
            "{first}, {second}: {outcome:?}"
        );
    }
    assert_eq!(store.head().unwrap(), 4);
    assert_eq!(store.answer("k9").unwrap(), None);
    assert_eq!(store.outbox(10).unwrap(), sent);
}

/// A commit whose answer was lost is asked for again; and a key is asked for again with another command.
fn the_same_again_changes_nothing(store: &dyn EventStore) {
    let head = store.head().unwrap();
    let one = batch(head, vec![append("c", head + 1, 1, vec![opened("c")], "k4")]);
    store.commit(&one).unwrap();
    let stored = store.answer("k4").unwrap();
    let sent = store.outbox(10).unwrap();
    let mut decided_anew = one.clone();
    decided_anew.expected_head = head + 1;
    decided_anew.appends[0].events[0].0.position = head + 2;
    let mut other_command = batch(head + 1, vec![append("d", head + 2, 1, vec![opened("d")], "k4")]);
    other_command.appends[0].answer.as_mut().unwrap().hash = [8; 32];
    let only_the_answer = batch(head + 1, vec![append("c", head + 2, 2, vec![], "k4")]);
    for again in [one, decided_anew, other_command, only_the_answer] {
        let outcome = store.commit(&again);
        assert!(matches!(outcome, Err(StoreError::Conflict { .. })), "{outcome:?}");
    }
    assert_eq!(store.head().unwrap(), head + 1);
    assert_eq!(store.answer("k4").unwrap(), stored);
    assert_eq!(store.outbox(10).unwrap(), sent);
}

fn amounts_come_back_exactly(store: &dyn EventStore) {
    // The most that an amount can be, and the least.
    let most: i128 = 9_999_999_999_999_999_999_999_999_999;
    for (version, nanos) in (2..).zip([1, -1, most, -most, 1_000_000_000, 123_456_789_012_345_678]) {
        let head = store.head().unwrap();
        let mut exact = append("c", head + 1, version, vec![topped_up(nanos)], "");
        let [first, second] = [nanos, -nanos].map(Amount::from_nanos);
        let sides = &mut exact.events[0].1;
        (sides[0].amount, sides[1].amount) = (first, second);
        store.commit(&batch(head, vec![exact.clone()])).unwrap();
        let posted = store.postings_after(head, 1).unwrap();
        let found: Vec<_> = posted.iter().map(|p| p.posting).collect();
        assert_eq!(found, exact.events[0].1);
        assert_eq!(store.events_after(head, 1).unwrap()[0], exact.events[0].0);
    }
}

/// Writers that each open the store for themselves and commit until all of their events are in.
fn of_writers_that_race_each_event_is_written_once(open: &dyn Fn() -> Box<dyn EventStore>) {
    const EACH: u64 = 20;
    let store: Arc<dyn EventStore> = Arc::from(open());
    let relayed = store.outbox(1000).unwrap();
    if let Some(last) = relayed.last() {
        store.relayed(last.sequence).unwrap();
    }
    let before = store.head().unwrap();
    let subscribers = Subscribers::start(&store);
    std::thread::scope(|scope| {
        for user in ["w1", "w2", "w3"] {
            let own = open();
            scope.spawn(move || {
                for version in 1..=EACH {
                    while !try_append(own.as_ref(), user, version) {}
                }
            });
        }
    });
    let written = store.events_after(before, 1000).unwrap();
    let ids = subscribers.saw_all_up_to(before + 3 * EACH);
    let expected: Vec<_> = written
        .iter()
        .map(|event| {
            let user = ["w1", "w2", "w3"]
                .into_iter()
                .find(|user| wallet(user) == event.wallet);
            format!("{}/{}", user.unwrap(), event.position)
        })
        .collect();
    assert_eq!(ids, expected, "messages in commit order");
}

fn try_append(store: &dyn EventStore, user: &str, version: u64) -> bool {
    let head = store.head().unwrap();
    let next = append(
        user,
        head + 1,
        version,
        vec![topped_up(1)],
        &format!("{user}-{version}"),
    );
    match store.commit(&batch(head, vec![next])) {
        Ok(()) => true,
        Err(StoreError::Conflict { .. }) => false,
        Err(e) => panic!("{e}"),
    }
}

fn a_reader_may_begin_again_anywhere(store: &dyn EventStore) {
    let head = store.head().unwrap();
    for from in (0..=head).step_by(9) {
        for limit in [1, 7, 1000] {
            let mut seen = Vec::new();
            let mut cursor = from;
            loop {
                let found = store.events_after(cursor, limit).unwrap();
                assert!(found.len() <= limit);
                seen.extend(found.iter().map(|event| event.position));
                match found.last() {
                    Some(last) => cursor = last.position,
                    None => break,
                }
            }
            assert!(seen.into_iter().eq(from + 1..=head), "from {from} by {limit}");
        }
    }
    assert_eq!(store.events_after(head + 5, 10).unwrap(), []);
    assert_eq!(store.events_after(0, 0).unwrap(), []);
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

/// SQLite's one writer shuts others out, so what can be open beside it are a reader's snapshot and a writer that rolls back.
#[test]
fn on_sqlite_a_subscriber_skips_nothing_beside_a_held_snapshot_and_a_rolled_back_writer() {
    const COMMITS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store: Arc<dyn EventStore> = Arc::new(SqliteEventStore::open(&path).unwrap());
    let first = append("a", 1, 1, vec![opened("a")], "");
    store.commit(&batch(0, vec![first])).unwrap();
    let [held, mut rolled_back] = [0, 1].map(|_| rusqlite::Connection::open(&path).unwrap());
    let count = "SELECT count(*) FROM events";
    held.execute_batch("BEGIN").unwrap();
    let seen_then: i64 = held.query_row(count, [], |row| row.get(0)).unwrap();
    let subscribers = Subscribers::start(&store);
    for position in 2..=COMMITS {
        if position % 100 == 0 {
            let undone = rolled_back
                .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
                .unwrap();
            let event = "INSERT INTO events SELECT max(position) + 1, 'other', 1, '', 0, '' FROM events";
            undone.execute(event, []).unwrap();
            subscribers.wait_for(position - 1);
            undone.rollback().unwrap();
        }
        let next = append("a", position, position, vec![topped_up(1)], "");
        store.commit(&batch(position - 1, vec![next])).unwrap();
    }
    let ids = subscribers.saw_all_up_to(COMMITS);
    assert!(ids.into_iter().eq((1..=COMMITS).map(|n| format!("a/{n}"))));
    let seen_still: i64 = held.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(
        (seen_then, seen_still),
        (1, 1),
        "the snapshot was held all the time"
    );
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
