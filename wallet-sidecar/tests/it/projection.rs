//! Relay, broker and projector: duplicates, wrong order, poison, restarts and outages.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;
use weir_contracts::event::{
    CloudEvent, TRANSACTION_CREATED_TOPIC, TransactionCreated, WALLET_UPDATED_TOPIC, WalletUpdated,
};
use weir_wallet::{
    adapters::{
        embedded_broker::EmbeddedBroker,
        memory_broker::MemoryBroker,
        sqlite::{SqliteReadModel, read_model},
    },
    ports::{
        broker::EventsOut,
        event_store::{EventStore, OutMessage, StoreError},
        read_model::{Applied, Change, Filter, Page, ReadModel},
    },
    projections::{PROJECTION_QUEUE, Projector, Sweep},
    relay::Relay,
};

use crate::{
    contract::read_model::{transaction, wallet},
    desk,
};

fn message<T: serde::Serialize>(topic: &str, id: &str, data: T) -> OutMessage {
    let event = CloudEvent::new(
        topic,
        "weir/wallet".to_owned(),
        id.to_owned(),
        String::new(),
        data,
    );
    OutMessage {
        topic: topic.to_owned(),
        id: id.to_owned(),
        body: serde_json::to_vec(&event).unwrap(),
    }
}

fn of_wallet(document: WalletUpdated) -> OutMessage {
    message(
        WALLET_UPDATED_TOPIC,
        &format!("wallet/{}", document.position),
        document,
    )
}

fn of_transaction(txn: TransactionCreated) -> OutMessage {
    message(
        TRANSACTION_CREATED_TOPIC,
        &format!("transaction/{}", txn.txn_id),
        txn,
    )
}

struct Bench {
    broker: MemoryBroker,
    read_model: Arc<dyn ReadModel>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self {
            broker: MemoryBroker::default(),
            read_model: Arc::new(read_model::SqliteReadModel::open(&dir.path().join("r.db")).unwrap()),
            _dir: dir,
        };
        bench.projector().bind().await.unwrap();
        bench
    }

    fn projector(&self) -> Projector {
        Projector {
            broker: Arc::new(self.broker.clone()),
            read_model: Arc::clone(&self.read_model),
            position: watch::Sender::new(0),
            health: Arc::default(),
            meters: Arc::default(),
        }
    }

    async fn send(&self, messages: &[OutMessage]) {
        assert_eq!(self.broker.publish(messages).await.unwrap(), messages.len());
    }
}

#[tokio::test]
async fn duplicates_and_wrong_order_leave_the_latest_document_and_each_transaction_once() {
    let bench = Bench::new().await;
    let projector = bench.projector();
    let messages = [
        of_wallet(wallet("a", "3.00", 3)),
        of_transaction(transaction("t2", "CREDIT", "2026-11-21T10:00:02Z", 2)),
        of_wallet(wallet("a", "1.00", 1)),
        of_wallet(wallet("a", "2.00", 2)),
        of_transaction(transaction("t1", "CREDIT", "2026-11-21T10:00:01Z", 1)),
    ];
    for _ in 0..2 {
        bench.send(&messages).await;
        projector.step().await.unwrap();
    }
    // Claimed, then the consumer dies: all of it comes again.
    bench.send(&messages).await;
    bench.broker.redeliver(PROJECTION_QUEUE);
    bench.projector().step().await.unwrap();
    assert_eq!(bench.read_model.wallet("w-a").unwrap().unwrap().balance, "3.00");
    let filter = Filter {
        page: 1,
        limit: 10,
        ..Filter::default()
    };
    assert_eq!(bench.read_model.transactions("w-a", &filter).unwrap().total, 2);
    assert_eq!(bench.broker.depth(PROJECTION_QUEUE), 0);
    assert_eq!(*projector.position.borrow(), 3);
}

