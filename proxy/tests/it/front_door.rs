//! A running proxy on its sockets: what opens no connection to the server, a password at the gate, Browser answers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};
use weir_proxy::{
    Config, Running,
    auth::PasswordHash,
    config::{ClientEncryption, UpstreamEncryption},
};
use weir_tds::{
    browser::Request,
    build::TokenBuf,
    login7::Login7,
    message::write_message,
    packet::{HEADER_LEN, PacketStatus, PacketType},
    password::Password,
    prelogin::Prelogin,
    version::TdsVersion,
};

use crate::billing_grpc::{TOKEN, serve};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Door {
    proxy: Running,
    /// Nobody should come here.
    upstream: TcpListener,
    _dir: tempfile::TempDir,
}

impl Door {
    /// A proxy whose billing is away, with these further keys.
    async fn open(keys: &str) -> Self {
        Self::open_with(keys, None).await
    }

    async fn open_with(keys: &str, billing: Option<SocketAddr>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keys: Config = toml::from_str(keys).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            upstream: upstream.local_addr().unwrap().to_string(),
            data_dir: dir.path().join("journal"),
            outbox_path: dir.path().join("outbox.db"),
            billing_url: billing.map_or_else(|| "http://127.0.0.1:9".to_owned(), |b| format!("http://{b}")),
            token: TOKEN.to_owned().into(),
            billing_deadline_ms: 100,
            client_encryption: ClientEncryption::None,
            upstream_encryption: UpstreamEncryption::None,
            ..keys
        };
        let proxy = weir_proxy::start(config).await.unwrap();
        Self {
            proxy,
            upstream,
            _dir: dir,
        }
    }

    /// What the proxy answers to these bytes until it closes; with `end` the client closes its side first.
    async fn answer(&self, bytes: &[u8], end: bool) -> Vec<u8> {
        let mut client = TcpStream::connect(self.proxy.addr).await.unwrap();
        client.write_all(bytes).await.unwrap();
        if end {
            client.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        // A reset where the proxy left bytes unread is a close, too.
        let _closed = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer))
            .await
            .unwrap();
        answer
    }

    /// Nobody has come to the server so far.
    async fn assert_nobody_came(&self) {
        let own = TcpStream::connect(self.upstream.local_addr().unwrap())
            .await
            .unwrap();
        let (_, first) = self.upstream.accept().await.unwrap();
        assert_eq!(first, own.local_addr().unwrap(), "somebody was there before");
    }
}

fn login(user: &str, password: &str) -> Vec<u8> {
    let login = Login7 {
        tds_version: TdsVersion::V7_4.to_login7(),
        user_name: user.into(),
        password: Password::from_text(password),
        ..Login7::default()
    };
    let mut packet = bytes::BytesMut::new();
    let body = login.encode().unwrap();
    write_message(
        &mut packet,
        PacketType::Login7,
        PacketStatus::NORMAL,
        4096,
        0,
        1,
        &body,
    );
    packet.to_vec()
}

/// Number in the ERROR token behind a packet's header.
fn error(answer: &[u8]) -> Option<i32> {
    let token = answer.get(8..)?;
    let number = token.get(3..7)?.first_chunk::<4>()?;
    (token.first() == Some(&0xAA)).then(|| i32::from_le_bytes(*number))
}

#[tokio::test]
async fn garbage_and_half_logins_open_no_connection_to_the_server() {
    let door = Door::open("").await;
    let whole = login("acme", "x");
    let mut broken = whole.clone();
    broken[8] ^= 0x01;
    for (bytes, end) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], false),
        (&[0x00; 64], false),
        (&[0x12, 1, 0, 9, 0, 0, 0, 0, 0xFF], false),
        (&broken, false),
        (&whole[..9], true),
        (&whole[..whole.len() - 1], true),
        (&[], true),
    ] {
        assert_eq!(door.answer(bytes, end).await, b"", "{bytes:?}");
    }
    assert_eq!(
        error(&door.answer(&whole, false).await),
        Some(50503),
        "billing is away"
    );
    assert_eq!(error(&door.answer(&login("a\0b", "x"), false).await), Some(50403));
    door.assert_nobody_came().await;
    door.proxy.stop().await;
}

/// Whenever the gate looks, more bytes of it are there: its deadline must not wait for a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_pauses_is_closed_at_the_login_deadline() {
    const DEADLINE: Duration = Duration::from_millis(500);
    let door = Door::open("login_deadline_ms = 500").await;
    let mut client = TcpStream::connect(door.proxy.addr).await.unwrap();
    // Packets of PRELOGIN without a body: no bound of bytes is ever reached.
    let empty = [0x12, 0, 0, 8, 0, 0, 0, 0].repeat(4096);
    let began = Instant::now();
    let closed = async { while client.write_all(&empty).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    let after = began.elapsed();
    assert!(after < 4 * DEADLINE, "listened to for {after:?}");
    door.proxy.stop().await;
}

#[tokio::test]
async fn a_mapped_login_needs_its_password_at_the_gate() {
    let secrets = tempfile::tempdir().unwrap();
    let (hash, server) = (secrets.path().join("hash"), secrets.path().join("server"));
    std::fs::write(&hash, PasswordHash::of("gate-word").unwrap().to_text() + "\n").unwrap();
    std::fs::write(&server, "server-word\n").unwrap();
    let door = Door::open(&format!(
        "[[credentials]]\nlogin = \"Acme\"\npassword_hash = \"file:{}\"\nserver_login = \"app\"\nserver_password = \"file:{}\"",
        hash.display(),
        server.display()
    ))
    .await;
    for (password, expected) in [
        ("wrong", 18456),
        ("", 18456),
        ("gate-word", 50503),
        ("gate-word", 50503),
    ] {
        let answer = door.answer(&login("ACME", password), false).await;
        assert_eq!(error(&answer), Some(expected), "{password}");
    }
    assert_eq!(
        error(&door.answer(&login("other", "x"), false).await),
        Some(50503)
    );
    door.assert_nobody_came().await;
    door.proxy.stop().await;
}

