//! The queue on RabbitMQ: what the embedded one promises, and what only a broker on a network can do to it.

mod blocked;
mod poison;
mod topology;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use weir_servers::{
    ServerUrl,
    chaos_proxy::ChaosProxy,
    rabbitmq::{Bounds, Delivery, PUBLISH_DEADLINE, Queue, RabbitError},
};

/// Any wait in these tests; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Beyond a deadline, for a loaded machine.
const SLACK: Duration = Duration::from_secs(4);
const Q: &str = "work";
const TOPIC: &str = "thing.v1";

/// Names of our own in the broker; all is deleted at the end.
struct Place {
    name: String,
    url: ServerUrl,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("t{now}-{}-{n}", std::process::id()),
            url: super::address("AMQP_URL").into(),
        }
    }

    /// The queue, bound to the topic.
    async fn queue(&self) -> Queue {
        self.queue_within(Bounds::default()).await
    }

    async fn queue_within(&self, bounds: Bounds) -> Queue {
        let queue = Queue::connect_with(&self.url, &self.name, bounds).await.unwrap();
        queue.bind(Q, TOPIC).await.unwrap();
        queue
    }

    /// The same through a proxy.
    async fn behind(&self, proxy: &ChaosProxy) -> Queue {
        let queue = Queue::connect(&via(&self.url, proxy.addr), &self.name)
            .await
            .unwrap();
        queue.bind(Q, TOPIC).await.unwrap();
        queue
    }

    fn proxy(&self) -> ChaosProxy {
        ChaosProxy::start(broker(&self.url)).unwrap()
    }

    async fn admin(&self) -> (Connection, Channel) {
        let connection = Connection::connect(self.url.reveal(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    async fn delete(&self, queue: &str) {
        let (_connection, channel) = self.admin().await;
        let full = format!("{}.{queue}", self.name);
        channel
            .queue_delete(full.into(), QueueDeleteOptions::default())
            .await
            .unwrap();
    }

    async fn end(self) {
        self.delete(Q).await;
        self.delete(&format!("{Q}.dead")).await;
        let (_connection, channel) = self.admin().await;
        for exchange in [self.name.clone(), format!("{}.dead", self.name)] {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(exchange.into(), options).await.unwrap();
        }
    }
}

/// Where the broker is.
fn broker(url: &ServerUrl) -> SocketAddr {
    let (_, rest) = url.reveal().split_once('@').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// The same address at another place.
fn via(url: &ServerUrl, addr: SocketAddr) -> ServerUrl {
    let at = broker(url).to_string();
    url.reveal().replace(&at, &addr.to_string()).into()
}

fn body(n: usize) -> Vec<u8> {
    format!("body of {n}").into_bytes()
}

async fn publish(queue: &Queue, numbers: impl IntoIterator<Item = usize>) {
    for n in numbers {
        queue.publish(TOPIC, &n.to_string(), body(n)).await.unwrap();
    }
}

/// Claims and acknowledges until there were this many messages; in the order in which they came.
async fn work_off(queue: &Queue, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    let until = Instant::now() + PATIENCE;
    let mut trouble = None;
    while all.len() < count {
        assert!(
            Instant::now() < until,
            "{:?} came of {count}, {trouble:?}",
            ids(&all)
        );
        match queue.claim(Q, count - all.len()).await {
            Ok(claimed) => {
                ack(queue, &claimed).await;
                all.extend(claimed);
            }
            Err(e) => trouble = Some(e),
        }
    }
    all
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn ids(messages: &[Delivery]) -> Vec<String> {
    messages.iter().map(|m| m.id.clone()).collect()
}

async fn is_empty(queue: &Queue) {
    let left = queue.claim(Q, 10).await.unwrap();
    assert_eq!(ids(&left), Vec::<String>::new());
    assert_eq!(queue.depth(Q).await.unwrap(), 0);
}

async fn ack(queue: &Queue, messages: &[Delivery]) {
    let tags: Vec<u64> = messages.iter().map(|m| m.tag).collect();
    queue.ack(Q, &tags).await.unwrap();
}

#[tokio::test]
async fn messages_come_in_order_and_again_until_they_are_acknowledged() {
    let place = Place::new();
    let queue = place.queue().await;
    publish(&queue, 0..20).await;
    let first = queue.claim(Q, 10).await.unwrap();
    assert_eq!(ids(&first), ["0"], "one by one until the first was answered for");
    assert_eq!(
        (first[0].attempt, first[0].topic.as_str(), &first[0].body),
        (1, TOPIC, &body(0))
    );
    queue.crash().await;
    let again = queue.claim(Q, 10).await.unwrap();
    assert_eq!(
        (ids(&again), again[0].attempt),
        (vec!["0".to_owned()], 2),
        "the lost delivery counts"
    );
    assert!(
        again[0].tag != first[0].tag,
        "a tag of the lost connection is never used again"
    );
    // What came on the lost connection is not ours any more; these answer for nothing.
    queue.ack(Q, &[first[0].tag]).await.unwrap();
    queue
        .retry(Q, first[0].tag, Duration::ZERO, "late")
        .await
        .unwrap();
    queue.dead_letter(Q, first[0].tag, "late").await.unwrap();
    ack(&queue, &again).await;
    let some = work_off(&queue, 9).await;
    assert_eq!(ids(&some), numbers(1..10));
    // A consumer that ends gives back what it had.
    let held = queue.claim(Q, 5).await.unwrap();
    assert_eq!(held[0].id, "10");
    drop(queue);
    let other = place.queue().await;
    let rest = work_off(&other, 10).await;
    assert_eq!(ids(&rest), numbers(10..20));
    is_empty(&other).await;
    assert_eq!(other.dead_letters(Q).await.unwrap(), []);
    place.end().await;
}

#[tokio::test]
async fn a_retry_waits_and_others_pass_it() {
    let place = Place::new();
    let queue = place.queue().await;
    publish(&queue, 0..2).await;
    let first = queue.claim(Q, 1).await.unwrap();
    let pause = Duration::from_millis(1500);
    let from = Instant::now();
    queue.retry(Q, first[0].tag, pause, "not yet").await.unwrap();
    let passed = queue.claim(Q, 10).await.unwrap();
    assert_eq!(ids(&passed), ["1"]);
    ack(&queue, &passed).await;
    let again = work_off(&queue, 1).await;
    assert!(from.elapsed() >= pause);
    assert_eq!((ids(&again), again[0].attempt), (vec!["0".to_owned()], 2));
    is_empty(&queue).await;
    place.end().await;
}

#[tokio::test]
async fn more_messages_that_wait_than_are_held_do_not_stop_the_queue() {
    let place = Place::new();
    let queue = place.queue().await;
    publish(&queue, 0..300).await;
    let mut waited = BTreeSet::new();
    let until = Instant::now() + PATIENCE;
    // All but the last have to wait for the last.
    let mut last_came = false;
    let mut done = BTreeSet::new();
    while done.len() < 300 {
        assert!(
            Instant::now() < until,
            "{} waited, {} done",
            waited.len(),
            done.len()
        );
        for m in queue.claim(Q, 50).await.unwrap() {
            last_came |= m.id == "299";
            if last_came {
                queue.ack(Q, &[m.tag]).await.unwrap();
                done.insert(m.id);
            } else {
                waited.insert(m.id.clone());
                let pause = Duration::from_millis(300);
                queue
                    .retry(Q, m.tag, pause, "the last one is missing")
                    .await
                    .unwrap();
            }
        }
    }
    assert_eq!(waited.len(), 299);
    is_empty(&queue).await;
    place.end().await;
}

#[tokio::test]
async fn dead_letters_are_looked_at_and_put_back() {
    let place = Place::new();
    let queue = place.queue().await;
    publish(&queue, 0..5).await;
    for (n, message) in claim_each(&queue, 5).await.into_iter().enumerate() {
        queue
            .dead_letter(Q, message.tag, &format!("cause {n}"))
            .await
            .unwrap();
    }
    let letters = queue.dead_letters(Q).await.unwrap();
    let seen: Vec<_> = letters
        .iter()
        .map(|l| (l.id.as_str(), l.cause.as_str(), l.attempt))
        .collect();
    assert_eq!(
        seen,
        [
            ("0", "cause 0", 2),
            ("1", "cause 1", 1),
            ("2", "cause 2", 1),
            ("3", "cause 3", 1),
            ("4", "cause 4", 1)
        ]
    );
    assert!(
        letters
            .iter()
            .all(|l| l.died_ms > 1_700_000_000_000 && l.topic == TOPIC)
    );
    for _ in 0..30 {
        assert_eq!(
            queue.dead_letters(Q).await.unwrap(),
            letters,
            "looking takes nothing"
        );
    }
    assert!(!queue.replay(Q, 1).await.unwrap());
    assert!(queue.replay(Q, letters[3].tag).await.unwrap());
    assert!(!queue.replay(Q, letters[3].tag).await.unwrap());
    let back = work_off(&queue, 1).await;
    assert_eq!(
        (back[0].id.as_str(), back[0].attempt, &back[0].body),
        ("3", 1, &body(3))
    );
    let left = queue.dead_letters(Q).await.unwrap();
    assert_eq!(
        left.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(),
        ["0", "1", "2", "4"]
    );
    is_empty(&queue).await;
    place.end().await;
}

/// Claims messages one after the other without answering.
async fn claim_each(queue: &Queue, count: usize) -> Vec<Delivery> {
    let mut all = queue.claim(Q, 1).await.unwrap();
    // The first is answered for, so that the others come, and comes again as nothing was decided.
    queue
        .retry(Q, all.pop().unwrap().tag, Duration::ZERO, "first")
        .await
        .unwrap();
    let until = Instant::now() + PATIENCE;
    while all.len() < count {
        assert!(Instant::now() < until, "{} of {count} came", all.len());
        all.extend(queue.claim(Q, count - all.len()).await.unwrap());
    }
    all.sort_by_key(|m| m.tag);
    all
}

#[tokio::test]
async fn a_full_queue_refuses_and_drops_nothing() {
    let place = Place::new();
    let bounds = Bounds {
        bytes: 100_000,
        ..Bounds::default()
    };
    let queue = place.queue_within(bounds).await;
    let mut stored = BTreeSet::new();
    let refused = loop {
        let id = stored.len().to_string();
        match queue.publish(TOPIC, &id, vec![b'x'; 10_000]).await {
            Ok(()) => stored.insert(id),
            Err(e) => break e,
        };
        assert!(stored.len() < 100, "never full");
    };
    assert!(
        refused.is_unavailable() && refused.to_string().contains("limit of bytes"),
        "{refused}"
    );
    let (mut came, until) = (BTreeSet::new(), Instant::now() + PATIENCE);
    while came.len() < stored.len() {
        assert!(Instant::now() < until, "{} of {} came", came.len(), stored.len());
        let claimed = queue.claim(Q, 10).await.unwrap();
        ack(&queue, &claimed).await;
        came.extend(ids(&claimed));
    }
    assert_eq!(came, stored);
    let until = Instant::now() + PATIENCE;
    while queue.publish(TOPIC, "after", body(0)).await.is_err() {
        assert!(Instant::now() < until, "still full");
    }
    place.end().await;
}

#[tokio::test]
async fn a_message_that_nobody_would_keep_is_refused_with_its_topic() {
    let place = Place::new();
    let queue = place.queue().await;
    let unroutable = |topic: &str| RabbitError::Unroutable(topic.to_owned());
    assert_eq!(
        queue.publish("nobody.v1", "1", body(1)).await,
        Err(unroutable("nobody.v1"))
    );
    // In a batch the ones before it are stored, and only they are said to be.
    let batch = [TOPIC, TOPIC, "nobody.v1", TOPIC].into_iter().enumerate();
    let batch = batch.map(|(n, topic)| weir_servers::rabbitmq::Outgoing {
        topic: topic.to_owned(),
        id: n.to_string(),
        body: body(n),
    });
    assert_eq!(
        queue.publish_all(batch.collect()).await,
        (2, Some(unroutable("nobody.v1")))
    );
    let came = work_off(&queue, 3).await;
    assert_eq!(ids(&came), ["0", "1", "3"]);
    // Somebody deletes the queue: refused, until the consumer has made it again.
    place.delete(Q).await;
    assert_eq!(queue.publish(TOPIC, "5", body(5)).await, Err(unroutable(TOPIC)));
    let until = Instant::now() + PATIENCE;
    let mut came = Vec::new();
    while came.is_empty() {
        assert!(Instant::now() < until, "not made again");
        let _ = queue.publish(TOPIC, "5", body(5)).await;
        came = queue.claim(Q, 1).await.unwrap_or_default();
    }
    assert_eq!(ids(&came), ["5"]);
    // The same where nobody claims.
    place.delete(Q).await;
    while let Err(e) = queue.publish(TOPIC, "6", body(6)).await {
        assert!(Instant::now() < until, "{e}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    place.end().await;
}

/// Publishes until it works; says how often it did not.
async fn insist(queue: &Queue, n: usize) -> usize {
    let until = Instant::now() + PATIENCE;
    let mut failures = 0;
    while let Err(e) = queue.publish(TOPIC, &n.to_string(), body(n)).await {
        assert!(e.is_unavailable(), "{e}");
        assert!(Instant::now() < until, "{e}");
        failures += 1;
    }
    failures
}

#[tokio::test]
async fn a_connection_lost_before_in_or_after_a_publish_loses_nothing() {
    let place = Place::new();
    let proxy = place.proxy();
    let queue = place.behind(&proxy).await;
    publish(&queue, 0..1).await;
    // Before any byte, in the middle, and when the confirm comes.
    let cuts: [(&str, &dyn Fn()); 3] = [
        ("before", &|| proxy.cut_before_request()),
        ("in", &|| proxy.cut_in_request(30)),
        ("after", &|| proxy.cut_after_request(1)),
    ];
    for (n, (name, cut)) in cuts.iter().enumerate() {
        cut();
        let failures = insist(&queue, n + 1).await;
        tokio::time::timeout(PATIENCE, proxy.sprung()).await.expect(name);
        assert!(failures <= 1, "{name}: {failures} failures for one cut");
        publish(&queue, [n + 11]).await;
    }
    let mut seen: Vec<String> = Vec::new();
    let until = Instant::now() + PATIENCE;
    let all: BTreeSet<String> = [0, 1, 11, 2, 12, 3, 13].map(|n: usize| n.to_string()).into();
    while !all.iter().all(|id| seen.contains(id)) {
        assert!(Instant::now() < until, "{seen:?}");
        let claimed = queue.claim(Q, 10).await.unwrap_or_default();
        ack(&queue, &claimed).await;
        seen.extend(ids(&claimed));
    }
    for id in &all {
        assert!(seen.iter().filter(|s| *s == id).count() <= 2, "{id} in {seen:?}");
    }
    let mut order = seen.clone();
    order.dedup();
    assert_eq!(order, ["0", "1", "11", "2", "12", "3", "13"]);
    place.end().await;
}

#[tokio::test]
async fn a_broker_that_hangs_is_answered_for_within_the_deadline_and_used_again() {
    let place = Place::new();
    let proxy = place.proxy();
    let queue = place.behind(&proxy).await;
    publish(&queue, 0..3).await;
    let first = queue.claim(Q, 1).await.unwrap();
    proxy.freeze(true);
    let from = Instant::now();
    let failed = queue.publish(TOPIC, "3", body(3)).await.unwrap_err();
    assert!(failed.is_unavailable(), "{failed}");
    let failed = queue
        .dead_letter(Q, first[0].tag, "while it hangs")
        .await
        .unwrap_err();
    assert!(failed.is_unavailable(), "{failed}");
    assert!(
        from.elapsed() < 2 * PUBLISH_DEADLINE + SLACK,
        "{:?}",
        from.elapsed()
    );
    let from = Instant::now();
    // Nothing comes; that is an answer, too.
    let claimed = queue.claim(Q, 1).await.unwrap_or_default();
    assert_eq!(ids(&claimed), Vec::<String>::new());
    assert!(
        from.elapsed() < Duration::from_secs(6) + SLACK,
        "{:?}",
        from.elapsed()
    );
    proxy.freeze(false);
    assert!(insist(&queue, 3).await <= 2);
    // Those in hand may have come before or again.
    let mut seen = BTreeSet::new();
    let until = Instant::now() + PATIENCE;
    while seen.len() < 4 {
        assert!(Instant::now() < until, "{seen:?}");
        let claimed = queue.claim(Q, 10).await.unwrap_or_default();
        ack(&queue, &claimed).await;
        seen.extend(ids(&claimed));
        // What was in hand when it froze.
        ack(&queue, &first).await;
        seen.insert("0".to_owned());
    }
    place.end().await;
}

#[tokio::test]
async fn a_consumer_whose_connection_is_lost_gets_all_again() {
    let place = Place::new();
    let proxy = place.proxy();
    let queue = place.behind(&proxy).await;
    publish(&queue, 0..30).await;
    let held = claim_each(&queue, 30).await;
    assert_eq!(held.len(), 30);
    proxy.cut_now();
    proxy.refuse(true);
    let failed = queue.claim(Q, 10).await;
    assert!(
        failed.as_ref().is_err_and(RabbitError::is_unavailable),
        "{failed:?}"
    );
    // Answers that nobody hears are no errors: all comes again.
    ack(&queue, &held).await;
    proxy.refuse(false);
    // What comes again need not come in order.
    let again: BTreeSet<String> = ids(&work_off(&queue, 30).await).into_iter().collect();
    assert_eq!(again, numbers(0..30).into_iter().collect());
    is_empty(&queue).await;
    place.end().await;
}
