//! Where one packet ends and the next begins [MS-TDS 2.2.3]. Holds no bytes: it looks at the caller's buffer.

use crate::error::{WireError, WireErrorKind};
use crate::packet::{HEADER_LEN, PACKET_SIZE_MAX, PacketHeader};

/// Says how many bytes of a buffer make the next whole packet.
#[derive(Debug, Clone, Copy)]
pub struct Framer {
    max_packet: u16,
}

/// What stands at the head of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Not a whole packet yet.
    NeedMore {
        /// Bytes that the buffer must hold in all before it is worth asking again: 8, then the packet's length.
        at_least: usize,
    },
    /// A whole packet: its first `length` bytes are the packet, header included.
    Packet(PacketHeader),
}

impl Framer {
    /// A framer that refuses packets longer than `max_packet` bytes, header included.
    ///
    /// The limit is the agreed size of the leg, or [`DEFAULT_PACKET_SIZE`](crate::packet::DEFAULT_PACKET_SIZE) until
    /// the login response has ended [MS-TDS 2.2.3.1.3].
    #[must_use]
    pub const fn new(max_packet: u16) -> Self {
        Self { max_packet }
    }

    /// Changes the limit; holds from the next packet on.
    pub const fn set_max(&mut self, max_packet: u16) {
        self.max_packet = max_packet;
    }

    /// Most bytes of a packet.
    #[must_use]
    pub const fn max(&self) -> u16 {
        self.max_packet
    }

    /// Looks at the head of `buf`.
    ///
    /// A length of 8 (no body) is legal: Attention, and an EOM packet after data that ended on the border.
    ///
    /// # Errors
    /// The peer's fault, and no way to resynchronise, so close: an undefined packet type, a length below 8 or above
    /// the limit. A wrong type is noticed from the first byte on.
    pub fn next(&self, buf: &[u8]) -> Result<Frame, WireError> {
        let Some(header) = PacketHeader::parse(buf)? else {
            return match buf.first() {
                Some(&byte) if crate::packet::PacketType::from_byte(byte).is_none() => {
                    Err(WireError::at(0, WireErrorKind::PacketType(byte)))
                }
                _ => Ok(Frame::NeedMore { at_least: HEADER_LEN }),
            };
        };
        let most = self.max_packet.min(PACKET_SIZE_MAX);
        if header.length > most {
            let kind = WireErrorKind::PacketLength {
                length: header.length,
                least: 8,
                most,
            };
            return Err(WireError::at(2, kind));
        }
        let length = usize::from(header.length);
        if buf.len() < length {
            return Ok(Frame::NeedMore { at_least: length });
        }
        Ok(Frame::Packet(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{PacketStatus, PacketType};

    #[test]
    fn an_attention_is_whole_with_eight_bytes_and_not_before() {
        let framer = Framer::new(512);
        let bytes = [6u8, 1, 0, 8, 0, 0, 1, 0];
        for n in 0..8 {
            let head = bytes.get(..n).unwrap();
            assert_eq!(framer.next(head), Ok(Frame::NeedMore { at_least: 8 }));
        }
        let Ok(Frame::Packet(header)) = framer.next(&bytes) else {
            panic!("not whole");
        };
        assert_eq!(
            (header.kind, header.status),
            (PacketType::Attention, PacketStatus::EOM)
        );
        assert_eq!(header.body_len(), 0);
    }

    #[test]
    fn the_limit_is_the_agreed_size_and_moves_with_it() {
        let mut framer = Framer::new(4096);
        let head = [4u8, 1, 0x1f, 0x40, 0, 0, 1, 0];
        assert!(framer.next(&head).is_err(), "8000 before it was agreed");
        framer.set_max(8000);
        assert_eq!(framer.next(&head), Ok(Frame::NeedMore { at_least: 8000 }));
    }

    #[test]
    fn an_undefined_type_is_refused_by_its_first_byte() {
        assert!(Framer::new(512).next(&[0x47]).is_err(), "HTTP is not TDS");
    }
}
