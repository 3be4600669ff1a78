//! What sessions hold in memory, measured on a proxy in a process of its own: idle ones, and those whose client reads nothing.

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

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weir_proxy::config::{ClientEncryption, Config, UpstreamEncryption};
use weir_tds::{
    build::{ColumnDef, ColumnType, TokenBuf, Value},
    login7::Login7,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    prelogin::{Encryption, Prelogin},
};

use crate::generous_billing;
use crate::session::bench::{V, batch, login7, message, prelogin};
use crate::session::login::error_in;

/// Tells this test binary that it is the proxy: billing's address, the server's, a directory.
const CHILD: &str = "WEIR_TEST_MEMORY_CHILD";
/// Most bytes of an idle session in the clear (ARCHITECTURE.md, invariant 11).
const IDLE_MAX: u64 = 48 * 1024;
/// Most bytes of a session whose response streams, two packets beside.
const STREAMING_MAX: u64 = 256 * 1024;
const IDLE_SESSIONS: u64 = 1000;
const STREAMING_SESSIONS: u64 = 60;
/// How long memory may take to be what it will be, and how long nothing moves before it is believed.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
const STILL: Duration = Duration::from_millis(300);

/// Not a test of its own: the proxy's process.
#[test]
fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let mut told = told.split(' ');
    let mut next = || told.next().unwrap().to_owned();
    let (billing, upstream, dir) = (next(), next(), next());
    let dir = std::path::PathBuf::from(dir);
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstream,
        billing_url: billing,
        token: "t".to_owned().into(),
        data_dir: dir.join("journal"),
        outbox_path: dir.join("outbox.db"),
        client_encryption: ClientEncryption::None,
        upstream_encryption: UpstreamEncryption::None,
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

/// A server that answers `stream N` by rows without end in packets of N bytes, `sets N` by N result sets, all else by DONE.
async fn serve(mut socket: TcpStream, written: Arc<AtomicU64>) -> std::io::Result<()> {
    loop {
        let (kind, body) = read_message(&mut socket).await?;
        let mut tokens = TokenBuf::new(V);
        match kind {
            PacketType::Prelogin => {
                let hello = hello();
                socket
                    .write_all(&message(PacketType::TabularResult, PacketStatus::NORMAL, &hello))
                    .await?;
                continue;
            }
            PacketType::Login7 => {
                let asked = Login7::parse(&body).unwrap().packet_size;
                let granted = u16::try_from(asked).unwrap();
                tokens
                    .login_ack("test", [16, 0, 3, 232])
                    .env_packet_size(granted, 4096)
                    .done(0, 0, 0);
            }
            _ => {
                let text = String::from_utf16_lossy(
                    &body[22..]
                        .chunks(2)
                        .map(|c| u16::from_le_bytes([c[0], c[1]]))
                        .collect::<Vec<_>>(),
                );
                let (word, number) = text.split_once(' ').unwrap_or((&text, "0"));
                let number: usize = number.parse().unwrap_or(0);
                match word {
                    "stream" => return stream(socket, number, &written).await,
                    "sets" => {
                        for left in (0..number).rev() {
                            tokens.col_metadata(&columns()).unwrap();
                            tokens.row(&columns(), &[Value::Str("one row")]).unwrap();
                            tokens.done(if left > 0 { 0x11 } else { 0x10 }, 0xC1, 1);
                        }
                    }
                    _ => {
                        tokens.done(0, 0xFD, 0);
                    }
                }
            }
        }
        let answer = message(PacketType::TabularResult, PacketStatus::NORMAL, tokens.as_bytes());
        socket.write_all(&answer).await?;
    }
}

fn columns() -> [ColumnDef; 1] {
    [ColumnDef::new("text", ColumnType::nvarchar(4000))]
}

