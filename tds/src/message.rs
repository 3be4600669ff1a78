//! Messages out of packets and packets out of messages [MS-TDS 2.2.3]: reassembly with a bound, and re-packetising.
//!
//! The two legs of a gate have packet sizes of their own, so a message is always cut anew: type kept, length derived,
//! EOM on the last piece only, reset bits on the first only, packet id counted from the start.

use bytes::{Bytes, BytesMut};

use crate::error::{WireError, WireErrorKind};
use crate::packet::{HEADER_LEN, PACKET_SIZE_MAX, PACKET_SIZE_MIN, PacketHeader, PacketStatus, PacketType};

/// Packet id of the first packet of a message; SqlClient's choice, receivers ignore it [MS-TDS A<7>].
pub const FIRST_PACKET_ID: u8 = 1;

/// Status bits that belong on the first packet of a message only.
const FIRST_ONLY: PacketStatus = PacketStatus(PacketStatus::RESET.0 | PacketStatus::RESET_SKIP_TRAN.0);
/// Status bits that belong on the last packet of a message only.
const LAST_ONLY: PacketStatus = PacketStatus(PacketStatus::EOM.0 | PacketStatus::IGNORE.0);

/// Puts a message together from its packets, up to a limit.
///
/// For messages that must be seen whole (PRELOGIN, LOGIN7, SSPI, the head of a request); responses are never buffered.
#[derive(Debug)]
pub struct MessageBuf {
    body: BytesMut,
    limit: usize,
    what: &'static str,
    head: Option<(PacketType, PacketStatus)>,
    last: PacketStatus,
    packets: u32,
}

impl MessageBuf {
    /// An empty message that may grow to `limit` body bytes; `what` names it in the error when it does not fit.
    #[must_use]
    pub fn new(what: &'static str, limit: usize) -> Self {
        Self {
            body: BytesMut::new(),
            limit,
            what,
            head: None,
            last: PacketStatus::NORMAL,
            packets: 0,
        }
    }

    /// Adds one packet's body (the bytes behind its header). `Ok(true)` when this was the last packet.
    ///
    /// # Errors
    /// The peer's fault: a packet of another type inside the message, a packet after the last, more bytes than the
    /// limit. Grows with what has come, never with what a header claims.
    pub fn push(&mut self, header: &PacketHeader, body: &[u8]) -> Result<bool, WireError> {
        let at = self.body.len() as u64;
        let (kind, _) = *self.head.get_or_insert((header.kind, header.status));
        if kind != header.kind {
            return Err(WireError::at(at, WireErrorKind::PacketType(header.kind.byte())));
        }
        if self.is_complete() {
            return Err(WireError::at(
                at,
                WireErrorKind::Invalid("a packet after the last of its message"),
            ));
        }
        if self.body.len().saturating_add(body.len()) > self.limit {
            let kind = WireErrorKind::TooLarge {
                what: self.what,
                limit: self.limit as u64,
            };
            return Err(WireError::at(at, kind));
        }
        self.body.extend_from_slice(body);
        self.last = header.status;
        self.packets = self.packets.saturating_add(1);
        Ok(self.is_complete())
    }

    /// Type of the message; `None` before its first packet.
    #[must_use]
    pub fn kind(&self) -> Option<PacketType> {
        self.head.map(|(kind, _)| kind)
    }

    /// Status of the first packet: the reset bits live here.
    #[must_use]
    pub fn first_status(&self) -> PacketStatus {
        self.head.map_or(PacketStatus::NORMAL, |(_, status)| status)
    }

    /// True if the client threw the message away with its last packet (IGNORE) [MS-TDS 2.2.3.1.2].
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        self.last.contains(PacketStatus::IGNORE)
    }

    /// True once the packet with EOM was added.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.last.is_eom()
    }

    /// Packets added so far.
    #[must_use]
    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// The body so far.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Takes the body and makes the buffer ready for the next message.
    pub fn take(&mut self) -> Bytes {
        self.head = None;
        self.last = PacketStatus::NORMAL;
        self.packets = 0;
        self.body.split().freeze()
    }
}

/// Cuts a message body that comes in pieces into packets of one size.
///
/// Every packet but the last is exactly `packet_size` bytes, as servers demand from 7.3 on [MS-TDS 2.2.3]; a full
/// packet is held back until it is known whether more follows, so that EOM stands on a packet with bytes in it and an
/// empty EOM packet is made only for an empty message or behind [`flush`](Self::flush). Holds at most one packet.
#[derive(Debug)]
pub struct PacketWriter {
    buf: BytesMut,
    /// Where in `buf` the open packet's header stands; everything before it is whole packets.
    open: usize,
    kind: PacketType,
    status: PacketStatus,
    packet_size: usize,
    spid: u16,
    next_id: u8,
    in_message: bool,
}

impl PacketWriter {
    /// A writer between messages. `packet_size` counts the header and is clamped to 512..=32767.
    #[must_use]
    pub fn new(packet_size: u16, spid: u16) -> Self {
        Self {
            buf: BytesMut::new(),
            open: 0,
            kind: PacketType::TabularResult,
            status: PacketStatus::NORMAL,
            packet_size: clamp_size(packet_size),
            spid,
            next_id: FIRST_PACKET_ID,
            in_message: false,
        }
    }

