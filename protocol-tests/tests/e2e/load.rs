//! A bounded load that goes on while things break: eight clients, each statement with what came back and how long it took.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use weir_protocol_tests::deadline::pause;
use weir_protocol_tests::drivers::{ServerError, Session, Target};
use weir_protocol_tests::raw::Raw;
use weir_protocol_tests::rows::Rows;

use crate::fleet;

/// What a client may wait at most for an answer, or for the end of its connection; nothing hangs beyond it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Rows of a statement at most; with [`PACE`] it bounds what the load costs and stores.
const ROWS_MAX: u64 = 3_000;

/// Between two statements of a client.
const PACE: Duration = Duration::from_millis(100);

/// Between two tries to connect.
const RECONNECT: Duration = Duration::from_millis(200);

/// The clients: three drivers that keep their connection, two that make one per statement, three raw ones that count to the last byte.
const CLIENTS: [Kind; 8] = [
    Kind::Keeps("pymssql"),
    Kind::Keeps("tedious"),
    Kind::Keeps("tiberius"),
    Kind::Returns("pymssql"),
    Kind::Returns("tiberius"),
    Kind::Raw,
    Kind::Raw,
    Kind::Raw,
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Keeps(&'static str),
    Returns(&'static str),
    Raw,
}

/// What became of a statement or of a try to connect.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Number of the client.
    pub(crate) client: usize,
    /// Rows that were asked for; 0 for a try to connect.
    pub(crate) asked: u64,
    /// Rows that came.
    pub(crate) received: u64,
    /// Rows that may have come and were not counted, because a driver drops what it holds when its connection breaks.
    pub(crate) uncounted: u64,
    /// When its connection was last known to be good: an error may be of an outage since then.
    pub(crate) good: Instant,
    /// When it was sent.
    pub(crate) began: Instant,
    /// When its end was known.
    pub(crate) ended: Instant,
    /// What the client was told, if it was not served.
    pub(crate) error: Option<String>,
}

impl Event {
    /// A statement that may have had usage and did not end well.
    pub(crate) fn is_broken(&self) -> bool {
        self.error.is_some() && self.asked > 0
    }
}

/// A load that is running.
pub(crate) struct Load {
    stop: AtomicBool,
    served: Vec<AtomicU64>,
    shortest_row: AtomicU64,
    events: Mutex<Vec<Event>>,
}

/// Everything that the clients saw.
pub(crate) struct Seen {
    /// In the order of their ends.
    pub(crate) events: Vec<Event>,
    /// Bytes of the shortest row of `events`, as the raw clients counted it.
    pub(crate) shortest_row: u64,
}

/// Runs the load while `meanwhile` runs, and ends it then.
pub(crate) fn under_load<T>(to: &Target, seed: u64, meanwhile: impl FnOnce(&Load) -> T) -> (T, Seen) {
    let load = Load {
        stop: AtomicBool::new(false),
        served: CLIENTS.iter().map(|_| AtomicU64::new(0)).collect(),
        shortest_row: AtomicU64::new(u64::MAX),
        events: Mutex::new(Vec::new()),
    };
    // The driver processes start before the first statement's time runs.
    let _ = fleet::all();
    let value = std::thread::scope(|scope| {
        for client in 0..CLIENTS.len() {
            let load = &load;
            scope.spawn(move || {
                let _stops_the_others = StopOnPanic(&load.stop);
                Client::new(load, client, to, seed).run();
            });
        }
        // A failed assertion in there must end the load, or the scope would wait for it for ever.
        let _stops = StopOnPanic(&load.stop);
        let value = meanwhile(&load);
        load.stop.store(true, Ordering::Release);
        value
    });
    let seen = Seen {
        events: load.events.into_inner().expect("no client panicked"),
        shortest_row: load.shortest_row.into_inner(),
    };
    (value, seen)
}

struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl Load {
    /// Waits until every client was served `count` more statements.
    ///
    /// # Panics
    /// When one is not within the deadline for a statement and a new connection.
    pub(crate) fn served(&self, count: u64) {
        let targets: Vec<u64> = self.counts().iter().map(|served| served + count).collect();
        let began = Instant::now();
        while self.counts().iter().zip(&targets).any(|(now, then)| now < then) {
            assert!(!self.is_stopping(), "the load has ended");
            assert!(
                began.elapsed() < 2 * DEADLINE,
                "not every client was served {count} more statements: {:?} of {targets:?}",
                self.counts()
            );
            pause(Duration::from_millis(20));
        }
    }

    fn counts(&self) -> Vec<u64> {
        self.served
            .iter()
            .map(|served| served.load(Ordering::Acquire))
            .collect()
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

enum Connection {
    Driver(Box<dyn Session>),
    Raw(Raw),
}

/// What came back for a statement: rows, and an error if it did not end well.
type Answer = (u64, Option<String>);

struct Client<'a> {
    load: &'a Load,
    number: usize,
    kind: Kind,
    to: &'a Target,
    random: Rng,
    connection: Option<Connection>,
    good: Instant,
}

impl<'a> Client<'a> {
    fn new(load: &'a Load, number: usize, to: &'a Target, seed: u64) -> Self {
        Self {
            load,
            number,
            kind: CLIENTS[number],
            to,
            random: Rng::with_seed(seed * 100 + number as u64),
            connection: None,
            good: Instant::now(),
        }
    }

    fn run(mut self) {
        while !self.load.is_stopping() {
            match self.connection.take() {
                None => self.connect(),
                Some(connection) => {
                    self.statement(connection);
                    pause(PACE);
                }
            }
        }
    }

    fn connect(&mut self) {
        let began = Instant::now();
        let connected = match self.kind {
            Kind::Keeps(name) | Kind::Returns(name) => {
                let connected = fleet::named(name).connect(self.to);
                connected
                    .map(Connection::Driver)
                    .map_err(|errors| describe(&errors))
            }
            Kind::Raw => Raw::login(self.to)
                .map(Connection::Raw)
                .map_err(|error| error.to_string()),
        };
        match connected {
            Ok(connection) => {
                self.note(0, (0, None), 0, began);
                self.good = Instant::now();
                self.connection = Some(connection);
            }
            Err(error) => {
                self.note(0, (0, Some(error)), 0, began);
                self.good = Instant::now();
                pause(RECONNECT);
            }
        }
    }

    fn statement(&mut self, mut connection: Connection) {
        let asked = self.random.u64(1..=ROWS_MAX);
        let by_call = self.random.u8(0..4) == 0;
        let text = format!("select top {asked} * from events");
        let began = Instant::now();
        let (answer, uncounted) = match &mut connection {
            Connection::Driver(session) => {
                let reply = by_call.then(|| session.call(&text)).flatten();
                let reply = reply.unwrap_or_else(|| session.query(&text));
                let error = (!reply.errors.is_empty()).then(|| describe(&reply.errors));
                let uncounted = if error.is_some() { asked - reply.rows } else { 0 };
                ((reply.rows, error), uncounted)
            }
            Connection::Raw(raw) => (self.load.raw(raw, &text), 0),
        };
        let whole = answer.1.is_none();
        assert!(
            !whole || answer.0 == asked,
            "client {}: {text} gave {} rows and no error",
            self.number,
            answer.0
        );
        self.note(asked, answer, uncounted, began);
        if whole {
            self.good = Instant::now();
            self.load.served[self.number].fetch_add(1, Ordering::AcqRel);
            self.connection = (!matches!(self.kind, Kind::Returns(_))).then_some(connection);
        }
    }

    fn note(&self, asked: u64, (received, error): Answer, uncounted: u64, began: Instant) {
        let event = Event {
            client: self.number,
            asked,
            received,
            uncounted,
            good: self.good.min(began),
            began,
            ended: Instant::now(),
            error,
        };
        let mut events = self.load.events.lock().expect("no client panicked in here");
        events.push(event);
    }
}

impl Load {
    /// Sends a statement and counts every row that comes, up to the end of the response or of the connection.
    fn raw(&self, raw: &mut Raw, text: &str) -> Answer {
        if let Err(error) = raw.batch(text) {
            return (0, Some(error.to_string()));
        }
        let mut rows = Rows::new();
        let mut buffer = vec![0; 64 * 1024];
        let error = loop {
            match raw.socket().read(&mut buffer) {
                Ok(0) => break Some("the connection ended".to_owned()),
                Ok(count) => rows.feed(&buffer[..count]),
                Err(error) => break Some(error.to_string()),
            }
            if rows.counted().messages > 0 {
                break rows.error().map(|number| format!("error {number}"));
            }
        };
        let counted = rows.counted();
        self.shortest_row
            .fetch_min(counted.shortest_row, Ordering::AcqRel);
        (counted.rows, error)
    }
}

fn describe(errors: &[ServerError]) -> String {
    let each: Vec<String> = errors
        .iter()
        .map(|error| format!("{} {}", error.number, error.message))
        .collect();
    each.join("; ")
}
