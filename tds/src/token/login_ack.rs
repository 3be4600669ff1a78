//! LOGINACK [MS-TDS 2.2.7.14]: the login was taken, in this version.

use nom::Parser;
use nom::number::complete::{be_u32, le_u8, le_u16};

use super::{b_varchar, finish};
use crate::error::WireError;
use crate::utf16::decode as utf16;
use crate::version::TdsVersion;

/// A LOGINACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAck {
    /// SQL interface; 1 = T-SQL.
    pub interface: u8,
    /// The version number as sent.
    pub raw_version: u32,
    /// The version, if it is one of TDS 7 or 8: the one to read the stream with from here on.
    pub version: Option<TdsVersion>,
    /// The server's name for itself.
    pub program: String,
    /// Server version: major, minor, build high, build low.
    pub program_version: [u8; 4],
}

impl LoginAck {
    /// Parses a whole token.
    ///
    /// # Errors
    /// A token that is cut short.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut token = (
            le_u8, le_u16, le_u8, be_u32, b_varchar, le_u8, le_u8, le_u8, le_u8,
        )
            .map(
                |(_token, _length, interface, raw_version, program, major, minor, high, low)| Self {
                    interface,
                    raw_version,
                    version: TdsVersion::from_login_ack(raw_version),
                    program: utf16(program).trim_end_matches('\0').to_owned(),
                    program_version: [major, minor, high, low],
                },
            );
        finish(token.parse(bytes), "LOGINACK")
    }
}
