//! A TDS client that asks, counts and keeps the answer's bytes: what the self-test compares. Blocking, every wait bounded.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use weir_proxy::session::{
    encryption::UpstreamTls,
    leg::{Leg, LegError, Message},
    out::PIECES_PER_WRITE,
};
use weir_tds::{
    build::BuildError,
    error::WireError,
    login7::Login7,
    message::FIRST_PACKET_ID,
    packet::{HEADER_LEN, PacketStatus, PacketType},
    password::Password,
    prelogin::{self, Encryption, EncryptionOption, Field, Prelogin, TlsScope},
    token::{EnvChange, LoginAck, ServerMessage, TokenKind, env},
    version::TdsVersion,
    walker::{Budget, Step, Walker, WalkerOptions},
};

/// Longest connect, and longest silence of the other side.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Longest answer that is kept, bytes of token stream.
const ANSWER_MAX: usize = 64 << 20;
/// Packet size that LOGIN7 asks for.
const PACKET_SIZE: u32 = 4096;
/// The version that LOGIN7 asks for.
const VERSION: TdsVersion = TdsVersion::V7_4;

/// Why a conversation could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The socket.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// TLS or framing.
    #[error("{0}")]
    Leg(#[from] LegError),
    /// A token stream that cannot be read.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// A request that cannot be built.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// The other side does not agree to the encryption asked for.
    #[error("it does not offer this encryption")]
    NotOffered,
    /// The login was refused.
    #[error("the login was refused: {0}")]
    Refused(String),
    /// No end of the answer within the time or the size that is waited for.
    #[error("{0}")]
    Unbounded(&'static str),
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    None,
    /// The login only.
    LoginOnly,
    /// Everything, negotiated in PRELOGIN.
    On,
    /// TLS first: TDS 8.0.
    Strict,
}

impl Mode {
    /// All, weakest first.
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::LoginOnly, Self::On, Self::Strict];

    /// As tables and flags say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LoginOnly => "login-only",
            Self::On => "on",
            Self::Strict => "strict",
        }
    }

    fn asked(self) -> Encryption {
        match self {
            Self::None | Self::Strict => Encryption::NotSup,
            Self::LoginOnly => Encryption::Off,
            Self::On => Encryption::On,
        }
    }
}

/// Where to, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) address: String,
    /// Login.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: Password,
    /// Database; empty for the login's default.
    pub(crate) database: String,
    /// For every mode but `none`.
    pub(crate) tls: UpstreamTls,
}

/// What an answer came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// ROW and NBCROW tokens.
    pub(crate) rows: u64,
    /// COLMETADATA tokens.
    pub(crate) result_sets: u64,
    /// Bytes of token stream.
    pub(crate) payload: u64,
    /// Number, state, class and text of every ERROR.
    pub(crate) errors: Vec<(i32, u8, u8, String)>,
    /// Kinds of the ENVCHANGEs.
    pub(crate) changes: Vec<u8>,
    /// The tokens that must be the same by every way, byte for byte: all but what names this session
    /// (ENVCHANGE, SESSIONSTATE, and the handles in RETURNVALUE).
    pub(crate) lasting: Vec<u8>,
    /// RETURNVALUE tokens.
    pub(crate) returned: Vec<Vec<u8>>,
}

/// A logged-in connection.
pub(crate) struct Client {
    socket: TcpStream,
    leg: Leg,
    options: WalkerOptions,
    transaction: u64,
    /// Name and version of the server's product, as LOGINACK says them.
    pub(crate) product: String,
}

