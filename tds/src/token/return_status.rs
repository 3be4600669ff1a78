//! RETURNSTATUS [MS-TDS 2.2.7.18]: what a procedure returned.

use nom::Parser;
use nom::number::complete::{le_i32, le_u8};

use super::finish;
use crate::error::WireError;

/// A RETURNSTATUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnStatus(pub i32);

impl ReturnStatus {
    /// Parses a whole token.
    ///
    /// # Errors
    /// A token that is cut short.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        finish(
            (le_u8, le_i32).map(|(_token, value)| Self(value)).parse(bytes),
            "RETURNSTATUS",
        )
    }
}
