//! Encryption of one leg. Pure: rustls is fed by hand, whole records only.
//!
//! In TDS 7.x the TLS handshake travels inside 0x12 packets; afterwards TLS records go bare on the socket, and with
//! login-only encryption TLS ends after the first packet of LOGIN7 [MS-TDS 2.2.6.5, 3.2.5.3]. In TDS 8.0 everything is
//! TLS from the first byte [MS-TDS 1.7].

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use rustls::{Connection, IoState};
use weir_tds::{
    error::WireError,
    packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    prelogin::TlsScope,
};

use super::{leg::make_room, out::Out};

/// Bytes of a TLS record header: type, version, length.
const TLS_HEADER_LEN: usize = 5;
/// Largest TLS 1.2 record: 2^14 bytes and at most 2048 bytes of expansion (RFC 5246, 6.2.3).
const TLS_RECORD_MAX: usize = (1 << 14) + 2048;
/// Most plain bytes of a record (RFC 8446, 5.1).
const TLS_PLAIN_MAX: usize = 1 << 14;
/// What a record adds to them: its header, the type of TLS 1.3 or the nonce of 1.2, and a tag of 16 bytes.
const TLS_OVERHEAD_MAX: usize = 5 + 8 + 16;
/// Types of TLS records: ChangeCipherSpec, Alert, Handshake, ApplicationData (RFC 5246, 6.2.1).
const TLS_RECORD_TYPES: std::ops::RangeInclusive<u8> = 20..=23;
/// Major version of every record since SSL 3.0.
const TLS_MAJOR: u8 = 3;
/// Most bytes of handshake that a peer may send before login: bounds memory before anybody is known.
pub const HANDSHAKE_MAX: usize = 64 * 1024;

/// Bytes that are made room for behind what is decrypted and not taken yet: two of the largest records.
const PLAIN_BLOCK: usize = 32 * 1024;

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
    /// Something else than a TLS record came where everything is encrypted.
    #[error("expected a TLS record")]
    NotTls,
    /// A record is longer than TLS allows.
    #[error("a TLS record larger than {TLS_RECORD_MAX} bytes")]
    RecordTooLarge,
    /// Bytes that were sent before the answer they would have to wait for.
    #[error("bytes behind PRELOGIN, before its answer")]
    TooEarly,
    /// Bytes behind the end of the handshake in the same PRELOGIN packet.
    #[error("bytes smuggled behind the handshake in its packet")]
    BehindHandshake,
    /// Bytes after the first LOGIN7 packet inside the encrypted part of a login-only connection.
    #[error("bytes smuggled behind the login packet in its TLS record")]
    Smuggled,
    /// The handshake is longer than any real one.
    #[error("TLS handshake larger than {HANDSHAKE_MAX} bytes")]
    HandshakeTooLarge,
}

/// A handshake that is not done.
pub(super) struct Handshake {
    tls: Box<Connection>,
    /// How it travels.
    way: Way,
    /// Bytes of it that have come.
    seen: usize,
}

/// How a handshake travels, and what follows it.
enum Way {
    /// In PRELOGIN packets; `records` is what was unwrapped and is no whole record yet.
    Wrapped { scope: TlsScope, records: BytesMut },
    /// On the bare socket: TDS 8.0.
    Bare,
}

/// The encryption state.
pub(super) enum Channel {
    /// Bytes are as they are.
    Clear,
    /// Nobody may say anything else yet.
    Handshake(Handshake),
    /// Login-only: until the first packet of LOGIN7 has passed.
    FirstPacket(Box<Connection>),
    /// To the end of the connection.
    Tls {
        /// rustls' side of it.
        tls: Box<Connection>,
        /// From the first byte on: TDS 8.0.
        strict: bool,
    },
}

/// The buffers of a leg that a channel works on.
pub(super) struct Buffers<'a> {
    /// As it came from the socket.
    pub(super) raw: &'a mut BytesMut,
    /// Decrypted.
    pub(super) plain: &'a mut BytesMut,
    /// For the socket.
    pub(super) out: &'a mut Out,
}