impl Client {
    /// Connects and logs in.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub(crate) fn connect(target: &Target, mode: Mode) -> Result<Self, ClientError> {
        let addresses = target.address.to_socket_addrs()?;
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut socket = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, SILENCE_MAX) {
                Ok(connected) => {
                    socket = Some(connected);
                    break;
                }
                Err(error) => failed = error,
            }
        }
        let Some(socket) = socket else {
            return Err(failed.into());
        };
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        socket.set_write_timeout(Some(SILENCE_MAX))?;
        socket.set_nodelay(true)?;
        let mut client = Self {
            socket,
            leg: Leg::new(),
            options: WalkerOptions::new(VERSION),
            transaction: 0,
            product: String::new(),
        };
        client.negotiate(target, mode)?;
        client.log_in(target)?;
        Ok(client)
    }

    fn negotiate(&mut self, target: &Target, mode: Mode) -> Result<(), ClientError> {
        if mode == Mode::Strict {
            self.start_tls(target, None)?;
        }
        let asked = Prelogin {
            version: [16, 0, 0, 0, 0, 0],
            encryption: Some(EncryptionOption::plain(mode.asked())),
            instance: Some(vec![0]),
            thread_id: Field::Value(0),
            mars: Some(false),
            trace_id: Field::Absent,
            fed_auth_required: None,
            nonce: None,
        };
        self.send(PacketType::Prelogin, PacketStatus::NORMAL, &asked.encode())?;
        let answer = Prelogin::parse(&self.message()?)?;
        if mode == Mode::Strict {
            return Ok(());
        }
        let scope = prelogin::accept(mode.asked(), answer.encryption).ok_or(ClientError::NotOffered)?;
        let agreed = match mode {
            Mode::None => scope == TlsScope::None,
            Mode::LoginOnly => scope != TlsScope::None,
            Mode::On | Mode::Strict => scope == TlsScope::All,
        };
        if !agreed {
            return Err(ClientError::NotOffered);
        }
        if scope != TlsScope::None {
            self.start_tls(target, Some(scope))?;
        }
        Ok(())
    }

    /// The handshake: inside PRELOGIN packets where there is a scope, on the bare socket for TDS 8.0.
    fn start_tls(&mut self, target: &Target, scope: Option<TlsScope>) -> Result<(), ClientError> {
        let tls = target.tls.connect(scope.is_none(), target.tls.name.clone());
        self.leg.start_tls(tls.map_err(LegError::from)?, scope)?;
        self.flush()?;
        while self.leg.is_handshaking() {
            self.read()?;
            self.flush()?;
        }
        Ok(())
    }

    fn log_in(&mut self, target: &Target) -> Result<(), ClientError> {
        let login = Login7 {
            tds_version: VERSION.to_login7(),
            packet_size: PACKET_SIZE,
            user_name: target.user.clone(),
            password: target.password.clone(),
            database: target.database.clone(),
            app_name: "weir selftest".to_owned(),
            ..Login7::default()
        };
        self.send(PacketType::Login7, PacketStatus::NORMAL, &login.encode()?)?;
        let body = self.message()?;
        let mut packet_size = None;
        let mut version = None;
        let mut refused = String::new();
        for_each_token(&body, self.options, |kind, bytes| {
            match kind {
                TokenKind::LoginAck => {
                    let ack = LoginAck::parse(bytes)?;
                    version = ack.version;
                    self.product = format!("{} {}", ack.program, dotted(ack.program_version));
                }
                TokenKind::EnvChange => {
                    let change = EnvChange::parse(bytes)?;
                    if change.kind == env::PACKET_SIZE {
                        packet_size = change.packet_size();
                    }
                }
                TokenKind::Error => {
                    let error = ServerMessage::parse(bytes, VERSION)?;
                    refused = format!("{} (error {})", error.message, error.number);
                }
                _ => {}
            }
            Ok(())
        })?;
        let Some(version) = version else {
            return Err(ClientError::Refused(refused));
        };
        self.options = WalkerOptions::new(version);
        if let Some(size) = packet_size {
            self.leg.set_packet_size(size);
        }
        Ok(())
    }

    /// The transaction that requests belong to; 0 for none.
    pub(crate) fn transaction(&self) -> u64 {
        self.transaction
    }

    /// The layout of requests on this connection.
    pub(crate) fn version(&self) -> TdsVersion {
        self.options.version
    }

    /// Sends a request and reads its whole answer.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub(crate) fn ask(
        &mut self,
        kind: PacketType,
        status: PacketStatus,
        body: &[u8],
    ) -> Result<Answer, ClientError> {
        self.send(kind, status, body)?;
        let stream = self.message()?;
        self.answer(&stream)
    }

    /// Sends a request, cancels it once its answer has begun, and reads to the end of the acknowledgement. The counts are
    /// those of the answer: an acknowledgement in a message of its own is nobody's usage.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub(crate) fn ask_and_cancel(&mut self, kind: PacketType, body: &[u8]) -> Result<Answer, ClientError> {
        self.send(kind, PacketStatus::NORMAL, body)?;
        let deadline = Instant::now() + SILENCE_MAX;
        while self.leg.plain().is_empty() {
            self.read_before(deadline)?;
        }
        self.leg
            .send(bytes::Bytes::copy_from_slice(&weir_tds::message::attention(0)))?;
        self.flush()?;
        let mut stream = self.message()?;
        let mut answer = self.answer(&stream)?;
        while !ends_by_attention(&stream) {
            if Instant::now() > deadline {
                return Err(ClientError::Unbounded(
                    "it did not acknowledge a cancellation in time",
                ));
            }
            stream = self.message()?;
            answer.errors.extend(self.answer(&stream)?.errors);
        }
        Ok(answer)
    }

    fn answer(&mut self, stream: &[u8]) -> Result<Answer, ClientError> {
        let mut answer = Answer {
            payload: stream.len() as u64,
            ..Answer::default()
        };
        let version = self.options.version;
        let mut transaction = self.transaction;
        let (rows, result_sets) = for_each_token(stream, self.options, |kind, bytes| {
            match kind {
                TokenKind::EnvChange => {
                    let change = EnvChange::parse(bytes)?;
                    answer.changes.push(change.kind);
                    match change.kind {
                        env::BEGIN_TRANSACTION => transaction = change.transaction().unwrap_or(0),
                        env::COMMIT_TRANSACTION | env::ROLLBACK_TRANSACTION => transaction = 0,
                        _ => {}
                    }
                }
                TokenKind::SessionState => {}
                TokenKind::ReturnValue => answer.returned.push(bytes.to_vec()),
                TokenKind::Error => {
                    let error = ServerMessage::parse(bytes, version)?;
                    answer
                        .errors
                        .push((error.number, error.state, error.class, error.message));
                    answer.lasting.extend_from_slice(bytes);
                }
                _ => answer.lasting.extend_from_slice(bytes),
            }
            Ok(())
        })?;
        self.transaction = transaction;
        answer.rows = rows;
        answer.result_sets = result_sets;
        Ok(answer)
    }

    fn send(&mut self, kind: PacketType, first_status: PacketStatus, body: &[u8]) -> Result<(), ClientError> {
        self.leg.send_message(&Message {
            kind,
            first_status,
            spid: 0,
            first_packet_id: FIRST_PACKET_ID,
            body,
        })?;
        self.flush()
    }

    /// The body of the next whole message.
    fn message(&mut self) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + SILENCE_MAX;
        let mut body = Vec::new();
        loop {
            match self.leg.peek_packet()? {
                Some(header) => {
                    let packet = self.leg.take_packet(&header);
                    body.extend_from_slice(packet.get(HEADER_LEN..).unwrap_or_default());
                    if body.len() > ANSWER_MAX {
                        return Err(ClientError::Unbounded(
                            "its answer is longer than the self-test reads",
                        ));
                    }
                    if header.status.is_eom() {
                        return Ok(body);
                    }
                }
                None => self.read_before(deadline)?,
            }
        }
    }

    fn read_before(&mut self, deadline: Instant) -> Result<(), ClientError> {
        if Instant::now() > deadline {
            return Err(ClientError::Unbounded("it did not end its answer in time"));
        }
        self.read()
    }

    fn read(&mut self) -> Result<(), ClientError> {
        let mut piece = [0; 16 * 1024];
        let read = self.socket.read(&mut piece)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection").into());
        }
        self.leg
            .read_buf()
            .extend_from_slice(piece.get(..read).unwrap_or_default());
        Ok(self.leg.ingest()?)
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        while !self.leg.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let used = self.leg.out.slices(&mut slices);
            let written = self
                .socket
                .write_vectored(slices.get(..used).unwrap_or_default())?;
            self.leg.out.advance(written);
        }
        Ok(())
    }
}

