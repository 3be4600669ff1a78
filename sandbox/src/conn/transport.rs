//! Bytes of a connection: the socket, and rustls fed record by record, because login-only TLS ends inside the stream.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use rustls::ServerConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tds::framer::{Frame, Framer};
use weir_tds::message::{FIRST_PACKET_ID, write_message};
use weir_tds::packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PacketHeader, PacketStatus, PacketType};

use super::ConnError;

/// Bytes asked of the socket at a time.
const READ_CHUNK: usize = 32 * 1024;
/// Header of a TLS record: type, version, length.
const RECORD_HEADER: usize = 5;
/// Packet size on both sides of the wrapped handshake.
const HANDSHAKE_PACKET: u16 = DEFAULT_PACKET_SIZE;

/// Which bytes are in TLS.
enum Cipher {
    /// None.
    Clear,
    /// All.
    All(Box<ServerConnection>),
    /// Those up to the end of the first LOGIN7 packet [MS-TDS 3.2.5.3].
    FirstPacket(Box<ServerConnection>),
}

/// A client's socket and what has come from it.
pub(crate) struct Transport {
    stream: TcpStream,
    cipher: Cipher,
    /// As read from the socket.
    raw: BytesMut,
    /// Decrypted: TDS packets.
    input: BytesMut,
    framer: Framer,
    /// Ciphertext or clear bytes that wait for the socket.
    out: BytesMut,
    /// Chunks that go out as they are, behind `out`.
    clear_out: Option<Bytes>,
}

