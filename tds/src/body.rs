//! A [`Reader`](crate::read::Reader) over a whole message body: what is missing will not come, so it is an error at once.

use crate::error::{WireError, WireErrorKind};
use crate::read::{Fail, Reader};

/// Reads fields off a body; errors name the structure and the offset.
#[derive(Debug, Clone)]
pub(crate) struct Body<'a> {
    bytes: &'a [u8],
    r: Reader<'a>,
    /// Names the structure in a [`WireErrorKind::Truncated`].
    what: &'static str,
}

impl<'a> Body<'a> {
    /// A cursor at the start of `bytes`; `what` names the structure in errors.
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self {
            bytes,
            r: Reader::new(bytes, 0),
            what,
        }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.r.at()..).unwrap_or_default()
    }

    /// True at the end.
    pub(crate) fn is_empty(&self) -> bool {
        self.r.is_empty()
    }

    /// An error at the current offset.
    pub(crate) const fn fail(&self, kind: WireErrorKind) -> WireError {
        WireError::at(self.r.at() as u64, kind)
    }

    /// An [`WireErrorKind::Invalid`] at the current offset.
    pub(crate) const fn invalid(&self, text: &'static str) -> WireError {
        self.fail(WireErrorKind::Invalid(text))
    }

    fn get<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Result<T, Fail>) -> Result<T, WireError> {
        let what = self.what;
        read(&mut self.r).map_err(|fail| fail.into_error(what, 0))
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        self.get(|r| r.take(n))
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.get(Reader::array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.get(Reader::u8)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.get(Reader::u16)
    }

    pub(crate) fn u16_be(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.get(Reader::u32)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.get(Reader::u64)
    }

    /// B_VARBYTE: a byte counts bytes.
    pub(crate) fn b_varbyte(&mut self) -> Result<&'a [u8], WireError> {
        let n = self.u8()?;
        self.take(usize::from(n))
    }

    /// US_VARBYTE: a u16 counts bytes.
    pub(crate) fn us_varbyte(&mut self) -> Result<&'a [u8], WireError> {
        self.get(Reader::us_varbyte)
    }
}
