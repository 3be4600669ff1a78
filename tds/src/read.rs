//! A bounds-checked cursor over bytes that may end too early: it says how many bytes are needed, so nobody reads again in vain.

use crate::error::{WireError, WireErrorKind};

/// Why a structure could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fail {
    /// The slice ends too early. It must be at least this long (from its first byte) for the next field to be read.
    /// Never more than the structure's own length.
    Short(usize),
    /// The bytes break the protocol at this position of the slice.
    Bad(usize, WireErrorKind),
}

impl Fail {
    /// The error when no more bytes will come: `what` was cut short. `base` is the offset of the slice's first byte.
    #[must_use]
    pub fn into_error(self, what: &'static str, base: u64) -> WireError {
        match self {
            Self::Short(needed) => {
                let at = base.saturating_add(u64::try_from(needed).unwrap_or(u64::MAX));
                WireError::at(at, WireErrorKind::Truncated(what))
            }
            Self::Bad(at, kind) => WireError::at(base.saturating_add(u64::try_from(at).unwrap_or(0)), kind),
        }
    }
}

/// Reads little-endian fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader that starts at `at` of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next field begins, from the first byte of the slice.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// True when no byte is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next byte, not taken.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// An error at the position of the last `back` bytes.
    #[must_use]
    pub const fn bad(&self, back: usize, kind: WireErrorKind) -> Fail {
        Fail::Bad(self.at.saturating_sub(back), kind)
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`Fail::Short`] when they are not there.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Fail> {
        let end = self.at.checked_add(n).ok_or(Fail::Short(usize::MAX))?;
        let taken = self.bytes.get(self.at..end).ok_or(Fail::Short(end))?;
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Fail::Short`] when they are not there.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fail> {
        let taken = self.take(N)?;
        taken.first_chunk::<N>().copied().ok_or(Fail::Short(self.at))
    }

    /// A byte.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not there.
    pub fn u8(&mut self) -> Result<u8, Fail> {
        self.array::<1>().map(|[b]| b)
    }

    /// A u16.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not there.
    pub fn u16(&mut self) -> Result<u16, Fail> {
        self.array().map(u16::from_le_bytes)
    }

    /// A u32.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not there.
    pub fn u32(&mut self) -> Result<u32, Fail> {
        self.array().map(u32::from_le_bytes)
    }

    /// A u64.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not there.
    pub fn u64(&mut self) -> Result<u64, Fail> {
        self.array().map(u64::from_le_bytes)
    }

    /// B_VARCHAR: u8 characters, then UTF-16LE; the bytes of the text.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not all there.
    pub fn b_varchar(&mut self) -> Result<&'a [u8], Fail> {
        let chars = self.u8()?;
        self.take(usize::from(chars).saturating_mul(2))
    }

    /// US_VARCHAR: u16 characters, then UTF-16LE; the bytes of the text.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not all there.
    pub fn us_varchar(&mut self) -> Result<&'a [u8], Fail> {
        let chars = self.u16()?;
        self.take(usize::from(chars).saturating_mul(2))
    }

    /// US_VARBYTE: u16 bytes, then the bytes.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not all there.
    pub fn us_varbyte(&mut self) -> Result<&'a [u8], Fail> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }

    /// L_VARBYTE: u32 bytes, then the bytes.
    ///
    /// # Errors
    /// [`Fail::Short`] when it is not all there.
    pub fn l_varbyte(&mut self) -> Result<&'a [u8], Fail> {
        let n = self.u32()?;
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }
}
