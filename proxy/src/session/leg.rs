//! One side of a session: its byte buffers and its encryption state. Pure; rustls is fed by hand, record by record.
//!
//! In TDS 7.x the TLS handshake travels inside 0x12 packets; afterwards TLS records go bare on the socket, and with
//! login-only encryption TLS ends after the first packet of LOGIN7 [MS-TDS 2.2.6.5, 3.2.5.3].

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use rustls::Connection;
use weir_tds::{
    error::WireError,
    framer::{Frame, Framer},
    packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    prelogin::TlsScope,
};

use zeroize::Zeroize;

use super::out::Out;

/// Least free space offered to one socket read.
pub const READ_MIN: usize = 64 * 1024;
/// Bytes of a TLS record header: type, version, length.
const TLS_HEADER_LEN: usize = 5;
/// Largest TLS 1.2 record: 2^14 bytes and at most 2048 bytes of expansion (RFC 5246, 6.2.3).
const TLS_RECORD_MAX: usize = (1 << 14) + 2048;
/// Most bytes of handshake that a peer may send before login: bounds memory before anybody is known.
const HANDSHAKE_MAX: usize = 64 * 1024;

/// Why a leg cannot go on. All are the peer's fault.
#[derive(Debug, thiserror::Error)]
pub enum LegError {
    /// TDS framing is broken.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// TLS refused what came.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS could not be written or read; cannot happen on memory buffers, but is not ignored.
    #[error("TLS: {0}")]
    Io(#[from] io::Error),
    /// Something else than a handshake packet came during the handshake.
    #[error("expected the TLS handshake in PRELOGIN packets")]
    NotAHandshake,
    /// Bytes after the first LOGIN7 packet inside the encrypted part of a login-only connection.
    #[error("bytes smuggled behind the login packet in its TLS record")]
    Smuggled,
    /// The handshake is longer than any real one.
    #[error("TLS handshake larger than {HANDSHAKE_MAX} bytes")]
    HandshakeTooLarge,
}

enum Channel {
    Clear,
    Handshake {
        tls: Box<Connection>,
        scope: TlsScope,
        seen: usize,
    },
    FirstPacket(Box<Connection>),
    Tls(Box<Connection>),
}

/// Buffers and encryption of one side.
pub struct Leg {
    channel: Channel,
    raw: BytesMut,
    plain: BytesMut,
    /// What waits for the socket.
    pub out: Out,
    framer: Framer,
    /// Largest packet that this side is sent.
    pub packet_size: u16,
    /// Bytes taken from the socket, all told.
    pub received: u64,
}

impl Leg {
    /// A leg in the clear.
    #[must_use]
    pub fn new() -> Self {
        Self {
            channel: Channel::Clear,
            raw: BytesMut::new(),
            plain: BytesMut::new(),
            out: Out::default(),
            framer: Framer::new(DEFAULT_PACKET_SIZE),
            packet_size: DEFAULT_PACKET_SIZE,
            received: 0,
        }
    }

    /// Where a socket read puts its bytes; call [`Leg::ingest`] afterwards.
    pub fn read_buf(&mut self) -> &mut BytesMut {
        let buf = if matches!(self.channel, Channel::Clear) {
            &mut self.plain
        } else {
            &mut self.raw
        };
        buf.reserve(READ_MIN);
        buf
    }

    /// Plain TDS bytes that have come and were not taken.
    #[must_use]
    pub fn plain(&self) -> &BytesMut {
        &self.plain
    }

    /// Plain and encrypted bytes that are buffered inward.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.plain.len() + self.raw.len()
    }

    /// Gives the read buffers back while nothing is in them: an idle session holds none.
    pub fn release_idle(&mut self) {
        if self.plain.is_empty() {
            self.plain = BytesMut::new();
        }
        if self.raw.is_empty() {
            self.raw = BytesMut::new();
        }
    }

    /// Sets the agreed packet size, both ways.
    pub fn set_packet_size(&mut self, size: u16) {
        self.packet_size = size;
        self.framer.set_max(size);
    }

