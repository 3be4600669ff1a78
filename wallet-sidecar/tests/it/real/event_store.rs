//! The event store on PostgreSQL: the contract, connections lost around a commit, a stopped server, and writers beside subscribers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_servers::{
    chaos_proxy::ChaosProxy,
    postgres::{Isolation, Transaction},
};
use weir_wallet::{
    adapters::postgres::PostgresEventStore,
    ports::event_store::{EventStore, StoreError},
};

use super::database::{Database, PATIENCE, server, through};
use crate::contract::{
    event_store::{append, batch, event_store_contract, opened, topped_up},
    subscriber::Subscribers,
};

/// Of a store whose server is stopped in the test.
const SHORT: Duration = Duration::from_millis(800);
/// Beyond a deadline, for a loaded machine.
const SLACK: Duration = Duration::from_secs(4);

#[test]
fn postgres_keeps_the_contract() {
    let database = Database::new();
    event_store_contract(&|| database.open_boxed());
}

/// Where a connection is lost.
type Fault = (&'static str, fn(&ChaosProxy));

const FAULTS: [Fault; 5] = [
    ("before the request", |proxy| proxy.cut_before_request()),
    ("in the request", |proxy| proxy.cut_in_request(200)),
    ("before the answer", |proxy| proxy.cut_after_request(1)),
    ("in the answer", |proxy| proxy.cut_in_answer(3)),
    ("at the answer's end", |proxy| proxy.cut_in_answer(30)),
];

#[test]
fn a_commit_whose_connection_is_lost_is_written_wholly_or_not_at_all_and_never_twice() {
    let database = Database::new();
    let direct = database.open();
    let _entered = database.runtime.enter();
    let proxy = ChaosProxy::start(server()).unwrap();
    // One connection, so that the fault meets the commit; it has prepared the statement before.
    let store = database.open_at(&through(proxy.addr), PATIENCE, 1);
    store
        .commit(&batch(0, vec![append("a", 1, 1, vec![opened("a")], "k1")]))
        .unwrap();
    for (version, (when, fault)) in (2..).step_by(2).zip(FAULTS) {
        let head = direct.head().unwrap();
        let key = format!("k{version}");
        let events = vec![topped_up(5), topped_up(6)];
        let whole = batch(head, vec![append("a", head + 1, version, events, &key)]);
        store.answer("k1").unwrap();
        fault(&proxy);
        let lost = store.commit(&whole);
        assert!(
            matches!(lost, Err(StoreError::Unavailable(_))),
            "{when}: {lost:?}"
        );
        // Asked again until it is known to be written: by us now, or by the lost call.
        let again = store.commit(&whole);
        match again {
            Ok(()) | Err(StoreError::Conflict { .. }) => {}
            Err(e) => panic!("{when}: {e}"),
        }
        if !when.contains("request") {
            assert!(
                matches!(again, Err(StoreError::Conflict { .. })),
                "{when}: written, and not twice"
            );
        }
        let written = direct.events_after(head, 10).unwrap();
        let expected: Vec<_> = whole.appends[0]
            .events
            .iter()
            .map(|(event, _)| event.clone())
            .collect();
        assert_eq!(written, expected, "{when}");
        assert_eq!(direct.answer(&key).unwrap(), whole.appends[0].answer, "{when}");
        let sent = direct.outbox(100).unwrap();
        let id = &whole.appends[0].messages[0].id;
        assert_eq!(
            sent.iter().filter(|item| item.message.id == *id).count(),
            1,
            "{when}"
        );
        // The same key with another command.
        let mut other = batch(
            head + 2,
            vec![append("a", head + 3, version + 2, vec![topped_up(9)], &key)],
        );
        other.appends[0].answer.as_mut().unwrap().hash = [9; 32];
        let refused = store.commit(&other);
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{when}: {refused:?}"
        );
    }
    assert_eq!(direct.head().unwrap(), 1 + 2 * FAULTS.len() as u64);
}

#[test]
fn a_stopped_server_costs_a_deadline_and_what_it_does_later_is_fenced_by_the_head() {
    let database = Database::new();
    let direct = database.open();
    let _entered = database.runtime.enter();
    let proxy = ChaosProxy::start(server()).unwrap();
    let store = database.open_at(&through(proxy.addr), SHORT, 2);
    let next = |head: u64| batch(head, vec![append("a", head + 1, head + 1, vec![opened("a")], "")]);
    store.commit(&next(0)).unwrap();
    proxy.freeze(true);
    let calls: [&dyn Fn() -> Result<(), StoreError>; 5] = [
        &|| store.commit(&next(1)),
        &|| store.events_after(0, 10).map(drop),
        &|| store.outbox(10).map(drop),
        &|| store.check_writable(),
        &|| store.save_snapshot(1, 1, &[]).map(drop),
    ];
    for call in calls {
        let asked = Instant::now();
        let outcome = call();
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert!(asked.elapsed() < SHORT * 2 + SLACK, "{:?}", asked.elapsed());
    }
    // Meanwhile another instance goes on, by another way; then the held request arrives.
    direct.commit(&next(1)).unwrap();
    proxy.freeze(false);
    let until = Instant::now() + PATIENCE;
    while let Err(e) = store.commit(&next(2)) {
        assert!(
            matches!(e, StoreError::Unavailable(_)) && Instant::now() < until,
            "{e}"
        );
    }
    assert_eq!(direct.head().unwrap(), 3);
    assert_eq!(direct.events_after(0, 10).unwrap().len(), 3);
    assert_eq!(direct.outbox(10).unwrap().len(), 3);
}

