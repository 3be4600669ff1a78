//! Parameters of RPC requests [MS-TDS 2.2.6.6], table-valued ones included [MS-TDS 2.2.5.5.5].

use crate::data_type::DataType;
use crate::error::WireErrorKind;
use crate::read::{Fail, Reader};
use crate::type_info::{Framing, Place, RawValue, TypeInfo};
use crate::utf16;
use crate::version::TdsVersion;

/// Most columns of a table-valued parameter [MS-TDS 2.2.5.5.5.1].
pub const TABLE_COLUMNS_MAX: u16 = 1024;

/// Type byte of a table-valued parameter.
pub(super) const TABLE: u8 = 0xF3;
/// Column count of a table that is NULL.
const NULL_TABLE: u16 = 0xFFFF;
/// Column flag: no row has a value for the column.
const COLUMN_DEFAULT: u16 = 0x0200;
pub(super) const TABLE_END: u8 = 0x00;
pub(super) const TABLE_ROW: u8 = 0x01;
pub(super) const TABLE_ORDER_UNIQUE: u8 = 0x10;
pub(super) const TABLE_COLUMN_ORDER: u8 = 0x11;

/// StatusFlags of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParameterStatus(pub u8);

impl ParameterStatus {
    /// An output parameter.
    #[must_use]
    pub const fn is_output(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// The default is meant; type and value are there all the same. JDBC sets it on a NULL table.
    #[must_use]
    pub const fn is_default(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// The value is encrypted and followed by its cipher's description.
    #[must_use]
    pub const fn is_encrypted(self) -> bool {
        self.0 & 0x08 != 0
    }
}

/// A table-valued parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    /// Schema of its type, as UTF-16LE.
    pub schema: &'a [u8],
    /// Name of its type, as UTF-16LE.
    pub name: &'a [u8],
    /// The table itself is NULL.
    pub null: bool,
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u64,
}

/// A parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterValue<'a> {
    /// Of a plain type.
    Scalar(TypeInfo, RawValue<'a>),
    /// A table.
    Table(Table<'a>),
}

/// A parameter, borrowed from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name with the `@`, as UTF-16LE; mostly empty for the numbered procedures.
    pub name: &'a [u8],
    /// Its status.
    pub status: ParameterStatus,
    /// Its value.
    pub value: ParameterValue<'a>,
    /// Where in the body it begins and ends.
    pub range: (usize, usize),
}

impl<'a> Parameter<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        utf16::decode(self.name)
    }

    /// Its text if it is of a character type and not NULL. UTF-16 types are decoded; of the others every byte is taken
    /// for UTF-8 if the collation says so, else for Latin-1. Allocates at most 2 × the value.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let ParameterValue::Scalar(info, value) = self.value else {
            return None;
        };
        if value.null {
            return None;
        }
        let bytes = value_bytes(info, value);
        match info.data_type {
            DataType::NVarChar | DataType::NChar | DataType::NText | DataType::Xml => {
                Some(utf16::decode(&bytes))
            }
            DataType::BigVarChar
            | DataType::BigChar
            | DataType::Text
            | DataType::VarChar
            | DataType::Char => {
                let utf8 = info
                    .collation
                    .is_some_and(|c| crate::build::Collation(c).is_utf8());
                Some(if utf8 {
                    String::from_utf8_lossy(&bytes).into_owned()
                } else {
                    bytes.iter().map(|b| char::from(*b)).collect()
                })
            }
            DataType::Json => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        }
    }

    /// Its number if it is of an integer type and not NULL: handles of prepared statements and cursors.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        let ParameterValue::Scalar(info, value) = self.value else {
            return None;
        };
        if value.null
            || !matches!(
                info.data_type,
                DataType::IntN | DataType::Int1 | DataType::Int2 | DataType::Int4 | DataType::Int8
            )
        {
            return None;
        }
        match *value.data {
            [a] => Some(i64::from(a)),
            [a, b] => Some(i64::from(i16::from_le_bytes([a, b]))),
            [a, b, c, d] => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
            [a, b, c, d, e, f, g, h] => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        }
    }
}

/// A value's bytes without any framing; those of a PLP value are put together.
#[must_use]
pub fn value_bytes<'a>(info: TypeInfo, value: RawValue<'a>) -> std::borrow::Cow<'a, [u8]> {
    if info.framing != Framing::Plp || value.null {
        return value.data.into();
    }
    let mut whole = Vec::with_capacity(value.data.len());
    let mut chunks = Reader::new(value.data, 0);
    while let Ok(chunk) = chunks.l_varbyte() {
        whole.extend_from_slice(chunk);
    }
    whole.into()
}

/// Reads a parameter: name, status, type, value, and what an encrypted one carries behind it.
pub(super) fn read_parameter<'a>(r: &mut Reader<'a>, version: TdsVersion) -> Result<Parameter<'a>, Fail> {
    let start = r.at();
    let name = r.b_varchar()?;
    let status = ParameterStatus(r.u8()?);
    let value = if r.peek() == Some(TABLE) {
        r.u8()?;
        if status.is_encrypted() {
            return Err(r.bad(1, ENCRYPTED_TABLE));
        }
        ParameterValue::Table(read_table(r, version)?)
    } else {
        let info = TypeInfo::read(r, version, Place::Parameter)?;
        ParameterValue::Scalar(info, info.framing.read_value(r)?)
    };
    if status.is_encrypted() {
        read_cipher_info(r, version)?;
    }
    Ok(Parameter {
        name,
        status,
        value,
        range: (start, r.at()),
    })
}

