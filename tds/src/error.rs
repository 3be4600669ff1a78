//! One error for everything that is wrong on the wire: where, and what.

/// A stream or message that breaks the protocol or that cannot be metered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {kind}")]
pub struct WireError {
    /// Offset from the start of the message (of the token stream for response tokens).
    pub offset: u64,
    /// What was wrong.
    pub kind: WireErrorKind,
}

/// What was wrong on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireErrorKind {
    /// A packet's Length field is below 8 or above what the leg allows [MS-TDS 2.2.3.1.3].
    #[error("packet length {length} is outside {least}..={most}")]
    PacketLength {
        /// As stated by the header.
        length: u16,
        /// Least allowed here.
        least: u16,
        /// Most allowed here.
        most: u16,
    },
    /// A packet type that is not legal here [MS-TDS 2.2.3.1.1].
    #[error("packet type 0x{0:02x} is not expected here")]
    PacketType(u8),
    /// A token that MS-TDS does not define, or not for this version [MS-TDS 2.2.4.2].
    #[error("unknown token 0x{0:02x}")]
    Token(u8),
    /// A data type byte that is not known [MS-TDS 2.2.5.4].
    #[error("unknown data type 0x{0:02x}")]
    DataType(u8),
    /// A character type of TDS 7.0 on a newer stream, where it is not known whether a collation follows it.
    #[error("data type 0x{0:02x} of TDS 7.0 on a newer stream cannot be metered")]
    LegacyDataType(u8),
    /// A TYPE_INFO states a length or a scale that its type does not have [MS-TDS 2.2.5.4].
    #[error("data type 0x{data_type:02x} with {stated}, a length or scale that it does not have")]
    TypeLength {
        /// The type byte.
        data_type: u8,
        /// The length; of a time type its scale.
        stated: u8,
    },
    /// A value has a length that its type does not have [MS-TDS 2.2.5.5].
    #[error("a value of {0} bytes, which its data type does not have")]
    ValueLength(u8),
    /// A row arrived before any COLMETADATA.
    #[error("a row without column metadata")]
    RowWithoutMetadata,
    /// A message ended inside a structure.
    #[error("{0} ended too early")]
    Truncated(&'static str),
    /// A field has a value that the protocol forbids.
    #[error("{0}")]
    Invalid(&'static str),
    /// A bound of ours was passed.
    #[error("{what} is larger than {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The named limit.
        limit: u64,
    },
}

impl WireError {
    /// An error of `kind` at `offset`.
    #[must_use]
    pub const fn at(offset: u64, kind: WireErrorKind) -> Self {
        Self { offset, kind }
    }
}
