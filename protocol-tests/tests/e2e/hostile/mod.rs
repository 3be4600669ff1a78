//! Hostile bytes on the listener: each class is refused within its deadline and for its own reason, while other sessions go
//! on untouched and the gate's memory stays small.
//!
//! The list, with what the gate does: `docs/hostile-input.md`.

mod connections;
mod encryption;
mod first_bytes;
mod login;
mod multiplexed;
mod requests;
mod slow;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_protocol_tests::deadline::{pause, wait_for};
use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::raw::{Raw, prelogin};
use weir_protocol_tests::rows::Rows;
use weir_protocol_tests::world::World;
use weir_tds::login7::Login7;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::Encryption;

/// From accept to the end of the login, and the longest rest inside a request, as these tests set them.
const LOGIN_DEADLINE: Duration = Duration::from_millis(2_000);

/// Beyond a deadline: the machine may be busy.
const GRACE: Duration = Duration::from_secs(4);

/// What is refused for its content is refused at once; the gate's log says that it was its content.
const AT_ONCE: Duration = GRACE;

/// Longest answer that the witness may see while others attack.
const WITNESS_WAITS: Duration = Duration::from_secs(4);

/// Between two requests of the witness.
const WITNESS_RESTS: Duration = Duration::from_millis(50);

/// What the gate may hold in memory, its program included, whatever is thrown at it.
const MEMORY_MAX: u64 = 64 * 1024 * 1024;

/// What the gate's log says of a client that is too slow with its login, or with the rest of a request.
const LOGIN_TOO_SLOW: &str = "deadline passed: login";
const REQUEST_TOO_SLOW: &str = "deadline passed: the rest of a request";

/// LOGINACK's token byte.
const LOGIN_ACK: u8 = 0xAD;

/// A gate under attack, and a session that asks it something all the while and must not notice.
struct Siege {
    over: Arc<AtomicBool>,
    witness: Option<JoinHandle<Duration>>,
    gate: Gate,
    demo: Demo,
    _place: Place,
}

impl Siege {
    /// A gate that takes every encryption mode, and a session through it.
    fn lay() -> Self {
        Self::lay_with(&[])
    }

    /// The same with more flags.
    fn lay_with(more: &[&str]) -> Self {
        let place = Place::new();
        let demo = place.start("50.00");
        let tls = demo.directory().join("tls");
        let (cert, key) = (tls.join("cert.pem"), tls.join("key.pem"));
        let deadline = LOGIN_DEADLINE.as_millis().to_string();
        let flags = [
            "--client-encryption",
            "offered",
            "--tls-cert",
            cert.to_str().expect("UTF-8"),
            "--tls-key",
            key.to_str().expect("UTF-8"),
            "--upstream-encryption",
            "none",
            "--login-deadline-ms",
            &deadline,
            "--upload-idle-ms",
            &deadline,
        ];
        let gate = Gate::start_with(&demo, demo.address("sandbox"), &[&flags, more].concat());
        let over = Arc::new(AtomicBool::new(false));
        let witness = Raw::login(&Target::demo(gate.address())).expect("a login");
        let told = Arc::clone(&over);
        Self {
            over,
            witness: Some(std::thread::spawn(move || bear_witness(witness, &told))),
            gate,
            demo,
            _place: place,
        }
    }

