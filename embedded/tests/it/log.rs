//! The outbox: conditional appends, the confirmed cursor, and what survives.

use std::path::PathBuf;

use weir_embedded::{Appended, Log, Position, StoreError};

const S: &str = "usage:p";

fn at(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

fn batch(epoch: u64, sequences: std::ops::RangeInclusive<u64>) -> Vec<(Position, Vec<u8>)> {
    sequences
        .map(|s| (at(epoch, s), format!("{epoch}-{s}").into_bytes()))
        .collect()
}

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("outbox.db")
}

#[tokio::test]
async fn a_batch_is_appended_only_after_the_place_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&file(&dir)).unwrap();
    assert_eq!(
        log.append_after(S, Some(at(1, 3)), batch(1, 4..=5)).await,
        Ok(Appended::LastIs(None))
    );
    assert_eq!(
        log.append_after(S, None, batch(1, 1..=3)).await,
        Ok(Appended::Done)
    );
    assert_eq!(
        log.append_after(S, None, batch(1, 1..=3)).await,
        Ok(Appended::LastIs(Some(at(1, 3))))
    );
    assert_eq!(
        log.append_after(S, Some(at(1, 4)), batch(1, 5..=6)).await,
        Ok(Appended::LastIs(Some(at(1, 3))))
    );
    assert_eq!(
        log.append_after(S, Some(at(1, 3)), batch(2, 1..=2)).await,
        Ok(Appended::Done)
    );
    assert_eq!(log.read_after(S, None, 100).await.unwrap().len(), 5);
    assert_eq!(
        log.read_after(S, Some(at(1, 2)), 2).await.unwrap(),
        [batch(1, 3..=3), batch(2, 1..=1)].concat()
    );
    assert_eq!(log.last(S).await, Ok(Some(at(2, 2))));
    assert_eq!(log.streams().await.unwrap(), [S]);
}

#[tokio::test]
async fn the_same_place_with_other_content_is_an_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&file(&dir)).unwrap();
    log.append_after(S, None, batch(1, 1..=3)).await.unwrap();
    let mut other = batch(1, 2..=4);
    other[1].1 = b"forged".to_vec();
    let refused = log.append_after(S, Some(at(1, 1)), other).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(log.read_after(S, None, 10).await.unwrap(), batch(1, 1..=3));
}

#[tokio::test]
async fn a_batch_out_of_order_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&file(&dir)).unwrap();
    for wrong in [
        [batch(1, 2..=2), batch(1, 1..=1)].concat(),
        [batch(1, 1..=1), batch(1, 1..=1)].concat(),
    ] {
        assert!(matches!(
            log.append_after(S, None, wrong).await,
            Err(StoreError::Order(_))
        ));
    }
    let before = log.append_after(S, Some(at(3, 1)), batch(2, 1..=2)).await;
    assert!(matches!(before, Err(StoreError::Order(_))));
    let many = log
        .append_after(S, None, batch(1, 1..=weir_embedded::ENTRIES_MAX as u64 + 1))
        .await;
    assert!(matches!(many, Err(StoreError::Order(_))));
    assert_eq!(log.last(S).await, Ok(None));
}

#[tokio::test]
async fn the_cursor_only_moves_forward_within_the_stream_and_its_end_outlives_what_it_drops() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&file(&dir)).unwrap();
    log.append_after(S, None, batch(1, 1..=9)).await.unwrap();
    assert!(matches!(
        log.confirm(S, at(1, 10)).await,
        Err(StoreError::Order(_))
    ));
    log.confirm(S, at(1, 6)).await.unwrap();
    log.confirm(S, at(1, 4)).await.unwrap();
    assert_eq!(log.confirmed(S).await, Ok(Some(at(1, 6))));
    assert_eq!(log.read_after(S, None, 100).await.unwrap(), batch(1, 7..=9));
    log.confirm(S, at(1, 9)).await.unwrap();
    assert_eq!(
        log.append_after(S, None, batch(1, 1..=1)).await,
        Ok(Appended::LastIs(Some(at(1, 9))))
    );
    assert_eq!(
        log.append_after(S, Some(at(1, 9)), batch(1, 10..=10)).await,
        Ok(Appended::Done)
    );
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening_and_for_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open_alone(&file(&dir)).unwrap();
    log.append_after(S, None, batch(1, 1..=3)).await.unwrap();
    log.confirm(S, at(1, 1)).await.unwrap();
    let other = Log::open_alone(&file(&dir)).unwrap();
    assert_eq!(other.read_after(S, None, 10).await.unwrap(), batch(1, 2..=3));
    drop(log);
    let again = Log::open_alone(&file(&dir)).unwrap();
    assert_eq!(again.confirmed(S).await, Ok(Some(at(1, 1))));
    assert_eq!(
        again.append_after(S, Some(at(1, 3)), batch(1, 4..=4)).await,
        Ok(Appended::Done)
    );
    assert_eq!(
        other.append_after(S, Some(at(1, 3)), batch(1, 4..=4)).await,
        Ok(Appended::LastIs(Some(at(1, 4))))
    );
}

#[tokio::test]
async fn two_processes_racing_for_one_place_never_both_win() {
    let dir = tempfile::tempdir().unwrap();
    let logs: Vec<Log> = (0..4).map(|_| Log::open_alone(&file(&dir)).unwrap()).collect();
    for round in 1..=20 {
        let after = (round > 1).then(|| at(1, round - 1));
        let race = logs
            .iter()
            .map(|log| log.append_after(S, after, batch(1, round..=round)));
        let won = futures_join(race).await;
        assert_eq!(
            won.iter().filter(|r| **r == Ok(Appended::Done)).count(),
            1,
            "{won:?}"
        );
    }
    assert_eq!(logs[0].read_after(S, None, 100).await.unwrap(), batch(1, 1..=20));
}

async fn futures_join<F>(all: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future,
{
    let mut pending: Vec<std::pin::Pin<Box<F>>> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (slot, future) in done.iter_mut().zip(&mut pending) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_change_before_the_wait_is_not_slept_over() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&file(&dir)).unwrap();
    let reader = log.clone();
    log.append_after(S, None, batch(1, 1..=1)).await.unwrap();
    let began = std::time::Instant::now();
    for n in 2..=50 {
        reader.changed().await;
        log.append_after(S, Some(at(1, n - 1)), batch(1, n..=n))
            .await
            .unwrap();
    }
    assert!(
        began.elapsed() < std::time::Duration::from_secs(4),
        "each wait ran into its poll: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_append_whose_caller_gave_up_is_found_by_its_retry() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&file(&dir)).unwrap();
    let mut lost = Box::pin(log.append_after(S, None, batch(1, 1..=3)));
    // Polled once, so the command is given; then the reply is lost.
    std::future::poll_fn(|cx| {
        let _ = lost.as_mut().poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
    drop(lost);
    assert_eq!(
        log.append_after(S, None, batch(1, 1..=3)).await,
        Ok(Appended::LastIs(Some(at(1, 3))))
    );
}
