//! The outbox's contract over Redis, and what only a server can do to it: hang, fill up.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use weir_contracts::ids::ProxyId;
use weir_proxy::{
    adapters::redis_outbox::RedisOutbox,
    journal::Position,
    ports::outbox::{Appended, Outbox, OutboxError},
};
use weir_servers::{
    ServerUrl,
    chaos_proxy::ChaosProxy,
    redis::{self, CALL_LIMIT, Log},
    redis_process::RedisProcess,
};

use super::server_url;
use crate::contract::outbox::{Entries, Lost, Side, at, batch, whole};

/// A prefix that no other test and no earlier run has.
pub(crate) fn own_prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("test_{}_{number}", uuid::Uuid::new_v4().simple())
}

/// `REDIS_URL` led through a proxy.
fn through(url: &str, proxy: SocketAddr) -> ServerUrl {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, place) = rest
        .rsplit_once('@')
        .map_or(("", rest), |(user, place)| (user, place));
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

struct OnRedis {
    chaos: ChaosProxy,
    url: String,
    prefix: String,
    proxy: ProxyId,
}

impl OnRedis {
    fn new(url: String) -> Self {
        Self {
            chaos: ChaosProxy::start(upstream(&url)).unwrap(),
            url,
            prefix: own_prefix(),
            proxy: ProxyId(uuid::Uuid::new_v4()),
        }
    }

    /// Not through the proxy.
    fn direct(&self) -> Log {
        Log::connect(&self.url.as_str().into(), &self.prefix).unwrap()
    }

    fn stream(&self) -> String {
        format!("usage:{}", self.proxy)
    }
}

impl Side for OnRedis {
    fn outbox(&self) -> Arc<dyn Outbox> {
        let log = Log::connect(&through(&self.url, self.chaos.addr), &self.prefix).unwrap();
        Arc::new(RedisOutbox::new(log, self.proxy))
    }

    fn entries(&self) -> BoxFuture<'_, Entries> {
        async move {
            let read = self.direct().read_after(&self.stream(), None, 1000).await;
            let outer = |p: redis::Position| at(p.epoch, p.sequence);
            read.unwrap()
                .into_iter()
                .map(|(p, body)| (outer(p), body))
                .collect()
        }
        .boxed()
    }

    fn confirm(&self, up_to: Position) -> BoxFuture<'_, ()> {
        let up_to = redis::Position {
            epoch: up_to.epoch,
            sequence: up_to.sequence,
        };
        async move { self.direct().confirm(&self.stream(), up_to).await.unwrap() }.boxed()
    }

    fn lost_append(&self, lost: Lost, after: Option<Position>, entries: Entries) -> BoxFuture<'_, ()> {
        async move {
            let outbox = self.outbox();
            // Connected, so that the next request is the append.
            outbox.last().await.unwrap();
            match lost {
                Lost::Before => self.chaos.cut_before_request(),
                Lost::During => self.chaos.cut_in_request(1000),
                Lost::After => self.chaos.cut_after_request(1),
                Lost::InAnswer => self.chaos.cut_in_answer(2),
            }
            let began = Instant::now();
            let answer = outbox.append_after(after, entries).await;
            assert!(
                matches!(answer, Err(OutboxError::Unavailable(_))),
                "{lost:?}: {answer:?}"
            );
            assert!(began.elapsed() < CALL_LIMIT, "a cut is noticed, not waited for");
            self.chaos.sprung().await;
            // The same handle is of use at once.
            outbox.last().await.unwrap();
        }
        .boxed()
    }
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    whole(&OnRedis::new(server_url("REDIS_URL"))).await;
}

#[tokio::test]
async fn a_server_that_hangs_holds_no_call_beyond_its_deadline() {
    let redis = RedisProcess::start(&[]);
    let side = OnRedis::new(redis.url().reveal().to_owned());
    let outbox = side.outbox();
    assert_eq!(
        outbox.append_after(None, batch(1, 1..=3)).await,
        Ok(Appended::Done)
    );
    redis.pause();
    let began = Instant::now();
    let fresh = side.outbox();
    let next = outbox.append_after(Some(at(1, 3)), batch(1, 4..=5));
    let (append, last, connect) = tokio::join!(next, outbox.last(), fresh.last());
    assert!(
        began.elapsed() < CALL_LIMIT + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    for failed in [append.map(drop), last.map(drop), connect.map(drop)] {
        assert!(matches!(failed, Err(OutboxError::Unavailable(_))), "{failed:?}");
    }
    // Waiting for a change neither hangs nor spins.
    let began = Instant::now();
    outbox.changed().await;
    let waited = began.elapsed();
    assert!(
        waited > Duration::from_millis(20) && waited < CALL_LIMIT + Duration::from_secs(1),
        "{waited:?}"
    );
    redis.resume();
    // What was sent before is carried out late, or never; the stream says which.
    let last = outbox.last().await.unwrap().unwrap();
    assert!([at(1, 3), at(1, 5)].contains(&last), "{last}");
    let again = outbox
        .append_after(Some(at(1, 3)), batch(1, 4..=5))
        .await
        .unwrap();
    assert!([Appended::Done, Appended::LastIs(Some(at(1, 5)))].contains(&again));
    assert_eq!(side.entries().await, batch(1, 1..=5));
}

#[tokio::test]
async fn a_server_that_is_away_is_used_again_when_it_is_back() {
    let mut redis = RedisProcess::start(&[]);
    let side = OnRedis::new(redis.url().reveal().to_owned());
    let outbox = side.outbox();
    assert_eq!(
        outbox.append_after(None, batch(1, 1..=3)).await,
        Ok(Appended::Done)
    );
    redis.kill();
    for _ in 0..3 {
        let answer = outbox.append_after(Some(at(1, 3)), batch(1, 4..=5)).await;
        assert!(matches!(answer, Err(OutboxError::Unavailable(_))), "{answer:?}");
    }
    redis.start_again();
    let next = outbox.append_after(Some(at(1, 3)), batch(1, 4..=5)).await;
    assert_eq!(
        next,
        Ok(Appended::Done),
        "its file kept what was there, and the script is given again"
    );
    assert_eq!(side.entries().await, batch(1, 1..=5));
}

#[tokio::test]
async fn a_full_server_takes_nothing_until_it_is_emptied_by_confirming() {
    let redis = RedisProcess::start(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let side = OnRedis::new(redis.url().reveal().to_owned());
    let outbox = side.outbox();
    let (mut last, mut full) = (None, None);
    for n in 1..200 {
        match outbox
            .append_after(last, vec![(at(1, n), vec![b'x'; 100_000])])
            .await
        {
            Ok(answer) => assert_eq!(answer, Appended::Done),
            Err(error) => {
                full = Some(error);
                break;
            }
        }
        last = Some(at(1, n));
    }
    let Some(OutboxError::Unavailable(said)) = full else {
        panic!("{full:?}")
    };
    assert!(said.contains("OOM"), "{said}");
    let end = last.unwrap();
    assert_eq!(outbox.last().await, Ok(last), "refused is not appended");
    side.confirm(at(1, end.sequence - 1)).await;
    let next = at(1, end.sequence + 1);
    let emptied = async {
        // Memory is given back step by step.
        while outbox.append_after(last, vec![(next, b"{}".to_vec())]).await != Ok(Appended::Done) {
            outbox.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), emptied)
        .await
        .expect("still full");
}
