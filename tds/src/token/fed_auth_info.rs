//! FEDAUTHINFO [MS-TDS 2.2.7.12]: where a client gets its token from.

use crate::error::WireError;
use crate::read::{Fail, Reader};
use crate::utf16::decode as utf16;

/// A FEDAUTHINFO.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FedAuthInfo {
    /// Token service (id 1).
    pub sts_url: Option<String>,
    /// Service principal name (id 2).
    pub spn: Option<String>,
}

impl FedAuthInfo {
    /// Parses a whole token. Ids come in any order; unknown ones are skipped.
    ///
    /// # Errors
    /// A token that is cut short, or an offset that points outside it.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        Self::read(bytes).map_err(|fail| fail.into_error("FEDAUTHINFO", 0))
    }

    fn read(bytes: &[u8]) -> Result<Self, Fail> {
        const COUNT_AT: usize = 5;
        let mut r = Reader::new(bytes, COUNT_AT);
        let count = r.u32()?;
        let mut info = Self::default();
        for _entry in 0..count {
            let id = r.u8()?;
            let len = usize::try_from(r.u32()?).unwrap_or(usize::MAX);
            let offset = usize::try_from(r.u32()?).unwrap_or(usize::MAX);
            let mut data = Reader::new(bytes, COUNT_AT.saturating_add(offset));
            let text = utf16(data.take(len)?);
            match id {
                1 => info.sts_url = Some(text),
                2 => info.spn = Some(text),
                _ => {}
            }
        }
        Ok(info)
    }
}
