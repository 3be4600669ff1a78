//! The outbox source's contract over Redis, and the relay when Redis goes back under it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use weir_billing::{
    adapters::RedisOutbox,
    ports::{PortError, outbox_source::OutboxSource},
};
use weir_contracts::event::Place;
use weir_servers::{
    ServerUrl,
    chaos_proxy::ChaosProxy,
    redis::{Appended, CALL_LIMIT, Log, Position},
    redis_process::RedisProcess,
};

use super::server_url;
use crate::contract::outbox_source::{Entries, Lost, Side, at, batch, whole};

/// `REDIS_URL` led through a proxy.
fn through(url: &str, proxy: SocketAddr) -> ServerUrl {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let database = place.split_once('/').map_or("", |(_, database)| database);
    let at = if user.is_empty() { "" } else { "@" };
    format!("{scheme}://{user}{at}{proxy}/{database}").into()
}

fn upstream(url: &str) -> SocketAddr {
    let place = url
        .rsplit_once('@')
        .map_or_else(|| url.split_once("://").unwrap().1, |(_, place)| place);
    place.split('/').next().unwrap().parse().unwrap()
}

fn inner(place: Place) -> Position {
    Position {
        epoch: place.epoch,
        sequence: place.sequence,
    }
}

struct OnRedis {
    chaos: ChaosProxy,
    url: String,
    prefix: String,
}

impl OnRedis {
    fn new(url: String) -> Self {
        Self {
            chaos: ChaosProxy::start(upstream(&url)).unwrap(),
            url,
            prefix: format!("test_{}", uuid::Uuid::new_v4().simple()),
        }
    }

    /// The proxy's side, not through the chaos.
    fn direct(&self) -> Log {
        Log::connect(&self.url.as_str().into(), &self.prefix).unwrap()
    }

    fn arm(&self, lost: Lost) {
        match lost {
            Lost::Before => self.chaos.cut_before_request(),
            Lost::During => self.chaos.cut_in_request(20),
            Lost::After => self.chaos.cut_after_request(1),
        }
    }
}

#[async_trait]
impl Side for OnRedis {
    async fn source(&self) -> Arc<dyn OutboxSource> {
        let source = RedisOutbox::open(&through(&self.url, self.chaos.addr), &self.prefix).await;
        Arc::new(source.unwrap())
    }

    async fn append(&self, stream: &str, entries: Entries) {
        let log = self.direct();
        let after = log.last(stream).await.unwrap();
        let entries = entries.into_iter().map(|(at, body)| (inner(at), body)).collect();
        let appended = log.append_after(stream, after, entries).await;
        assert_eq!(appended, Ok(Appended::Done));
    }

    async fn lost_confirm(&self, lost: Lost, stream: &str, up_to: Place) {
        let source = self.source().await;
        self.arm(lost);
        let answer = source.confirm(stream, up_to).await;
        assert!(
            matches!(answer, Err(PortError::Unavailable(..))),
            "{lost:?}: {answer:?}"
        );
        self.chaos.sprung().await;
        // The same handle is of use at once.
        source.last(stream).await.unwrap();
    }

    async fn lost_read(&self, lost: Lost, stream: &str) {
        let source = self.source().await;
        match lost {
            Lost::After => self.chaos.cut_in_answer(30),
            _ => self.arm(lost),
        }
        let answer = source.read_after(stream, None, 100).await;
        assert!(
            matches!(answer, Err(PortError::Unavailable(..))),
            "{lost:?}: {answer:?}"
        );
        self.chaos.sprung().await;
    }
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    whole(&OnRedis::new(server_url("REDIS_URL"))).await;
}

#[tokio::test]
async fn a_server_set_up_wrong_is_told_from_one_that_is_away() {
    let mut redis = RedisProcess::start(&["--appendonly", "no"]);
    let url = redis.url();
    let wrong = RedisOutbox::open(&url, "weir").await.unwrap_err();
    assert!(matches!(wrong, PortError::Settings(..)), "{wrong}");
    assert!(wrong.to_string().contains("CONFIG SET appendonly yes"), "{wrong}");
    redis.kill();
    let away = RedisOutbox::open(&url, "weir").await.unwrap_err();
    assert!(matches!(away, PortError::Unavailable(..)), "{away}");
}

