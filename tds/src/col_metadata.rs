//! COLMETADATA and ALTMETADATA [MS-TDS 2.2.7.4, 2.2.7.1]: their columns, from which a [`Layout`] is compiled.

use crate::error::WireError;
use crate::read::{Fail, Reader};
use crate::type_info::{Place, TypeInfo};
use crate::utf16::decode as utf16;
use crate::walker::WalkerOptions;

pub use crate::layout::Layout;

/// COLMETADATA count that says "no metadata: what was sent before stays in force".
pub const NO_METADATA: u16 = 0xFFFF;
/// Column flag: values are ciphertext [MS-TDS 2.2.7.4, fEncrypted].
pub const FLAG_ENCRYPTED: u16 = 0x0800;

/// Who wrote the metadata: a client's bulk load names the table of a TEXT column in another form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A server's result set.
    Server,
    /// A client's bulk load.
    BulkLoad,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// User type; 0x50 is rowversion.
    pub user_type: u32,
    /// Flags [MS-TDS 2.2.7.4].
    pub flags: u16,
    /// Type and framing; of an encrypted column the outer (varbinary) type.
    pub type_info: TypeInfo,
    name: &'a [u8],
}

impl Column<'_> {
    /// The column's name.
    #[must_use]
    pub fn name(&self) -> String {
        utf16(self.name)
    }

    /// True if NULL is allowed.
    #[must_use]
    pub const fn nullable(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// UserType: u32 from 7.2 on, u16 before.
pub(crate) fn read_user_type(r: &mut Reader<'_>, options: &WalkerOptions) -> Result<u32, Fail> {
    if options.version.has_wide_counts() {
        r.u32()
    } else {
        r.u16().map(u32::from)
    }
}

/// CryptoMetaData after its Ordinal, which RETURNVALUE leaves out [MS-TDS 2.2.7.4].
pub(crate) fn read_crypto(r: &mut Reader<'_>, options: &WalkerOptions, place: Place) -> Result<(), Fail> {
    read_user_type(r, options)?;
    TypeInfo::read(r, options.version, place)?;
    if r.u8()? == 0 {
        r.b_varchar()?;
    }
    r.array::<2>()?;
    Ok(())
}

fn skip_table_name(r: &mut Reader<'_>, options: &WalkerOptions, origin: Origin) -> Result<(), Fail> {
    let parts = if options.version.has_wide_counts() && origin == Origin::Server {
        r.u8()?
    } else {
        1
    };
    for _part in 0..parts {
        r.us_varchar()?;
    }
    Ok(())
}

/// Reads one column of COLMETADATA.
pub(crate) fn read_column<'a>(
    r: &mut Reader<'a>,
    options: &WalkerOptions,
    origin: Origin,
) -> Result<Column<'a>, Fail> {
    let user_type = read_user_type(r, options)?;
    let flags = r.u16()?;
    let place = match origin {
        Origin::Server => Place::Column,
        Origin::BulkLoad => Place::BulkColumn,
    };
    let type_info = TypeInfo::read(r, options.version, place)?;
    if type_info.data_type.is_long_lob() {
        skip_table_name(r, options, origin)?;
    }
    if options.column_encryption && flags & FLAG_ENCRYPTED != 0 {
        r.u16()?;
        read_crypto(r, options, place)?;
    }
    let name = r.b_varchar()?;
    Ok(Column {
        user_type,
        flags,
        type_info,
        name,
    })
}

/// Reads one column of ALTMETADATA: operator and operand stand before what COLMETADATA has, and nothing is encrypted.
pub(crate) fn read_alt_column<'a>(r: &mut Reader<'a>, options: &WalkerOptions) -> Result<Column<'a>, Fail> {
    r.array::<3>()?;
    let plain = WalkerOptions {
        column_encryption: false,
        ..*options
    };
    read_column(r, &plain, Origin::Server)
}

/// Reads one EK_INFO of the CekTable [MS-TDS 2.2.5.7].
pub(crate) fn read_cek_entry(r: &mut Reader<'_>) -> Result<(), Fail> {
    r.array::<20>()?;
    let values = r.u8()?;
    for _value in 0..values {
        r.us_varbyte()?;
        r.b_varchar()?;
        r.us_varchar()?;
        r.b_varchar()?;
    }
    Ok(())
}

/// A parsed COLMETADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColMetadata<'a> {
    /// True when the token says that earlier metadata stays in force.
    pub no_metadata: bool,
    /// The columns.
    pub columns: Vec<Column<'a>>,
}

impl<'a> ColMetadata<'a> {
    /// Parses a whole token, token byte included.
    ///
    /// # Errors
    /// A token that is cut short, or an unknown data type.
    pub fn parse(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, WireError> {
        Self::parse_from(bytes, options, Origin::Server)
    }

    /// The same for the metadata of `origin`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_from(bytes: &'a [u8], options: &WalkerOptions, origin: Origin) -> Result<Self, WireError> {
        Self::read(bytes, options, origin).map_err(|fail| fail.into_error("COLMETADATA", 0))
    }

    fn read(bytes: &'a [u8], options: &WalkerOptions, origin: Origin) -> Result<Self, Fail> {
        let mut r = Reader::new(bytes, 1);
        let count = r.u16()?;
        if count == NO_METADATA {
            return Ok(Self {
                no_metadata: true,
                columns: Vec::new(),
            });
        }
        if options.column_encryption {
            for _entry in 0..r.u16()? {
                read_cek_entry(&mut r)?;
            }
        }
        let mut columns = Vec::new();
        for _column in 0..count {
            columns.push(read_column(&mut r, options, origin)?);
        }
        Ok(Self {
            no_metadata: false,
            columns,
        })
    }
}

/// A parsed ALTMETADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltMetadata<'a> {
    /// Its id, which ALTROWs name.
    pub id: u16,
    /// The columns.
    pub columns: Vec<Column<'a>>,
}

impl<'a> AltMetadata<'a> {
    /// Parses a whole token, token byte included.
    ///
    /// # Errors
    /// A token that is cut short, or an unknown data type.
    pub fn parse(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, WireError> {
        Self::read(bytes, options).map_err(|fail| fail.into_error("ALTMETADATA", 0))
    }

    fn read(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, Fail> {
        let mut r = Reader::new(bytes, 1);
        let count = r.u16()?;
        let id = r.u16()?;
        let by_columns = r.u8()?;
        r.take(usize::from(by_columns).saturating_mul(2))?;
        let mut columns = Vec::new();
        for _column in 0..count {
            columns.push(read_alt_column(&mut r, options)?);
        }
        Ok(Self { id, columns })
    }
}
