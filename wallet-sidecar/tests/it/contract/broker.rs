//! What every broker must do for the wallet's events: keep in order what it said it has, and bring it until it is answered for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_wallet::{
    adapters::embedded_broker::EmbeddedBroker,
    ports::{
        broker::{Delivery, EventsIn, EventsOut},
        event_store::OutMessage,
    },
};

/// Any wait in these tests; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The queues that the suite uses, for those who clean up.
pub(crate) const QUEUES: &[&str] = &["order", "again", "given.up"];
const PAUSE: Duration = Duration::from_millis(400);

/// Both directions of one broker.
pub(crate) type Both = (Arc<dyn EventsOut>, Arc<dyn EventsIn>);

pub(crate) fn message(topic: &str, text: &str) -> OutMessage {
    OutMessage {
        topic: topic.to_owned(),
        id: text.to_owned(),
        body: text.as_bytes().to_vec(),
    }
}

pub(crate) fn bodies(messages: &[Delivery]) -> Vec<String> {
    let text = |m: &Delivery| String::from_utf8(m.body.clone()).unwrap();
    messages.iter().map(text).collect()
}

/// Publishes as the relay does: what was not confirmed again, until all is.
pub(crate) async fn relay(out: &dyn EventsOut, messages: &[OutMessage]) {
    let until = Instant::now() + PATIENCE;
    let mut rest = messages;
    while !rest.is_empty() {
        assert!(Instant::now() < until, "{} were not taken", rest.len());
        if let Ok(done) = out.publish(rest).await {
            assert!(done > 0, "no message was taken, and no cause told");
            rest = &rest[done..];
        }
    }
}

/// Claims and acknowledges until `enough`; what came, in order. Trouble on the way is passed over.
pub(crate) async fn work_off(
    events: &dyn EventsIn,
    queue: &str,
    enough: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let (until, mut came) = (Instant::now() + PATIENCE, Vec::new());
    while !enough(&came) {
        assert!(Instant::now() < until, "{queue}: only {came:?}");
        let Ok(claimed) = events.claim(queue, 50).await else {
            continue;
        };
        let tags: Vec<u64> = claimed.iter().map(|d| d.tag).collect();
        // An acknowledgement that is lost means that the message comes again.
        let _ = events.ack(queue, &tags).await;
        came.extend(bodies(&claimed));
    }
    came
}

async fn one(events: &dyn EventsIn, queue: &str) -> Delivery {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "{queue}: nothing came");
        if let Some(delivery) = events.claim(queue, 1).await.unwrap().pop() {
            return delivery;
        }
    }
}

async fn is_empty(events: &dyn EventsIn, queue: &str) {
    let left = events.claim(queue, 10).await.unwrap();
    assert_eq!(bodies(&left), Vec::<String>::new(), "{queue}");
}

/// Runs the whole suite. `open` opens the same broker again each time it is called, as another process would.
pub(crate) async fn broker_contract(open: impl AsyncFn() -> Both) {
    what_is_published_comes_in_order(&open).await;
    what_nobody_keeps_ends_the_batch(open().await).await;
    an_event_comes_until_it_is_answered_for(&open).await;
    what_is_given_up_does_not_come_again(&open).await;
}

async fn what_is_published_comes_in_order(open: &impl AsyncFn() -> Both) {
    let (out, events) = open().await;
    for _ in 0..2 {
        events.bind("order", &["first.v1", "second.v1"]).await.unwrap();
    }
    let messages: Vec<OutMessage> = (0..300)
        .map(|n| message(["first.v1", "second.v1"][n % 2], &format!("{n:03}")))
        .collect();
    relay(out.as_ref(), &messages).await;
    let came = work_off(events.as_ref(), "order", |came| came.len() >= 300).await;
    assert_eq!(came, messages.iter().map(|m| m.id.clone()).collect::<Vec<_>>());
    // Sent again after an answer that was lost: twice at most, and the same.
    relay(out.as_ref(), &messages[..1]).await;
    relay(out.as_ref(), &messages[..1]).await;
    relay(out.as_ref(), &[message("first.v1", "end")]).await;
    let came = work_off(events.as_ref(), "order", |came| came.iter().any(|c| c == "end")).await;
    assert!(
        came == ["000", "end"] || came == ["000", "000", "end"],
        "{came:?}"
    );
    drop((out, events));
    is_empty(open().await.1.as_ref(), "order").await;
}

async fn what_nobody_keeps_ends_the_batch((out, events): Both) {
    let batch = [
        message("first.v1", "a"),
        message("first.v1", "b"),
        message("nobody.v1", "c"),
        message("first.v1", "d"),
    ];
    assert_eq!(out.publish(&batch).await.unwrap(), 2);
    let told = out.publish(&batch[2..]).await.unwrap_err();
    assert!(told.to_string().contains("nobody.v1"), "{told}");
    assert_eq!(out.publish(&[]).await.unwrap(), 0);
    let came = work_off(events.as_ref(), "order", |came| came.len() >= 2).await;
    assert_eq!(came[..2], ["a", "b"]);
    // What was sent behind it may be there; the relay sends it again all the same.
    relay(out.as_ref(), &[message("first.v1", "end")]).await;
    work_off(events.as_ref(), "order", |came| came.iter().any(|c| c == "end")).await;
}

async fn an_event_comes_until_it_is_answered_for(open: &impl AsyncFn() -> Both) {
    let (out, events) = open().await;
    events.bind("again", &["again.v1"]).await.unwrap();
    relay(out.as_ref(), &[message("again.v1", "a")]).await;
    assert_eq!(one(events.as_ref(), "again").await.attempt, 1);
    // The consumer ends: it comes to the next one.
    drop((out, events));
    let (_out, events) = open().await;
    let again = one(events.as_ref(), "again").await;
    assert_eq!((again.attempt, again.body.as_slice()), (2, b"a".as_slice()));
    let from = Instant::now();
    events.retry("again", again.tag, PAUSE, "not yet").await.unwrap();
    let again = one(events.as_ref(), "again").await;
    assert!(from.elapsed() >= PAUSE && again.attempt == 3, "{again:?}");
    events.ack("again", &[again.tag]).await.unwrap();
    events.ack("again", &[again.tag]).await.unwrap();
    is_empty(events.as_ref(), "again").await;
}

async fn what_is_given_up_does_not_come_again(open: &impl AsyncFn() -> Both) {
    let (out, events) = open().await;
    events.bind("given.up", &["given.up.v1"]).await.unwrap();
    relay(
        out.as_ref(),
        &[message("given.up.v1", "a"), message("given.up.v1", "b")],
    )
    .await;
    let first = one(events.as_ref(), "given.up").await;
    events
        .dead_letter("given.up", first.tag, "not an event")
        .await
        .unwrap();
    drop((out, events));
    let (_out, events) = open().await;
    let came = work_off(events.as_ref(), "given.up", |came| !came.is_empty()).await;
    assert_eq!(came, ["b"]);
    is_empty(events.as_ref(), "given.up").await;
}

#[tokio::test]
async fn the_embedded_broker_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.db");
    let open = async || {
        let broker = EmbeddedBroker::open(&path).unwrap();
        (
            Arc::new(broker.clone()) as Arc<dyn EventsOut>,
            Arc::new(broker) as Arc<dyn EventsIn>,
        )
    };
    broker_contract(open).await;
}
