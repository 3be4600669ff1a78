//! The broker on RabbitMQ: the port's contract, and what a connection that breaks at each place leaves.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_billing::{adapters::RabbitBroker, ports::PortError};
use weir_servers::{ServerUrl, chaos_proxy::ChaosProxy, rabbitmq::Queue};

use super::server_url;
use crate::{
    contract::broker::{Handle, QUEUES, broker_contract, publish, work_off},
    world::PATIENCE,
};

/// Beyond a deadline, for a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// Names of its own in the broker, deleted at the end.
struct Place {
    url: ServerUrl,
    name: String,
}

impl Place {
    fn new() -> Self {
        Self {
            url: server_url("AMQP_URL").into(),
            name: format!("t{:016x}", fastrand::u64(..)),
        }
    }

    fn server(&self) -> SocketAddr {
        let (_, rest) = self.url.reveal().rsplit_once('@').unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }

    async fn open(&self) -> Handle {
        Arc::new(RabbitBroker::connect(&self.url, &self.name).await.unwrap())
    }

    /// The same through a proxy.
    async fn behind(&self, proxy: &ChaosProxy) -> Handle {
        let (server, through) = (self.server().to_string(), proxy.addr.to_string());
        let url = ServerUrl::from(self.url.reveal().replace(&server, &through));
        Arc::new(RabbitBroker::connect(&url, &self.name).await.unwrap())
    }

    async fn end(self, queues: &[&str]) {
        let queue = Queue::connect(&self.url, &self.name).await.unwrap();
        queue.erase(queues).await.unwrap();
    }
}

#[tokio::test]
async fn rabbitmq_keeps_the_brokers_contract() {
    let place = Place::new();
    broker_contract(async || place.open().await).await;
    let used: Vec<&str> = QUEUES.iter().copied().filter(|q| *q != "parcel").collect();
    place.end(&used).await;
}

/// A relay publishes until it is confirmed: however often and wherever the connection breaks, all arrive, each twice at most.
#[tokio::test]
async fn a_connection_lost_before_in_or_after_a_publish_loses_nothing() {
    let place = Place::new();
    let proxy = ChaosProxy::start(place.server()).unwrap();
    let broker = place.behind(&proxy).await;
    broker.bind("parcel", "parcel.v1").await.unwrap();
    publish(&broker, "parcel.v1", &["first"]).await;
    let cuts: [(&str, &dyn Fn()); 3] = [
        ("before", &|| proxy.cut_before_request()),
        ("in", &|| proxy.cut_in_request(40)),
        ("after", &|| proxy.cut_after_request(1)),
    ];
    for (name, cut) in &cuts {
        cut();
        let until = Instant::now() + PATIENCE;
        while let Err(e) = broker.publish("parcel.v1", name, name.as_bytes().to_vec()).await {
            assert!(matches!(e, PortError::Unavailable(..)), "{e}");
            assert!(Instant::now() < until, "{name}: {e}");
        }
        tokio::time::timeout(PATIENCE, proxy.sprung()).await.expect(name);
    }
    let all = ["first", "before", "in", "after"];
    let complete = |came: &[String]| all.iter().all(|id| came.iter().any(|c| c == id));
    let came = work_off(&broker, "parcel", complete).await;
    let count = |id: &str| came.iter().filter(|c| *c == id).count();
    assert!(all.iter().all(|id| count(id) <= 2), "{came:?}");
    place.end(&["parcel"]).await;
}

/// The same for who consumes: an answer that was lost means that the message comes again.
#[tokio::test]
async fn a_connection_lost_before_in_or_after_an_answer_brings_the_message_again() {
    let place = Place::new();
    let proxy = ChaosProxy::start(place.server()).unwrap();
    let broker = place.behind(&proxy).await;
    broker.bind("parcel", "parcel.v1").await.unwrap();
    publish(&broker, "parcel.v1", &["1", "2", "3"]).await;
    let mut done = BTreeSet::new();
    for cut in [0, 5] {
        let until = Instant::now() + PATIENCE;
        let message = loop {
            assert!(Instant::now() < until, "nothing came");
            let claimed = broker.claim("parcel", 1).await.unwrap_or_default();
            if let Some(message) = claimed.into_iter().next() {
                break message;
            }
        };
        proxy.cut_in_request(cut);
        // Whether it arrived, nobody knows; it is no error of who answers.
        let _ = broker.ack("parcel", &[message.tag]).await;
        tokio::time::timeout(PATIENCE, proxy.sprung())
            .await
            .expect("a cut");
    }
    let complete = |came: &[String]| ["1", "2", "3"].iter().all(|id| came.iter().any(|c| c == id));
    done.extend(work_off(&broker, "parcel", complete).await);
    assert_eq!(done.len(), 3);
    assert!(broker.dead_letters("parcel").await.unwrap().is_empty());
    place.end(&["parcel"]).await;
}

#[tokio::test]
async fn a_broker_that_hangs_or_is_away_is_answered_for_within_deadlines() {
    let place = Place::new();
    let proxy = ChaosProxy::start(place.server()).unwrap();
    let broker = place.behind(&proxy).await;
    broker.bind("parcel", "parcel.v1").await.unwrap();
    publish(&broker, "parcel.v1", &["1"]).await;
    for away in [false, true] {
        proxy.freeze(!away);
        proxy.refuse(away);
        if away {
            proxy.cut_now();
        }
        let from = Instant::now();
        let told = broker.publish("parcel.v1", "2", b"2".to_vec()).await.unwrap_err();
        assert!(matches!(told, PortError::Unavailable(..)), "{told}");
        assert!(!told.to_string().contains("amqp://"), "{told}");
        // Its own deadline is five seconds.
        assert!(
            from.elapsed() < Duration::from_secs(5) + SLACK,
            "{:?}",
            from.elapsed()
        );
        let from = Instant::now();
        let _ = broker.claim("parcel", 1).await;
        assert!(
            from.elapsed() < Duration::from_secs(12) + SLACK,
            "{:?}",
            from.elapsed()
        );
        proxy.freeze(false);
        proxy.refuse(false);
    }
    let until = Instant::now() + PATIENCE;
    while let Err(e) = broker.publish("parcel.v1", "2", b"2".to_vec()).await {
        assert!(Instant::now() < until, "{e}");
    }
    work_off(&broker, "parcel", |came| {
        ["1", "2"].iter().all(|id| came.iter().any(|c| c == id))
    })
    .await;
    place.end(&["parcel"]).await;
}