/// Calls `seen` with every token but rows, whose bytes go with `TokenKind::Row`; answers rows and result sets.
fn for_each_token(
    stream: &[u8],
    options: WalkerOptions,
    mut seen: impl FnMut(TokenKind, &[u8]) -> Result<(), WireError>,
) -> Result<(u64, u64), WireError> {
    let mut walker = Walker::new(options);
    walker.begin_message();
    let mut rest = stream;
    while !rest.is_empty() {
        let walk = walker.walk(rest, &mut Budget { ..Budget::UNLIMITED })?;
        let (taken, later) = rest.split_at(walk.consumed.min(rest.len()));
        match walk.step {
            Step::Token(token) => {
                // Rows in front of a token are taken with it.
                let rows = taken.len().saturating_sub(token.bytes.len());
                let rows = taken.get(..rows).unwrap_or_default();
                if !rows.is_empty() {
                    seen(TokenKind::Row, rows)?;
                }
                seen(token.kind, token.bytes)?;
            }
            Step::NeedMore => {
                seen(TokenKind::Row, taken)?;
                break;
            }
            Step::BudgetSpent => {}
        }
        rest = later;
    }
    walker.end_message()?;
    Ok((walker.rows(), walker.result_sets()))
}

/// True for a message whose last token is a DONE with the ATTN bit [MS-TDS 2.2.7.6].
fn ends_by_attention(stream: &[u8]) -> bool {
    const DONE: u8 = 0xFD;
    const DONE_LEN: usize = 13;
    const ATTN: u8 = 0x20;
    stream
        .len()
        .checked_sub(DONE_LEN)
        .and_then(|at| stream.get(at..))
        .is_some_and(|done| done.first() == Some(&DONE) && done.get(1).is_some_and(|low| low & ATTN != 0))
}

fn dotted(version: [u8; 4]) -> String {
    let [major, minor, high, low] = version;
    format!("{major}.{minor}.{}", u16::from_be_bytes([high, low]))
}