#[tokio::test]
async fn poison_goes_to_the_dead_letters_and_its_neighbours_are_applied() {
    let bench = Bench::new().await;
    let mut wrong_amount = wallet("a", "1.00", 1);
    wrong_amount.balance = "1e3".to_owned();
    let mut other_content = transaction("t1", "CREDIT", "2026-11-21T10:00:01Z", 1);
    other_content.amount = "2.00".to_owned();
    let garbage = OutMessage {
        topic: WALLET_UPDATED_TOPIC.to_owned(),
        id: "x".to_owned(),
        body: b"{\"type\":".to_vec(),
    };
    bench
        .send(&[
            of_transaction(transaction("t1", "CREDIT", "2026-11-21T10:00:01Z", 1)),
            garbage,
            of_wallet(wrong_amount),
            of_transaction(other_content),
            message(WALLET_UPDATED_TOPIC, "wallet/7", serde_json::json!({"hello": 1})),
            of_wallet(wallet("a", "2.00", 2)),
        ])
        .await;
    bench.projector().step().await.unwrap();
    assert_eq!(bench.read_model.wallet("w-a").unwrap().unwrap().balance, "2.00");
    let dead = bench.broker.dead_letters(PROJECTION_QUEUE);
    assert_eq!(dead.len(), 4);
    assert!(dead.iter().all(|(_, cause)| !cause.is_empty()));
    assert_eq!(bench.broker.depth(PROJECTION_QUEUE), 0);
}

/// A read model that fails while told to.
struct Failing {
    inner: SqliteReadModel,
    fails: AtomicBool,
}

impl ReadModel for Failing {
    fn apply(&self, changes: &[Change]) -> Result<Vec<Applied>, StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("disk full".to_owned()));
        }
        self.inner.apply(changes)
    }

    fn position(&self) -> Result<u64, StoreError> {
        self.inner.position()
    }

    fn wallet(&self, wallet_id: &str) -> Result<Option<WalletUpdated>, StoreError> {
        self.inner.wallet(wallet_id)
    }

    fn wallet_of_user(&self, user_id: &str) -> Result<Option<WalletUpdated>, StoreError> {
        self.inner.wallet_of_user(user_id)
    }

    fn transactions(&self, wallet_id: &str, filter: &Filter) -> Result<Page, StoreError> {
        self.inner.transactions(wallet_id, filter)
    }

    fn swept(&self) -> Result<u64, StoreError> {
        self.inner.swept()
    }

    fn set_swept(&self, position: u64) -> Result<(), StoreError> {
        self.inner.set_swept(position)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.inner.clear()
    }
}

#[tokio::test]
async fn while_the_read_model_fails_messages_wait_and_none_is_dead_lettered() {
    let bench = Bench::new().await;
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(Failing {
        inner: SqliteReadModel::open(&dir.path().join("f.db")).unwrap(),
        fails: AtomicBool::new(true),
    });
    let projector = Projector {
        read_model: failing.clone(),
        ..bench.projector()
    };
    bench.send(&[of_wallet(wallet("a", "2.00", 2))]).await;
    assert!(projector.step().await.unwrap_err().contains("disk full"));
    assert_eq!(bench.broker.depth(PROJECTION_QUEUE), 1);
    assert!(bench.broker.dead_letters(PROJECTION_QUEUE).is_empty());
    failing.fails.store(false, Ordering::SeqCst);
    // The claim waits for the retry's time.
    assert_eq!(projector.step().await.unwrap(), 1);
    assert_eq!(failing.wallet("w-a").unwrap().unwrap().balance, "2.00");
}

