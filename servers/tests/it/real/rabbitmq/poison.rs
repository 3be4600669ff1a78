//! A message that kills whoever takes it, among others that do not.

use super::*;

const LIMIT: u32 = 4;

/// A consumer as the services have them: claims some, works on one after the other, acknowledges what it did at the end of the claim.
/// It dies of `poison`; `waits` is answered with a retry for as long as the poison lives.
async fn consume(queue: &Queue, poison: &[&str], waits: &str, done: &mut Vec<String>) -> bool {
    let claimed = queue.claim(Q, 16).await.unwrap_or_default();
    let mut tags = Vec::new();
    for message in claimed {
        if poison.contains(&message.id.as_str()) {
            queue.crash().await;
            return false;
        }
        if message.id == waits && queue.dead_letters(Q).await.unwrap().len() < poison.len() {
            let pause = Duration::from_millis(50);
            queue.retry(Q, message.tag, pause, "blocked").await.unwrap();
            continue;
        }
        tags.push(message.tag);
        done.push(message.id);
    }
    queue.ack(Q, &tags).await.unwrap();
    true
}

async fn neighbours_live(poison: &[&str], waits: &str) {
    let place = Place::new();
    let bounds = Bounds {
        deliveries: LIMIT,
        ..Bounds::default()
    };
    let queue = place.queue_within(bounds).await;
    publish(&queue, 0..40).await;
    let (mut done, mut crashes) = (Vec::new(), 0_usize);
    let until = Instant::now() + PATIENCE;
    let innocent: BTreeSet<String> = (0..40)
        .map(|n| n.to_string())
        .filter(|id| !poison.contains(&id.as_str()))
        .collect();
    loop {
        assert!(Instant::now() < until, "{crashes} crashes, done: {done:?}");
        if !consume(&queue, poison, waits, &mut done).await {
            crashes += 1;
        }
        let all = innocent.iter().all(|id| done.contains(id));
        if all && queue.dead_letters(Q).await.unwrap().len() >= poison.len() {
            break;
        }
    }
    let letters = queue.dead_letters(Q).await.unwrap();
    let mut dead: Vec<&str> = letters.iter().map(|l| l.id.as_str()).collect();
    dead.sort_unstable();
    assert_eq!(dead, poison, "an innocent neighbour died");
    assert!(
        letters
            .iter()
            .all(|l| l.cause.contains("delivery limit") && l.topic == TOPIC),
        "{letters:?}"
    );
    let most = poison.len() * (usize::try_from(LIMIT).unwrap() + 1);
    assert!(crashes <= most, "{crashes} crashes");
    is_empty(&queue).await;
    place.end().await;
}

#[tokio::test]
async fn poison_at_the_head_dies_alone() {
    neighbours_live(&["0"], "none").await;
}

#[tokio::test]
async fn poison_in_the_middle_dies_alone() {
    neighbours_live(&["23"], "none").await;
}

#[tokio::test]
async fn a_message_that_waits_outlives_the_poison_behind_it() {
    neighbours_live(&["5"], "3").await;
    neighbours_live(&["1"], "0").await;
}

#[tokio::test]
async fn more_poison_than_the_limit_takes_no_neighbour_either() {
    neighbours_live(&["10", "11", "12", "13", "14", "15"], "9").await;
}