async fn stream(mut socket: TcpStream, size: usize, written: &AtomicU64) -> std::io::Result<()> {
    let mut tokens = TokenBuf::new(V);
    tokens.col_metadata(&columns()).unwrap();
    let row = "r".repeat(1500);
    for _ in 0..60 {
        tokens.row(&columns(), &[Value::Str(&row)]).unwrap();
    }
    let head = tokens.take();
    tokens.row(&columns(), &[Value::Str(&row)]).unwrap();
    let mut body = head.to_vec();
    loop {
        // Whole packets of the size that was asked for; small ones are a server that dribbles.
        let room = size - HEADER_LEN;
        let whole = body.len() / room * room;
        for piece in body[..whole].chunks(room) {
            let mut packet = message(PacketType::TabularResult, PacketStatus::NORMAL, &[]);
            packet[1] = 0;
            packet[2..4].copy_from_slice(&u16::try_from(size).unwrap().to_be_bytes());
            packet.extend_from_slice(piece);
            socket.write_all(&packet).await?;
            written.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
        body.drain(..whole);
        body.extend_from_slice(tokens.as_bytes());
    }
}

async fn read_message(socket: &mut TcpStream) -> std::io::Result<(PacketType, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        let mut head = [0; HEADER_LEN];
        socket.read_exact(&mut head).await?;
        let header = PacketHeader::parse(&head).unwrap().unwrap();
        let start = body.len();
        body.resize(start + header.body_len(), 0);
        socket.read_exact(&mut body[start..]).await?;
        if header.status.is_eom() {
            return Ok((header.kind, body));
        }
    }
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
    async fn start() -> Self {
        let billing_at = generous_billing::serve().await;
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream_at = upstream.local_addr().unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        tokio::spawn(async move {
            while let Ok((socket, _)) = upstream.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&count)));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let told = format!("http://{billing_at} {upstream_at} {}", dir.path().display());
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

    async fn log_in(&self, packet_size: u32) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let hello = hello();
        say(&mut socket, PacketType::Prelogin, &hello).await;
        read_message(&mut socket).await.unwrap();
        let login = Login7 {
            packet_size,
            ..login7("acme")
        };
        say(&mut socket, PacketType::Login7, &login.encode().unwrap()).await;
        let (_, answer) = read_message(&mut socket).await.unwrap();
        assert_eq!(
            error_in(&answer),
            None,
            "{}",
            String::from_utf8_lossy(&answer).replace('\0', "")
        );
        socket
    }

    async fn idle(&self) -> TcpStream {
        let mut socket = self.log_in(4096).await;
        say(&mut socket, PacketType::SqlBatch, &batch("select 1")).await;
        read_message(&mut socket).await.unwrap();
        socket
    }
}

/// PRELOGIN without encryption and without MARS.
fn hello() -> Vec<u8> {
    let hello = Prelogin {
        mars: Some(false),
        ..prelogin(Encryption::NotSup)
    };
    hello.encode()
}

async fn say(socket: &mut TcpStream, kind: PacketType, body: &[u8]) {
    socket
        .write_all(&message(kind, PacketStatus::NORMAL, body))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_sessions_hold_little() {
    let proxy = Proxy::start().await;
    let mut warm = Vec::new();
    for _ in 0..20 {
        warm.push(proxy.idle().await);
    }
    let before = proxy.settled().await;
    let mut sessions = Vec::new();
    for _ in 0..IDLE_SESSIONS {
        sessions.push(proxy.idle().await);
    }
    let each = (proxy.settled().await - before) / IDLE_SESSIONS;
    println!("an idle session holds {each} bytes");
    assert!(each <= IDLE_MAX, "an idle session holds {each} bytes");
    // All at once, a second time: what they held while they worked is given back.
    for socket in &mut sessions {
        say(socket, PacketType::SqlBatch, &batch("select 1")).await;
    }
    for socket in &mut sessions {
        read_message(socket).await.unwrap();
    }
    let each = (proxy.settled().await - before) / IDLE_SESSIONS;
    println!("after all worked at once it holds {each} bytes");
    assert!(each <= IDLE_MAX, "an idle session holds {each} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_client_reads_nothing_holds_a_bounded_part_of_its_response() {
    // The size of the server's packets, and of those that client and server agreed on.
    for (packet, agreed) in [(4096, 4096), (32_767, 32_767), (40, 4096), (512, 512)] {
        let proxy = Proxy::start().await;
        let mut sessions = Vec::new();
        for _ in 0..STREAMING_SESSIONS {
            sessions.push(proxy.log_in(agreed).await);
        }
        let before = proxy.settled().await;
        for socket in &mut sessions {
            let packet = packet.min(usize::try_from(agreed).unwrap());
            say(socket, PacketType::SqlBatch, &batch(&format!("stream {packet}"))).await;
        }
        let each = (proxy.settled().await - before) / STREAMING_SESSIONS;
        println!("packets of {packet} in {agreed}: a streaming session holds {each} bytes");
        let most = STREAMING_MAX + 2 * u64::from(agreed);
        assert!(each <= most, "packets of {packet}: {each} bytes of {most}");
        drop(sessions);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_result_sets_in_one_batch_leave_nothing_behind() {
    let proxy = Proxy::start().await;
    let mut socket = proxy.idle().await;
    say(&mut socket, PacketType::SqlBatch, &batch("sets 100")).await;
    read_message(&mut socket).await.unwrap();
    let before = proxy.settled().await;
    say(&mut socket, PacketType::SqlBatch, &batch("sets 10000")).await;
    let (_, body) = read_message(&mut socket).await.unwrap();
    let grown = proxy.settled().await.saturating_sub(before);
    println!("{} bytes of result sets left {grown} behind", body.len());
    assert!(grown <= STREAMING_MAX, "{grown} bytes");
}
