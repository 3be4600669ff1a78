//! The SMP header [MC-SMP 2.2.1]: 16 bytes, little-endian, before each packet of a MARS connection.

use super::SmpError;

/// Bytes of a header.
pub const SMP_HEADER_LEN: usize = 16;
/// First byte of each header.
pub const SMID: u8 = 0x53;

/// What a packet is. On the wire a bit set of which exactly one bit is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SmpFlag {
    /// 0x01: opens a session; no answer to it.
    Syn,
    /// 0x02: raises the window.
    Ack,
    /// 0x04: nothing more comes from this side.
    Fin,
    /// 0x08: bytes of the session.
    Data,
}

impl SmpFlag {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Syn => 0x01,
            Self::Ack => 0x02,
            Self::Fin => 0x04,
            Self::Data => 0x08,
        }
    }

    /// The flag of a byte, if it is exactly one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::Syn,
            0x02 => Self::Ack,
            0x04 => Self::Fin,
            0x08 => Self::Data,
            _ => return None,
        })
    }
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmpHeader {
    /// What the packet is.
    pub flag: SmpFlag,
    /// Session, chosen by the client in SYN.
    pub sid: u16,
    /// Length of the packet, these 16 bytes included.
    pub length: u32,
    /// Number of this DATA, or of the last one sent; wraps to 0.
    pub seqnum: u32,
    /// Highest number that the sender of this packet takes.
    pub window: u32,
}

impl SmpHeader {
    /// A packet without data.
    #[must_use]
    pub const fn control(flag: SmpFlag, sid: u16, seqnum: u32, window: u32) -> Self {
        Self {
            flag,
            sid,
            length: 16,
            seqnum,
            window,
        }
    }

    /// Reads a header; `None` if fewer than 16 bytes are there. What is wrong is noticed from its first byte on.
    ///
    /// # Errors
    /// A wrong SMID, wrong flags, a LENGTH below 16 or, without DATA, above it.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, SmpError> {
        match bytes.first() {
            Some(&SMID) | None => {}
            Some(&smid) => return Err(SmpError::Smid(smid)),
        }
        let flag = match bytes.get(1) {
            None => return Ok(None),
            Some(&flags) => SmpFlag::from_byte(flags).ok_or(SmpError::Flags(flags))?,
        };
        let Some(&[_, _, s0, s1, l0, l1, l2, l3, q0, q1, q2, q3, w0, w1, w2, w3]) =
            bytes.first_chunk::<SMP_HEADER_LEN>()
        else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let most = if matches!(flag, SmpFlag::Data) {
            u32::MAX
        } else {
            16
        };
        if length < 16 || length > most {
            return Err(SmpError::Length {
                length,
                least: 16,
                most,
            });
        }
        Ok(Some(Self {
            flag,
            sid: u16::from_le_bytes([s0, s1]),
            length,
            seqnum: u32::from_le_bytes([q0, q1, q2, q3]),
            window: u32::from_le_bytes([w0, w1, w2, w3]),
        }))
    }

    /// The 16 bytes on the wire.
    #[must_use]
    pub const fn encode(&self) -> [u8; SMP_HEADER_LEN] {
        let [s0, s1] = self.sid.to_le_bytes();
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [q0, q1, q2, q3] = self.seqnum.to_le_bytes();
        let [w0, w1, w2, w3] = self.window.to_le_bytes();
        [
            SMID,
            self.flag.byte(),
            s0,
            s1,
            l0,
            l1,
            l2,
            l3,
            q0,
            q1,
            q2,
            q3,
            w0,
            w1,
            w2,
            w3,
        ]
    }

    /// Bytes of data behind the header.
    #[must_use]
    pub fn data_len(&self) -> usize {
        usize::try_from(self.length)
            .unwrap_or(usize::MAX)
            .saturating_sub(SMP_HEADER_LEN)
    }
}
