//! What sessions hold in memory, measured on a proxy in a process of its own: idle ones, and those whose client reads nothing.

mod mars;
mod plain;
mod sandbox;
mod server;
mod tls;

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use weir_proxy::config::{ClientEncryption, Config, UpstreamEncryption};

use crate::generous_billing;

/// Tells this test binary that it is the proxy: billing's address, the server's, a directory, what is encrypted.
const CHILD: &str = "WEIR_TEST_MEMORY_CHILD";
/// Most bytes of an idle session in the clear (ARCHITECTURE.md, invariant 11).
const IDLE_MAX: u64 = 16 * 1024;
/// The same with TLS on both legs.
const IDLE_TLS_MAX: u64 = 48 * 1024;
/// Most bytes of a session whose response streams, two packets beside.
const STREAMING_MAX: u64 = 256 * 1024;
/// Sessions at once.
const SESSIONS: u64 = 1000;
/// How long memory may take to be what it will be, and how long nothing moves before it is believed.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
const STILL: Duration = Duration::from_millis(300);

/// One test after the other: the sockets of a thousand sessions whose clients read nothing hold about a gigabyte in the
/// system. Two such tests at once go beyond what it gives TCP (`tcp_mem`), and then it drops packets instead of delivering them.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What is encrypted: both legs alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Legs {
    Clear,
    /// TLS in PRELOGIN packets, to the end of the connection.
    Wrapped,
    /// TDS 8.0.
    Strict,
}

impl Legs {
    const ALL: [Self; 3] = [Self::Clear, Self::Wrapped, Self::Strict];

    const fn policies(self) -> (ClientEncryption, UpstreamEncryption) {
        match self {
            Self::Clear => (ClientEncryption::None, UpstreamEncryption::None),
            Self::Wrapped => (ClientEncryption::Required, UpstreamEncryption::Full),
            Self::Strict => (ClientEncryption::Strict, UpstreamEncryption::Strict),
        }
    }
}

/// Not a test of its own: the proxy's process. An encrypted one has its certificate, which is the server's too, in the
/// directory.
#[test]
fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let mut told = told.split(' ');
    let mut next = || told.next().unwrap().to_owned();
    let (billing, upstream, dir, legs) = (next(), next(), next(), next());
    let dir = std::path::PathBuf::from(dir);
    let legs = Legs::ALL.into_iter().find(|known| format!("{known:?}") == legs);
    let (client_encryption, upstream_encryption) = legs.unwrap().policies();
    let certificate = (client_encryption != ClientEncryption::None).then(|| dir.join("cert.pem"));
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstream,
        billing_url: billing,
        token: "t".to_owned().into(),
        data_dir: dir.join("journal"),
        outbox_path: dir.join("outbox.db"),
        client_encryption,
        tls_key: certificate.as_ref().map(|_| dir.join("key.pem")),
        tls_cert: certificate.clone(),
        upstream_ca: certificate,
        upstream_encryption,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let running = weir_proxy::start(config).await.unwrap();
        println!("\nADDRESS {}", running.addr);
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
    });
}

/// The proxy in its process.
struct Proxy {
    child: Child,
    address: SocketAddr,
    written: Arc<AtomicU64>,
    _dir: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Proxy {
    /// One before this server, with what is in `dir`; `written` is what the server counts, if it does.
    async fn start(upstream: &str, legs: Legs, dir: tempfile::TempDir, written: Arc<AtomicU64>) -> Self {
        let billing = generous_billing::serve().await;
        let told = format!("http://{billing} {upstream} {} {legs:?}", dir.path().display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["memory::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, told)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = tokio::task::spawn_blocking(|| {
            lines
                .map_while(Result::ok)
                .find_map(|line| line.strip_prefix("ADDRESS ")?.parse().ok())
        });
        let address = address.await.unwrap().expect("the proxy starts");
        Self {
            child,
            address,
            written,
            _dir: dir,
        }
    }

    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Memory once neither it nor what the server has written grows any more.
    async fn settled(&self) -> u64 {
        let began = Instant::now();
        let mut seen = (0, 0);
        while began.elapsed() < SETTLE_WITHIN {
            let now = (self.memory(), self.written.load(Ordering::Relaxed));
            if now == seen {
                break;
            }
            seen = now;
            tokio::time::sleep(STILL).await;
        }
        seen.0
    }

    /// Bytes that each of `sessions` holds beyond what the proxy held `before`.
    async fn each(&self, before: u64, sessions: u64) -> u64 {
        self.settled().await.saturating_sub(before) / sessions
    }
}
