//! What every broker must do: keep what it confirmed until it is answered for, say what it did not keep, and know what was given up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use weir_billing::{
    adapters::EmbeddedBroker,
    ports::{
        PortError,
        broker::{Broker, Message},
    },
};

use crate::world::PATIENCE;

/// The queues that the suite uses, for those who clean up.
pub(crate) const QUEUES: &[&str] = &["order", "again", "same", "dead", "fan.a", "fan.b", "parcel"];
const PAUSE: Duration = Duration::from_millis(400);

pub(crate) type Handle = Arc<dyn Broker>;

fn bodies(messages: &[Message]) -> Vec<String> {
    let text = |m: &Message| String::from_utf8(m.body.clone()).unwrap();
    messages.iter().map(text).collect()
}

fn tags(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|m| m.tag).collect()
}

pub(crate) async fn publish(broker: &Handle, topic: &str, texts: &[&str]) {
    for text in texts {
        broker
            .publish(topic, text, text.as_bytes().to_vec())
            .await
            .unwrap();
    }
}

/// Claims and acknowledges until `enough`, or a claim brings nothing; what came, in order. Trouble on the way is passed over.
pub(crate) async fn work_off(
    broker: &Handle,
    queue: &str,
    enough: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let (until, mut came) = (Instant::now() + PATIENCE, Vec::new());
    while !enough(&came) {
        assert!(Instant::now() < until, "{queue}: only {came:?}");
        let Ok(claimed) = broker.claim(queue, 10).await else {
            continue;
        };
        // An acknowledgement that is lost means that the message comes again.
        let _ = broker.ack(queue, &tags(&claimed)).await;
        came.extend(bodies(&claimed));
    }
    came
}

/// One message, when it comes.
async fn one(broker: &Handle, queue: &str) -> Message {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "{queue}: nothing came");
        if let Some(message) = broker.claim(queue, 1).await.unwrap().pop() {
            return message;
        }
    }
}

async fn is_empty(broker: &Handle, queue: &str) {
    let left = broker.claim(queue, 10).await.unwrap();
    assert_eq!(bodies(&left), Vec::<String>::new(), "{queue}");
}

/// Runs the whole suite. `open` opens the same broker again each time it is called, as another process would.
pub(crate) async fn broker_contract(open: impl AsyncFn() -> Handle) {
    order_is_kept_and_an_answer_is_for_good(&open).await;
    a_message_comes_until_it_is_answered_for(&open).await;
    the_same_id_again(&open().await).await;
    what_is_given_up_is_kept_with_its_cause(&open).await;
    every_queue_of_a_topic_has_its_own_copy(&open().await).await;
    nobody_keeps_it(&open().await).await;
}

