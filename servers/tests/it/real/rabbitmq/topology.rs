//! What is checked before a queue is used: who answers, who we are to it, and what stands there already.

use lapin::{
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::*;

fn told(outcome: Result<impl std::fmt::Debug, RabbitError>) -> String {
    match outcome.unwrap_err() {
        RabbitError::Setting(text) => text,
        other => panic!("not a setting: {other}"),
    }
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_with_the_remedy() {
    let place = Place::new();
    let (_connection, channel) = place.admin().await;
    let full = format!("{}.{Q}", place.name);
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .queue_declare(full.as_str().into(), options, arguments)
        .await
        .unwrap();
    let queue = Queue::connect(&place.url, &place.name).await.unwrap();
    for text in [
        told(queue.check_topology(&[Q]).await),
        told(queue.bind(Q, TOPIC).await),
    ] {
        assert!(text.contains(&format!("queue `{full}`")), "{text}");
        assert!(text.contains("another `x-"), "{text}");
        assert!(text.contains("rabbitmqctl delete_queue"), "{text}");
    }
    // The remedy works.
    place.delete(Q).await;
    queue.bind(Q, TOPIC).await.unwrap();
    queue.check_topology(&[Q]).await.unwrap();
    place.end().await;
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_named_with_the_remedy() {
    let place = Place::new();
    let (_connection, channel) = place.admin().await;
    let declare = |kind| {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        channel.exchange_declare(place.name.as_str().into(), kind, options, FieldTable::default())
    };
    declare(ExchangeKind::Fanout).await.unwrap();
    let queue = Queue::connect(&place.url, &place.name).await.unwrap();
    for text in [
        told(queue.check_topology(&[Q]).await),
        told(queue.bind(Q, TOPIC).await),
    ] {
        assert!(
            text.contains(&format!("exchange `{}`", place.name)) && text.contains("`type`"),
            "{text}"
        );
    }
    channel
        .exchange_delete(place.name.as_str().into(), ExchangeDeleteOptions::default())
        .await
        .unwrap();
    queue.bind(Q, TOPIC).await.unwrap();
    place.end().await;
}

#[tokio::test]
async fn checking_makes_nothing() {
    let place = Place::new();
    let queue = Queue::connect(&place.url, &place.name).await.unwrap();
    queue.check_topology(&[Q]).await.unwrap();
    assert!(queue.depth(Q).await.is_err(), "the queue was made");
    assert!(
        queue
            .claim(Q, 1)
            .await
            .unwrap_err()
            .to_string()
            .contains("does not exist")
    );
}

#[tokio::test]
async fn a_wrong_user_host_or_virtual_host_is_told_without_the_password() {
    let place = Place::new();
    let at = broker(&place.url);
    let user = place
        .url
        .reveal()
        .split_once("://")
        .unwrap()
        .1
        .rsplit_once('@')
        .unwrap()
        .0
        .to_owned();
    let connect = async |url: String| Queue::connect(&ServerUrl::from(url), "t").await;
    let text = told(connect(format!("amqp://somebody:canary-secret@{at}/weir")).await);
    assert!(text.contains("amqp_url") && !text.contains("canary"), "{text}");
    let text = told(connect(format!("amqp://{user}@{at}/no-such-host")).await);
    assert!(text.contains("rabbitmqctl add_vhost"), "{text}");
    let text = told(connect("amqp://u:canary-secret@host:not-a-port/".to_owned()).await);
    assert!(text.contains("amqp_url") && !text.contains("canary"), "{text}");
    // Nobody there, and somebody who says nothing.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = free.local_addr().unwrap();
    let from = Instant::now();
    let hangs = connect(format!("amqp://u:canary-secret@{silent}/"))
        .await
        .unwrap_err();
    assert!(
        hangs.is_unavailable() && from.elapsed() < Duration::from_secs(5) + SLACK,
        "{hangs}"
    );
    drop(free);
    let nobody = connect(format!("amqp://u:canary-secret@{silent}/"))
        .await
        .unwrap_err();
    assert!(
        nobody.is_unavailable() && !nobody.to_string().contains("canary"),
        "{nobody}"
    );
}