/// What one step did.
enum Progress {
    /// More bytes are needed.
    Wait,
    /// Something was taken in.
    On,
    /// The handshake is done.
    Done,
}

impl Channel {
    /// A handshake inside PRELOGIN packets, as TDS 7 has it.
    pub(super) fn wrapped(tls: Connection, scope: TlsScope) -> Self {
        let records = BytesMut::new();
        Self::handshake(tls, Way::Wrapped { scope, records })
    }

    /// A handshake on the bare socket, as TDS 8.0 has it.
    pub(super) fn bare(tls: Connection) -> Self {
        Self::handshake(tls, Way::Bare)
    }

    fn handshake(tls: Connection, way: Way) -> Self {
        Self::Handshake(Handshake {
            tls: Box::new(tls),
            way,
            seen: 0,
        })
    }

    /// Sends what a client side says first.
    pub(super) fn begin(&mut self, out: &mut Out) -> Result<(), LegError> {
        match self {
            Self::Handshake(handshake) => handshake.flush(out),
            _ => Ok(()),
        }
    }

    /// Decrypts what has come, as far as it goes. True if the peer has said that nothing follows; what does is ignored
    /// (RFC 8446, 6.1).
    pub(super) fn ingest(&mut self, buffers: &mut Buffers<'_>) -> Result<bool, LegError> {
        loop {
            let progress = match self {
                Self::Clear => {
                    if !buffers.raw.is_empty() {
                        buffers.plain.unsplit(buffers.raw.split());
                    }
                    Progress::Wait
                }
                Self::Handshake(handshake) => handshake.ingest(buffers)?,
                Self::FirstPacket(tls) | Self::Tls { tls, .. } => match take_record(buffers.raw)? {
                    None => Progress::Wait,
                    Some(record) => {
                        if open(tls, &record, buffers)? {
                            return Ok(true);
                        }
                        Progress::On
                    }
                },
            };
            match progress {
                Progress::Wait => return Ok(false),
                Progress::On => self.end_login_only(buffers.plain)?,
                Progress::Done => self.finish_handshake(),
            }
        }
    }

    fn finish_handshake(&mut self) {
        *self = match std::mem::replace(self, Self::Clear) {
            Self::Handshake(Handshake { tls, way, .. }) => match way {
                Way::Bare => Self::Tls { tls, strict: true },
                Way::Wrapped { scope, .. } => match scope {
                    TlsScope::LoginOnly => Self::FirstPacket(tls),
                    TlsScope::All => Self::Tls { tls, strict: false },
                    TlsScope::None => Self::Clear,
                },
            },
            other => other,
        };
    }

    /// With login-only encryption TLS ends with the record that completes the client's first packet.
    fn end_login_only(&mut self, plain: &[u8]) -> Result<(), LegError> {
        let Self::FirstPacket(tls) = self else {
            return Ok(());
        };
        if plain.is_empty() {
            return Ok(());
        }
        // A server says nothing inside this part: what it sent would be taken for the answer to a login it has not seen.
        if matches!(**tls, Connection::Client(_)) {
            return Err(LegError::Smuggled);
        }
        let Some(header) = PacketHeader::parse(plain)? else {
            return Ok(());
        };
        let length = usize::from(header.length);
        if plain.len() > length {
            return Err(LegError::Smuggled);
        }
        if plain.len() == length {
            *self = Self::Clear;
        }
        Ok(())
    }

    /// Encrypts one whole packet as one record; `None` if it goes as it is.
    pub(super) fn seal(&mut self, packet: &[u8]) -> Result<Option<Bytes>, LegError> {
        let record = match self {
            Self::Clear | Self::Handshake(_) => return Ok(None),
            Self::FirstPacket(tls) | Self::Tls { tls, .. } => {
                tls.writer().write_all(packet)?;
                let mut record = Vec::with_capacity(packet.len() + 64);
                drain(tls, &mut record)?;
                record
            }
        };
        if matches!(self, Self::FirstPacket(_)) {
            *self = Self::Clear;
        }
        Ok(Some(record.into()))
    }

