//! A running proxy on its sockets: what opens no connection to the server, a password at the gate, Browser answers.

use std::time::Duration;

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
    login7::Login7,
    message::write_message,
    packet::{PacketStatus, PacketType},
    password::Password,
    version::TdsVersion,
};

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
        let dir = tempfile::tempdir().unwrap();
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keys: Config = toml::from_str(keys).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            upstream: upstream.local_addr().unwrap().to_string(),
            data_dir: dir.path().join("journal"),
            outbox_path: dir.path().join("outbox.db"),
            billing_url: "http://127.0.0.1:9".to_owned(),
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
