//! What stands before rows: COLMETADATA, ALTMETADATA, ORDER, TABNAME, COLINFO [MS-TDS 2.2.7].

use bytes::{BufMut, BytesMut};

use super::column::{ColumnDef, CryptoMetadata};
use super::type_info::put_type_info;
use super::{BuildError, TokenBuf, put_b_varchar, put_us_varchar, put_user_type};
use crate::version::TdsVersion;

const COLMETADATA: u8 = 0x81;
const ALTMETADATA: u8 = 0x88;
const TABNAME: u8 = 0xA4;
const COLINFO: u8 = 0xA5;
const ORDER: u8 = 0xA9;
const OFFSET: u8 = 0x78;

/// Most units of one part of a table name.
const PART_MAX: usize = 128;

/// One entry of the CekTable: a column encryption key [MS-TDS 2.2.5.7].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CekEntry {
    /// Database.
    pub database_id: u32,
    /// Key.
    pub cek_id: u32,
    /// Key version.
    pub cek_version: u32,
    /// Metadata version.
    pub metadata_version: [u8; 8],
    /// Encrypted forms of the key; at most 255.
    pub values: Vec<CekValue>,
}

/// One encrypted form of a column encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CekValue {
    /// The encrypted key.
    pub encrypted_key: Vec<u8>,
    /// Name of the key store.
    pub store: String,
    /// Path of the master key in it.
    pub path: String,
    /// Asymmetric algorithm.
    pub algorithm: String,
}

/// One computed column of a COMPUTE clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltColumn {
    /// Aggregate: 0x4B count, 0x4D sum, 0x4F avg, 0x51 min, 0x52 max, 0x30..=0x33 deviations and variances.
    pub op: u8,
    /// Column it is computed of, from 1.
    pub operand: u16,
    /// Type and name.
    pub column: ColumnDef,
}

/// ALTMETADATA [MS-TDS 2.2.7.1].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltMetadata {
    /// Ties ALTROWs to it.
    pub id: u16,
    /// Columns of the BY clause; at most 255.
    pub by: Vec<u16>,
    /// Computed columns.
    pub columns: Vec<AltColumn>,
}

/// One column of COLINFO [MS-TDS 2.2.7.3].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnInfo<'a> {
    /// Column, from 1.
    pub column: u8,
    /// Table in TABNAME, from 1; 0 = an expression.
    pub table: u8,
    /// 0x04 expression, 0x08 key, 0x10 hidden.
    pub status: u8,
    /// The base column's name where it differs; sets 0x20.
    pub base_name: Option<&'a str>,
}

impl TokenBuf {
    /// COLMETADATA for a connection without column encryption.
    ///
    /// # Errors
    /// 65 535 columns or more.
    pub fn col_metadata(&mut self, columns: &[ColumnDef]) -> Result<&mut Self, BuildError> {
        self.metadata(columns, None)
    }

    /// COLMETADATA for a connection where column encryption was acknowledged: the CekTable is there, even if empty.
    ///
    /// # Errors
    /// Too many columns, keys or bytes for a length field.
    pub fn col_metadata_encrypted(
        &mut self,
        columns: &[ColumnDef],
        keys: &[CekEntry],
    ) -> Result<&mut Self, BuildError> {
        self.metadata(columns, Some(keys))
    }

    /// COLMETADATA as a client writes it at the head of a bulk load: the table of a TEXT, NTEXT or IMAGE column is one
    /// string in every version (so SqlClient and FreeTDS write it; [MS-TDS 2.2.6.1] does not say).
    ///
    /// # Errors
    /// 65 535 columns or more.
    pub fn bulk_metadata(&mut self, columns: &[ColumnDef]) -> Result<&mut Self, BuildError> {
        let count = u16::try_from(columns.len()).ok().filter(|n| *n < u16::MAX);
        let count = count.ok_or(BuildError::TooLarge("COLMETADATA"))?;
        self.out.put_u8(COLMETADATA);
        self.out.put_u16_le(count);
        for column in columns {
            put_column(&mut self.out, self.version, column, false);
        }
        Ok(self)
    }

    /// COLMETADATA of count 0xFFFF: the metadata of the prepare still holds [MS-TDS 2.2.7.4].
    pub fn no_metadata(&mut self) -> &mut Self {
        self.out.put_slice(&[COLMETADATA, 0xFF, 0xFF]);
        self
    }

    fn metadata(
        &mut self,
        columns: &[ColumnDef],
        keys: Option<&[CekEntry]>,
    ) -> Result<&mut Self, BuildError> {
        let count = u16::try_from(columns.len()).ok().filter(|n| *n < u16::MAX);
        let count = count.ok_or(BuildError::TooLarge("COLMETADATA"))?;
        self.whole(|out, version| {
            out.put_u8(COLMETADATA);
            out.put_u16_le(count);
            if let Some(keys) = keys {
                put_cek_table(out, keys)?;
            }
            for column in columns {
                put_column(out, version, column, version.has_wide_counts());
            }
            Ok(())
        })
    }

