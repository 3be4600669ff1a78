//! A scripted client on the `tds` crate's own parts: it says what came, token by token, and checks every message's form.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::ClientConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tds::framer::{Frame, Framer};
use weir_tds::login7::{Feature, Login7};
use weir_tds::message::{FIRST_PACKET_ID, write_message};
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::{Encryption, EncryptionOption, Prelogin, TlsScope, accept};
use weir_tds::request::{RequestOptions, sql_batch};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use crate::reading::{Event, Reading, Response};

/// Nothing in these tests takes longer; a hang is a failure that says where.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    stream: TcpStream,
    /// Present while bytes go through TLS.
    tls: Option<ClientConnection>,
    pub(crate) input: BytesMut,
    framer: Framer,
    pub(crate) version: TdsVersion,
    pub(crate) packet_size: u16,
    pub(crate) login: Response,
    /// ENCRYPTION of the server's PRELOGIN.
    pub(crate) answered: Option<Encryption>,
    /// MARS of the server's PRELOGIN.
    pub(crate) mars: Option<bool>,
    /// What the responses' layout depends on beside the version.
    pub(crate) walker: WalkerOptions,
    /// Samples are read whose DONEs promise what does not come.
    pub(crate) lenient: bool,
}

pub(crate) struct Wish {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
    pub(crate) database: &'static str,
    pub(crate) version: TdsVersion,
    pub(crate) packet_size: u32,
    pub(crate) features: Vec<Feature>,
    pub(crate) tls: Option<TlsWish>,
    pub(crate) mars: bool,
}

/// How a client encrypts.
pub(crate) struct TlsWish {
    pub(crate) encryption: Encryption,
    /// TLS first (TDS 8.0).
    pub(crate) strict: bool,
    pub(crate) config: Arc<rustls::ClientConfig>,
}

