//! SESSIONSTATE [MS-TDS 2.2.7.21]: state that a client would restore on another connection.

use crate::error::WireError;
use crate::read::{Fail, Reader};

/// A SESSIONSTATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState<'a> {
    /// Number of the state; 0xFFFFFFFF disables recovery for good.
    pub sequence: u32,
    /// True if the session can be recovered.
    pub recoverable: bool,
    /// State id and value, in the order sent.
    pub values: Vec<(u8, &'a [u8])>,
}

impl<'a> SessionState<'a> {
    /// Parses a whole token.
    ///
    /// # Errors
    /// A token that is cut short.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        Self::read(bytes).map_err(|fail| fail.into_error("SESSIONSTATE", 0))
    }

    fn read(bytes: &'a [u8]) -> Result<Self, Fail> {
        let mut r = Reader::new(bytes, 5);
        let sequence = r.u32()?;
        let recoverable = r.u8()? & 1 != 0;
        let mut values = Vec::new();
        while !r.is_empty() {
            let id = r.u8()?;
            let len = match r.u8()? {
                0xFF => r.u32()?,
                short => u32::from(short),
            };
            values.push((id, r.take(usize::try_from(len).unwrap_or(usize::MAX))?));
        }
        Ok(Self {
            sequence,
            recoverable,
            values,
        })
    }
}
