//! A cursor over a message body: every read is checked, every error carries the offset where it failed.

use crate::error::{WireError, WireErrorKind};

/// Reads little-endian fields and the length-prefixed strings of MS-TDS 2.2.5 off a slice.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Names the structure in a [`WireErrorKind::Truncated`].
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`; `what` names the structure in errors.
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    /// Bytes read so far.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// True at the end.
    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next byte, not taken.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// An error at the current offset.
    pub(crate) const fn fail(&self, kind: WireErrorKind) -> WireError {
        WireError::at(self.at as u64, kind)
    }

    /// An [`WireErrorKind::Invalid`] at the current offset.
    pub(crate) const fn invalid(&self, text: &'static str) -> WireError {
        self.fail(WireErrorKind::Invalid(text))
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, _) = self
            .rest()
            .split_at_checked(n)
            .ok_or(self.fail(WireErrorKind::Truncated(self.what)))?;
        self.at += n;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let head = *self
            .rest()
            .first_chunk::<N>()
            .ok_or(self.fail(WireErrorKind::Truncated(self.what)))?;
        self.at += N;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u16_be(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// B_VARCHAR: a byte counts UTF-16 units. The raw bytes.
    pub(crate) fn b_varchar(&mut self) -> Result<&'a [u8], WireError> {
        let units = self.u8()?;
        self.take(usize::from(units) * 2)
    }

    /// US_VARCHAR: a u16 counts UTF-16 units. The raw bytes.
    pub(crate) fn us_varchar(&mut self) -> Result<&'a [u8], WireError> {
        let units = self.u16()?;
        self.take(usize::from(units) * 2)
    }

    /// B_VARBYTE: a byte counts bytes.
    pub(crate) fn b_varbyte(&mut self) -> Result<&'a [u8], WireError> {
        let n = self.u8()?;
        self.take(usize::from(n))
    }

    /// US_VARBYTE: a u16 counts bytes.
    pub(crate) fn us_varbyte(&mut self) -> Result<&'a [u8], WireError> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }
}