impl TlsWish {
    fn client(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.config), "localhost".try_into().unwrap()).unwrap()
    }
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            user: "demo",
            password: "demo",
            database: "demo",
            version: TdsVersion::V7_4,
            packet_size: 4096,
            features: vec![],
            tls: None,
            mars: false,
        }
    }
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::login(addr, Wish::default()).await
    }

    /// Logs in as wished; the login response stands in `login`, whatever it says.
    pub(crate) async fn login(addr: SocketAddr, wish: Wish) -> Self {
        Self::try_login(addr, wish)
            .await
            .expect("the server and the client agree on encryption")
    }

    /// As `login`; `None` if the server closed before LOGIN7, or its answer leaves the client no way to go on.
    pub(crate) async fn try_login(addr: SocketAddr, wish: Wish) -> Option<Self> {
        let mut client = Self::try_begin(addr, wish).await?;
        client.login = client.response().await;
        Some(client)
    }

    /// Up to the sent LOGIN7.
    pub(crate) async fn begin(addr: SocketAddr, wish: Wish) -> Self {
        Self::try_begin(addr, wish).await.expect("agreed")
    }

    /// The server's answer to a PRELOGIN.
    pub(crate) async fn prelogin(addr: SocketAddr, asked: &Prelogin) -> Prelogin {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let mut out = BytesMut::new();
        let (kind, status) = (PacketType::Prelogin, PacketStatus::NORMAL);
        write_message(&mut out, kind, status, 4096, 0, FIRST_PACKET_ID, &asked.encode());
        stream.write_all(&out).await.unwrap();
        let mut answer = BytesMut::new();
        let framer = Framer::new(4096);
        while !matches!(framer.next(&answer).unwrap(), Frame::Packet(_)) {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        Prelogin::parse(&answer[HEADER_LEN..]).unwrap()
    }

    async fn try_begin(addr: SocketAddr, wish: Wish) -> Option<Self> {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self {
            stream,
            tls: None,
            input: BytesMut::new(),
            framer: Framer::new(4096),
            version: wish.version,
            packet_size: 4096,
            login: Response::default(),
            answered: None,
            mars: None,
            walker: WalkerOptions::new(wish.version),
            lenient: false,
        };
        let asked = wish.tls.as_ref().map_or(Encryption::NotSup, |tls| tls.encryption);
        if let Some(tls) = wish.tls.as_ref().filter(|tls| tls.strict) {
            client.handshake(tls.client(), false).await;
        }
        let prelogin = Prelogin {
            version: [11, 0, 0, 0, 0, 0],
            encryption: Some(EncryptionOption::plain(asked)),
            mars: wish.mars.then_some(true),
            ..Prelogin::default()
        };
        client
            .send(PacketType::Prelogin, PacketStatus::NORMAL, &prelogin.encode())
            .await;
        let (header, body) = client.packet().await?;
        assert_eq!(header.kind, PacketType::TabularResult);
        let told = Prelogin::parse(&body).unwrap();
        client.mars = told.mars;
        let answer = told.encryption.unwrap().mode;
        client.answered = Some(answer);
        let strict = wish.tls.as_ref().is_some_and(|tls| tls.strict);
        let scope = if strict {
            TlsScope::All
        } else {
            accept(asked, Some(EncryptionOption::plain(answer)))?
        };
        if let Some(tls) = wish.tls.as_ref().filter(|_| !strict && scope != TlsScope::None) {
            client.handshake(tls.client(), true).await;
        }
        let login = Login7 {
            tds_version: wish.version.to_login7(),
            packet_size: wish.packet_size,
            user_name: wish.user.into(),
            password: Password::from_text(wish.password),
            database: wish.database.into(),
            app_name: "it".into(),
            host_name: "here".into(),
            features: wish.features,
            ..Login7::default()
        };
        let body = login.encode().unwrap();
        client.send(PacketType::Login7, PacketStatus::NORMAL, &body).await;
        if scope == TlsScope::LoginOnly {
            client.tls = None;
        }
        Some(client)
    }

    /// The TLS handshake, wrapped in 0x12 packets or bare.
    async fn handshake(&mut self, mut tls: ClientConnection, wrapped: bool) {
        while tls.is_handshaking() {
            let mut flight = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut flight).unwrap();
            }
            if wrapped && !flight.is_empty() {
                self.send(PacketType::Prelogin, PacketStatus::NORMAL, &flight)
                    .await;
            } else {
                self.stream.write_all(&flight).await.unwrap();
            }
            if !tls.is_handshaking() {
                break;
            }
            let bytes = if wrapped {
                self.packet().await.unwrap().1
            } else {
                let mut bytes = BytesMut::new();
                assert_ne!(self.stream.read_buf(&mut bytes).await.unwrap(), 0);
                bytes
            };
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes).unwrap();
                tls.process_new_packets().unwrap();
            }
        }
        let mut rest = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut rest).unwrap();
        }
        // With a resumed session the client's Finished is the last of the handshake.
        if wrapped && !rest.is_empty() {
            self.send(PacketType::Prelogin, PacketStatus::NORMAL, &rest).await;
        } else {
            self.stream.write_all(&rest).await.unwrap();
        }
        self.tls = Some(tls);
    }

    pub(crate) fn options(&self) -> RequestOptions {
        RequestOptions::new(self.version)
    }

    pub(crate) async fn send(&mut self, kind: PacketType, status: PacketStatus, body: &[u8]) {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, status, self.packet_size, 0, FIRST_PACKET_ID, body);
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&out).unwrap();
            out.clear();
            let mut records = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut records).unwrap();
            }
            out.extend_from_slice(&records);
        }
        self.stream.write_all(&out).await.unwrap();
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn send_batch(&mut self, text: &str) {
        let body = sql_batch::encode(text, 0, self.options());
        self.send(PacketType::SqlBatch, PacketStatus::NORMAL, &body).await;
    }

    pub(crate) async fn batch(&mut self, text: &str) -> Response {
        self.send_batch(text).await;
        self.response().await
    }

    pub(crate) async fn attention(&mut self) {
        self.send(PacketType::Attention, PacketStatus::NORMAL, &[]).await;
    }

    /// The next packet; `None` when the server has closed.
    pub(crate) async fn packet(&mut self) -> Option<(PacketHeader, BytesMut)> {
        loop {
            if let Frame::Packet(header) = self.framer.next(&self.input).unwrap() {
                let mut packet = self.input.split_to(usize::from(header.length));
                return Some((header, packet.split_off(HEADER_LEN)));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads what comes next into `input`; false when the server has closed.
    pub(crate) async fn fill(&mut self) -> bool {
        let mut bytes = BytesMut::with_capacity(64 * 1024);
        let read = tokio::time::timeout(DEADLINE, self.stream.read_buf(&mut bytes)).await;
        if read.expect("nothing came within the deadline").unwrap_or(0) == 0 {
            return false;
        }
        let Some(tls) = &mut self.tls else {
            self.input.extend_from_slice(&bytes);
            return true;
        };
        while bytes.has_remaining() {
            let taken = tls.read_tls(&mut &bytes[..]).unwrap();
            bytes.advance(taken);
            let state = tls.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut plain).unwrap();
            self.input.extend_from_slice(&plain);
        }
        true
    }

    /// Reads what still comes of a response that the server breaks off.
    pub(crate) async fn until_close(&mut self) -> Reading {
        let mut reading = Reading::new(self.version);
        while let Some((header, body)) = self.packet().await {
            reading.take(&header, &body);
        }
        reading
    }

    /// The next whole message; panics where a message is not well formed.
    pub(crate) async fn response(&mut self) -> Response {
        let mut reading = Reading::with(self.walker);
        reading.lenient = self.lenient;
        loop {
            let (header, body) = self.packet().await.expect("the server closed in mid-message");
            assert_eq!(header.kind, PacketType::TabularResult);
            reading.take(&header, &body);
            if header.status.is_eom() {
                let response = reading.end();
                for event in &response.events {
                    if let Event::Env(4) = event {
                        self.packet_size = response_packet_size(&reading.sizes);
                        self.framer.set_max(self.packet_size);
                    }
                }
                return response;
            }
        }
    }

    /// Reads packets of the running response until some rows have come.
    pub(crate) async fn some_rows(&mut self) -> Reading {
        let mut reading = Reading::new(self.version);
        while reading.walker.rows() == 0 {
            let (header, body) = self.packet().await.expect("the server closed");
            reading.take(&header, &body);
            assert!(
                !header.status.is_eom(),
                "the response ended early: {:?}",
                reading.response
            );
        }
        reading
    }

    /// Reads the rest of a response.
    pub(crate) async fn rest(&mut self, mut reading: Reading) -> Response {
        loop {
            let (header, body) = self.packet().await.expect("the server closed in mid-message");
            reading.take(&header, &body);
            if header.status.is_eom() {
                return reading.end();
            }
        }
    }
}

fn response_packet_size(sizes: &[u16]) -> u16 {
    *sizes.last().unwrap()
}