    /// Changes the packet size; holds from the next packet that is opened.
    pub fn set_packet_size(&mut self, packet_size: u16) {
        self.packet_size = clamp_size(packet_size);
    }

    /// The packet size.
    #[must_use]
    pub fn packet_size(&self) -> usize {
        self.packet_size
    }

    /// Changes the process id that headers carry.
    pub fn set_spid(&mut self, spid: u16) {
        self.spid = spid;
    }

    /// Starts a message. Only the reset bits of `status` are taken, and stand on the first packet alone.
    ///
    /// A message left open is thrown away as far as it was not flushed: callers finish what they began.
    pub fn begin(&mut self, kind: PacketType, status: PacketStatus) {
        self.buf.truncate(self.open);
        self.kind = kind;
        self.status = PacketStatus(status.0 & FIRST_ONLY.0);
        self.next_id = FIRST_PACKET_ID;
        self.in_message = true;
    }

    /// True between [`begin`](Self::begin) and [`finish`](Self::finish).
    #[must_use]
    pub fn in_message(&self) -> bool {
        self.in_message
    }

    /// Adds body bytes.
    pub fn push(&mut self, mut body: &[u8]) {
        while !body.is_empty() {
            if self.open_len() == 0 {
                self.buf.reserve(HEADER_LEN + body.len());
                self.buf.extend_from_slice(&[0; HEADER_LEN]);
            }
            // A full packet waits until here: now it is known that it is not the last.
            let room = self.packet_size.saturating_sub(self.open_len());
            if room == 0 {
                self.close_packet(PacketStatus::NORMAL);
                continue;
            }
            let (now, later) = body.split_at_checked(room).unwrap_or((body, &[]));
            self.buf.extend_from_slice(now);
            body = later;
        }
    }

    /// Makes a short packet of what is held, so that the peer sees it now. Legal towards clients only.
    ///
    /// Never flush the final DONE: its packet must carry EOM, and drivers that stop at DONE would take a later empty
    /// packet for the next response.
    pub fn flush(&mut self) {
        if self.open_len() > HEADER_LEN {
            self.close_packet(PacketStatus::NORMAL);
        }
    }

    /// Ends the message: EOM on what is held, or on an empty packet if nothing is.
    pub fn finish(&mut self) {
        self.finish_with(PacketStatus::EOM);
    }

    /// Ends the message so that the server throws it away: IGNORE and EOM [MS-TDS 2.2.3.1.2].
    pub fn finish_ignored(&mut self) {
        self.finish_with(PacketStatus::EOM.with(PacketStatus::IGNORE));
    }

    /// Whole packets made so far, back to back; empty if there are none.
    pub fn take_ready(&mut self) -> BytesMut {
        let ready = self.buf.split_to(self.open.min(self.buf.len()));
        self.open = 0;
        ready
    }

    /// Bytes in whole packets that [`take_ready`](Self::take_ready) would return.
    #[must_use]
    pub fn ready_len(&self) -> usize {
        self.open
    }

    /// Body bytes held back in the open packet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.open_len().saturating_sub(HEADER_LEN)
    }

    fn finish_with(&mut self, status: PacketStatus) {
        if self.open_len() == 0 {
            self.buf.extend_from_slice(&[0; HEADER_LEN]);
        }
        self.close_packet(status);
        self.in_message = false;
    }

    fn open_len(&self) -> usize {
        self.buf.len().saturating_sub(self.open)
    }

    fn close_packet(&mut self, last: PacketStatus) {
        let header = PacketHeader {
            kind: self.kind,
            status: self.status.with(last),
            length: u16::try_from(self.open_len()).unwrap_or(PACKET_SIZE_MAX),
            spid: self.spid,
            packet_id: self.next_id,
        };
        let end = self.open + HEADER_LEN;
        if let Some(place) = self.buf.get_mut(self.open..end) {
            place.copy_from_slice(&header.encode());
        }
        self.open = self.buf.len();
        self.status = PacketStatus::NORMAL;
        self.next_id = self.next_id.wrapping_add(1);
    }
}

fn clamp_size(packet_size: u16) -> usize {
    usize::from(packet_size.clamp(PACKET_SIZE_MIN, PACKET_SIZE_MAX))
}

/// Appends a whole message as packets of `packet_size`; returns the packet id that would follow.
///
/// `first_status`'s reset bits stand on the first packet; IGNORE, if given, on the last beside EOM. An empty body makes
/// one packet of 8 bytes.
pub fn write_message(
    out: &mut BytesMut,
    kind: PacketType,
    first_status: PacketStatus,
    packet_size: u16,
    spid: u16,
    first_packet_id: u8,
    body: &[u8],
) -> u8 {
    let room = clamp_size(packet_size) - HEADER_LEN;
    out.reserve(body.len() + (body.len() / room + 1) * HEADER_LEN);
    let mut id = first_packet_id;
    let mut left = body;
    let mut first = true;
    loop {
        let (piece, later) = left.split_at_checked(room).unwrap_or((left, &[]));
        let mut status = PacketStatus::NORMAL;
        if first {
            status = status.with(PacketStatus(first_status.0 & FIRST_ONLY.0));
        }
        if later.is_empty() {
            status = status
                .with(PacketStatus(first_status.0 & LAST_ONLY.0))
                .with(PacketStatus::EOM);
        }
        let length = u16::try_from(piece.len() + HEADER_LEN).unwrap_or(PACKET_SIZE_MAX);
        let header = PacketHeader {
            kind,
            status,
            length,
            spid,
            packet_id: id,
        };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(piece);
        id = id.wrapping_add(1);
        if later.is_empty() {
            return id;
        }
        left = later;
        first = false;
    }
}

