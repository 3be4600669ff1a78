//! Token encoders: everything a server can say, for the gate's own answers, the sandbox and the tests.
//!
//! A [`TokenBuf`] appends whole tokens to one growing buffer and allocates nothing per row. It knows the TDS version,
//! because the same token has several layouts. It does not police which type a version knows; that is the caller's.

mod column;
mod cp1252;
mod done;
mod env_change;
mod features;
mod metadata;
mod row;
mod rpc;
mod type_info;
mod value;

use bytes::{BufMut, BytesMut};

pub use column::{Collation, ColumnDef, ColumnFlags, ColumnType, CryptoMetadata, XmlSchema};
pub use done::{DoneKind, Returned, ServerText, TEXT_UNITS_MAX};
pub use features::{Classification, ClassifiedProperty, NO_CLASSIFICATION};
pub use metadata::{AltColumn, AltMetadata, CekEntry, CekValue, ColumnInfo};
pub use rpc::RpcBuf;
pub use value::{Decimal, Plp, Value};

use crate::utf16;
use crate::version::TdsVersion;

/// A value or a structure that the wire cannot carry; always the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// As many values as columns are needed.
    #[error("{values} values for {columns} columns")]
    Count {
        /// Columns declared.
        columns: usize,
        /// Values given.
        values: usize,
    },
    /// The value does not belong to the column's type, or is outside its range.
    #[error("the value of column {column} does not fit its type")]
    Value {
        /// Index of the column, from 0.
        column: usize,
    },
    /// A structure is larger than its length field can say.
    #[error("{0} is too large for its length field")]
    TooLarge(&'static str),
}

/// Builds a token stream.
///
/// On an error nothing of the failed token stays in the buffer.
#[derive(Debug)]
pub struct TokenBuf {
    pub(crate) out: BytesMut,
    pub(crate) version: TdsVersion,
}

impl TokenBuf {
    /// An empty stream of one version.
    #[must_use]
    pub fn new(version: TdsVersion) -> Self {
        Self {
            out: BytesMut::new(),
            version,
        }
    }

    /// An empty stream with room for `bytes`.
    #[must_use]
    pub fn with_capacity(version: TdsVersion, bytes: usize) -> Self {
        Self {
            out: BytesMut::with_capacity(bytes),
            version,
        }
    }

    /// The version whose layouts are written.
    #[must_use]
    pub fn version(&self) -> TdsVersion {
        self.version
    }

    /// What has been built and not taken.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// Bytes built and not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True if nothing is there to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes what has been built; the buffer's memory is used again once the caller has dropped it.
    pub fn take(&mut self) -> BytesMut {
        self.out.split()
    }

    /// Throws away what has been built and keeps the memory.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// Appends bytes as they stand: tokens made elsewhere, or broken ones for a test.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.put_slice(bytes);
        self
    }

    /// Appends a token with a u16 length in front of what `body` writes.
    ///
    /// Every caller bounds its body: text is clipped, lists are checked.
    fn sized(&mut self, token: u8, body: impl FnOnce(&mut BytesMut, TdsVersion)) -> &mut Self {
        self.out.put_u8(token);
        let at = self.out.len();
        self.out.put_u16_le(0);
        body(&mut self.out, self.version);
        patch_u16(&mut self.out, at);
        self
    }

    /// The same with a u32 length.
    fn sized32(&mut self, token: u8, body: impl FnOnce(&mut BytesMut)) -> &mut Self {
        self.out.put_u8(token);
        let at = self.out.len();
        self.out.put_u32_le(0);
        body(&mut self.out);
        let len = u32::try_from(self.out.len() - at - 4).unwrap_or(u32::MAX);
        put_at(&mut self.out, at, &len.to_le_bytes());
        self
    }

    /// Runs `body`; on an error takes back what it wrote.
    fn whole<T>(
        &mut self,
        body: impl FnOnce(&mut BytesMut, TdsVersion) -> Result<T, BuildError>,
    ) -> Result<&mut Self, BuildError> {
        let start = self.out.len();
        if let Err(e) = body(&mut self.out, self.version) {
            self.out.truncate(start);
            return Err(e);
        }
        Ok(self)
    }
}

/// Overwrites bytes written earlier. `at` always comes from `out.len()` before they were.
fn put_at(out: &mut BytesMut, at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Sets the u16 at `at` to the number of bytes behind it.
fn patch_u16(out: &mut BytesMut, at: usize) {
    let len = u16::try_from(out.len() - at - 2).unwrap_or(u16::MAX);
    put_at(out, at, &len.to_le_bytes());
}

/// B_VARCHAR; text above 255 units is clipped.
fn put_b_varchar(out: &mut BytesMut, text: &str) {
    let text = utf16::clip(text, usize::from(u8::MAX));
    out.put_u8(u8::try_from(utf16::units(text)).unwrap_or(u8::MAX));
    utf16::put(out, text);
}

/// US_VARCHAR; text above `most` units is clipped.
fn put_us_varchar(out: &mut BytesMut, text: &str, most: usize) {
    let text = utf16::clip(text, most.min(usize::from(u16::MAX)));
    out.put_u16_le(u16::try_from(utf16::units(text)).unwrap_or(u16::MAX));
    utf16::put(out, text);
}

/// B_VARBYTE; bytes above 255 are clipped.
fn put_b_varbyte(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = bytes
        .get(..bytes.len().min(usize::from(u8::MAX)))
        .unwrap_or_default();
    out.put_u8(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.put_slice(bytes);
}

/// UserType: u32 from 7.2 on, u16 before.
fn put_user_type(out: &mut BytesMut, version: TdsVersion, user_type: u32) {
    if version.has_wide_counts() {
        out.put_u32_le(user_type);
    } else {
        out.put_u16_le(u16::try_from(user_type).unwrap_or(0));
    }
}