    /// Encrypts packets in records of full length; `None` if they go as they are.
    pub(super) fn seal_run(&mut self, packets: &[u8]) -> Result<Option<Bytes>, LegError> {
        let Self::Tls { tls, .. } = self else {
            return self.seal(packets);
        };
        let records = packets.len().div_ceil(TLS_PLAIN_MAX);
        let mut sealed = Vec::with_capacity(packets.len() + records * TLS_OVERHEAD_MAX);
        for piece in packets.chunks(TLS_PLAIN_MAX) {
            tls.writer().write_all(piece)?;
            drain(tls, &mut sealed)?;
        }
        Ok(Some(sealed.into()))
    }

    /// Tells the peer that nothing follows, where it listens for that.
    pub(super) fn say_goodbye(&mut self, out: &mut Out) {
        if let Self::Tls { tls, .. } = self {
            tls.send_close_notify();
            // The close of the socket says the same.
            let _told = flush(tls, out);
        }
    }

    /// Gives back what rustls holds beyond its least buffer, 4 KiB, while no record is in hand.
    pub(super) fn release_idle(&mut self) {
        if let Self::Tls { tls, .. } = self {
            // A read that brings nothing lets it shrink its buffer; WouldBlock is no end of the stream.
            let _shrunk = tls.read_tls(&mut NothingYet);
        }
    }
}

/// A source that has nothing at the moment.
struct NothingYet;