    /// True while a handshake goes on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        matches!(self.channel, Channel::Handshake { .. })
    }

    /// True if bytes are encrypted to the end of the connection.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self.channel, Channel::Tls(_))
    }

    /// Begins the wrapped handshake. A client-side connection sends its first flight at once.
    ///
    /// # Errors
    /// As [`LegError::Tls`].
    pub fn start_tls(&mut self, tls: Connection, scope: TlsScope) -> Result<(), LegError> {
        self.raw.unsplit(self.plain.split());
        self.channel = Channel::Handshake {
            tls: Box::new(tls),
            scope,
            seen: 0,
        };
        self.flush_handshake()?;
        self.ingest()
    }

    /// Decrypts what has come, as far as it goes.
    ///
    /// # Errors
    /// When the peer broke TLS or the handshake's wrapping.
    pub fn ingest(&mut self) -> Result<(), LegError> {
        loop {
            let progressed = match self.channel {
                Channel::Clear => {
                    if !self.raw.is_empty() {
                        self.plain.unsplit(self.raw.split());
                    }
                    return Ok(());
                }
                Channel::Handshake { .. } => self.ingest_handshake()?,
                Channel::FirstPacket(_) | Channel::Tls(_) => self.ingest_record()?,
            };
            if !progressed {
                return Ok(());
            }
        }
    }

    fn ingest_handshake(&mut self) -> Result<bool, LegError> {
        let Some(header) = PacketHeader::parse(&self.raw)? else {
            return Ok(false);
        };
        if !matches!(header.kind, PacketType::Prelogin | PacketType::TabularResult) {
            return Err(LegError::NotAHandshake);
        }
        let length = usize::from(header.length);
        if self.raw.len() < length {
            return Ok(false);
        }
        let mut body = self.raw.split_to(length).freeze();
        body.advance(HEADER_LEN);
        let Channel::Handshake { tls, seen, .. } = &mut self.channel else {
            return Ok(false);
        };
        *seen += body.len();
        if *seen > HANDSHAKE_MAX {
            return Err(LegError::HandshakeTooLarge);
        }
        let mut reader = body.reader();
        while reader.get_ref().has_remaining() {
            tls.read_tls(&mut reader)?;
            if let Err(error) = tls.process_new_packets() {
                // The alert that tells the peer why is sent before the close.
                let _alert_sent = self.flush_handshake();
                return Err(error.into());
            }
        }
        self.flush_handshake()?;
        self.finish_handshake();
        Ok(true)
    }

    /// Sends what TLS has to say, wrapped in 0x12 packets.
    fn flush_handshake(&mut self) -> Result<(), LegError> {
        let Channel::Handshake { tls, .. } = &mut self.channel else {
            return Ok(());
        };
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight)?;
        }
        if !flight.is_empty() {
            let mut wrapped = BytesMut::with_capacity(flight.len() + HEADER_LEN);
            let size = DEFAULT_PACKET_SIZE;
            let status = PacketStatus::NORMAL;
            weir_tds::message::write_message(&mut wrapped, PacketType::Prelogin, status, size, 0, 0, &flight);
            self.out.push(wrapped.freeze());
        }
        Ok(())
    }

    fn finish_handshake(&mut self) {
        let done = matches!(&self.channel, Channel::Handshake { tls, .. } if !tls.is_handshaking());
        if !done {
            return;
        }
        if let Channel::Handshake { tls, scope, .. } = std::mem::replace(&mut self.channel, Channel::Clear) {
            self.channel = match scope {
                TlsScope::LoginOnly => Channel::FirstPacket(tls),
                TlsScope::All => Channel::Tls(tls),
                TlsScope::None => Channel::Clear,
            };
        }
    }

    /// Decrypts one record. With login-only encryption TLS ends with the record that completes the first packet.
    fn ingest_record(&mut self) -> Result<bool, LegError> {
        let Some(&[_, _, _, l0, l1]) = self.raw.first_chunk::<TLS_HEADER_LEN>() else {
            return Ok(false);
        };
        let length = TLS_HEADER_LEN + usize::from(u16::from_be_bytes([l0, l1]));
        if length > TLS_HEADER_LEN + TLS_RECORD_MAX {
            return Err(rustls::Error::General("record too large".to_owned()).into());
        }
        if self.raw.len() < length {
            return Ok(false);
        }
        let (Channel::FirstPacket(tls) | Channel::Tls(tls)) = &mut self.channel else {
            return Ok(false);
        };
        let mut record = self.raw.split_to(length).reader();
        while record.get_ref().has_remaining() {
            tls.read_tls(&mut record)?;
        }
        let state = tls.process_new_packets()?;
        let start = self.plain.len();
        self.plain.resize(start + state.plaintext_bytes_to_read(), 0);
        if let Some(space) = self.plain.get_mut(start..) {
            tls.reader().read_exact(space)?;
        }
        if matches!(self.channel, Channel::FirstPacket(_)) {
            self.end_login_only()?;
        }
        Ok(true)
    }

    fn end_login_only(&mut self) -> Result<(), LegError> {
        let Some(header) = PacketHeader::parse(&self.plain)? else {
            return Ok(());
        };
        let length = usize::from(header.length);
        if self.plain.len() > length {
            return Err(LegError::Smuggled);
        }
        if self.plain.len() == length {
            self.channel = Channel::Clear;
        }
        Ok(())
    }

    /// The next whole packet's header, if the packet is there.
    ///
    /// # Errors
    /// When the header is broken or longer than agreed.
    pub fn peek_packet(&self) -> Result<Option<PacketHeader>, LegError> {
        match self.framer.next(&self.plain)? {
            Frame::NeedMore { .. } => Ok(None),
            Frame::Packet(header) => Ok(Some(header)),
        }
    }

    /// Body of the packet that [`Leg::peek_packet`] found.
    #[must_use]
    pub fn body(&self, header: &PacketHeader) -> &[u8] {
        self.plain
            .get(HEADER_LEN..usize::from(header.length))
            .unwrap_or_default()
    }

    /// The same, to be changed in place before it is taken.
    pub fn body_mut(&mut self, header: &PacketHeader) -> &mut [u8] {
        self.plain
            .get_mut(HEADER_LEN..usize::from(header.length))
            .unwrap_or_default()
    }

    /// Takes the packet that [`Leg::peek_packet`] found, header included.
    pub fn take_packet(&mut self, header: &PacketHeader) -> Bytes {
        self.plain
            .split_to(usize::from(header.length).min(self.plain.len()))
            .freeze()
    }

    /// Sends one whole packet: exactly one TLS record where the leg is encrypted.
    ///
    /// # Errors
    /// Only when TLS cannot encrypt any more (2^64 records).
    pub fn send(&mut self, packet: Bytes) -> Result<(), LegError> {
        if matches!(self.channel, Channel::FirstPacket(_) | Channel::Tls(_)) {
            return self.encrypt(&packet);
        }
        self.out.push(packet);
        Ok(())
    }

    fn encrypt(&mut self, packet: &[u8]) -> Result<(), LegError> {
        let (Channel::FirstPacket(tls) | Channel::Tls(tls)) = &mut self.channel else {
            self.out.push(Bytes::copy_from_slice(packet));
            return Ok(());
        };
        tls.writer().write_all(packet)?;
        let mut record = Vec::with_capacity(packet.len() + 64);
        while tls.wants_write() {
            tls.write_tls(&mut record)?;
        }
        self.out.push(record.into());
        if matches!(self.channel, Channel::FirstPacket(_)) {
            self.channel = Channel::Clear;
        }
        Ok(())
    }

    /// Sends a message, cut into packets of the agreed size, and wipes what it was cut in: LOGIN7 goes this way.
    /// Answers the packet id that comes next.
    ///
    /// # Errors
    /// As [`Leg::send`].
    pub fn send_message(&mut self, message: &Message<'_>) -> Result<u8, LegError> {
        let Message {
            kind,
            first_status,
            spid,
            first_packet_id,
            body,
        } = *message;
        let mut packets = BytesMut::with_capacity(body.len() + (body.len() / 256 + 2) * HEADER_LEN);
        let size = self.packet_size;
        let next = weir_tds::message::write_message(
            &mut packets,
            kind,
            first_status,
            size,
            spid,
            first_packet_id,
            body,
        );
        let mut rest = &packets[..];
        while let Some(header) = PacketHeader::parse(rest)? {
            let (packet, later) = rest.split_at(usize::from(header.length).min(rest.len()));
            self.encrypt(packet)?;
            rest = later;
        }
        packets.as_mut().zeroize();
        Ok(next)
    }
}

/// A whole message to send.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Type of its packets.
    pub kind: PacketType,
    /// Status bits of the first packet; EOM is set on the last by itself.
    pub first_status: PacketStatus,
    /// SPID in the headers.
    pub spid: u16,
    /// Id of the first packet.
    pub first_packet_id: u8,
    /// The body.
    pub body: &'a [u8],
}

impl Default for Leg {
    fn default() -> Self {
        Self::new()
    }
}
