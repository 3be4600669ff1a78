//! Redis forgets: everything, or the tail that a replica had not got. Every usage record still arrives once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use weir_proxy::{adapters::redis_outbox::RedisOutbox, journal, ship::Shipper};
use weir_servers::{
    chaos_proxy::ChaosProxy,
    redis::{Appended, Log, Position, RedisError},
    redis_process::RedisProcess,
};

use crate::ship::Yard;

type Entries = Vec<(Position, Vec<u8>)>;

const PREFIX: &str = "weir";
/// For all that is under way to arrive, on a loaded machine.
const ARRIVAL: Duration = Duration::from_secs(60);

fn at(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

fn outer(place: journal::Position) -> Position {
    at(place.epoch, place.sequence)
}

/// Stands for the broker and rating: keeps what the relay published, and a high-water mark with the rule of the real one.
#[derive(Default)]
struct Rating {
    mark: Option<Position>,
    rated: HashMap<Position, Vec<u8>>,
    waiting: VecDeque<(Option<Position>, Entries)>,
    duplicates: usize,
}

impl Rating {
    fn publish(&mut self, after: Option<Position>, entries: Entries) {
        self.waiting.push_back((after, entries));
        // A batch with a gap before it comes again later.
        for _ in 0..self.waiting.len() {
            if let Some((after, entries)) = self.waiting.pop_front()
                && !self.rate(after, &entries)
            {
                self.waiting.push_back((after, entries));
            }
        }
    }

    fn rate(&mut self, after: Option<Position>, entries: &Entries) -> bool {
        let (seen, new): (Vec<_>, Vec<_>) = entries
            .iter()
            .partition(|(p, _)| self.mark.is_some_and(|m| *p <= m));
        for (place, body) in &seen {
            assert!(
                self.rated.get(place) == Some(body),
                "{place} came with other content"
            );
        }
        self.duplicates += seen.len();
        let Some((first, _)) = new.first() else {
            return true;
        };
        let follows = match self.mark {
            Some(mark) if mark.epoch == first.epoch => mark.sequence + 1 == first.sequence,
            mark => first.sequence == 1 && after == mark,
        };
        if follows {
            self.mark = new.last().map(|(place, _)| *place);
            for (place, body) in new {
                assert!(
                    self.rated.insert(*place, body.clone()).is_none(),
                    "{place} was rated twice"
                );
            }
        }
        follows
    }
}

/// The relay's loop: never ends by itself, survives whatever Redis does.
struct Relay {
    log: Log,
    stream: String,
    rating: Rating,
    mark: watch::Sender<Option<Position>>,
    held: watch::Receiver<bool>,
}

impl Relay {
    async fn run(mut self) -> Rating {
        // Ends when the test lets go of `held`.
        while self.held.wait_for(|held| !held).await.is_ok() {
            match self.pass().await {
                Ok(true) => {}
                Ok(false) | Err(_) => self.log.changed().await,
            }
            self.mark.send_replace(self.rating.mark);
            if self.held.has_changed().is_err() {
                break;
            }
        }
        self.rating
    }

    async fn pass(&mut self) -> Result<bool, RedisError> {
        let after = self.log.confirmed(&self.stream).await?;
        let mut entries = self.log.read_after(&self.stream, after, 100).await?;
        let whole = entries
            .windows(2)
            .take_while(|pair| {
                (pair[0].0.epoch, pair[0].0.sequence + 1) == (pair[1].0.epoch, pair[1].0.sequence)
            })
            .count();
        entries.truncate(whole + 1);
        let Some((last, _)) = entries.last() else {
            return Ok(false);
        };
        let last = *last;
        self.rating.publish(after, entries);
        self.log.confirm(&self.stream, last).await?;
        Ok(true)
    }
}

/// The relay in the background.
struct Rated {
    mark: watch::Receiver<Option<Position>>,
    held: watch::Sender<bool>,
    relay: JoinHandle<Rating>,
}

impl Rated {
    fn start(log: Log, stream: String) -> Self {
        let (mark, mark_seen) = watch::channel(None);
        let (held, held_seen) = watch::channel(false);
        let relay = Relay {
            log,
            stream,
            rating: Rating::default(),
            mark,
            held: held_seen,
        };
        Self {
            mark: mark_seen,
            held,
            relay: tokio::spawn(relay.run()),
        }
    }

    fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    async fn reaches(&mut self, place: Position) {
        let there = self.mark.wait_for(|mark| *mark >= Some(place));
        if tokio::time::timeout(ARRIVAL, there).await.is_err() {
            panic!("rated up to {:?} instead of {place}", *self.mark.borrow());
        }
    }

    async fn end(self) -> Rating {
        drop(self.held);
        tokio::time::timeout(ARRIVAL, self.relay).await.unwrap().unwrap()
    }
}

/// Waits until the outbox has all of the journal.
async fn shipped(shipper: &Shipper, yard: &Yard) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let all = async {
        while shipper.lag().shipped != yard.journal.last() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(ARRIVAL, all)
        .await
        .expect("not shipped in time");
}

fn start_shipper(log: &Log, yard: &Yard) -> Shipper {
    let outbox = RedisOutbox::new(log.clone(), yard.journal.proxy());
    Shipper::start(yard.journal.clone(), Arc::new(outbox))
}

/// How many appends of 50 records in one stretch of load.
const LOAD: u32 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_in_mid_load_every_record_arrives_once() {
    let redis = RedisProcess::start(&[]);
    let log = Log::connect(&redis.url(), PREFIX).unwrap();
    let mut yard = Yard::new();
    let mut rated = Rated::start(log.clone(), yard.stream());
    let flush = || assert_eq!(redis.command(&["FLUSHALL"]), "OK");
    for epoch in 1..=3_u64 {
        let shipper = start_shipper(&log, &yard);
        for n in 0..LOAD {
            yard.work(50).await;
            // With the relay behind (nothing confirmed of what is lost), and in the middle of its work.
            match n {
                2 | 5 => rated.hold(true),
                3 => flush(),
                6 => {
                    shipped(&shipper, &yard).await;
                    flush();
                }
                4 | 7 => rated.hold(false),
                9 => flush(),
                _ => {}
            }
        }
        if epoch == 2 {
            // The last flush has nothing appended after it that could show it to the proxy.
            rated.hold(true);
            yard.work(50).await;
            shipped(&shipper, &yard).await;
            flush();
            rated.hold(false);
        }
        if epoch != 1 {
            rated.reaches(outer(yard.journal.last().unwrap())).await;
        }
        shipper.stop(Duration::from_secs(10)).await;
        if epoch == 1 {
            // Lost between two starts of the proxy, with an epoch's end in it.
            flush();
        }
        if epoch < 3 {
            yard = yard.restart();
        }
    }
    let rating = rated.end().await;
    let per_epoch = usize::try_from(LOAD * 50).unwrap();
    assert_eq!(rating.rated.len(), 3 * per_epoch + 50);
    assert!(rating.waiting.is_empty());
    assert!(rating.duplicates > 0, "no flush took anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_fail_over_to_a_replica_without_the_tail_every_record_arrives_once() {
    let mut master = RedisProcess::start(&["--repl-diskless-sync-delay", "0"]);
    // Between the two servers, and before them: the address that everybody knows.
    let link = ChaosProxy::start(master.addr).unwrap();
    let stable = ChaosProxy::start(master.addr).unwrap();
    let replica = RedisProcess::start(&["--replicaof", "127.0.0.1", &link.addr.port().to_string()]);
    let log = Log::connect(&format!("redis://{}/0", stable.addr).as_str().into(), PREFIX).unwrap();
    let at_replica = Log::connect(&replica.url(), PREFIX).unwrap();
    let yard = Arc::new(Yard::new());
    let stream = yard.stream();
    let mut rated = Rated::start(log.clone(), stream.clone());
    let shipper = start_shipper(&log, &yard);

    yard.work(300).await;
    rated.reaches(at(1, 300)).await;
    let copied = async {
        while !at_replica
            .confirmed(&stream)
            .await
            .is_ok_and(|c| c == Some(at(1, 300)))
        {
            at_replica.changed().await;
        }
    };
    tokio::time::timeout(ARRIVAL, copied)
        .await
        .expect("the replica got nothing");

    // The replica falls behind; what it lacks is confirmed, and known as confirmed to the proxy; then some is not even that.
    link.freeze(true);
    yard.work(300).await;
    rated.reaches(at(1, 600)).await;
    let home = async {
        while yard.journal.confirmed().map(outer) < Some(at(1, 600)) {
            log.changed().await;
        }
    };
    tokio::time::timeout(ARRIVAL, home)
        .await
        .expect("the cursor did not come home");
    rated.hold(true);
    yard.work(100).await;
    shipped(&shipper, &yard).await;

    let load = tokio::spawn({
        let yard = Arc::clone(&yard);
        async move {
            for _ in 0..LOAD {
                yard.work(50).await;
            }
        }
    });
    link.refuse(true);
    link.cut_now();
    master.kill();
    assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    let last = at_replica.last(&stream).await.unwrap();
    assert!(
        last < yard.journal.confirmed().map(outer),
        "the replica had lost nothing: {last:?}"
    );
    stable.retarget(replica.addr);
    stable.cut_now();
    rated.hold(false);
    load.await.unwrap();
    rated.reaches(outer(yard.journal.last().unwrap())).await;
    shipper.stop(Duration::from_secs(10)).await;
    let rating = rated.end().await;
    assert_eq!(rating.rated.len(), 700 + usize::try_from(LOAD * 50).unwrap());
    assert!(rating.duplicates > 0, "nothing came again");
    assert!(rating.waiting.is_empty());
}

/// Why appends are conditional: with explicit ids alone, one newer entry shuts out all that was lost.
#[tokio::test]
async fn plain_xadd_with_explicit_ids_loses_what_conditional_appends_bring_back() {
    let redis = RedisProcess::start(&[]);
    let xadd = |sequence: u64| redis.command(&["XADD", "plain", &format!("5-{sequence}"), "e", "body"]);
    let log = Log::connect(&redis.url(), PREFIX).unwrap();
    let entries = |range: std::ops::RangeInclusive<u64>| -> Entries {
        range
            .map(|sequence| (at(5, sequence), b"body".to_vec()))
            .collect()
    };
    for sequence in 1001..=1005 {
        assert_eq!(xadd(sequence), format!("5-{sequence}"));
    }
    assert_eq!(
        log.append_after("usage:p", None, entries(1001..=1005)).await,
        Ok(Appended::Done)
    );
    assert_eq!(redis.command(&["FLUSHALL"]), "OK");

    // The writer goes on with the next record: accepted, and 1001 to 1005 are shut out for ever.
    assert_eq!(xadd(1006), "5-1006");
    for lost in 1001..=1005 {
        let refused = xadd(lost);
        assert!(
            refused.starts_with("-ERR") && refused.contains("equal or smaller"),
            "{refused}"
        );
    }
    // A repetition of what is there is answered by the same words: the answer does not even tell which.
    assert!(xadd(1006).contains("equal or smaller"));
    assert_eq!(redis.command(&["XLEN", "plain"]), "1", "five records are lost");

    // The same on condition: the next record is not taken, and the answer says from where to go on.
    let next = log
        .append_after("usage:p", Some(at(5, 1005)), entries(1006..=1006))
        .await;
    assert_eq!(next, Ok(Appended::LastIs(None)));
    assert_eq!(
        log.append_after("usage:p", None, entries(1001..=1006)).await,
        Ok(Appended::Done)
    );
    assert_eq!(
        log.read_after("usage:p", None, 100).await,
        Ok(entries(1001..=1006))
    );
}