    /// ALTMETADATA.
    ///
    /// # Errors
    /// More columns than the counts can say.
    pub fn alt_metadata(&mut self, metadata: &AltMetadata) -> Result<&mut Self, BuildError> {
        let too_large = BuildError::TooLarge("ALTMETADATA");
        let count = u16::try_from(metadata.columns.len()).map_err(|_| too_large)?;
        let by = u8::try_from(metadata.by.len()).map_err(|_| too_large)?;
        self.whole(|out, version| {
            out.put_u8(ALTMETADATA);
            out.put_u16_le(count);
            out.put_u16_le(metadata.id);
            out.put_u8(by);
            metadata.by.iter().for_each(|c| out.put_u16_le(*c));
            for alt in &metadata.columns {
                out.put_u8(alt.op);
                out.put_u16_le(alt.operand);
                put_column(out, version, &alt.column, version.has_wide_counts());
            }
            Ok(())
        })
    }

    /// ORDER: the columns of ORDER BY, from 1.
    ///
    /// # Errors
    /// More columns than the length can say.
    pub fn order(&mut self, columns: &[u16]) -> Result<&mut Self, BuildError> {
        if columns.len() > usize::from(u16::MAX) / 2 {
            return Err(BuildError::TooLarge("ORDER"));
        }
        Ok(self.sized(ORDER, |out, _| columns.iter().for_each(|c| out.put_u16_le(*c))))
    }

    /// TABNAME: each table's name in parts; before 7.1 revision 1 joined by dots.
    ///
    /// # Errors
    /// More than the length can say.
    pub fn tab_name(&mut self, tables: &[&[&str]]) -> Result<&mut Self, BuildError> {
        self.sized_checked(TABNAME, "TABNAME", |out, version| {
            for parts in tables {
                put_table(out, version >= TdsVersion::V7_1Rev1, parts);
            }
        })
    }

    /// COLINFO.
    ///
    /// # Errors
    /// More than the length can say.
    pub fn col_info(&mut self, columns: &[ColumnInfo<'_>]) -> Result<&mut Self, BuildError> {
        self.sized_checked(COLINFO, "COLINFO", |out, _| {
            for info in columns {
                let named = if info.base_name.is_some() { 0x20 } else { 0 };
                out.put_slice(&[info.column, info.table, info.status | named]);
                if let Some(name) = info.base_name {
                    put_b_varchar(out, name);
                }
            }
        })
    }

    /// OFFSET, 7.0 and 7.1 only.
    pub fn offset(&mut self, id: u16, offset: u16) -> &mut Self {
        self.out.put_u8(OFFSET);
        self.out.put_u16_le(id);
        self.out.put_u16_le(offset);
        self
    }

    fn sized_checked(
        &mut self,
        token: u8,
        what: &'static str,
        body: impl FnOnce(&mut BytesMut, TdsVersion),
    ) -> Result<&mut Self, BuildError> {
        let start = self.out.len();
        self.sized(token, body);
        if self.out.len() - start - 3 > usize::from(u16::MAX) {
            self.out.truncate(start);
            return Err(BuildError::TooLarge(what));
        }
        Ok(self)
    }
}

/// `UserType, Flags, TYPE_INFO, [TableName], [CryptoMetaData], ColName`.
fn put_column(out: &mut BytesMut, version: TdsVersion, column: &ColumnDef, table_in_parts: bool) {
    put_user_type(out, version, column.user_type);
    out.put_u16_le(column.flags.0);
    put_type_info(out, version, &column.ty);
    if column.ty.is_text() {
        put_table(out, table_in_parts, &column.table);
    }
    if let Some(crypto) = &column.crypto {
        out.put_u16_le(crypto.ordinal);
        put_crypto(out, version, crypto);
    }
    put_b_varchar(out, &column.name);
}

/// CryptoMetaData without its ordinal, as RETURNVALUE has it.
pub(super) fn put_crypto(out: &mut BytesMut, version: TdsVersion, crypto: &CryptoMetadata) {
    put_user_type(out, version, crypto.user_type);
    put_type_info(out, version, &crypto.base);
    out.put_u8(crypto.algorithm);
    if crypto.algorithm == 0 {
        put_b_varchar(out, &crypto.algorithm_name);
    }
    out.put_slice(&[crypto.encryption, crypto.normalization]);
}

/// A table name: a count of parts and the parts, or one string.
fn put_table(out: &mut BytesMut, in_parts: bool, parts: &[impl AsRef<str>]) {
    if in_parts {
        out.put_u8(u8::try_from(parts.len()).unwrap_or(u8::MAX));
        for part in parts.iter().take(usize::from(u8::MAX)) {
            put_us_varchar(out, part.as_ref(), PART_MAX);
        }
    } else {
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        put_us_varchar(out, &parts.join("."), PART_MAX * 4);
    }
}

fn put_cek_table(out: &mut BytesMut, keys: &[CekEntry]) -> Result<(), BuildError> {
    let too_large = BuildError::TooLarge("CekTable");
    out.put_u16_le(u16::try_from(keys.len()).map_err(|_| too_large)?);
    for key in keys {
        out.put_u32_le(key.database_id);
        out.put_u32_le(key.cek_id);
        out.put_u32_le(key.cek_version);
        out.put_slice(&key.metadata_version);
        out.put_u8(u8::try_from(key.values.len()).map_err(|_| too_large)?);
        for value in &key.values {
            out.put_u16_le(u16::try_from(value.encrypted_key.len()).map_err(|_| too_large)?);
            out.put_slice(&value.encrypted_key);
            put_b_varchar(out, &value.store);
            put_us_varchar(out, &value.path, usize::from(u16::MAX));
            put_b_varchar(out, &value.algorithm);
        }
    }
    Ok(())
}