impl Read for NothingYet {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Handshake {
    fn ingest(&mut self, buffers: &mut Buffers<'_>) -> Result<Progress, LegError> {
        match &mut self.way {
            Way::Bare => match take_record(buffers.raw)? {
                None => Ok(Progress::Wait),
                Some(record) => {
                    self.count(record.len())?;
                    self.shake(&record, buffers)
                }
            },
            Way::Wrapped { records, .. } => {
                let Some(body) = unwrap_packet(buffers.raw)? else {
                    return Ok(Progress::Wait);
                };
                records.unsplit(body);
                let mut come = std::mem::take(records);
                let before = come.len();
                let progress = self.shake_all(&mut come, buffers)?;
                self.count(before - come.len())?;
                if come.len() > HANDSHAKE_MAX {
                    return Err(LegError::HandshakeTooLarge);
                }
                if let Way::Wrapped { records, .. } = &mut self.way {
                    *records = come;
                }
                Ok(progress)
            }
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), LegError> {
        self.seen += bytes;
        if self.seen > HANDSHAKE_MAX {
            return Err(LegError::HandshakeTooLarge);
        }
        Ok(())
    }

    /// Feeds the whole records of an unwrapped packet. The wrapping ends with the handshake, at a packet's end.
    fn shake_all(&mut self, come: &mut BytesMut, buffers: &mut Buffers<'_>) -> Result<Progress, LegError> {
        while let Some(record) = take_record(come)? {
            if let Progress::Done = self.shake(&record, buffers)? {
                if !come.is_empty() {
                    return Err(LegError::BehindHandshake);
                }
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::On)
    }

    fn shake(&mut self, record: &[u8], buffers: &mut Buffers<'_>) -> Result<Progress, LegError> {
        let fed = feed(&mut self.tls, record);
        // Also after a failure: the alert that tells the peer why goes out before the close.
        let flushed = self.flush(buffers.out);
        if fed?.plaintext_bytes_to_read() > 0 {
            return Err(LegError::BehindHandshake);
        }
        flushed?;
        Ok(if self.tls.is_handshaking() {
            Progress::On
        } else {
            Progress::Done
        })
    }

    /// Sends what TLS has to say, in 0x12 packets where it is wrapped.
    fn flush(&mut self, out: &mut Out) -> Result<(), LegError> {
        if matches!(self.way, Way::Bare) {
            return flush(&mut self.tls, out);
        }
        let mut flight = Vec::new();
        drain(&mut self.tls, &mut flight)?;
        if !flight.is_empty() {
            let mut wrapped = BytesMut::with_capacity(flight.len() + 2 * HEADER_LEN);
            let size = DEFAULT_PACKET_SIZE;
            let status = PacketStatus::NORMAL;
            weir_tds::message::write_message(&mut wrapped, PacketType::Prelogin, status, size, 0, 0, &flight);
            out.push(wrapped.freeze());
        }
        Ok(())
    }
}

/// Takes the body of a handshake packet if it is whole: 0x12 [MS-TDS 2.2.6.5], or 0x04 as some servers answer
/// (go-mssqldb's issue 174 has one).
fn unwrap_packet(raw: &mut BytesMut) -> Result<Option<BytesMut>, LegError> {
    if raw.first().is_some_and(|kind| !matches!(kind, 0x12 | 0x04)) {
        return Err(LegError::NotAHandshake);
    }
    let Some(header) = PacketHeader::parse(raw)? else {
        return Ok(None);
    };
    let length = usize::from(header.length);
    if raw.len() < length {
        return Ok(None);
    }
    let mut body = raw.split_to(length);
    body.advance(HEADER_LEN);
    Ok(Some(body))
}

/// Takes one whole record off the front. What cannot be one is refused by its first bytes.
fn take_record(raw: &mut BytesMut) -> Result<Option<BytesMut>, LegError> {
    let kind = raw.first().is_none_or(|kind| TLS_RECORD_TYPES.contains(kind));
    let major = raw.get(1).is_none_or(|major| *major == TLS_MAJOR);
    if !kind || !major {
        return Err(LegError::NotTls);
    }
    let Some(&[_, _, _, l0, l1]) = raw.first_chunk::<TLS_HEADER_LEN>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length > TLS_RECORD_MAX {
        return Err(LegError::RecordTooLarge);
    }
    if raw.len() < TLS_HEADER_LEN + length {
        return Ok(None);
    }
    Ok(Some(raw.split_to(TLS_HEADER_LEN + length)))
}

fn feed(tls: &mut Connection, mut record: &[u8]) -> Result<IoState, LegError> {
    // Nothing is taken behind a close_notify: what comes there is ignored (RFC 8446, 6.1).
    while !record.is_empty() && tls.read_tls(&mut record)? > 0 {}
    Ok(tls.process_new_packets()?)
}

/// Decrypts a record into `plain`, and answers what TLS itself wants answered: alerts, key updates. True at the end.
fn open(tls: &mut Connection, record: &[u8], buffers: &mut Buffers<'_>) -> Result<bool, LegError> {
    let fed = feed(tls, record);
    let flushed = flush(tls, buffers.out);
    let state = fed?;
    flushed?;
    let start = buffers.plain.len();
    let bytes = state.plaintext_bytes_to_read();
    if buffers.plain.capacity() - start < bytes {
        // Alone a record gets what it needs: before login, and where packets leave as fast as they come.
        make_room(
            buffers.plain,
            if start == 0 { bytes } else { PLAIN_BLOCK.max(bytes) },
        );
    }
    buffers.plain.resize(start + bytes, 0);
    if let Some(space) = buffers.plain.get_mut(start..) {
        tls.reader().read_exact(space)?;
    }
    Ok(state.peer_has_closed())
}

fn drain(tls: &mut Connection, to: &mut Vec<u8>) -> Result<(), LegError> {
    while tls.wants_write() {
        tls.write_tls(to)?;
    }
    Ok(())
}

fn flush(tls: &mut Connection, out: &mut Out) -> Result<(), LegError> {
    if tls.wants_write() {
        let mut bytes = Vec::new();
        drain(tls, &mut bytes)?;
        out.push(bytes.into());
    }
    Ok(())
}
