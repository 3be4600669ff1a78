//! A driver of another language in a process of its own, spoken to by JSON lines (`drivers/python`, `drivers/node`).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Driver, Reply, ServerError, Session, Target};

/// Longest wait for one answer. A query over a million rows takes seconds; more than this means that it hangs.
const ANSWER_DEADLINE: Duration = Duration::from_secs(240);

/// Seconds that a login may take in the driver itself.
const LOGIN_SECONDS: u32 = 30;

type Waiting = Arc<Mutex<HashMap<u64, Sender<Value>>>>;

/// A running driver process; its connections run beside each other.
pub struct Process {
    name: &'static str,
    link: Arc<Link>,
}

struct Link {
    child: Mutex<Child>,
    input: Mutex<(ChildStdin, u64)>,
    waiting: Waiting,
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The Python that `scripts/test` made.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn interpreter() -> PathBuf {
    let private = root().join(".weir/test/venv/bin/python");
    let python = std::env::var_os("WEIR_TEST_PYTHON").map_or(private, PathBuf::from);
    assert!(
        python.exists(),
        "{} is missing: run scripts/test --install-only",
        python.display()
    );
    python
}

/// pymssql (FreeTDS) in that Python.
#[must_use]
pub fn python() -> Process {
    Process::start(
        "pymssql",
        Command::new(interpreter())
            .arg("-u")
            .arg(directory().join("python/drive.py")),
    )
}

/// tedious in Node.
#[must_use]
pub fn node() -> Process {
    Process::start(
        "tedious",
        Command::new(node_program()).arg(directory().join("node/drive.mjs")),
    )
}

/// The Node that npm brought with the drivers: tedious needs a newer one than a machine may have.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn node_program() -> PathBuf {
    let machine = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "x64"
    };
    let program = format!("node/node_modules/node-linux-{machine}/bin/node");
    let program = directory().join(program);
    assert!(
        program.exists(),
        "{} is missing: run scripts/test --install-only",
        program.display()
    );
    program
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Where the drivers' programs are.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers")
}

impl Process {
    fn start(name: &'static str, command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let input = child
            .stdin
            .take()
            .unwrap_or_else(|| panic!("{name} has no input"));
        let output = child
            .stdout
            .take()
            .unwrap_or_else(|| panic!("{name} has no output"));
        let waiting = Waiting::default();
        let readers = Arc::clone(&waiting);
        std::thread::spawn(move || hand_out(output, &readers));
        let link = Link {
            child: Mutex::new(child),
            input: Mutex::new((input, 0)),
            waiting,
        };
        Self {
            name,
            link: Arc::new(link),
        }
    }
}

/// Gives each answer to whoever waits for it; at the end of the output everybody who still waits is let go.
fn hand_out(output: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let Ok(answer) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let sequence = answer["seq"].as_u64().unwrap_or_default();
        let sender = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&sequence);
        if let Some(sender) = sender {
            let _ = sender.send(answer);
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

impl Link {
    fn call(&self, mut command: Value) -> Reply {
        let (sender, receiver) = channel();
        let told = command.to_string();
        {
            let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
            input.1 += 1;
            command["seq"] = json!(input.1);
            self.waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(input.1, sender);
            let line = format!("{command}\n");
            input
                .0
                .write_all(line.as_bytes())
                .unwrap_or_else(|error| panic!("the driver is gone: {error}"));
        }
        let answer = receiver.recv_timeout(ANSWER_DEADLINE);
        let answer = answer.unwrap_or_else(|error| panic!("no answer to {told}: {error}"));
        assert!(answer["failed"].is_null(), "{told}: {}", answer["failed"]);
        serde_json::from_value(answer).unwrap_or_else(|error| panic!("{told}: {error}"))
    }
}

impl Driver for Process {
    fn name(&self) -> &'static str {
        self.name
    }

    fn connect(&self, to: &Target) -> Result<Box<dyn Session>, Vec<ServerError>> {
        let id = {
            let input = self.link.input.lock().unwrap_or_else(PoisonError::into_inner);
            format!("connection-{}-{}", input.1, fastrand::u32(..))
        };
        let reply = self.link.call(json!({
            "do": "connect", "id": id, "host": to.address.ip().to_string(), "port": to.address.port(),
            "user": to.user, "password": to.password, "database": to.database, "encrypt": to.encrypt,
            "login_timeout": LOGIN_SECONDS,
        }));
        if !reply.errors.is_empty() {
            return Err(reply.errors);
        }
        Ok(Box::new(Connection {
            link: Arc::clone(&self.link),
            id,
            by_text: self.name == "pymssql",
        }))
    }
}

struct Connection {
    link: Arc<Link>,
    id: String,
    /// pymssql's transactions are batches; with autocommit on the test sends them itself.
    by_text: bool,
}

impl Connection {
    fn transaction(&mut self, what: &str, text: &str) -> Reply {
        if self.by_text {
            self.query(text)
        } else {
            self.link.call(json!({"do": what, "id": self.id}))
        }
    }
}

impl Connection {
    /// pymssql writes values into the text: it has batches only.
    fn query_by(&mut self, how: &str, sql: &str) -> Option<Reply> {
        let command = json!({"do": "query", "id": self.id, "sql": sql, "how": how});
        (!self.by_text).then(|| self.link.call(command))
    }
}

impl Session for Connection {
    fn query(&mut self, sql: &str) -> Reply {
        self.link.call(json!({"do": "query", "id": self.id, "sql": sql}))
    }

    fn call(&mut self, sql: &str) -> Option<Reply> {
        self.query_by("sql", sql)
    }

    fn prepared(&mut self, sql: &str) -> Option<Reply> {
        self.query_by("prepared", sql)
    }

    fn begin(&mut self) -> Reply {
        self.transaction("begin", "BEGIN TRAN")
    }

    fn commit(&mut self) -> Reply {
        self.transaction("commit", "COMMIT TRAN")
    }

    fn rollback(&mut self) -> Reply {
        self.transaction("rollback", "ROLLBACK TRAN")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Best effort and without waiting: the answer comes to nobody, and a driver that is gone has closed anyway.
        let mut input = self.link.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.1 += 1;
        let close = json!({"do": "close", "id": self.id, "seq": input.1});
        let _ = input.0.write_all(format!("{close}\n").as_bytes());
    }
}