#[tokio::test]
async fn the_outbox_waits_for_a_broker_that_is_away_and_a_lost_mark_sends_twice() {
    let bench = Bench::new().await;
    let dir = tempfile::tempdir().unwrap();
    let store = desk::open(dir.path());
    let (mut desk, board) = desk::desk_over(store.clone());
    desk::one(&mut desk, desk::create("c", "5")).unwrap();
    desk::one(&mut desk, desk::place("h", "5")).unwrap();
    let relay = Relay {
        store: store.clone(),
        broker: Arc::new(bench.broker.clone()),
        board,
        health: Arc::default(),
        meters: Arc::default(),
    };
    bench.broker.set_away(true);
    assert!(relay.step().await.is_err());
    bench.broker.set_away(false);
    // Sent, and the process dies before the mark: the next start sends all of it again.
    let unmarked: Vec<_> = store
        .outbox(100)
        .unwrap()
        .into_iter()
        .map(|i| i.message)
        .collect();
    bench.send(&unmarked).await;
    assert_eq!(relay.step().await.unwrap(), 3);
    assert_eq!(relay.step().await.unwrap(), 0);
    assert_eq!(store.outbox(10).unwrap(), []);
    bench.projector().step().await.unwrap();
    let shown = bench.read_model.wallet_of_user("demo").unwrap().unwrap();
    assert_eq!((shown.balance.as_str(), shown.held.as_str()), ("5.00", "5.00"));
    assert!(bench.broker.dead_letters(PROJECTION_QUEUE).is_empty());
    // Nobody to route to: nothing is taken for sent.
    let nowhere = Relay {
        broker: Arc::new(MemoryBroker::default()),
        ..relay
    };
    desk::one(&mut desk, desk::top_up("t", "1")).unwrap();
    assert!(nowhere.step().await.is_err());
    assert_eq!(store.outbox(10).unwrap().len(), 2);
}

#[tokio::test]
async fn the_embedded_broker_takes_a_long_outbox_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(&dir.path().join("broker.db")).unwrap();
    let read_model = Arc::new(SqliteReadModel::open(&dir.path().join("r.db")).unwrap());
    let projector = Projector {
        broker: Arc::new(broker.clone()),
        read_model: read_model.clone(),
        position: watch::Sender::new(0),
        health: Arc::default(),
        meters: Arc::default(),
    };
    projector.bind().await.unwrap();
    let messages: Vec<_> = (1..=300)
        .map(|n| of_wallet(wallet("a", &format!("{n}.00"), n)))
        .collect();
    assert_eq!(broker.publish(&messages).await.unwrap(), 300);
    assert_eq!(projector.step().await.unwrap(), 200);
    assert_eq!(
        read_model.wallet("w-a").unwrap().unwrap().balance,
        "200.00",
        "in order"
    );
    assert_eq!(projector.step().await.unwrap(), 100);
    assert_eq!(read_model.wallet("w-a").unwrap().unwrap().balance, "300.00");
}

#[tokio::test]
async fn what_the_broker_lost_is_found_and_a_dropped_read_model_is_rebuilt() {
    let bench = Bench::new().await;
    let dir = tempfile::tempdir().unwrap();
    let store = desk::open(dir.path());
    let (mut desk, board) = desk::desk_over(store.clone());
    desk::one(&mut desk, desk::create("c", "5")).unwrap();
    desk::one(&mut desk, desk::top_up("t", "1")).unwrap();
    // Relayed, and the broker lost all of it before the projector saw any.
    store.relayed(u64::MAX).unwrap();
    let sweep = Sweep {
        store: store.clone(),
        board,
        read_model: Arc::clone(&bench.read_model),
        position: watch::Sender::new(0),
        health: Arc::default(),
        meters: Arc::default(),
    };
    let total = |wallet: &str| {
        let filter = Filter {
            page: 1,
            limit: 1,
            ..Filter::default()
        };
        bench.read_model.transactions(wallet, &filter).unwrap().total
    };
    for _ in 0..2 {
        sweep.all().await.unwrap();
        let shown = bench.read_model.wallet_of_user("demo").unwrap().unwrap();
        assert_eq!((shown.balance.as_str(), total(&shown.wallet_id)), ("6.00", 2));
        assert_eq!(bench.read_model.swept().unwrap(), store.head().unwrap());
        assert_eq!(*sweep.position.borrow(), store.head().unwrap());
        bench.read_model.clear().unwrap();
    }
    // Messages that come after all are known already, not other content.
    sweep.all().await.unwrap();
    desk::one(&mut desk, desk::capture("x", "none", "2")).unwrap();
    let late: Vec<_> = store
        .outbox(100)
        .unwrap()
        .into_iter()
        .map(|i| i.message)
        .collect();
    sweep.all().await.unwrap();
    bench.send(&late).await;
    bench.projector().step().await.unwrap();
    assert!(bench.broker.dead_letters(PROJECTION_QUEUE).is_empty());
    assert_eq!(
        bench.read_model.wallet_of_user("demo").unwrap().unwrap().balance,
        "4.00"
    );
}
