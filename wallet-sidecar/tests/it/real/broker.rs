//! The wallet's events over RabbitMQ: the ports' contract, and what a connection that breaks at each place leaves.

use std::{net::SocketAddr, sync::Arc};

use weir_servers::{ServerUrl, chaos_proxy::ChaosProxy, rabbitmq::Queue};
use weir_wallet::adapters::rabbit_broker::RabbitBroker;

use super::address;
use crate::contract::broker::{Both, PATIENCE, QUEUES, broker_contract, message, relay, work_off};

/// Names of its own in the broker, deleted at the end.
struct Place {
    url: ServerUrl,
    name: String,
}

impl Place {
    fn new() -> Self {
        Self {
            url: address("AMQP_URL").into(),
            name: format!("t{:016x}", fastrand::u64(..)),
        }
    }

    fn server(&self) -> SocketAddr {
        let (_, rest) = self.url.reveal().rsplit_once('@').unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }

    async fn open(&self, url: &ServerUrl) -> Both {
        let broker = RabbitBroker::connect(url, &self.name).await.unwrap();
        (Arc::new(broker.clone()), Arc::new(broker))
    }

    /// The same through a proxy.
    async fn behind(&self, proxy: &ChaosProxy) -> Both {
        let (server, through) = (self.server().to_string(), proxy.addr.to_string());
        self.open(&self.url.reveal().replace(&server, &through).into())
            .await
    }

    async fn end(self, queues: &[&str]) {
        let queue = Queue::connect(&self.url, &self.name).await.unwrap();
        queue.erase(queues).await.unwrap();
    }
}

#[tokio::test]
async fn rabbitmq_keeps_the_brokers_contract() {
    let place = Place::new();
    broker_contract(async || place.open(&place.url).await).await;
    place.end(QUEUES).await;
}

#[tokio::test]
async fn a_connection_lost_before_in_or_after_a_batch_loses_no_event() {
    let place = Place::new();
    let proxy = ChaosProxy::start(place.server()).unwrap();
    let (out, events) = place.behind(&proxy).await;
    events.bind("order", &["order.v1"]).await.unwrap();
    let all: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let batches: Vec<Vec<_>> = all
        .chunks(50)
        .map(|chunk| chunk.iter().map(|id| message("order.v1", id)).collect())
        .collect();
    relay(out.as_ref(), &batches[0]).await;
    // Before any byte, in the middle of the batch, and when the first confirm comes.
    let cuts: [(&str, &dyn Fn()); 3] = [
        ("before", &|| proxy.cut_before_request()),
        ("in", &|| proxy.cut_in_request(3_000)),
        ("after", &|| proxy.cut_after_request(1)),
    ];
    for ((name, cut), batch) in cuts.iter().zip(&batches[1..]) {
        cut();
        relay(out.as_ref(), batch).await;
        tokio::time::timeout(PATIENCE, proxy.sprung()).await.expect(name);
    }
    let complete = |came: &[String]| all.iter().all(|id| came.contains(id));
    let came = work_off(events.as_ref(), "order", complete).await;
    let mut first_times: Vec<&String> = Vec::new();
    for id in &came {
        assert!(came.iter().filter(|c| *c == id).count() <= 2, "{id} in {came:?}");
        if !first_times.contains(&id) {
            first_times.push(id);
        }
    }
    assert!(first_times.is_sorted(), "{came:?}");
    place.end(&["order"]).await;
}