/// A table cannot be encrypted as a whole: there is no plain type of it that ParamCipherInfo could name [MS-TDS 2.2.6.6].
/// Servers and readers that went on would differ in where the next parameter begins.
pub(super) const ENCRYPTED_TABLE: WireErrorKind =
    WireErrorKind::Invalid("an encrypted table-valued parameter");

/// ParamCipherInfo: plain type, algorithm, type, key (database, id, version, metadata version), normalization.
pub(super) fn read_cipher_info(r: &mut Reader<'_>, version: TdsVersion) -> Result<(), Fail> {
    TypeInfo::read(r, version, Place::Parameter)?;
    if r.u8()? == 0 {
        r.b_varchar()?;
    }
    r.array::<22>().map(|_| ())
}

fn read_table<'a>(r: &mut Reader<'a>, version: TdsVersion) -> Result<Table<'a>, Fail> {
    r.b_varchar()?;
    let (schema, name) = (r.b_varchar()?, r.b_varchar()?);
    let null = r.clone().u16()? == NULL_TABLE;
    let columns = read_column_count(r)?;
    let framings = read_columns(r, version, columns)?;
    let order = read_optional_metadata(r, columns)?;
    let framings = reorder(framings, order);
    let mut rows = 0u64;
    loop {
        match r.u8()? {
            TABLE_END => {
                return Ok(Table {
                    schema,
                    name,
                    null,
                    columns,
                    rows,
                });
            }
            TABLE_ROW => {
                for framing in framings.iter().flatten() {
                    framing.read_value(r)?;
                }
                rows += 1;
            }
            other => return Err(r.bad(1, WireErrorKind::Token(other))),
        }
    }
}

/// Columns of a table; none if it is NULL.
pub(super) fn read_column_count(r: &mut Reader<'_>) -> Result<u16, Fail> {
    match r.u16()? {
        NULL_TABLE => Ok(0),
        count if count > TABLE_COLUMNS_MAX => {
            let limit = u64::from(TABLE_COLUMNS_MAX);
            let what = "the columns of a table-valued parameter";
            Err(r.bad(2, WireErrorKind::TooLarge { what, limit }))
        }
        count => Ok(count),
    }
}

/// One framing per column; `None` for those that no row has a value for. At most [`TABLE_COLUMNS_MAX`] of 8 bytes.
fn read_columns(r: &mut Reader<'_>, version: TdsVersion, columns: u16) -> Result<Vec<Option<Framing>>, Fail> {
    (0..columns).map(|_column| read_column(r, version)).collect()
}

/// How the values of one column are framed; `None` if no row has one.
pub(super) fn read_column(r: &mut Reader<'_>, version: TdsVersion) -> Result<Option<Framing>, Fail> {
    r.u32()?;
    let flags = r.u16()?;
    let info = TypeInfo::read(r, version, Place::Parameter)?;
    r.b_varchar()?;
    Ok((flags & COLUMN_DEFAULT == 0).then_some(info.framing))
}

/// TVP_ORDER_UNIQUE and TVP_COLUMN_ORDERING, each at most once, in any order; the column numbers of the second.
fn read_optional_metadata<'a>(r: &mut Reader<'a>, columns: u16) -> Result<&'a [u8], Fail> {
    let mut order: Option<&[u8]> = None;
    let mut unique = false;
    loop {
        match r.u8()? {
            TABLE_END => return Ok(order.unwrap_or_default()),
            TABLE_ORDER_UNIQUE if !unique => {
                unique = true;
                let n = usize::from(r.u16()?);
                r.take(n * 3)?;
            }
            TABLE_COLUMN_ORDER if order.is_none() => {
                let n = r.u16()?;
                if n != columns {
                    return Err(r.bad(2, INCOMPLETE_ORDER));
                }
                order = Some(r.take(usize::from(n) * 2)?);
            }
            other => return Err(r.bad(1, WireErrorKind::Token(other))),
        }
    }
}

/// A column ordering that is shorter or longer than the table.
pub(super) const INCOMPLETE_ORDER: WireErrorKind =
    WireErrorKind::Invalid("a column ordering that does not name every column");

/// Puts the framings into the order of the values. A number out of range keeps the order of the columns: the server
/// judges it, the gate only steps over the values.
pub(super) fn reorder<T: Copy>(framings: Vec<T>, order: &[u8]) -> Vec<T> {
    let (numbers, _) = order.as_chunks::<2>();
    if numbers.is_empty() {
        return framings;
    }
    let pick = |number: &[u8; 2]| {
        let index = usize::from(u16::from_le_bytes(*number)).checked_sub(1)?;
        framings.get(index).copied()
    };
    numbers
        .iter()
        .map(pick)
        .collect::<Option<Vec<_>>>()
        .unwrap_or(framings)
}
