//! A `weir-proxy` of the test's own, in front of any server, with the billing of a running demo.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::wait_for;
use crate::demo::{Demo, binary};

/// From the start of the binary until it accepts connections.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running proxy. Dropped, it is killed.
pub struct Gate {
    child: Child,
    address: SocketAddr,
    holder: TempDir,
    command: Command,
}

impl Gate {
    /// Starts one with the billing of `demo` and a journal of its own.
    ///
    /// # Panics
    /// When it does not accept connections in time.
    #[must_use]
    pub fn start(demo: &Demo, upstream: SocketAddr) -> Self {
        let clear = ["--client-encryption", "none", "--upstream-encryption", "none"];
        Self::start_with(demo, upstream, &clear)
    }

    /// The same with these flags in place of "no encryption on either leg".
    ///
    /// # Panics
    /// When it does not accept connections in time.
    #[must_use]
    pub fn start_with(demo: &Demo, upstream: SocketAddr, flags: &[&str]) -> Self {
        let holder = tempfile::Builder::new().prefix("weir-test-").tempdir();
        let holder = holder.unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        let address = free_address();
        let mut command = Command::new(binary("weir-proxy"));
        command
            .arg("run")
            .args([
                "--listen",
                &address.to_string(),
                "--upstream",
                &upstream.to_string(),
            ])
            .args([
                "--billing-url",
                &format!("http://{}", demo.address("billing_grpc")),
            ])
            .args(flags)
            .arg("--token-file")
            .arg(demo.directory().join("token"))
            .arg("--data-dir")
            .arg(holder.path().join("journal"))
            .arg("--outbox-path")
            .arg(demo.directory().join("outbox.db"));
        let child = launch(&mut command, holder.path(), address);
        Self {
            child,
            address,
            holder,
            command,
        }
    }

    /// SIGKILL, at once, and its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again behind its end, with the same journal.
    ///
    /// # Panics
    /// When it does not accept connections in time.
    pub fn restart(&mut self) {
        self.child = launch(&mut self.command, self.holder.path(), self.address);
    }

    /// Where drivers connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Most bytes of memory that it has held.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn memory_most(&self) -> u64 {
        crate::process::memory(self.child.id(), "VmHWM")
    }

    /// What its log says of the end of the session whose client had this address; `None` while it has not ended.
    ///
    /// # Panics
    /// When the log cannot be read.
    #[must_use]
    pub fn end_of_session(&self, client: SocketAddr) -> Option<String> {
        let log = std::fs::read(self.holder.path().join("log"));
        let log = log.unwrap_or_else(|error| panic!("the gate's log: {error}"));
        let named = format!(" peer={client} ");
        let log = String::from_utf8_lossy(&log);
        // The last line may be half written.
        let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let (_, end) = lines
            .filter(|line| line.contains(&named))
            .find_map(|line| line.split_once(" end="))?;
        Some(end.trim_end().to_owned())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            crate::process::show_log(&self.holder.path().join("log"));
        }
    }
}

/// Starts the binary and waits until it accepts connections; its log is in `directory`.
fn launch(command: &mut Command, directory: &Path, address: SocketAddr) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"));
    let log = log.unwrap_or_else(|error| panic!("no log: {error}"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("weir-proxy does not start: {error}"));
    if wait_for(READY_WITHIN, || TcpStream::connect(address).ok()).is_none() {
        let _ = child.kill();
        let _ = child.wait();
        crate::process::show_log(&directory.join("log"));
        panic!("weir-proxy did not listen within {READY_WITHIN:?}");
    }
    child
}

/// An address that nobody listens on.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.unwrap_or_else(|error| panic!("no free port: {error}"))
}
