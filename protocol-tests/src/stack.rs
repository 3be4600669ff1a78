//! The whole line on the real servers, as `scripts/stack` starts it: every process can be stopped, killed and started again.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::drivers::Target;
use crate::process;
use crate::world::World;

/// From `up` until all is ready, data directories made; RabbitMQ takes most of it.
pub const UP_WITHIN: Duration = Duration::from_secs(180);

/// For one process that was killed to be back on its port.
pub const START_WITHIN: Duration = Duration::from_secs(60);

/// For an orderly end of all.
pub const DOWN_WITHIN: Duration = Duration::from_secs(60);

/// How long the books may take to be at rest: what lay behind a fault is worked off first.
const REST_WITHIN: Duration = Duration::from_secs(120);

/// What stands between client and books. FerretDB is the MongoDB server; `sandbox` is the tenant's SQL Server, `items` the one of the
/// financial items.
pub const PROCESSES: [&str; 9] = [
    "proxy", "billing", "wallet", "redis", "rabbitmq", "postgres", "ferretdb", "sandbox", "items",
];

/// One stack takes most of a machine: tests that need one take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A running stack. Dropped, it is taken down; its logs are shown when the test fails.
pub struct Stack {
    script: Script,
    lines: BTreeMap<String, String>,
    /// How long it took to be ready.
    pub ready_after: Duration,
    _turn: MutexGuard<'static, ()>,
}

impl Stack {
    /// Starts all servers and services.
    ///
    /// # Panics
    /// When they are not ready in time; with what the script said.
    #[must_use]
    pub fn up() -> Self {
        Self::up_with(&[])
    }

    /// The same with variables of the environment.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn up_with(variables: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stack = Self {
            script: Script::new(variables),
            lines: BTreeMap::new(),
            ready_after: Duration::ZERO,
            _turn: turn,
        };
        let started = Instant::now();
        // Taken down also when this process is killed.
        let own = std::process::id().to_string();
        let output = stack.script.run(&["up", "--with-parent", &own], UP_WITHIN);
        stack.ready_after = started.elapsed();
        assert!(output.status.success(), "scripts/stack up: {}", said(&output));
        stack.lines = key_values(&output);
        stack
    }

    /// What `up` printed under a key: `WEIR_TDS`, `WEIR_SERVER`, `DATABASE_URL`, …
    ///
    /// # Panics
    /// When it printed no such line.
    #[must_use]
    pub fn line(&self, key: &str) -> &str {
        self.lines
            .get(key)
            .unwrap_or_else(|| panic!("scripts/stack up printed no {key}: {:?}", self.lines.keys()))
    }

    /// The keys that it printed.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        self.lines.keys().map(String::as_str).collect()
    }

    /// The script, for what is not done by `Stack` itself.
    #[must_use]
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The process behind a name of [`PROCESSES`].
    ///
    /// # Panics
    /// When the script left no number of it.
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        self.script
            .pid(name)
            .unwrap_or_else(|| panic!("no {name}/pid in {}", self.script.directory().display()))
    }

    /// SIGSTOP to every process of a name: it answers nobody, and its sockets stay open.
    pub fn pause(&self, name: &str) {
        self.order("pause", name);
    }

    /// SIGCONT.
    pub fn resume(&self, name: &str) {
        self.order("resume", name);
    }

    /// SIGKILL.
    pub fn kill(&self, name: &str) {
        self.order("kill", name);
    }

    /// Starts a process again that was killed, on its port and its data.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start(&self, name: &str) {
        self.order("start", name);
    }

    fn order(&self, what: &str, name: &str) {
        let output = self.script.run(&[what, name], START_WITHIN);
        let done = output.status.success();
        assert!(done, "scripts/stack {what} {name}: {}", said(&output));
    }

    /// Prints the end of every log.
    pub fn show_logs(&self) {
        for name in PROCESSES {
            process::show_log(&self.script.directory().join(name).join("log"));
        }
    }
}

impl World for Stack {
    fn tenant(&self) -> Target {
        Target::demo(address_of(self.line("WEIR_TDS")))
    }

    fn aim(&self, command: &mut Command) {
        command
            .args(["--server", self.line("WEIR_SERVER"), "--token-file"])
            .arg(self.line("WEIR_TOKEN_FILE"));
    }

    fn rest_within(&self) -> Duration {
        REST_WITHIN
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// `HOST:PORT` as an address.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn address_of(text: &str) -> SocketAddr {
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.unwrap_or_else(|| panic!("no address: {text}"))
}

/// `scripts/stack` on a directory of its own. Dropped, what it started is ended and the directory removed.
pub struct Script {
    holder: TempDir,
    variables: Vec<(String, String)>,
}

impl Script {
    /// On a new directory; nothing is started.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    #[must_use]
    pub fn new(variables: &[(&str, &str)]) -> Self {
        let holder = tempfile::Builder::new().prefix("weir-stack-").tempdir();
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            holder: holder.unwrap_or_else(|error| panic!("no temporary directory: {error}")),
            variables: variables.iter().map(owned).collect(),
        }
    }

    /// What `--dir` names.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.holder.path().join("stack")
    }

    /// Runs the script and reads its output to the end, so a pipe that is left open in what it started shows as a missed deadline.
    ///
    /// # Panics
    /// When it, or somebody that has its output, is still there after `within`.
    #[must_use]
    pub fn run(&self, arguments: &[&str], within: Duration) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let binaries = std::env::current_exe().unwrap_or_default();
        let binaries = binaries
            .parent()
            .and_then(Path::parent)
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let mut command = Command::new(root.join("scripts/stack"));
        command
            .args(arguments)
            .arg("--dir")
            .arg(self.directory())
            .env("WEIR_BIN_DIR", binaries)
            .envs(self.variables.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null());
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let _ = sender.send(command.output());
        });
        let output = receiver
            .recv_timeout(within)
            .unwrap_or_else(|_| panic!("scripts/stack {arguments:?} did not return within {within:?}"));
        output.unwrap_or_else(|error| panic!("scripts/stack {arguments:?}: {error}"))
    }

    /// The number of a process that the script started.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.directory().join(name).join("pid")).ok()?;
        text.trim().parse().ok()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if self.directory().exists() {
            let output = self.run(&["down"], DOWN_WITHIN);
            if !output.status.success() {
                eprintln!("scripts/stack down: {}", said(&output));
            }
        }
    }
}

/// What a run of the script said, for a failure.
#[must_use]
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// The `KEY=VALUE` lines of an output.
#[must_use]
pub fn key_values(output: &Output) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
