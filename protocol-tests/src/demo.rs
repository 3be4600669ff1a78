//! A `weir demo` of the test's own: free ports, a directory of its own, stopped and removed at the end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::deadline::wait_for;
use crate::drivers::Target;
use crate::process;
use crate::world::World;

/// From the start of the binary to its `weir demo ready`; the README promises this.
pub const READY_WITHIN: Duration = Duration::from_secs(10);

/// Longest orderly stop.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A running demo. Dropped, it is killed; its log is shown when the test fails.
pub struct Demo {
    child: Child,
    directory: PathBuf,
    log: PathBuf,
    /// What it wrote into `running.json`.
    addresses: Value,
    /// How long it took to be ready.
    pub ready_after: Duration,
}

/// A demo's directory that outlives its demos.
pub struct Place {
    holder: TempDir,
}

impl Place {
    /// A new, empty place.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    #[must_use]
    pub fn new() -> Self {
        let holder = tempfile::Builder::new().prefix("weir-test-").tempdir();
        Self {
            holder: holder.unwrap_or_else(|error| panic!("no temporary directory: {error}")),
        }
    }

    /// The demo's directory; made by the demo.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.holder.path().join("data")
    }

    /// Starts a demo here; `credit` counts only the first time.
    ///
    /// # Panics
    /// When it is not ready in time; with its log.
    #[must_use]
    pub fn start(&self, credit: &str) -> Demo {
        self.start_with(credit, &[])
    }

    /// The same with more flags.
    ///
    /// # Panics
    /// When it is not ready in time; with its log.
    #[must_use]
    pub fn start_with(&self, credit: &str, flags: &[&str]) -> Demo {
        let log = self.holder.path().join("log");
        let errors = File::options().create(true).append(true).open(&log);
        let errors = errors.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let started = Instant::now();
        let mut child = Command::new(binary("weir"))
            .args([
                "demo",
                "--listen",
                "127.0.0.1:0",
                "--console",
                "127.0.0.1:0",
                "--wallet",
                "127.0.0.1:0",
            ])
            .args(["--credit", credit, "--data-dir"])
            .arg(self.directory())
            .args(flags)
            .env("XDG_DATA_HOME", self.holder.path().join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("weir demo does not start: {error}"));
        let lines = lines_of(&mut child);
        let ready = wait_ready(&lines, started + READY_WITHIN);
        let ready_after = started.elapsed();
        let mut demo = Demo {
            child,
            directory: self.directory(),
            log,
            addresses: Value::Null,
            ready_after,
        };
        assert!(ready, "weir demo was not ready within {READY_WITHIN:?}");
        let running = std::fs::read_to_string(demo.directory.join("running.json"));
        let running = running.unwrap_or_else(|error| panic!("no running.json: {error}"));
        demo.addresses = serde_json::from_str(&running).unwrap_or_else(|error| panic!("{running}: {error}"));
        demo
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// A built binary: beside the test's own, where `scripts/test` put it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let path = own
        .parent()
        .and_then(Path::parent)
        .map(|beside| beside.join(name))
        .unwrap_or_default();
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, which builds it",
        path.display()
    );
    path
}

/// The lines of its standard output; read to the end, so that it never blocks on a full pipe.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    receiver
}

fn wait_ready(lines: &Receiver<String>, end: Instant) -> bool {
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == "weir demo ready" => return true,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
    }
}

impl Demo {
    /// An address from `running.json`: `listen`, `console`, `wallet`, `sandbox`, …
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn address(&self, name: &str) -> SocketAddr {
        let text = self.addresses[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.addresses));
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The demo tenant at the server behind the gate.
    #[must_use]
    pub fn server(&self) -> Target {
        Target::demo(self.address("sandbox"))
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes of memory that it holds (VmRSS) or has held at most (VmHWM).
    #[must_use]
    pub fn memory(&self, field: &str) -> u64 {
        process::memory(self.child.id(), field)
    }

    /// CPU time used so far, of all its threads.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(self.child.id())
    }

    /// SIGKILL, at once.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for an orderly end.
    ///
    /// # Panics
    /// When it does not end in time, or with another exit code than 0.
    pub fn stop(mut self) {
        let told = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(told.is_ok_and(|status| status.success()), "kill failed");
        let status = wait_for(STOP_WITHIN, || self.child.try_wait().ok().flatten());
        let status = status.unwrap_or_else(|| panic!("the demo did not stop within {STOP_WITHIN:?}"));
        assert!(status.success(), "the demo stopped with {status}");
    }
}

impl World for Demo {
    fn tenant(&self) -> Target {
        Target::demo(self.address("listen"))
    }

    fn aim(&self, command: &mut Command) {
        command.arg("--data-dir").arg(&self.directory);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            process::show_log(&self.log);
        }
    }
}
