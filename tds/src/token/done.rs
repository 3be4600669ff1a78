//! DONE, DONEPROC, DONEINPROC [MS-TDS 2.2.7.6-8].

use std::fmt;

use nom::Parser;
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

use super::{Parsed, finish};
use crate::error::WireError;
use crate::version::TdsVersion;

/// Status of a DONE token: a bit set. Unknown bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct DoneStatus(pub u16);

impl DoneStatus {
    /// Final, nothing else.
    pub const FINAL: Self = Self(0);
    /// Another DONE follows in this response.
    pub const MORE: Self = Self(0x0001);
    /// The statement failed.
    pub const ERROR: Self = Self(0x0002);
    /// Reserved; no server sets it.
    pub const INXACT: Self = Self(0x0004);
    /// The row count is valid.
    pub const COUNT: Self = Self(0x0010);
    /// Acknowledges an attention; DONE only.
    pub const ATTN: Self = Self(0x0020);
    /// One of several RPCs of a message, not the last; DONEPROC only.
    pub const RPC_IN_BATCH: Self = Self(0x0080);
    /// The result must be discarded; drivers take the connection for dead.
    pub const SRVERROR: Self = Self(0x0100);

    /// True if every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
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
}

impl fmt::Debug for DoneStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DoneStatus(0x{:04x})", self.0)
    }
}

/// A DONE, DONEPROC or DONEINPROC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Status bits.
    pub status: DoneStatus,
    /// The kind of statement, opaque to TDS.
    pub cur_cmd: u16,
    /// Rows; noise unless [`DoneStatus::COUNT`] is set.
    pub row_count: u64,
}

impl Done {
    /// Parses a whole token.
    ///
    /// # Errors
    /// A token that is cut short.
    pub fn parse(bytes: &[u8], version: TdsVersion) -> Result<Self, WireError> {
        let wide = version.has_wide_counts();
        let count = |input| -> Parsed<'_, u64> {
            if wide {
                le_u64.parse(input)
            } else {
                le_u32.map(u64::from).parse(input)
            }
        };
        let done = (le_u8, le_u16, le_u16, count).map(|(_token, status, cur_cmd, row_count)| Self {
            status: DoneStatus(status),
            cur_cmd,
            row_count,
        });
        finish({ done }.parse(bytes), "DONE")
    }

    /// True if no other DONE follows in this response.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !self.status.contains(DoneStatus::MORE)
    }

    /// The row count, when it is valid.
    #[must_use]
    pub const fn count(&self) -> Option<u64> {
        if self.status.contains(DoneStatus::COUNT) {
            Some(self.row_count)
        } else {
            None
        }
    }
}
