//! The broker: routing, claims and their loss, retries, dead letters.

use std::{path::PathBuf, time::Duration};

use weir_embedded::{Queue, StoreError};

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("broker.db")
}

async fn open(dir: &tempfile::TempDir) -> Queue {
    let queue = Queue::open_alone(&file(dir)).unwrap();
    queue.bind("rating", "usage.v1").await.unwrap();
    queue
}

#[tokio::test]
async fn a_message_reaches_every_bound_queue_and_none_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    queue.bind("audit", "usage.v1").await.unwrap();
    queue.bind("audit", "usage.v1").await.unwrap();
    queue.publish("usage.v1", "1", b"a".to_vec()).await.unwrap();
    for name in ["rating", "audit"] {
        let claimed = queue.claim(name, 10).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!(
            (
                claimed[0].attempt,
                claimed[0].id.as_str(),
                claimed[0].body.as_slice()
            ),
            (1, "1", &b"a"[..])
        );
        queue.ack(name, &[claimed[0].tag]).await.unwrap();
        queue.ack(name, &[claimed[0].tag]).await.unwrap();
        assert_eq!(queue.depth(name).await, Ok(0));
    }
    assert!(matches!(
        queue.publish("nobody.v1", "1", vec![]).await,
        Err(StoreError::Unroutable(_))
    ));
}

#[tokio::test]
async fn the_same_id_waits_once_and_with_other_content_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    queue.publish("usage.v1", "1", b"a".to_vec()).await.unwrap();
    queue.publish("usage.v1", "1", b"a".to_vec()).await.unwrap();
    assert!(matches!(
        queue.publish("usage.v1", "1", b"b".to_vec()).await,
        Err(StoreError::Conflict(_))
    ));
    assert_eq!(queue.depth("rating").await, Ok(1));
}

#[tokio::test]
async fn claims_come_in_order_and_are_not_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    for n in 0..10 {
        queue.publish("usage.v1", &n.to_string(), vec![n]).await.unwrap();
    }
    let other = Queue::open_alone(&file(&dir)).unwrap();
    let first = queue.claim("rating", 4).await.unwrap();
    let second = other.claim("rating", 100).await.unwrap();
    let bodies = |d: &[weir_embedded::Delivery]| d.iter().map(|m| m.body[0]).collect::<Vec<_>>();
    assert_eq!(bodies(&first), [0, 1, 2, 3]);
    assert_eq!(bodies(&second), [4, 5, 6, 7, 8, 9]);
    assert!(queue.claim("rating", 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_restarted_reader_gets_what_the_last_one_had_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    queue.publish("usage.v1", "1", b"a".to_vec()).await.unwrap();
    let reader = Queue::open_alone(&file(&dir)).unwrap();
    assert_eq!(reader.claim("rating", 1).await.unwrap()[0].attempt, 1);
    drop(reader);
    let again = Queue::open_alone(&file(&dir)).unwrap();
    let mut claimed = again.claim("rating", 1).await.unwrap();
    assert_eq!(claimed.pop().unwrap().attempt, 2);
}

#[tokio::test]
async fn a_retry_is_delayed_and_neighbours_pass_it() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    for id in ["1", "2"] {
        queue.publish("usage.v1", id, id.into()).await.unwrap();
    }
    let first = queue.claim("rating", 1).await.unwrap().remove(0);
    queue
        .retry("rating", first.tag, Duration::from_millis(150), "a gap")
        .await
        .unwrap();
    assert_eq!(queue.claim("rating", 5).await.unwrap()[0].id, "2");
    let back = queue.claim("rating", 5).await.unwrap().remove(0);
    assert_eq!((back.id.as_str(), back.attempt), ("1", 2));
}

#[tokio::test]
async fn a_dead_letter_keeps_its_cause_and_can_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    queue.publish("usage.v1", "1", b"poison".to_vec()).await.unwrap();
    let message = queue.claim("rating", 1).await.unwrap().remove(0);
    queue
        .dead_letter("rating", message.tag, "unknown version")
        .await
        .unwrap();
    drop(queue);
    let queue = open(&dir).await;
    assert_eq!(queue.depth("rating").await, Ok(0));
    let dead = queue.dead_letters("rating").await.unwrap().remove(0);
    assert_eq!(
        (dead.cause.as_str(), dead.attempt, dead.body.as_slice()),
        ("unknown version", 1, &b"poison"[..])
    );
    assert_eq!(queue.replay("rating", dead.tag).await, Ok(true));
    assert_eq!(queue.replay("rating", dead.tag).await, Ok(false));
    assert_eq!(queue.claim("rating", 1).await.unwrap()[0].body, b"poison");
}

#[tokio::test]
async fn a_waiting_claim_wakes_at_the_publish() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    let reader = queue.clone();
    let waiting = tokio::spawn(async move { reader.claim("rating", 1).await });
    tokio::task::yield_now().await;
    queue.publish("usage.v1", "1", vec![]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failed_command_takes_no_neighbour_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(&dir).await;
    let calls: Vec<_> = (0..40)
        .map(|n| {
            let queue = queue.clone();
            let topic = if n % 3 == 0 { "nobody.v1" } else { "usage.v1" };
            tokio::spawn(async move { queue.publish(topic, &n.to_string(), vec![]).await })
        })
        .collect();
    let mut done = 0;
    for call in calls {
        done += u64::from(call.await.unwrap().is_ok());
    }
    assert_eq!(done, 26);
    assert_eq!(queue.depth("rating").await, Ok(26));
}