impl Transport {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            cipher: Cipher::Clear,
            raw: BytesMut::new(),
            input: BytesMut::new(),
            framer: Framer::new(DEFAULT_PACKET_SIZE),
            out: BytesMut::new(),
            clear_out: None,
        }
    }

    /// Largest packet the client may send from now on.
    pub(crate) fn set_max_packet(&mut self, size: u16) {
        self.framer.set_max(size);
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.cipher, Cipher::All(_))
    }

    /// Decrypted bytes that wait for the framer.
    pub(crate) fn buffered(&self) -> usize {
        self.input.len()
    }

    /// The first byte of the connection: 0x16 is TLS first (TDS 8.0).
    pub(crate) async fn first_byte(&mut self) -> Result<u8, ConnError> {
        while self.raw.is_empty() {
            self.read_raw().await?;
        }
        self.raw.first().copied().ok_or(ConnError::Closed)
    }

    async fn read_raw(&mut self) -> Result<(), ConnError> {
        self.raw.reserve(READ_CHUNK);
        match self.stream.read_buf(&mut self.raw).await? {
            0 => Err(ConnError::Closed),
            _ => Ok(()),
        }
    }

    /// The next whole packet, waiting for it.
    pub(crate) async fn packet(&mut self) -> Result<(PacketHeader, Bytes), ConnError> {
        loop {
            if let Some(packet) = self.next_packet()? {
                return Ok(packet);
            }
            self.read_raw().await?;
        }
    }

    /// The next whole packet, if it is there.
    pub(crate) fn next_packet(&mut self) -> Result<Option<(PacketHeader, Bytes)>, ConnError> {
        self.decrypt()?;
        let Frame::Packet(header) = self.framer.next(&self.input)? else {
            return Ok(None);
        };
        let mut packet = self.input.split_to(usize::from(header.length));
        packet.advance(HEADER_LEN);
        Ok(Some((header, packet.freeze())))
    }

    /// Decrypted bytes, for who frames them otherwise than as TDS packets.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Moves what can be read from `raw` to `input`.
    pub(crate) fn decrypt(&mut self) -> Result<(), ConnError> {
        loop {
            let (tls, first_only) = match &mut self.cipher {
                Cipher::Clear => {
                    let raw = self.raw.split();
                    if self.input.is_empty() {
                        self.input = raw
                    } else {
                        self.input.extend_from_slice(&raw)
                    }
                    return Ok(());
                }
                Cipher::All(tls) => (tls, false),
                Cipher::FirstPacket(tls) => (tls, true),
            };
            let Some(record) = take_record(&mut self.raw) else {
                return Ok(());
            };
            feed(tls, &record)?;
            drain_plaintext(tls, &mut self.input)?;
            // The rest of the raw bytes is clear as soon as one packet has come through TLS.
            if first_only && matches!(self.framer.next(&self.input)?, Frame::Packet(_)) {
                self.cipher = Cipher::Clear;
            }
        }
    }

    /// The handshake inside 0x12 packets [MS-TDS 2.2.6.5]; our Finished is the last thing that is wrapped.
    pub(crate) async fn wrapped_handshake(
        &mut self,
        tls: ServerConnection,
        all: bool,
    ) -> Result<(), ConnError> {
        let mut tls = Box::new(tls);
        while tls.is_handshaking() {
            let (header, body) = self.packet().await?;
            if header.kind != PacketType::Prelogin && header.kind != PacketType::TabularResult {
                let kind = weir_tds::error::WireErrorKind::PacketType(header.kind.byte());
                return Err(weir_tds::error::WireError::at(0, kind).into());
            }
            let fed = feed(&mut tls, &body);
            let mut flight = Vec::new();
            write_tls(&mut tls, &mut flight)?;
            if !flight.is_empty() {
                let mut out = BytesMut::new();
                write_message(
                    &mut out,
                    PacketType::Prelogin,
                    PacketStatus::NORMAL,
                    HANDSHAKE_PACKET,
                    0,
                    FIRST_PACKET_ID,
                    &flight,
                );
                self.stream.write_all(&out).await?;
            }
            fed?;
        }
        // Bytes behind the last wrapped packet are bare records already.
        self.raw = std::mem::take(&mut self.input);
        self.cipher = if all {
            Cipher::All(tls)
        } else {
            Cipher::FirstPacket(tls)
        };
        Ok(())
    }

    /// The handshake on the bare socket (TDS 8.0).
    pub(crate) async fn bare_handshake(&mut self, tls: ServerConnection) -> Result<(), ConnError> {
        let mut tls = Box::new(tls);
        while tls.is_handshaking() {
            let fed = match take_record(&mut self.raw) {
                Some(record) => feed(&mut tls, &record),
                None => {
                    self.read_raw().await?;
                    continue;
                }
            };
            let mut flight = Vec::new();
            write_tls(&mut tls, &mut flight)?;
            self.stream.write_all(&flight).await?;
            fed?;
        }
        self.cipher = Cipher::All(tls);
        Ok(())
    }

    /// Queues whole packets.
    pub(crate) fn queue(&mut self, packets: Bytes) -> Result<(), ConnError> {
        match &mut self.cipher {
            Cipher::All(tls) => {
                let mut rest = &packets[..];
                while !rest.is_empty() {
                    // rustls takes a bounded amount at a time; the records are moved out in between.
                    let taken = tls.writer().write(rest)?;
                    rest = &rest[taken..];
                    let mut records = Vec::new();
                    write_tls(tls, &mut records)?;
                    self.out.extend_from_slice(&records);
                }
            }
            _ if self.out.is_empty() && self.clear_out.is_none() => self.clear_out = Some(packets),
            _ => {
                if let Some(waiting) = self.clear_out.take() {
                    self.out.extend_from_slice(&waiting);
                }
                self.out.extend_from_slice(&packets);
            }
        }
        Ok(())
    }

    /// True if bytes wait for the socket.
    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.clear_out.as_ref().is_some_and(|b| !b.is_empty())
    }

    /// Bytes that wait for the socket.
    pub(crate) fn output_len(&self) -> usize {
        self.out.len() + self.clear_out.as_ref().map_or(0, Bytes::len)
    }

    /// Writes all that is queued.
    pub(crate) async fn flush(&mut self) -> Result<(), ConnError> {
        while self.has_output() {
            self.stream.writable().await?;
            self.try_write()?;
        }
        Ok(())
    }

    /// Writes what the socket takes now.
    pub(crate) fn try_write(&mut self) -> Result<(), ConnError> {
        let chunk = if self.out.is_empty() {
            self.clear_out.as_deref().unwrap_or_default()
        } else {
            &self.out[..]
        };
        let written = match self.stream.try_write(chunk) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        if !self.out.is_empty() {
            self.out.advance(written);
        } else if let Some(chunk) = &mut self.clear_out {
            chunk.advance(written);
            if chunk.is_empty() {
                self.clear_out = None;
            }
        }
        Ok(())
    }

    /// Reads what the socket has now; false if it had nothing after all.
    pub(crate) fn try_read(&mut self) -> Result<bool, ConnError> {
        self.raw.reserve(READ_CHUNK);
        match self.stream.try_read_buf(&mut self.raw) {
            Ok(0) => Err(ConnError::Closed),
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The socket, for readiness.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ends the sending side, so that the client sees the last bytes before the close.
    pub(crate) async fn shutdown(&mut self) {
        if let Cipher::All(tls) = &mut self.cipher {
            tls.send_close_notify();
            let mut records = Vec::new();
            if write_tls(tls, &mut records).is_ok() {
                self.out.extend_from_slice(&records);
            }
        }
        if self.flush().await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// Closes with RST: what is unsent is lost, the client sees an error.
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// One whole TLS record off the head of `raw`.
fn take_record(raw: &mut BytesMut) -> Option<BytesMut> {
    let &[_, _, _, high, low] = raw.first_chunk::<RECORD_HEADER>()?;
    let length = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
    (raw.len() >= length).then(|| raw.split_to(length))
}

fn feed(tls: &mut ServerConnection, mut bytes: &[u8]) -> Result<(), ConnError> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        tls.process_new_packets()?;
    }
    Ok(())
}

fn drain_plaintext(tls: &mut ServerConnection, input: &mut BytesMut) -> Result<(), ConnError> {
    let mut buf = [0_u8; 16 * 1024];
    loop {
        match tls.reader().read(&mut buf) {
            Ok(0) => return Err(ConnError::Closed),
            Ok(n) => input.extend_from_slice(buf.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn write_tls(tls: &mut ServerConnection, out: &mut Vec<u8>) -> Result<(), ConnError> {
    while tls.wants_write() {
        tls.write_tls(out)?;
    }
    Ok(())
}
