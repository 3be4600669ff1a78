//! A driver on a real socket, in any encryption: logs in, runs a batch, says what it was shown.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer};
use weir_proxy::session::encryption::ALPN_TDS8;
use weir_tds::{
    login7::Login7,
    message::write_message,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    password::Password,
    prelogin::{Encryption, EncryptionOption, Prelogin, TlsScope, accept},
    request::{RequestOptions, sql_batch},
    version::TdsVersion,
};

/// Longest wait for the next byte.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// What a driver is set to.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(crate) gate: SocketAddr,
    pub(crate) encryption: Encryption,
    /// The certificate that it trusts, and nothing else.
    pub(crate) trusts: CertificateDer<'static>,
}

/// A connection that is logged in.
pub(crate) struct Connected {
    stream: Stream,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.write(buf),
            Self::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// The handshake's bytes in PRELOGIN packets.
struct Wrapped<'a> {
    socket: &'a mut TcpStream,
    come: Vec<u8>,
}

impl Read for Wrapped<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.come.is_empty() {
            self.come = packet(self.socket)?.1;
        }
        let taken = buf.len().min(self.come.len());
        buf[..taken].copy_from_slice(&self.come[..taken]);
        self.come.drain(..taken);
        Ok(taken)
    }
}

impl Write for Wrapped<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        send(self.socket, PacketType::Prelogin, buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Driver {
    fn tls(&self, strict: bool) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusts.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[&rustls::SupportedProtocolVersion] = if strict {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        } else {
            &[&rustls::version::TLS12]
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        if strict {
            config.alpn_protocols = vec![ALPN_TDS8.to_vec()];
        }
        ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }

    /// Connects and logs in; the login response is a message, whatever it says.
    pub(crate) fn log_in(&self) -> io::Result<(Connected, Vec<u8>)> {
        let mut socket = TcpStream::connect(self.gate)?;
        socket.set_read_timeout(Some(READ_DEADLINE))?;
        socket.set_nodelay(true)?;
        let strict = self.encryption == Encryption::Strict;
        let (mut stream, scope) = if strict {
            let tls = StreamOwned::new(self.tls(true), socket);
            let mut stream = Stream::Tls(Box::new(tls));
            self.greet(&mut stream)?;
            (stream, TlsScope::All)
        } else {
            let answer = self.greet(&mut socket)?;
            let scope = accept(self.encryption, Some(EncryptionOption::plain(answer)));
            let scope = scope.ok_or(io::ErrorKind::ConnectionRefused)?;
            if scope == TlsScope::None {
                (Stream::Clear(socket), scope)
            } else {
                let mut tls = self.tls(false);
                let mut wrapped = Wrapped {
                    socket: &mut socket,
                    come: Vec::new(),
                };
                while tls.is_handshaking() || tls.wants_write() {
                    tls.complete_io(&mut wrapped)?;
                }
                (Stream::Tls(Box::new(StreamOwned::new(tls, socket))), scope)
            }
        };
        let version = if strict {
            TdsVersion::V8_0
        } else {
            TdsVersion::V7_4
        };
        let login = Login7 {
            tds_version: version.to_login7(),
            packet_size: 32_767,
            user_name: "demo".into(),
            password: Password::from_text("demo"),
            database: "demo".into(),
            ..Login7::default()
        };
        send(&mut stream, PacketType::Login7, &login.encode().unwrap())?;
        if scope == TlsScope::LoginOnly
            && let Stream::Tls(tls) = stream
        {
            stream = Stream::Clear(tls.sock);
        }
        let mut connected = Connected { stream };
        let answer = connected.message()?;
        Ok((connected, answer))
    }

    fn greet(&self, stream: &mut (impl Read + Write)) -> io::Result<Encryption> {
        let hello = Prelogin {
            version: [16, 0, 0, 0, 0, 0],
            encryption: Some(EncryptionOption::plain(self.encryption)),
            ..Prelogin::default()
        };
        send(stream, PacketType::Prelogin, &hello.encode())?;
        let (_, body) = packet(stream)?;
        let answer = Prelogin::parse(&body).map_err(io::Error::other)?;
        Ok(answer.encryption.unwrap().mode)
    }
}

impl Connected {
    /// Runs a text; the answer's tokens.
    pub(crate) fn batch(&mut self, text: &str) -> io::Result<Vec<u8>> {
        self.ask(text)?;
        self.message()
    }

    /// Sends a text; its answer is left where it is.
    pub(crate) fn ask(&mut self, text: &str) -> io::Result<()> {
        let body = sql_batch::encode(text, 0, RequestOptions::new(TdsVersion::V7_4));
        send(&mut self.stream, PacketType::SqlBatch, &body)
    }

    /// Reads this many bytes of answers, TLS taken off.
    pub(crate) fn read(&mut self, bytes: usize) -> io::Result<()> {
        self.stream.read_exact(&mut vec![0; bytes])
    }

    /// The next answer's tokens.
    pub(crate) fn message(&mut self) -> io::Result<Vec<u8>> {
        let mut tokens = Vec::new();
        loop {
            let (header, mut body) = packet(&mut self.stream)?;
            tokens.append(&mut body);
            if header.status.is_eom() {
                return Ok(tokens);
            }
        }
    }
}

fn packet(from: &mut impl Read) -> io::Result<(PacketHeader, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    from.read_exact(&mut head)?;
    let header = PacketHeader::parse(&head).map_err(io::Error::other)?.unwrap();
    let mut body = vec![0; header.body_len()];
    from.read_exact(&mut body)?;
    Ok((header, body))
}

fn send(to: &mut impl Write, kind: PacketType, body: &[u8]) -> io::Result<()> {
    let mut out = bytes::BytesMut::new();
    write_message(&mut out, kind, PacketStatus::NORMAL, 4096, 0, 1, body);
    to.write_all(&out)?;
    to.flush()
}