    /// A socket to the gate.
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.gate.address()).expect("the gate listens");
        socket.set_nodelay(true).expect("a socket");
        socket
    }

    /// A socket on which PRELOGIN was said and answered.
    fn greeted(&self, asked: Encryption) -> TcpStream {
        let mut raw = Raw::connect(self.gate.address()).expect("a connection");
        raw.send(PacketType::Prelogin, &prelogin(asked).encode())
            .expect("PRELOGIN");
        let _answer = raw.message().expect("an answer");
        socket_of(&raw)
    }

    /// A session through the gate.
    fn session(&self) -> Raw {
        Raw::login(&Target::demo(self.gate.address())).expect("a login")
    }

    /// What comes until the gate closes, which it must do within `deadline` and for the reason that has `why` in it.
    fn closes(&self, socket: &TcpStream, deadline: Duration, why: &str) -> Vec<u8> {
        let said = closed_within(socket, deadline);
        self.ended(socket, why);
        said
    }

    /// The gate's log has `why` for the end of this client's session.
    fn ended(&self, socket: &TcpStream, why: &str) {
        let address = socket.local_addr().expect("a socket");
        let end = wait_for(GRACE, || self.gate.end_of_session(address));
        let end = end.unwrap_or_else(|| panic!("the gate did not end the session of {address}"));
        assert!(end.contains(why), "it ended by `{end}` instead of `{why}`");
    }

    /// Sends, and what comes until the gate closes. A gate that closes in the midst of it is right as well.
    fn refuses(&self, bytes: &[u8], why: &str) -> Vec<u8> {
        let mut socket = self.connect();
        let _cut = socket.write_all(bytes);
        self.closes(&socket, AT_ONCE, why)
    }

    /// The witness was answered all the while, a newcomer can log in, the gate's memory stayed small, and all that passed is
    /// in the books.
    fn stays_unshaken(mut self) {
        assert_eq!(
            rows_of(&mut self.session(), "SELECT TOP (2) * FROM orders"),
            2,
            "a newcomer"
        );
        self.over.store(true, Ordering::Relaxed);
        let witness = self.witness.take().expect("only taken here");
        let longest = witness.join().expect("the witness was answered to the end");
        assert!(longest < WITNESS_WAITS, "the witness waited for {longest:?}");
        let most = self.gate.memory_most();
        assert!(most < MEMORY_MAX, "the gate held {most} bytes");
        self.demo.settled_balance();
        self.demo.reconcile();
    }
}

/// Asks until it is told that it is over, and once more; the longest that an answer took.
fn bear_witness(mut witness: Raw, over: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    loop {
        let last = over.load(Ordering::Relaxed);
        let began = Instant::now();
        let rows = rows_of(&mut witness, "SELECT TOP (3) * FROM orders");
        assert_eq!(rows, 3, "the witness");
        longest = longest.max(began.elapsed());
        if last {
            return longest;
        }
        pause(WITNESS_RESTS);
    }
}

/// The same socket, to read and write beside the session.
fn socket_of(raw: &Raw) -> TcpStream {
    raw.socket().try_clone().expect("a socket")
}

/// Rows of a whole answer, which must not be an error.
fn rows_of(raw: &mut Raw, sql: &str) -> u64 {
    raw.batch(sql).expect("a request");
    let rows = answer_of(raw);
    assert_eq!(rows.error(), None, "{sql}");
    rows.counted().rows
}

/// Number of the ERROR in a whole answer.
fn error_of(raw: &Raw) -> Option<i32> {
    answer_of(raw).error()
}

/// A whole answer.
fn answer_of(raw: &Raw) -> Rows {
    let mut rows = Rows::new();
    let mut buffer = [0; 16 * 1024];
    while rows.counted().messages == 0 {
        let count = raw.socket().read(&mut buffer).expect("an answer");
        assert!(count > 0, "the answer ended early");
        rows.feed(&buffer[..count]);
    }
    rows
}

/// What comes until the gate closes, which it must do within `deadline`.
fn closed_within(mut socket: &TcpStream, deadline: Duration) -> Vec<u8> {
    let until = Instant::now() + deadline;
    let mut said = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "still open after {deadline:?}; it said {} bytes",
            said.len()
        );
        socket.set_read_timeout(Some(left)).expect("a socket");
        match socket.read(&mut buffer) {
            Ok(0) => return said,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // It closed with bytes of ours unread.
            Err(_) => return said,
        }
    }
}

/// Writes `piece` up to `times` times; stops when the gate takes no more.
fn flood(mut socket: &TcpStream, piece: &[u8], times: usize) {
    for _time in 0..times {
        if socket.write_all(piece).is_err() {
            return;
        }
    }
}

/// A packet of any type that ends its message.
fn packet(kind: PacketType, body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    weir_tds::message::write_message(&mut out, kind, PacketStatus::NORMAL, 4096, 0, 1, body);
    out.to_vec()
}

/// A packet that does not end its message.
fn unfinished(kind: PacketType, body: &[u8]) -> Vec<u8> {
    let mut whole = packet(kind, body);
    whole[1] = PacketStatus::NORMAL.0;
    whole
}

/// A LOGIN7 that would be let in.
fn good_login() -> Vec<u8> {
    let login = Login7 {
        tds_version: 0x7400_0004,
        packet_size: 4096,
        user_name: "demo".to_owned(),
        password: Password::from_text("demo"),
        database: "demo".to_owned(),
        ..Login7::default()
    };
    login.encode().expect("a login").to_vec()
}
