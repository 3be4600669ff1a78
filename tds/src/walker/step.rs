//! What goes into a walk and what comes out of it.

use crate::token::TokenKind;
use crate::version::TdsVersion;

/// What the walker must know of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkerOptions {
    /// The version of LOGINACK.
    pub version: TdsVersion,
    /// True when feature 0x04 was acknowledged: COLMETADATA and RETURNVALUE carry crypto metadata.
    pub column_encryption: bool,
    /// Acknowledged and enabled version of feature 0x09; 0 = none.
    pub data_classification: u8,
}

impl WalkerOptions {
    /// A plain connection of `version`.
    #[must_use]
    pub const fn new(version: TdsVersion) -> Self {
        Self {
            version,
            column_encryption: false,
            data_classification: 0,
        }
    }
}

/// What may still be delivered. The walker counts both down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Rows that may still begin.
    pub rows: u64,
    /// Payload bytes after which no new row may begin; the row in hand is finished.
    pub bytes: u64,
}

impl Budget {
    /// No bound.
    pub const UNLIMITED: Self = Self {
        rows: u64::MAX,
        bytes: u64::MAX,
    };
}

/// A complete non-row token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRef<'a> {
    /// Which.
    pub kind: TokenKind,
    /// The token from its token byte on. Of a RETURNVALUE with a long value: its head.
    pub bytes: &'a [u8],
    /// Offset of the token byte from the start of the message's token stream.
    pub offset: u64,
}

/// Why a walk returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// The input is used up.
    NeedMore,
    /// Stopped right before a row token that the budget does not cover.
    BudgetSpent,
    /// A non-row token is complete; it is part of `consumed`.
    Token(TokenRef<'a>),
}

/// What a walk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk<'a> {
    /// Bytes of the input taken.
    pub consumed: usize,
    /// Why it returned.
    pub step: Step<'a>,
}