async fn order_is_kept_and_an_answer_is_for_good(open: &impl AsyncFn() -> Handle) {
    let broker = open().await;
    for _ in 0..2 {
        broker.bind("order", "order.v1").await.unwrap();
    }
    let texts: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    publish(
        &broker,
        "order.v1",
        &texts.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    let came = work_off(&broker, "order", |came| came.len() >= 30).await;
    assert_eq!(came, texts);
    is_empty(&broker, "order").await;
    // Answers for what is not there are for nothing.
    broker.ack("order", &[u64::MAX >> 1]).await.unwrap();
    broker.retry("order", u64::MAX >> 1, PAUSE, "").await.unwrap();
    broker.dead_letter("order", u64::MAX >> 1, "").await.unwrap();
    drop(broker);
    is_empty(&open().await, "order").await;
    assert!(open().await.dead_letters("order").await.unwrap().is_empty());
}

async fn a_message_comes_until_it_is_answered_for(open: &impl AsyncFn() -> Handle) {
    let broker = open().await;
    broker.bind("again", "again.v1").await.unwrap();
    publish(&broker, "again.v1", &["a", "b"]).await;
    let first = one(&broker, "again").await;
    assert_eq!(
        (bodies(std::slice::from_ref(&first)), first.attempt),
        (vec!["a".to_owned()], 1)
    );
    // The consumer ends: it comes to the next one.
    drop(broker);
    let broker = open().await;
    let again = one(&broker, "again").await;
    assert_eq!(
        (bodies(std::slice::from_ref(&again)), again.attempt),
        (vec!["a".to_owned()], 2)
    );
    let from = Instant::now();
    broker.retry("again", again.tag, PAUSE, "not yet").await.unwrap();
    // Another passes it meanwhile, or waits for it; neither is lost.
    let (mut came, mut attempts) = (BTreeMap::new(), Vec::new());
    while came.len() < 2 {
        let message = one(&broker, "again").await;
        if message.body == b"a" {
            assert!(from.elapsed() >= PAUSE, "{:?}", from.elapsed());
            attempts.push(message.attempt);
        }
        broker.ack("again", &[message.tag]).await.unwrap();
        came.insert(message.body, message.attempt);
    }
    assert_eq!(attempts, [3]);
    assert_eq!(came.get(b"b".as_slice()), Some(&1));
    is_empty(&broker, "again").await;
}

/// A publisher that lost the answer asks again; one that made an id twice is found out, at the latest by who consumes.
async fn the_same_id_again(broker: &Handle) {
    broker.bind("same", "same.v1").await.unwrap();
    for _ in 0..2 {
        broker.publish("same.v1", "1", b"one".to_vec()).await.unwrap();
    }
    let other = broker.publish("same.v1", "1", b"other".to_vec()).await;
    let expected: BTreeSet<&str> = match other {
        Err(PortError::OtherContent(..)) => ["one"].into(),
        Ok(()) => ["one", "other"].into(),
        Err(e) => panic!("{e}"),
    };
    broker.publish("same.v1", "2", b"end".to_vec()).await.unwrap();
    let came = work_off(broker, "same", |came| came.iter().any(|c| c == "end")).await;
    let different: BTreeSet<&str> = came.iter().map(String::as_str).filter(|c| *c != "end").collect();
    assert_eq!(different, expected);
    assert!(came.iter().filter(|c| *c == "one").count() <= 2, "{came:?}");
    is_empty(broker, "same").await;
}

async fn what_is_given_up_is_kept_with_its_cause(open: &impl AsyncFn() -> Handle) {
    let broker = open().await;
    broker.bind("dead", "dead.v1").await.unwrap();
    publish(&broker, "dead.v1", &["a", "b"]).await;
    for cause in ["cause a", "cause b"] {
        let message = one(&broker, "dead").await;
        broker.dead_letter("dead", message.tag, cause).await.unwrap();
    }
    is_empty(&broker, "dead").await;
    drop(broker);
    let broker = open().await;
    let letters = async || {
        let letters = broker.dead_letters("dead").await.unwrap();
        letters
            .into_iter()
            .map(|l| (l.tag, l.cause, String::from_utf8(l.body).unwrap()))
            .collect::<Vec<_>>()
    };
    let both = letters().await;
    let seen: Vec<_> = both
        .iter()
        .map(|(_, cause, body)| (cause.as_str(), body.as_str()))
        .collect();
    assert_eq!(seen, [("cause a", "a"), ("cause b", "b")]);
    assert_eq!(letters().await, both, "looking takes nothing, and names stay");
    let (tag, ..) = both[0];
    broker.replay("dead", tag).await.unwrap();
    // There is none of that name any more.
    broker.replay("dead", tag).await.unwrap();
    let back = one(&broker, "dead").await;
    assert_eq!((back.body.as_slice(), back.attempt), (b"a".as_slice(), 1));
    broker.ack("dead", &[back.tag]).await.unwrap();
    is_empty(&broker, "dead").await;
    assert_eq!(letters().await, &both[1..]);
}

async fn every_queue_of_a_topic_has_its_own_copy(broker: &Handle) {
    for queue in ["fan.a", "fan.b"] {
        broker.bind(queue, "fan.v1").await.unwrap();
    }
    publish(broker, "fan.v1", &["x"]).await;
    for queue in ["fan.a", "fan.b"] {
        assert_eq!(work_off(broker, queue, |came| !came.is_empty()).await, ["x"]);
        is_empty(broker, queue).await;
    }
}

async fn nobody_keeps_it(broker: &Handle) {
    let refused = broker.publish("nobody.v1", "1", b"x".to_vec()).await.unwrap_err();
    assert!(refused.to_string().contains("nobody.v1"), "{refused}");
}

#[tokio::test]
async fn the_embedded_broker_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.db");
    broker_contract(async || Arc::new(EmbeddedBroker::open(&path).unwrap()) as Handle).await;
}