/// The cursor and the stream's end as every kind of loss leaves them: the relay neither skips nor stands still.
#[tokio::test]
async fn a_cursor_ahead_of_the_stream_waits_for_the_proxy_and_skips_nothing() {
    let redis = RedisProcess::start(&[]);
    let side = OnRedis::new(redis.url().reveal().to_owned());
    let (source, stream) = (side.source().await, "usage:a");
    side.append(stream, batch(1, 1..=9)).await;
    source.confirm(stream, at(1, 5)).await.unwrap();
    let key = format!("{}:{stream}", side.prefix);

    // The stream alone is gone (deleted, evicted): its cursor stands, and nothing is read until the proxy refills it.
    assert_eq!(redis.command(&["DEL", &key]), "1");
    assert_eq!(source.last(stream).await.unwrap(), None);
    assert_eq!(source.confirmed(stream).await.unwrap(), Some(at(1, 5)));
    assert_eq!(
        source.read_after(stream, Some(at(1, 5)), 100).await.unwrap(),
        Entries::new()
    );
    let lost = source.confirm(stream, at(1, 9)).await.unwrap_err();
    assert!(matches!(lost, PortError::Unavailable(..)), "{lost}");
    // It begins at the proxy's own cursor, which may be older.
    side.append(stream, batch(1, 3..=4)).await;
    assert_eq!(
        source.read_after(stream, Some(at(1, 5)), 100).await.unwrap(),
        Entries::new()
    );
    side.append(stream, batch(1, 5..=9)).await;
    assert_eq!(
        source.read_after(stream, Some(at(1, 5)), 100).await.unwrap(),
        batch(1, 6..=9)
    );
    source.confirm(stream, at(1, 9)).await.unwrap();

    // The cursor alone is gone: the relay begins at the entry that was kept at it.
    assert_eq!(redis.command(&["DEL", &format!("{key}:confirmed")]), "1");
    assert_eq!(source.confirmed(stream).await.unwrap(), None);
    assert_eq!(
        source.read_after(stream, None, 100).await.unwrap(),
        batch(1, 9..=9)
    );

    // The set of names is gone: the next append makes it whole.
    assert_eq!(redis.command(&["DEL", &format!("{}:streams", side.prefix)]), "1");
    assert_eq!(source.streams().await.unwrap(), Vec::<String>::new());
    side.append(stream, batch(2, 1..=1)).await;
    assert_eq!(source.streams().await.unwrap(), [stream]);
}

/// Only the relay can notice: the stream still ends where the proxy left it. Within an epoch a gap would block rating for ever; at an epoch's
/// end it would not even be seen.
#[tokio::test]
async fn what_somebody_trimmed_before_it_was_confirmed_is_shipped_again() {
    let redis = RedisProcess::start(&[]);
    let side = OnRedis::new(redis.url().reveal().to_owned());
    let (source, stream) = (side.source().await, "usage:a");
    let key = format!("{}:{stream}", side.prefix);
    let all = [batch(1, 1..=9), batch(2, 1..=3)].concat();
    for (damage, good) in [
        (vec!["XTRIM", &key, "MINID", "2-1"], 0),
        (vec!["XTRIM", &key, "MAXLEN", "0"], 0),
        (vec!["XDEL", &key, "1-6"], 0),
        (vec!["XDEL", &key, "1-9"], 3),
        (vec!["XDEL", &key, "2-3"], 6),
    ] {
        let _ = redis.command(&["FLUSHALL"]);
        side.append(stream, all.clone()).await;
        source.confirm(stream, at(1, 5)).await.unwrap();
        let _ = redis.command(&damage);
        let mut after = at(1, 5);
        let error = loop {
            match source.read_after(stream, Some(after), 100).await {
                Ok(read) => {
                    assert!(!read.is_empty(), "{damage:?}: the relay would wait for ever");
                    after = read.last().unwrap().0;
                    source.confirm(stream, after).await.unwrap();
                }
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("removed by somebody else"), "{error}");
        let wanted = all.iter().position(|(place, _)| *place == after).unwrap();
        assert_eq!(
            wanted,
            4 + good,
            "{damage:?}: what is before the hole is read, nothing after it"
        );
        assert_eq!(
            source.last(stream).await.unwrap(),
            None,
            "the proxy is asked to ship again"
        );
        side.append(stream, all[wanted..].to_vec()).await;
        let left = source.read_after(stream, Some(after), 100).await.unwrap();
        assert_eq!(left, all[wanted + 1..]);
    }
}

#[tokio::test]
async fn a_server_that_hangs_holds_the_relay_no_longer_than_a_call() {
    let redis = RedisProcess::start(&[]);
    let side = OnRedis::new(redis.url().reveal().to_owned());
    let source = side.source().await;
    side.append("usage:a", batch(1, 1..=3)).await;
    redis.pause();
    let began = Instant::now();
    let (streams, confirm) = tokio::join!(source.streams(), source.confirm("usage:a", at(1, 2)));
    assert!(
        began.elapsed() < CALL_LIMIT + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert!(streams.is_err() && confirm.is_err(), "{streams:?} {confirm:?}");
    redis.resume();
    // What was sent to the stopped server may be carried out late; the cursor stays whole.
    assert_eq!(source.streams().await.unwrap(), ["usage:a"]);
    source.confirm("usage:a", at(1, 3)).await.unwrap();
    assert_eq!(source.confirmed("usage:a").await.unwrap(), Some(at(1, 3)));
}
