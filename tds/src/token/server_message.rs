//! ERROR and INFO [MS-TDS 2.2.7.10, 2.2.7.13]: one layout, the class decides.

use nom::Parser;
use nom::combinator::opt;
use nom::number::complete::{le_i32, le_u8, le_u16, le_u32};

use super::{Parsed, b_varchar, finish, us_varchar};
use crate::error::WireError;
use crate::utf16::decode as utf16;
use crate::version::TdsVersion;

/// What an ERROR or INFO says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    /// Error number.
    pub number: i32,
    /// State.
    pub state: u8,
    /// Class (severity): up to 10 is information, 20 and up ends the connection.
    pub class: u8,
    /// The text.
    pub message: String,
    /// The server's name.
    pub server: String,
    /// The procedure's name, or nothing.
    pub procedure: String,
    /// Line of the batch or procedure.
    pub line: u32,
}

impl ServerMessage {
    /// Parses a whole ERROR or INFO token.
    ///
    /// # Errors
    /// A token that is cut short.
    pub fn parse(bytes: &[u8], version: TdsVersion) -> Result<Self, WireError> {
        let wide = version.has_wide_counts();
        let line = |input| -> Parsed<'_, u32> {
            if wide {
                le_u32.parse(input)
            } else {
                le_u16.map(u32::from).parse(input)
            }
        };
        let mut token = (
            (le_u8, le_u16),
            (le_i32, le_u8, le_u8),
            (us_varchar, b_varchar, b_varchar),
            opt(line).map(Option::unwrap_or_default),
        )
            .map(
                |(_head, (number, state, class), (message, server, procedure), line)| Self {
                    number,
                    state,
                    class,
                    message: utf16(message),
                    server: utf16(server),
                    procedure: utf16(procedure),
                    line,
                },
            );
        finish(token.parse(bytes), "ERROR or INFO")
    }
}
