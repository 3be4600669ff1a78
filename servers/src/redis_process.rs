//! A Redis server of a test's own, which it may flush, pause, kill and start again. The program is found by `REDIS_SERVER`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::ServerUrl;

/// A start on a loaded machine takes up to a second.
const START_LIMIT: Duration = Duration::from_secs(20);
/// One command.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether it answers yet.
const LOOK: Duration = Duration::from_millis(20);
/// The port may be taken between finding and using it.
const ATTEMPTS: u32 = 5;
/// What it says, in its directory.
const OUTPUT: &str = "output";

/// A running server; dropping it kills it and removes its data.
#[derive(Debug)]
pub struct RedisProcess {
    /// Where it listens, on loopback.
    pub addr: SocketAddr,
    child: Child,
    dir: tempfile::TempDir,
    options: Vec<String>,
}

impl RedisProcess {
    /// Starts one with an append-only file and these options (`["--maxmemory", "3mb"]`; later ones win).
    ///
    /// # Panics
    /// It does not start, or the program is not there: the test cannot go on.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        for _ in 0..ATTEMPTS {
            let dir = tempfile::tempdir().expect("a directory for Redis");
            let addr = free_port();
            let child = launch(addr, dir.path(), &options);
            let mut process = Self {
                addr,
                child,
                dir,
                options: options.clone(),
            };
            if process.answers() {
                return process;
            }
            eprintln!("{}", process.output());
        }
        panic!("Redis did not start in {ATTEMPTS} attempts; its output is above");
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> ServerUrl {
        format!("redis://{}/0", self.addr).into()
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port and data.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&mut self) {
        self.kill();
        self.child = launch(self.addr, self.dir.path(), &self.options);
        assert!(self.answers(), "Redis did not start again: {}", self.output());
    }

    /// SIGSTOP: connections stand, nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Says something to it and answers its reply: a line, or a bulk's text; errors with their `-`.
    ///
    /// # Panics
    /// No connection, no answer in time, or an answer of another kind.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> String {
        say(self.addr, words).expect("an answer of Redis")
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|s| s.success()), "kill {signal} {pid}");
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(OUTPUT)).unwrap_or_default()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a starting process tells no event; looked at until a deadline"
    )]
    fn answers(&mut self) -> bool {
        let end = Instant::now() + START_LIMIT;
        while Instant::now() < end {
            if say(self.addr, &["PING"]).is_ok_and(|answer| answer == "PONG") {
                return true;
            }
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        false
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> SocketAddr {
    let found = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    found.expect("a free port")
}

fn launch(addr: SocketAddr, dir: &std::path::Path, options: &[String]) -> Child {
    let program = std::env::var("REDIS_SERVER")
        .expect("REDIS_SERVER is not set: run through scripts/test, or `scripts/stack up --servers-only`");
    let output = std::fs::File::create(dir.join(OUTPUT)).expect("a file for Redis's output");
    Command::new(&program)
        .args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()])
        .args(["--appendonly", "yes", "--save", "", "--dir"])
        .arg(dir)
        .args(options)
        .stdin(Stdio::null())
        .stdout(output)
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn say(addr: SocketAddr, words: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(text.to_owned()),
        Some(("-", _)) => Ok(line.to_owned()),
        Some(("$", length)) => {
            let mut text = vec![0; length.parse().unwrap_or(0)];
            reader.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        _ => Err(std::io::Error::other(format!("unexpected answer {line:?}"))),
    }
}
