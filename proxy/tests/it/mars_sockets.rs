//! MARS over real sockets: the driver gives every session its own journal slot, and none waits for another that is not read.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weir_contracts::entry::{Entry, EntryBody, Outcome, UsageRecord};
use weir_proxy::{
    app,
    config::{ClientEncryption, Config, UpstreamEncryption},
    journal::{Journal, JournalOptions},
};
use weir_tds::{
    build::TokenBuf,
    packet::{PacketStatus, PacketType},
    prelogin::{Encryption, Prelogin},
    smp::{End, WINDOW},
};

use crate::{
    billing_grpc,
    session::{
        bench::{V, batch, login7, message, prelogin, take_message},
        mars_peers::Peer,
        relay::result,
    },
};

const WITHIN: Duration = Duration::from_secs(20);

/// A peer and its socket.
pub(crate) struct Wire {
    socket: TcpStream,
    came: Vec<u8>,
    pub(crate) peer: Peer,
}

impl Wire {
    fn new(socket: TcpStream, end: End) -> Self {
        Self {
            socket,
            came: Vec::new(),
            peer: Peer::new(end),
        }
    }

    /// Waits for bytes; false at the end of the stream.
    async fn more(&mut self) -> bool {
        self.socket.read_buf(&mut self.came).await.unwrap_or(0) > 0
    }

    /// The next message outside SMP.
    async fn message(&mut self) -> Vec<u8> {
        loop {
            if let Some((_, body)) = take_message(&mut self.came) {
                return body;
            }
            assert!(self.more().await, "closed in the login");
        }
    }

    async fn say(&mut self, kind: PacketType, body: &[u8]) {
        self.send(&message(kind, PacketStatus::NORMAL, body)).await;
    }

    async fn send(&mut self, wire: &[u8]) {
        self.socket.write_all(wire).await.unwrap();
    }

    /// Takes in what came and sends what the windows allow.
    async fn turn(&mut self) {
        let wire = self.peer.read(&mut self.came);
        self.send(&wire).await;
    }

    pub(crate) async fn ask(&mut self, sid: u16, text: &str) {
        let request = message(PacketType::SqlBatch, PacketStatus::NORMAL, &batch(text));
        self.peer.say(sid, &request);
        self.turn().await;
    }

    pub(crate) async fn answer(&mut self, sid: u16) -> Vec<u8> {
        loop {
            self.turn().await;
            if let Some((_, body)) = self.peer.message(sid) {
                return body;
            }
            assert!(self.more().await, "session {sid} was not answered");
        }
    }
}

/// A server that answers the batch `N` with N rows.
async fn serve(listener: TcpListener) {
    let (socket, _) = listener.accept().await.unwrap();
    let mut wire = Wire::new(socket, End::Server);
    let hello = Prelogin::parse(&wire.message().await).unwrap();
    assert_eq!(hello.mars, Some(true));
    let answer = prelogin(Encryption::NotSup).encode();
    wire.say(PacketType::TabularResult, &answer).await;
    wire.message().await;
    let mut tokens = TokenBuf::new(V);
    tokens
        .login_ack("test", [16, 0, 3, 232])
        .env_packet_size(4096, 4096)
        .done(0, 0, 0);
    wire.say(PacketType::TabularResult, tokens.as_bytes()).await;
    while wire.more().await {
        wire.turn().await;
        for sid in 0..8 {
            while let Some((_, request)) = wire.peer.message(sid) {
                let text: Vec<u8> = request[22..].iter().copied().filter(|b| *b != 0).collect();
                let rows = String::from_utf8(text).unwrap().parse().unwrap();
                let tokens = result(rows);
                wire.peer.say(
                    sid,
                    &message(PacketType::TabularResult, PacketStatus::NORMAL, &tokens),
                );
            }
        }
        wire.turn().await;
    }
}

/// A client that is logged in and has these sessions open.
pub(crate) async fn client(address: SocketAddr, sids: impl Iterator<Item = u16>) -> Wire {
    let mut wire = Wire::new(TcpStream::connect(address).await.unwrap(), End::Client);
    wire.say(PacketType::Prelogin, &prelogin(Encryption::NotSup).encode())
        .await;
    let answer = Prelogin::parse(&wire.message().await).unwrap();
    assert_eq!(answer.mars, Some(true));
    wire.say(PacketType::Login7, &login7("demo").encode().unwrap())
        .await;
    wire.message().await;
    for sid in sids {
        let syn = wire.peer.sessions.open(sid).unwrap();
        wire.send(&syn.encode()).await;
    }
    wire
}

fn records(dir: &std::path::Path) -> Vec<UsageRecord> {
    let journal = Journal::open(dir, JournalOptions::default()).unwrap();
    let batch = journal.reader(None).read(500, 1 << 20).unwrap();
    let entries = batch.entries.iter();
    let bodies = entries.map(|(_, json)| serde_json::from_slice::<Entry>(json).unwrap().body);
    bodies
        .filter_map(|body| match body {
            EntryBody::Usage(usage) => Some(usage),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_session_that_is_not_read_stands_in_nobodys_way_and_each_has_its_records() {
    let (billing, _reports) = billing_grpc::serve().await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstream: upstream.local_addr().unwrap().to_string(),
        data_dir: dir.path().join("journal"),
        outbox_path: dir.path().join("outbox.db"),
        billing_url: format!("http://{billing}"),
        token: "s3cret".to_owned().into(),
        client_encryption: ClientEncryption::None,
        upstream_encryption: UpstreamEncryption::None,
        ..Config::default()
    };
    let proxy = app::start(config).await.unwrap();
    let server = tokio::spawn(serve(upstream));
    let small = tokio::time::timeout(WITHIN, async {
        let mut client = client(proxy.addr, 1..=2).await;
        client.peer.unread.insert(1);
        client.ask(1, "30000").await;
        for _ in 0..10 {
            client.ask(2, "1500").await;
            assert_eq!(client.answer(2).await, result(1500));
        }
        let waits = client.peer.got[&1].len();
        assert!(waits <= WINDOW as usize * 4096, "{waits} bytes beyond the window");
        client.peer.unread.clear();
        assert_eq!(client.answer(1).await, result(30_000));
        10
    });
    let small = small.await.expect("the sessions wait for each other");
    server.abort();
    proxy.stop().await;
    let mut rows = BTreeMap::new();
    for record in records(&dir.path().join("journal")) {
        assert_eq!((record.session, record.outcome), (1, Outcome::Completed));
        assert!(
            rows.insert(record.request, record.rows).is_none(),
            "one record per request"
        );
    }
    let mut expected = vec![1500; small];
    expected.push(30_000);
    let mut seen: Vec<u64> = rows.into_values().collect();
    seen.sort_unstable();
    assert_eq!(seen, expected);
}