/// An Attention packet: no body, never split [MS-TDS 2.2.1.7].
#[must_use]
pub fn attention(spid: u16) -> [u8; HEADER_LEN] {
    let header = PacketHeader {
        kind: PacketType::Attention,
        status: PacketStatus::EOM,
        length: 8,
        spid,
        packet_id: FIRST_PACKET_ID,
    };
    header.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framer::{Frame, Framer};

    fn packets(mut bytes: &[u8], max: u16) -> Vec<(PacketHeader, Vec<u8>)> {
        let framer = Framer::new(max);
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let Ok(Frame::Packet(header)) = framer.next(bytes) else {
                panic!("a torn packet");
            };
            let (packet, rest) = bytes.split_at(usize::from(header.length));
            all.push((header, packet.get(HEADER_LEN..).unwrap().to_vec()));
            bytes = rest;
        }
        all
    }

    /// Packet ids begin at 1 [MS-TDS A<7>].
    #[test]
    fn pieces_of_any_size_give_the_same_packets_as_the_whole() {
        let body: Vec<u8> = (0..3000u32).map(|i| (i % 251) as u8).collect();
        for len in [0, 1, 503, 504, 505, 1008, 1009, 3000] {
            let body = body.get(..len).unwrap();
            let mut whole = BytesMut::new();
            write_message(
                &mut whole,
                PacketType::SqlBatch,
                PacketStatus::RESET,
                512,
                7,
                1,
                body,
            );
            for step in [1, 7, 504, 511, 4096] {
                let mut writer = PacketWriter::new(512, 7);
                writer.begin(PacketType::SqlBatch, PacketStatus::RESET.with(PacketStatus::EOM));
                let mut got = BytesMut::new();
                for piece in body.chunks(step) {
                    writer.push(piece);
                    got.extend_from_slice(&writer.take_ready());
                }
                writer.finish();
                got.extend_from_slice(&writer.take_ready());
                assert_eq!(got, whole, "len {len} step {step}");
            }
        }
    }

    #[test]
    fn only_the_last_packet_is_short_or_has_eom_and_only_the_first_has_reset() {
        let mut out = BytesMut::new();
        let next = write_message(
            &mut out,
            PacketType::Rpc,
            PacketStatus::RESET,
            512,
            0,
            1,
            &[9; 1300],
        );
        let all = packets(&out, 512);
        assert_eq!(next, 4);
        let status: Vec<u8> = all.iter().map(|(h, _)| h.status.0).collect();
        let length: Vec<u16> = all.iter().map(|(h, _)| h.length).collect();
        let ids: Vec<u8> = all.iter().map(|(h, _)| h.packet_id).collect();
        assert_eq!(
            (status, length, ids),
            (vec![8, 0, 1], vec![512, 512, 300], vec![1, 2, 3])
        );
    }

    #[test]
    fn a_flushed_body_ends_in_an_empty_eom_packet_and_an_ignored_one_says_so() {
        let mut writer = PacketWriter::new(512, 0);
        writer.begin(PacketType::BulkLoad, PacketStatus::NORMAL);
        writer.push(b"abc");
        writer.flush();
        writer.finish_ignored();
        let all = packets(&writer.take_ready(), 512);
        let seen: Vec<_> = all.iter().map(|(h, b)| (h.status.0, b.len())).collect();
        assert_eq!(seen, [(0, 3), (3, 0)]);
        assert!(!writer.in_message());
    }

    #[test]
    fn reassembly_stops_at_its_limit_and_at_a_foreign_packet() {
        let mut message = MessageBuf::new("LOGIN7", 10);
        let header = |kind, status| PacketHeader {
            kind,
            status: PacketStatus(status),
            length: 14,
            spid: 0,
            packet_id: 1,
        };
        assert_eq!(
            message.push(&header(PacketType::Login7, 0x08), &[1; 6]),
            Ok(false)
        );
        assert!(message.push(&header(PacketType::Sspi, 1), &[]).is_err());
        assert!(
            message.push(&header(PacketType::Login7, 1), &[1; 6]).is_err(),
            "12 bytes do not fit into 10"
        );
        assert_eq!(message.push(&header(PacketType::Login7, 3), &[2; 4]), Ok(true));
        assert!(message.is_ignored());
        assert!(message.first_status().contains(PacketStatus::RESET));
        assert_eq!(&message.take()[..], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!((message.kind(), message.is_complete()), (None, false));
    }
}
