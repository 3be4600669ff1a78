//! One side of a session: its byte buffers and its framing; `channel.rs` holds its encryption. Pure.

use bytes::{Bytes, BytesMut};
use rustls::Connection;
use weir_tds::{
    framer::{Frame, Framer},
    packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    prelogin::TlsScope,
};

use zeroize::Zeroize;

pub use super::channel::{HANDSHAKE_MAX, LegError};
use super::{
    blocks::Blocks,
    channel::{Buffers, Channel},
    out::Out,
};

/// Bytes of a block that a client's socket is read into at full flow; a server's is read by the chunk ([`Leg::read_up_to`]).
pub const READ_MOST: usize = 32 * 1024;
/// Of the first block after a pause, and until the packet size is agreed: what comes before is small, and who sends it is
/// not known. A read that fills its block makes the next one twice as large.
const READ_LEAST: usize = 4 * 1024;
/// Part of a block that may be left unused. What was read keeps its whole block alive until a slow peer has taken it, so
/// short reads go behind each other: else a server that sends little at a time would hold a block for each piece.
const UNUSED_PART: usize = 8;

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
    /// Bytes of the next block to read into.
    read_space: usize,
    read_most: usize,
    /// Of `read_most`, once the packet size is agreed.
    read_agreed: usize,
    /// Bytes at the front of `plain` whose packets were passed on: they leave together, as one piece.
    passed: usize,
    closed: bool,
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
            read_space: READ_LEAST,
            read_most: READ_LEAST,
            read_agreed: READ_MOST,
            passed: 0,
            closed: false,
        }
    }

    /// A leg whose socket is read in blocks of up to so many bytes once the packet size is agreed.
    #[must_use]
    pub fn read_up_to(bytes: usize) -> Self {
        Self {
            read_agreed: bytes.max(READ_LEAST),
            ..Self::new()
        }
    }

    /// Reads in smaller blocks from now on: what is read is held more than once.
    pub(super) fn read_less(&mut self, bytes: usize) {
        self.read_agreed = self.read_agreed.min(bytes);
        self.read_most = self.read_most.min(bytes);
    }

    /// Where a socket read puts its bytes; call [`Leg::ingest`] afterwards.
    ///
    /// Where all that was read before has left, its block is used again: what is left of it, less than a packet, moves to
    /// the front. So a stream whose client keeps up lives in one block, and each read may fill it.
    pub fn read_buf(&mut self) -> &mut BytesMut {
        let buf = if matches!(self.channel, Channel::Clear) {
            &mut self.plain
        } else {
            &mut self.raw
        };
        let free = buf.capacity() - buf.len();
        if free < self.read_space
            && !buf.try_reclaim(self.read_space)
            && free <= self.read_space / UNUSED_PART
        {
            // Room for the beginning of a packet as well, so that the block can be used again.
            let rest = usize::from(self.packet_size).max(buf.len());
            let mut block = BytesMut::with_capacity(rest + self.read_space);
            block.extend_from_slice(buf);
            *buf = block;
        }
        buf
    }

    /// Before a read into a leg that holds nothing: lends it a block.
    pub fn lend_block(&mut self, blocks: &Blocks) {
        let buf = if matches!(self.channel, Channel::Clear) {
            &mut self.plain
        } else {
            &mut self.raw
        };
        if buf.capacity() == 0 && self.read_space == READ_LEAST {
            *buf = blocks.lend();
        }
    }

    /// A read brought so many bytes of the `room` that [`Leg::read_buf`] had. One that filled it makes the next block twice
    /// as large.
    pub fn note_read(&mut self, bytes: usize, room: usize) {
        self.received += bytes as u64;
        if bytes >= room {
            self.read_space = (2 * self.read_space).min(self.read_most);
        }
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
    pub fn release_idle(&mut self, blocks: &Blocks) {
        self.read_space = READ_LEAST;
        if self.plain.is_empty() {
            blocks.take_back(std::mem::take(&mut self.plain));
        }
        if self.raw.is_empty() {
            blocks.take_back(std::mem::take(&mut self.raw));
            self.channel.release_idle();
        }
    }

    /// Sets the agreed packet size, both ways.
    pub fn set_packet_size(&mut self, size: u16) {
        self.packet_size = size;
        self.framer.set_max(size);
        // With the beginning of a packet before it, a read makes a block of what was agreed.
        let block = self.read_agreed.saturating_sub(usize::from(size));
        self.read_most = block.max(READ_LEAST);
    }

    /// True while a handshake goes on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        matches!(self.channel, Channel::Handshake(_))
    }

    /// True if bytes are encrypted to the end of the connection.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self.channel, Channel::Tls { .. })
    }

    /// True if all is encrypted from the first byte on: TDS 8.0.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        matches!(self.channel, Channel::Tls { strict: true, .. })
    }

    /// True once the peer has said inside TLS that nothing follows.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Begins TLS. With a scope, the handshake goes in PRELOGIN packets, as TDS 7 has it, and nothing may have come that
    /// the peer could only have sent without waiting; without one it goes on the bare socket, as TDS 8.0 has it, and what
    /// has come is its beginning. A client side sends its first flight at once.
    ///
    /// # Errors
    /// As [`LegError::Tls`] and [`LegError::TooEarly`].
    pub fn start_tls(&mut self, tls: Connection, scope: Option<TlsScope>) -> Result<(), LegError> {
        if scope.is_some() && !self.plain.is_empty() {
            return Err(LegError::TooEarly);
        }
        self.raw.unsplit(self.plain.split());
        self.read_less(READ_MOST);
        self.channel = match scope {
            Some(scope) => Channel::wrapped(tls, scope),
            None => Channel::bare(tls),
        };
        self.channel.begin(&mut self.out)?;
        self.ingest()
    }

    /// Decrypts what has come, as far as it goes.
    ///
    /// # Errors
    /// When the peer broke TLS or the handshake's wrapping.
    pub fn ingest(&mut self) -> Result<(), LegError> {
        if self.closed {
            self.raw.clear();
            return Ok(());
        }
        let mut buffers = Buffers {
            raw: &mut self.raw,
            plain: &mut self.plain,
            out: &mut self.out,
        };
        self.closed = self.channel.ingest(&mut buffers)?;
        if self.closed {
            self.raw.clear();
        }
        Ok(())
    }

    /// Tells the peer inside TLS that nothing follows.
    pub fn say_goodbye(&mut self) {
        self.channel.say_goodbye(&mut self.out);
    }

    /// The next whole packet's header, if the packet is there.
    ///
    /// # Errors
    /// When the header is broken or longer than agreed.
    pub fn peek_packet(&self) -> Result<Option<PacketHeader>, LegError> {
        match self
            .framer
            .next(self.plain.get(self.passed..).unwrap_or_default())?
        {
            Frame::NeedMore { .. } => Ok(None),
            Frame::Packet(header) => Ok(Some(header)),
        }
    }

    /// Body of the packet that [`Leg::peek_packet`] found.
    #[must_use]
    pub fn body(&self, header: &PacketHeader) -> &[u8] {
        let end = self.passed + usize::from(header.length);
        self.plain.get(self.passed + HEADER_LEN..end).unwrap_or_default()
    }

    /// The same, to be changed in place before it is taken.
    pub fn body_mut(&mut self, header: &PacketHeader) -> &mut [u8] {
        let end = self.passed + usize::from(header.length);
        self.plain
            .get_mut(self.passed + HEADER_LEN..end)
            .unwrap_or_default()
    }

    /// Takes the packet that [`Leg::peek_packet`] found, header included. What was passed on before it must have been taken.
    pub fn take_packet(&mut self, header: &PacketHeader) -> Bytes {
        debug_assert_eq!(
            self.passed, 0,
            "packets before this one were passed on and not taken"
        );
        self.plain
            .split_to(usize::from(header.length).min(self.plain.len()))
            .freeze()
    }

    /// Passes the packet on that [`Leg::peek_packet`] found: it leaves with [`Leg::take_passed`], as it came.
    pub(super) fn pass_packet(&mut self, header: &PacketHeader) {
        self.passed = (self.passed + usize::from(header.length)).min(self.plain.len());
    }

    /// Bytes that were passed on and not taken.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Takes all packets that were passed on, in one piece.
    pub(super) fn take_passed(&mut self) -> Bytes {
        self.plain.split_to(std::mem::take(&mut self.passed)).freeze()
    }

    /// Takes the first bytes that have come; SMP does, whose packets lie around those of TDS.
    pub(super) fn take(&mut self, bytes: usize) -> BytesMut {
        self.plain.split_to(bytes.min(self.plain.len()))
    }

    /// Puts plain bytes behind those that have come, as if the socket had: the leg of a session within a connection.
    pub(super) fn feed(&mut self, bytes: BytesMut) {
        if self.plain.is_empty() {
            self.plain = bytes;
        } else {
            self.plain.extend_from_slice(&bytes);
        }
    }

    /// Forgets what has come and was not taken.
    pub(super) fn clear_input(&mut self) {
        self.plain = BytesMut::new();
        self.passed = 0;
    }

    /// Sends one whole packet: exactly one TLS record where the leg is encrypted.
    ///
    /// # Errors
    /// Only when TLS cannot encrypt any more (2^64 records).
    pub fn send(&mut self, packet: Bytes) -> Result<(), LegError> {
        let sealed = self.channel.seal(&packet)?;
        self.out.push(sealed.unwrap_or(packet));
        Ok(())
    }

    /// Sends whole packets in one piece; where the leg is encrypted, in the fewest records that hold them. Only towards a
    /// client: a server wants one packet in each record ([`Leg::send`]).
    ///
    /// # Errors
    /// As [`Leg::send`].
    pub(super) fn send_run(&mut self, packets: Bytes) -> Result<(), LegError> {
        match self.channel.seal_run(&packets)? {
            None => self.out.push(packets),
            Some(records) => self.out.push(records),
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
            let sealed = self.channel.seal(packet)?;
            self.out
                .push(sealed.unwrap_or_else(|| Bytes::copy_from_slice(packet)));
            rest = later;
        }
        packets.as_mut().zeroize();
        Ok(next)
    }
}

/// Room for `more` bytes behind those in `buf`. `BytesMut::reserve` doubles what a buffer had: of a session whose client
/// is slow that would be the larger part of its memory.
pub(super) fn make_room(buf: &mut BytesMut, more: usize) {
    if buf.capacity() - buf.len() >= more || buf.try_reclaim(more) {
        return;
    }
    let mut room = BytesMut::with_capacity(buf.len() + more);
    room.extend_from_slice(buf);
    *buf = room;
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
