//! The bytes of one end's connection: a socket, in TLS or not, read in large pieces and handed on without being kept.

use std::io::{self, BufRead, Write};

use bytes::BytesMut;
use rustls::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tds::message::write_message;
use weir_tds::packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PacketHeader, PacketStatus, PacketType};

/// Bytes that are encrypted before they are written: rustls buffers no more.
const TLS_PIECE: usize = 64 * 1024;
/// Longest message of a login.
const MESSAGE_MAX: usize = 64 * 1024;
/// Bytes asked of the socket while logging in.
const LOGIN_READ: usize = 16 * 1024;

/// One end of a connection.
pub struct Wire {
    socket: TcpStream,
    tls: Option<Connection>,
    /// Ciphertext on its way out.
    sealed: Vec<u8>,
    /// Clear bytes behind the last message of a login.
    pending: Vec<u8>,
}

impl Wire {
    /// On a connected socket.
    ///
    /// # Errors
    /// Of the socket.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            tls: None,
            sealed: Vec::new(),
            pending: Vec::new(),
        })
    }

    /// Reads once, and gives what came to `sink`; at its end this is `UnexpectedEof`.
    ///
    /// # Errors
    /// Of the socket or of TLS.
    pub async fn receive(&mut self, scratch: &mut [u8], mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        if !self.pending.is_empty() {
            sink(&std::mem::take(&mut self.pending));
            return Ok(());
        }
        let Some(tls) = &mut self.tls else {
            let read = self.socket.read(scratch).await?;
            return match scratch.get(..read) {
                None | Some([]) => Err(io::ErrorKind::UnexpectedEof.into()),
                Some(bytes) => {
                    sink(bytes);
                    Ok(())
                }
            };
        };
        if opened(tls, &mut sink)? > 0 {
            return Ok(());
        }
        let read = self.socket.read(scratch).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut records = scratch.get(..read).unwrap_or_default();
        while !records.is_empty() {
            tls.read_tls(&mut records)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            opened(tls, &mut sink)?;
        }
        self.write_sealed().await
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Of the socket or of TLS.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.tls.is_none() {
            return self.socket.write_all(bytes).await;
        }
        for mut piece in bytes.chunks(TLS_PIECE) {
            while !piece.is_empty() {
                if let Some(tls) = &mut self.tls {
                    let taken = tls.writer().write(piece)?;
                    piece = piece.get(taken..).unwrap_or_default();
                }
                self.write_sealed().await?;
            }
        }
        Ok(())
    }

    async fn write_sealed(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        self.sealed.clear();
        while tls.wants_write() {
            tls.write_tls(&mut self.sealed)?;
        }
        if self.sealed.is_empty() {
            return Ok(());
        }
        self.socket.write_all(&self.sealed).await
    }

    /// Writes a small message.
    ///
    /// # Errors
    /// Of the socket or of TLS.
    pub async fn send_message(&mut self, kind: PacketType, body: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::new();
        write_message(&mut out, kind, PacketStatus::EOM, DEFAULT_PACKET_SIZE, 0, 1, body);
        self.send(&out).await
    }

    /// Reads a small message whole: the type of its packets, and its body.
    ///
    /// # Errors
    /// Of the socket or of TLS; `InvalidData` for what is no message of a login.
    pub async fn message(&mut self) -> io::Result<(PacketType, Vec<u8>)> {
        let mut scratch = vec![0; LOGIN_READ];
        let mut got = Vec::new();
        loop {
            if let Some((kind, body, used)) = whole_message(&got)? {
                got.drain(..used);
                self.pending = got;
                return Ok((kind, body));
            }
            if got.len() > MESSAGE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.receive(&mut scratch, |bytes| got.extend_from_slice(bytes))
                .await?;
        }
    }

    /// The handshake as the first thing on the socket (TDS 8.0).
    ///
    /// # Errors
    /// Of the socket or of TLS.
    pub async fn handshake(&mut self, tls: Connection) -> io::Result<()> {
        let mut scratch = vec![0; LOGIN_READ];
        let tls = self.tls.insert(tls);
        while tls.is_handshaking() {
            self.sealed.clear();
            while tls.wants_write() {
                tls.write_tls(&mut self.sealed)?;
            }
            self.socket.write_all(&self.sealed).await?;
            if !tls.is_handshaking() || !tls.wants_read() {
                continue;
            }
            let read = self.socket.read(&mut scratch).await?;
            let mut records = scratch.get(..read).unwrap_or_default();
            if records.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while !records.is_empty() {
                tls.read_tls(&mut records)?;
                tls.process_new_packets().map_err(io::Error::other)?;
            }
        }
        self.write_sealed().await
    }

    /// The handshake inside PRELOGIN packets [MS-TDS 2.2.6.5].
    ///
    /// # Errors
    /// Of the socket or of TLS.
    pub async fn wrapped_handshake(&mut self, mut tls: Connection) -> io::Result<()> {
        loop {
            let mut flight = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut flight)?;
            }
            if !flight.is_empty() {
                self.send_message(PacketType::Prelogin, &flight).await?;
            }
            if !tls.is_handshaking() {
                break;
            }
            let (_, body) = self.message().await?;
            let mut records = body.as_slice();
            while !records.is_empty() {
                tls.read_tls(&mut records)?;
                tls.process_new_packets().map_err(io::Error::other)?;
            }
        }
        // What came behind the handshake's last packet are records of the login already.
        let mut records = self.pending.as_slice();
        while !records.is_empty() {
            tls.read_tls(&mut records)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        self.pending.clear();
        self.tls = Some(tls);
        Ok(())
    }

    /// Everything from here on is in clear.
    pub fn leave_tls(&mut self) {
        self.tls = None;
    }

    /// Ends the sending side.
    ///
    /// # Errors
    /// Of the socket.
    pub async fn close(mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.write_sealed().await?;
        self.socket.shutdown().await
    }
}

/// Gives what was decrypted to `sink`; how much it was.
fn opened(tls: &mut Connection, sink: &mut impl FnMut(&[u8])) -> io::Result<usize> {
    let mut all = 0;
    loop {
        let mut reader = tls.reader();
        let length = match reader.fill_buf() {
            Ok([]) => return Ok(all),
            Ok(bytes) => {
                sink(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
            Err(error) => return Err(error),
        };
        reader.consume(length);
        all += length;
    }
}

/// Type, body and length of the message at the head, if it is whole.
fn whole_message(bytes: &[u8]) -> io::Result<Option<(PacketType, Vec<u8>, usize)>> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let header = PacketHeader::parse(bytes.get(at..).unwrap_or_default()).map_err(io::Error::other)?;
        let Some(header) = header else {
            return Ok(None);
        };
        let end = at + usize::from(header.length);
        let Some(piece) = bytes.get(at + HEADER_LEN..end) else {
            return Ok(None);
        };
        body.extend_from_slice(piece);
        at = end;
        if header.status.is_eom() {
            return Ok(Some((header.kind, body, at)));
        }
    }
}