/// Each request that is answered, and the one that is none [MC-SQLR 2.2.2, 2.2.3, 2.2.4].
#[tokio::test]
async fn browser_requests_are_answered_with_the_proxys_own_port() {
    let door = Door::open("browser_listen = \"127.0.0.1:0\"").await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(door.proxy.browser.unwrap()).await.unwrap();
    let mut datagram = [0; 2048];
    // What is not answered comes first: the first answer must be that of the last request.
    for unanswered in [&b"x"[..], b"\x0f\x01MSSQLSERVER\0", &[4; 600]] {
        client.send(unanswered).await.unwrap();
    }
    client
        .send(&Request::Instance("mssqlserver".into()).encode())
        .await
        .unwrap();
    let length = tokio::time::timeout(PATIENCE, client.recv(&mut datagram))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&datagram[3..length]).into_owned();
    let port = door.proxy.addr.port();
    assert!(
        text.starts_with("ServerName;weir;InstanceName;MSSQLSERVER;")
            && text.ends_with(&format!("tcp;{port};;")),
        "{text}"
    );
    door.proxy.stop().await;
}

/// The next message on a socket, of one packet.
async fn packet(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; HEADER_LEN];
    socket.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - HEADER_LEN];
    socket.read_exact(&mut body).await.unwrap();
    (header[0], body)
}

async fn answer(socket: &mut TcpStream, body: &[u8]) {
    let mut packet = bytes::BytesMut::new();
    write_message(
        &mut packet,
        PacketType::TabularResult,
        PacketStatus::NORMAL,
        4096,
        51,
        1,
        body,
    );
    socket.write_all(&packet).await.unwrap();
}

/// A server that takes one login and answers it with these tokens.
async fn take_login(listener: &TcpListener, tokens: &TokenBuf) -> (TcpStream, Login7) {
    let (mut socket, _) = tokio::time::timeout(PATIENCE, listener.accept())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(packet(&mut socket).await.0, 0x12);
    let hello = Prelogin {
        version: [16, 0, 0, 0, 0, 0],
        ..Prelogin::default()
    };
    answer(&mut socket, &hello.encode()).await;
    let (kind, body) = packet(&mut socket).await;
    assert_eq!(kind, 0x10);
    answer(&mut socket, tokens.as_bytes()).await;
    (socket, Login7::parse(&body).unwrap())
}

#[tokio::test]
async fn a_routed_login_ends_at_the_other_server_and_the_client_stays_where_it_is() {
    let (billing, _reports) = serve().await;
    let door = Door::open_with(
        "routing = \"follow\"\nrouting_targets = [\"127.0.0.1\"]\ntell_client = \"host-name\"",
        Some(billing),
    )
    .await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut routing = TokenBuf::new(TdsVersion::V7_4);
    routing
        .login_ack("first", [16, 0, 0, 0])
        .env_routing(other.local_addr().unwrap().port(), "127.0.0.1")
        .done(0, 0, 0);
    let mut welcome = TokenBuf::new(TdsVersion::V7_4);
    welcome.login_ack("second", [16, 0, 0, 0]).done(0, 0, 0);
    let mut client = TcpStream::connect(door.proxy.addr).await.unwrap();
    client.write_all(&login("demo", "word")).await.unwrap();
    let (mut left, _) = take_login(&door.upstream, &routing).await;
    let (mut server, sent) = take_login(&other, &welcome).await;
    assert_eq!(
        (sent.user_name.as_str(), sent.password.to_text().as_str()),
        ("demo", "word")
    );
    assert_eq!(
        (sent.server_name.as_str(), sent.host_name.as_str()),
        ("127.0.0.1", "[127.0.0.1]")
    );
    let (kind, body) = packet(&mut client).await;
    assert_eq!(
        (kind, body.as_slice()),
        (0x04, welcome.as_bytes()),
        "the last response, and it alone"
    );
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, left.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty(), "the first server is left at once");
    let request = weir_tds::request::sql_batch::encode(
        "SET NOCOUNT ON",
        0,
        weir_tds::request::RequestOptions::new(TdsVersion::V7_4),
    );
    let mut message = bytes::BytesMut::new();
    write_message(
        &mut message,
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        4096,
        0,
        1,
        &request,
    );
    client.write_all(&message).await.unwrap();
    assert_eq!(packet(&mut server).await, (0x01, request));
    drop(client);
    door.proxy.stop().await;
}

#[tokio::test]
async fn the_failover_takes_the_login_when_the_upstream_takes_none() {
    let (billing, _reports) = serve().await;
    let mirror = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys = format!("upstream_failover = \"{}\"", mirror.local_addr().unwrap());
    let Door {
        proxy,
        upstream,
        _dir,
    } = Door::open_with(&keys, Some(billing)).await;
    drop(upstream);
    let mut welcome = TokenBuf::new(TdsVersion::V7_4);
    welcome.login_ack("mirror", [16, 0, 0, 0]).done(0, 0, 0);
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    client.write_all(&login("demo", "word")).await.unwrap();
    let (_server, _) = take_login(&mirror, &welcome).await;
    assert_eq!(packet(&mut client).await.1, welcome.as_bytes());
    drop(client);
    proxy.stop().await;
}
