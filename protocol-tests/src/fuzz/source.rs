//! Reads choices off a fuzz input: every byte string means something, and near inputs mean near things.

use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

/// Every version there is.
pub const VERSIONS: [TdsVersion; 8] = [
    TdsVersion::V7_0,
    TdsVersion::V7_1,
    TdsVersion::V7_1Rev1,
    TdsVersion::V7_2,
    TdsVersion::V7_3A,
    TdsVersion::V7_3B,
    TdsVersion::V7_4,
    TdsVersion::V8_0,
];

/// An input that is being read.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    /// At the first byte.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// True behind the last byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next byte; 0 behind the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// The next two, little-endian.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next eight, little-endian.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// The next `n`, or all there are.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A number below `most`.
    pub fn below(&mut self, most: usize) -> usize {
        usize::from(self.byte()) % most.max(1)
    }

    /// A version.
    pub fn version(&mut self) -> TdsVersion {
        VERSIONS[self.below(VERSIONS.len())]
    }

    /// What a walker knows: the version in the first byte, features in the second.
    pub fn options(&mut self) -> WalkerOptions {
        let version = self.version();
        let features = self.byte();
        WalkerOptions {
            version,
            column_encryption: features & 1 != 0,
            data_classification: (features >> 1) & 3,
        }
    }
}

/// The two bytes that [`Source::options`] reads as these options.
#[must_use]
pub fn options_bytes(options: WalkerOptions) -> [u8; 2] {
    let version = VERSIONS.iter().position(|v| *v == options.version).unwrap_or(6);
    let features = u8::from(options.column_encryption) | (options.data_classification & 3) << 1;
    [u8::try_from(version).unwrap_or(6), features]
}
