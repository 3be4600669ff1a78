//! A client that sends what it is told and reads to the end: for kills, torn input and stalled readers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use weir_tds::login7::Login7;
use weir_tds::message::write_message;
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::{Encryption, EncryptionOption, Prelogin};

use crate::drivers::Target;

/// Longest wait for the next byte.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// Packet size that LOGIN7 asks for.
const PACKET_SIZE: u16 = 4096;

/// A socket and nothing more.
pub struct Raw {
    socket: TcpStream,
}

/// A message that came in: its body, put together from its packets.
pub struct Message {
    /// Type of its packets.
    pub kind: PacketType,
    /// The bodies, one behind the other.
    pub body: Vec<u8>,
}

impl Raw {
    /// Connects, and says nothing.
    ///
    /// # Errors
    /// Of the socket.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(READ_DEADLINE))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket })
    }

    /// Connects and logs in without encryption.
    ///
    /// # Errors
    /// Of the socket; a login that is refused is `PermissionDenied`.
    pub fn login(to: &Target) -> io::Result<Self> {
        Self::login_with(to, &prelogin(Encryption::NotSup))
    }

    /// The same with MARS: from here on both sides speak SMP.
    ///
    /// # Errors
    /// The same; a server without MARS is `Unsupported`.
    pub fn login_multiplexed(to: &Target) -> io::Result<Self> {
        let asked = Prelogin {
            mars: Some(true),
            ..prelogin(Encryption::NotSup)
        };
        Self::login_with(to, &asked)
    }

    fn login_with(to: &Target, asked: &Prelogin) -> io::Result<Self> {
        let mut raw = Self::connect(to.address)?;
        raw.send(PacketType::Prelogin, &asked.encode())?;
        let answer =
            Prelogin::parse(&raw.message()?.body).map_err(|error| io::Error::other(error.to_string()))?;
        if asked.mars == Some(true) && answer.mars != Some(true) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no MARS"));
        }
        let login = Login7 {
            tds_version: 0x7400_0004,
            packet_size: u32::from(PACKET_SIZE),
            user_name: to.user.clone(),
            password: Password::from_text(&to.password),
            database: to.database.clone(),
            app_name: "weir-protocol-tests".to_owned(),
            ..Login7::default()
        };
        let body = login
            .encode()
            .map_err(|error| io::Error::other(error.to_string()))?;
        raw.send(PacketType::Login7, &body)?;
        let answer = raw.message()?;
        if answer.body.contains(&LOGIN_ACK) && !answer.body.starts_with(&[ERROR]) {
            return Ok(raw);
        }
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }

    /// Sends a message in packets of the agreed size.
    ///
    /// # Errors
    /// Of the socket.
    pub fn send(&mut self, kind: PacketType, body: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, PacketStatus::EOM, PACKET_SIZE, 0, 1, body);
        self.send_bytes(&out)
    }

    /// Sends a text as a SQL batch outside any transaction.
    ///
    /// # Errors
    /// Of the socket.
    pub fn batch(&mut self, sql: &str) -> io::Result<()> {
        let mut body = TRANSACTION_NONE.to_vec();
        body.extend(sql.encode_utf16().flat_map(u16::to_le_bytes));
        self.send(PacketType::SqlBatch, &body)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Of the socket.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads the next message whole; for small ones.
    ///
    /// # Errors
    /// Of the socket; `UnexpectedEof` when it ends inside.
    pub fn message(&mut self) -> io::Result<Message> {
        let mut body = Vec::new();
        loop {
            let header = self.packet(&mut body)?;
            if header.status.is_eom() {
                return Ok(Message {
                    kind: header.kind,
                    body,
                });
            }
        }
    }

    /// Appends the next packet's body.
    ///
    /// # Errors
    /// Of the socket; `UnexpectedEof` when it ends inside.
    pub fn packet(&mut self, body: &mut Vec<u8>) -> io::Result<PacketHeader> {
        let mut head = [0; HEADER_LEN];
        self.socket.read_exact(&mut head)?;
        let header = PacketHeader::parse(&head).map_err(|error| io::Error::other(error.to_string()))?;
        let header = header.ok_or(io::ErrorKind::InvalidData)?;
        let start = body.len();
        body.resize(start + header.body_len(), 0);
        self.socket.read_exact(&mut body[start..])?;
        Ok(header)
    }

    /// Everything until the peer closes; a reset ends it as well.
    #[must_use]
    pub fn to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = self.socket.read_to_end(&mut all);
        all
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

/// ALL_HEADERS with the transaction descriptor of no transaction [MS-TDS 2.2.5.3].
const TRANSACTION_NONE: [u8; 22] = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// LOGINACK's token byte.
const LOGIN_ACK: u8 = 0xAD;
/// ERROR's token byte.
const ERROR: u8 = 0xAA;

/// A PRELOGIN without MARS.
#[must_use]
pub fn prelogin(encryption: Encryption) -> Prelogin {
    Prelogin {
        version: [16, 0, 0, 0, 0, 0],
        encryption: Some(EncryptionOption::plain(encryption)),
        mars: Some(false),
        ..Prelogin::default()
    }
}
