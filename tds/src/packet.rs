//! The packet header [MS-TDS 2.2.3.1]: 8 bytes, with the status as the bit set that it is.

use std::fmt;

use crate::error::{WireError, WireErrorKind};

/// Bytes of a packet header.
pub const HEADER_LEN: usize = 8;
/// Packet size until one is agreed, both ways, the whole login response included [MS-TDS 2.2.3.1.3].
pub const DEFAULT_PACKET_SIZE: u16 = 4096;
/// Least packet size that can be agreed.
pub const PACKET_SIZE_MIN: u16 = 512;
/// Most packet size that can be agreed.
pub const PACKET_SIZE_MAX: u16 = 32767;

/// Message type of a packet [MS-TDS 2.2.3.1.1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// 0x01, client.
    SqlBatch,
    /// 0x02, client: a login of before TDS 7; refused.
    PreTds7Login,
    /// 0x03, client.
    Rpc,
    /// 0x04, server.
    TabularResult,
    /// 0x06, client: cancels the running request; no body.
    Attention,
    /// 0x07, client.
    BulkLoad,
    /// 0x08, client.
    FedAuthToken,
    /// 0x0E, client.
    TransactionManager,
    /// 0x10, client.
    Login7,
    /// 0x11, client.
    Sspi,
    /// 0x12, both: PRELOGIN, and the TLS handshake wrapped in it.
    Prelogin,
}

impl PacketType {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::SqlBatch => 0x01,
            Self::PreTds7Login => 0x02,
            Self::Rpc => 0x03,
            Self::TabularResult => 0x04,
            Self::Attention => 0x06,
            Self::BulkLoad => 0x07,
            Self::FedAuthToken => 0x08,
            Self::TransactionManager => 0x0E,
            Self::Login7 => 0x10,
            Self::Sspi => 0x11,
            Self::Prelogin => 0x12,
        }
    }

    /// The type of a byte, if MS-TDS defines it.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::SqlBatch,
            0x02 => Self::PreTds7Login,
            0x03 => Self::Rpc,
            0x04 => Self::TabularResult,
            0x06 => Self::Attention,
            0x07 => Self::BulkLoad,
            0x08 => Self::FedAuthToken,
            0x0E => Self::TransactionManager,
            0x10 => Self::Login7,
            0x11 => Self::Sspi,
            0x12 => Self::Prelogin,
            _ => return None,
        })
    }
}

/// Status of a packet: a bit set [MS-TDS 2.2.3.1.2]. Unknown bits are kept and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketStatus(pub u8);

impl PacketStatus {
    /// No bit set: more packets of the message follow.
    pub const NORMAL: Self = Self(0);
    /// Last packet of the message.
    pub const EOM: Self = Self(0x01);
    /// Throw away the request sent so far; client only, always with EOM.
    pub const IGNORE: Self = Self(0x02);
    /// Reset the connection before this request; first packet of batch, RPC and TM requests.
    pub const RESET: Self = Self(0x08);
    /// The same, transaction kept.
    pub const RESET_SKIP_TRAN: Self = Self(0x10);

    /// True if every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True on the last packet of a message.
    #[must_use]
    pub const fn is_eom(self) -> bool {
        self.contains(Self::EOM)
    }
}

impl fmt::Debug for PacketStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketStatus(0x{:02x})", self.0)
    }
}

/// A packet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketHeader {
    /// Message type.
    pub kind: PacketType,
    /// Status bits.
    pub status: PacketStatus,
    /// Length of the packet, these 8 bytes included (big-endian on the wire).
    pub length: u16,
    /// Server process id; for debugging.
    pub spid: u16,
    /// Counts packets modulo 256; receivers ignore it.
    pub packet_id: u8,
}

impl PacketHeader {
    /// Reads a header; `None` if fewer than 8 bytes are there.
    ///
    /// # Errors
    /// An undefined type, or a length below 8.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some(&[kind, status, l0, l1, s0, s1, packet_id, _window]) = bytes.first_chunk::<HEADER_LEN>()
        else {
            return Ok(None);
        };
        // Type before length, as a reader that has one byte only must: the same error at any split.
        let kind = PacketType::from_byte(kind).ok_or(WireError::at(0, WireErrorKind::PacketType(kind)))?;
        let length = u16::from_be_bytes([l0, l1]);
        if usize::from(length) < HEADER_LEN {
            let kind = WireErrorKind::PacketLength {
                length,
                least: 8,
                most: PACKET_SIZE_MAX,
            };
            return Err(WireError::at(2, kind));
        }
        let status = PacketStatus(status);
        Ok(Some(Self {
            kind,
            status,
            length,
            spid: u16::from_be_bytes([s0, s1]),
            packet_id,
        }))
    }

    /// The 8 bytes on the wire.
    #[must_use]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let [l0, l1] = self.length.to_be_bytes();
        let [s0, s1] = self.spid.to_be_bytes();
        [self.kind.byte(), self.status.0, l0, l1, s0, s1, self.packet_id, 0]
    }

    /// Length of the body.
    #[must_use]
    pub fn body_len(&self) -> usize {
        usize::from(self.length).saturating_sub(HEADER_LEN)
    }
}