/// Takes the head, as any writer must, and writes one event of another wallet under it.
async fn write_under_head(transaction: &mut Transaction<'_>, user: &str, position: u64) {
    let event = append(user, position, 1, vec![opened(user)], "")
        .events
        .remove(0)
        .0;
    let moved = transaction
        .execute(
            "UPDATE head SET position = position + 1, messages = messages + 1",
            &[],
        )
        .await;
    assert_eq!(moved, Ok(1));
    let body = serde_json::to_string(&event.event).unwrap();
    transaction
        .execute(
            "INSERT INTO events SELECT position, $1, 1, $2, false, $3 FROM head",
            &[&event.wallet.0, &event.at.to_string(), &body],
        )
        .await
        .unwrap();
    transaction
        .execute(
            "INSERT INTO outbox SELECT messages, 't', $1 || '/' || position, '' FROM head",
            &[&user],
        )
        .await
        .unwrap();
}

/// Returns when a commit through a store waits for the head.
fn somebody_waits(database: &Database) {
    let waiting = async {
        let mut client = database.raw.get().await.unwrap();
        loop {
            let row = client
                .query_one(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'",
                    &[&database.schema],
                )
                .await
                .unwrap();
            if row.try_get::<_, i64>(0).unwrap() > 0 {
                return;
            }
        }
    };
    database
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, waiting).await })
        .unwrap();
}

fn commit_after(store: &PostgresEventStore, head: u64, version: u64) -> Result<(), StoreError> {
    store.commit(&batch(
        head,
        vec![append("a", head + 1, version, vec![topped_up(1)], "")],
    ))
}

#[test]
fn a_subscriber_skips_nothing_beside_a_transaction_held_over_a_thousand_commits_and_one_rolled_back() {
    const COMMITS: u64 = 1000;
    let database = Database::new();
    let store = database.open();
    store
        .commit(&batch(0, vec![append("a", 1, 1, vec![opened("a")], "")]))
        .unwrap();
    let subscribers = Subscribers::start(&(store.clone() as Arc<dyn EventStore>));

    // It has its transaction id and a row, and commits last: by sequence or by id its event would be an early one.
    let mut early_client = database.runtime.block_on(database.raw.get()).unwrap();
    let mut early = database
        .runtime
        .block_on(early_client.begin(Isolation::ReadCommitted))
        .unwrap();
    let answer = "INSERT INTO answers VALUES ('early', '\\x00', '{}')";
    database.runtime.block_on(early.execute(answer, &[])).unwrap();
    for head in 1..=COMMITS {
        commit_after(&store, head, head + 1).unwrap();
    }
    subscribers.wait_for(COMMITS + 1);
    database.runtime.block_on(async {
        write_under_head(&mut early, "early", COMMITS + 2).await;
        early.commit().await.unwrap();
    });

    // Another has the head and its rows, and rolls back while a commit waits for it.
    let mut other_client = database.runtime.block_on(database.raw.get()).unwrap();
    let head = COMMITS + 2;
    std::thread::scope(|scope| {
        let mut other = database
            .runtime
            .block_on(other_client.begin(Isolation::ReadCommitted))
            .unwrap();
        database
            .runtime
            .block_on(write_under_head(&mut other, "undone", head + 1));
        let waits = scope.spawn(|| commit_after(&store, head, COMMITS + 2));
        somebody_waits(&database);
        subscribers.wait_for(head);
        database.runtime.block_on(other.rollback()).unwrap();
        waits.join().unwrap().unwrap();

        // And one that commits while another waits: that one has to decide anew.
        let mut quicker = database
            .runtime
            .block_on(other_client.begin(Isolation::ReadCommitted))
            .unwrap();
        database
            .runtime
            .block_on(write_under_head(&mut quicker, "quicker", head + 2));
        let waits = scope.spawn(|| commit_after(&store, head + 1, COMMITS + 3));
        somebody_waits(&database);
        database.runtime.block_on(quicker.commit()).unwrap();
        let (expected, found) = (head + 1, head + 2);
        assert_eq!(
            waits.join().unwrap(),
            Err(StoreError::Conflict { expected, found })
        );
    });
    commit_after(&store, head + 2, COMMITS + 3).unwrap();

    let mut expected: Vec<String> = (1..=COMMITS + 1).map(|n| format!("a/{n}")).collect();
    expected.push(format!("early/{}", COMMITS + 2));
    expected.push(format!("a/{}", head + 1));
    expected.push(format!("quicker/{}", head + 2));
    expected.push(format!("a/{}", head + 3));
    assert_eq!(subscribers.saw_all_up_to(head + 3), expected);
}

#[test]
fn what_is_not_whole_is_refused_with_the_remedy() {
    let database = Database::new();
    let store = database.open();
    for head in 0..4 {
        commit_after(&store, head, head + 1).unwrap();
    }
    database.sql("DELETE FROM events WHERE position = 3");
    let before: Vec<u64> = store
        .events_after(0, 10)
        .unwrap()
        .iter()
        .map(|e| e.position)
        .collect();
    assert_eq!(before, [1, 2], "what stands before the gap is whole");
    let gap = store.events_after(2, 10).unwrap_err();
    assert!(
        matches!(&gap, StoreError::Damaged(what) if what.contains("event 3 is missing") && what.contains("backup")),
        "{gap}"
    );
    database.sql("DELETE FROM events WHERE position = 4");
    let opened = database
        .runtime
        .block_on(PostgresEventStore::open(database.raw.clone()));
    let told = opened.err().unwrap().to_string();
    assert!(told.contains("the last event is 2 and the head is 4"), "{told}");
    database.sql("INSERT INTO schema_versions VALUES (99)");
    let newer = database
        .runtime
        .block_on(PostgresEventStore::open(database.raw.clone()));
    assert!(newer.err().unwrap().to_string().contains("newer program"));
}
