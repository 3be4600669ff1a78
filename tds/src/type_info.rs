//! TYPE_INFO [MS-TDS 2.2.5.6]: how a value's bytes are framed, and the reader of both forms (result columns; RPC and TVP).

use crate::data_type::DataType;
use crate::error::WireErrorKind;
use crate::lengths::{Lengths, variant_holds};
use crate::read::{Fail, Reader};
use crate::version::TdsVersion;

/// How a value stands on the wire: all that is needed to step over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes, no length, never NULL.
    Fixed(u8),
    /// u8 length, one of these; 0 is NULL.
    Byte(Lengths),
    /// u16 length; 0xFFFF is NULL.
    UShort,
    /// u32 length; 0 is NULL (sql_variant, of any inside).
    Long,
    /// The same of a sql_variant that is as long as the type in it.
    Variant,
    /// TEXT family in a row: u8 length of a text pointer (0 is NULL), pointer, 8 bytes of timestamp, i32 length.
    TextPtr,
    /// TEXT family outside a row (RPC, RETURNVALUE, TVP): i32 length; -1 is NULL.
    LongText,
    /// Partially length-prefixed [MS-TDS 2.2.5.2.3]: u64 total, u32-counted chunks, an empty chunk.
    Plp,
}

/// Where a TYPE_INFO stands: the forms differ for UDT and for the TEXT family's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A column of COLMETADATA or ALTMETADATA.
    Column,
    /// A column of a client's bulk load.
    BulkColumn,
    /// RETURNVALUE: names of a column's UDT, TEXT values without text pointer.
    ReturnValue,
    /// A parameter of an RPC, or a column of a table-valued parameter.
    Parameter,
}

/// A data type with its lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeInfo {
    /// The type byte.
    pub data_type: DataType,
    /// How values are framed.
    pub framing: Framing,
    /// Stated maximum length of a value in bytes; 0xFFFF means "MAX" for PLP types; 0 where the type states none.
    pub max_len: u32,
    /// Precision of decimal and numeric.
    pub precision: u8,
    /// Scale of decimal, numeric and the time types; dimension type of vector.
    pub scale: u8,
    /// Collation of character types from TDS 7.1 on.
    pub collation: Option<[u8; 5]>,
}

impl TypeInfo {
    /// Reads the type byte and what follows it.
    ///
    /// # Errors
    /// Bytes missing, a data type that MS-TDS does not define, a length or scale that it does not have, or the character types of TDS 7.0 on a newer stream
    /// (sources differ on whether a collation follows them there, so such a stream cannot be metered).
    pub fn read(r: &mut Reader<'_>, version: TdsVersion, place: Place) -> Result<Self, Fail> {
        let byte = r.u8()?;
        let data_type = DataType::from_byte(byte).ok_or_else(|| r.bad(1, WireErrorKind::DataType(byte)))?;
        let mut info = Self {
            data_type,
            framing: Framing::Byte(Lengths::ANY),
            max_len: 0,
            precision: 0,
            scale: 0,
            collation: None,
        };
        info.read_rest(r, version, place)?;
        Ok(info)
    }

    fn read_rest(&mut self, r: &mut Reader<'_>, version: TdsVersion, place: Place) -> Result<(), Fail> {
        use DataType as T;
        match self.data_type {
            T::Null => self.fixed(0),
            T::Int1 | T::Bit => self.fixed(1),
            T::Int2 => self.fixed(2),
            T::Int4 | T::DateTime4 | T::Float4 | T::Money4 => self.fixed(4),
            T::Money | T::DateTime | T::Float8 | T::Int8 => self.fixed(8),
            T::Date => {
                self.max_len = 3;
                self.limit_lengths(r, place, 0)?;
            }
            T::Guid | T::IntN | T::BitN | T::FloatN | T::MoneyN | T::DateTimeN | T::VarBinary | T::Binary => {
                self.max_len = u32::from(r.u8()?);
                self.limit_lengths(r, place, 1)?;
            }
            T::VarChar | T::Char => {
                if version > TdsVersion::V7_0 {
                    return Err(r.bad(1, WireErrorKind::LegacyDataType(self.data_type.byte())));
                }
                self.max_len = u32::from(r.u8()?);
            }
            T::Time | T::DateTime2 | T::DateTimeOffset => {
                self.scale = r.u8()?;
                self.limit_lengths(r, place, 1)?;
            }
            T::Decimal | T::Numeric | T::DecimalN | T::NumericN => {
                let [len, precision, scale] = r.array()?;
                (self.max_len, self.precision, self.scale) = (u32::from(len), precision, scale);
                self.limit_lengths(r, place, 3)?;
            }
            T::BigVarBinary | T::BigVarChar | T::NVarChar => self.ushort(r, version, true)?,
            T::BigBinary | T::BigChar | T::NChar => self.ushort(r, version, false)?,
            T::Vector => {
                self.ushort(r, version, false)?;
                self.scale = r.u8()?;
            }
            T::Variant => {
                self.max_len = r.u32()?;
                // As with the lengths of other types, a parameter is the server's to judge.
                self.framing = match place {
                    Place::Parameter => Framing::Long,
                    Place::Column | Place::BulkColumn | Place::ReturnValue => Framing::Variant,
                };
            }
            T::Image | T::Text | T::NText => self.lob(r, version, place)?,
            T::Json => self.framing = Framing::Plp,
            T::Xml => self.xml(r)?,
            T::Udt => self.udt(r, place)?,
            T::Table => return Err(r.bad(1, WireErrorKind::DataType(self.data_type.byte()))),
        }
        Ok(())
    }

    /// Which lengths the values may have, now that `read` bytes of length or scale were read.
    ///
    /// Not of parameters: drivers write decimals as short as they are (jTDS, FreeTDS, the JDBC driver), servers judge what they
    /// are sent, and nothing that is counted depends on it. What a bulk load states for its decimals is not looked at either:
    /// mssql-tds, and the driver in mssql-python, write the type's byte once more there. Its values are.
    fn limit_lengths(&mut self, r: &Reader<'_>, place: Place, read: usize) -> Result<(), Fail> {
        use DataType as T;
        let is_decimal = matches!(
            self.data_type,
            T::Decimal | T::Numeric | T::DecimalN | T::NumericN
        );
        let lengths = match place {
            Place::Parameter => return Ok(()),
            Place::BulkColumn if is_decimal => Some(Lengths::UPLOADED_DECIMAL),
            Place::Column | Place::BulkColumn | Place::ReturnValue => Lengths::of(self.data_type, self.scale),
        };
        // The length is a byte everywhere here; that of a time type is not stated.
        let stated = u8::try_from(self.max_len).unwrap_or(u8::MAX);
        let is_time = matches!(self.data_type, T::Time | T::DateTime2 | T::DateTimeOffset);
        match lengths {
            Some(lengths)
                if is_time
                    || lengths == Lengths::ANY
                    || is_decimal && place == Place::BulkColumn
                    || (stated > 0 && lengths.allow(stated)) =>
            {
                self.framing = Framing::Byte(lengths);
                Ok(())
            }
            _ => {
                let stated = if is_time { self.scale } else { stated };
                let data_type = self.data_type.byte();
                Err(r.bad(read, WireErrorKind::TypeLength { data_type, stated }))
            }
        }
    }

    fn fixed(&mut self, len: u8) {
        self.framing = Framing::Fixed(len);
        self.max_len = u32::from(len);
    }

    fn ushort(&mut self, r: &mut Reader<'_>, version: TdsVersion, may_be_max: bool) -> Result<(), Fail> {
        let max = r.u16()?;
        self.max_len = u32::from(max);
        self.framing = if may_be_max && max == 0xFFFF {
            Framing::Plp
        } else {
            Framing::UShort
        };
        if matches!(
            self.data_type,
            DataType::BigVarChar | DataType::BigChar | DataType::NVarChar | DataType::NChar
        ) {
            self.read_collation(r, version)?;
        }
        Ok(())
    }

    fn lob(&mut self, r: &mut Reader<'_>, version: TdsVersion, place: Place) -> Result<(), Fail> {
        self.max_len = r.u32()?;
        self.framing = if matches!(place, Place::Column | Place::BulkColumn) {
            Framing::TextPtr
        } else {
            Framing::LongText
        };
        if self.data_type != DataType::Image {
            self.read_collation(r, version)?;
        }
        Ok(())
    }

    fn xml(&mut self, r: &mut Reader<'_>) -> Result<(), Fail> {
        self.framing = Framing::Plp;
        match r.u8()? {
            0 => {}
            1 => {
                r.b_varchar()?;
                r.b_varchar()?;
                r.us_varchar()?;
            }
            _ => return Err(r.bad(1, WireErrorKind::Invalid("XML schema flag is neither 0 nor 1"))),
        }
        Ok(())
    }

    fn udt(&mut self, r: &mut Reader<'_>, place: Place) -> Result<(), Fail> {
        self.framing = Framing::Plp;
        if place != Place::Parameter {
            self.max_len = u32::from(r.u16()?);
        }
        for _name in ["database", "schema", "type"] {
            r.b_varchar()?;
        }
        if place != Place::Parameter {
            r.us_varchar()?;
        }
        Ok(())
    }

    fn read_collation(&mut self, r: &mut Reader<'_>, version: TdsVersion) -> Result<(), Fail> {
        if version > TdsVersion::V7_0 {
            self.collation = Some(r.array()?);
        }
        Ok(())
    }
}

/// A value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawValue<'a> {
    /// True for NULL; `data` is empty then.
    pub null: bool,
    /// The value's bytes without its length or text pointer. For PLP: the chunks with their lengths, terminator included.
    pub data: &'a [u8],
}

impl Framing {
    /// Steps over one whole value.
    ///
    /// # Errors
    /// Bytes missing; a length that the type does not have; a negative length; PLP chunks that do not add up to the stated total.
    pub fn read_value<'a>(self, r: &mut Reader<'a>) -> Result<RawValue<'a>, Fail> {
        const NULL: RawValue<'static> = RawValue {
            null: true,
            data: &[],
        };
        let value = |data| Ok(RawValue { null: false, data });
        match self {
            Self::Fixed(n) => value(r.take(usize::from(n))?),
            Self::Byte(lengths) => match r.u8()? {
                0 => Ok(NULL),
                n if !lengths.allow(n) => Err(r.bad(1, WireErrorKind::ValueLength(n))),
                n => value(r.take(usize::from(n))?),
            },
            Self::UShort => match r.u16()? {
                0xFFFF => Ok(NULL),
                n => value(r.take(usize::from(n))?),
            },
            Self::Long => match r.u32()? {
                0 => Ok(NULL),
                n => value(r.take(usize::try_from(n).unwrap_or(usize::MAX))?),
            },
            Self::Variant => match r.u32()? {
                0 => Ok(NULL),
                n => {
                    let data = r.take(usize::try_from(n).unwrap_or(usize::MAX))?;
                    match data.first_chunk() {
                        Some(head) if variant_holds(u64::from(n), *head) => value(data),
                        _ => Err(r.bad(data.len(), VARIANT_LENGTH)),
                    }
                }
            },
            Self::LongText => match r.u32()? {
                u32::MAX => Ok(NULL),
                n => value(r.take(long_len(r, n)?)?),
            },
            Self::TextPtr => match r.u8()? {
                0 => Ok(NULL),
                n => {
                    r.take(usize::from(n).saturating_add(TEXT_TIMESTAMP_LEN))?;
                    let n = r.u32()?;
                    value(r.take(long_len(r, n)?)?)
                }
            },
            Self::Plp => read_plp(r),
        }
    }
}

/// Bytes of the timestamp between a text pointer and its length.
pub(crate) const TEXT_TIMESTAMP_LEN: usize = 8;
/// PLP total that means NULL.
pub(crate) const PLP_NULL: u64 = u64::MAX;
/// PLP total that means "not known".
pub(crate) const PLP_UNKNOWN: u64 = u64::MAX - 1;

/// A length of the TEXT family, which is signed: negative is an error.
pub(crate) const NEGATIVE_LENGTH: WireErrorKind =
    WireErrorKind::Invalid("a text value has a negative length");
/// A sql_variant whose length is not that of the type in it.
pub(crate) const VARIANT_LENGTH: WireErrorKind =
    WireErrorKind::Invalid("a sql_variant of a length that the type in it does not have");
/// Chunks and total of a PLP value differ.
pub(crate) const PLP_MISMATCH: WireErrorKind =
    WireErrorKind::Invalid("the chunks of a PLP value do not add up to its stated length");

fn long_len(r: &Reader<'_>, n: u32) -> Result<usize, Fail> {
    i32::try_from(n)
        .ok()
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| r.bad(4, NEGATIVE_LENGTH))
}

fn read_plp<'a>(r: &mut Reader<'a>) -> Result<RawValue<'a>, Fail> {
    let total = r.u64()?;
    if total == PLP_NULL {
        return Ok(RawValue {
            null: true,
            data: &[],
        });
    }
    let mut chunks = r.clone();
    let start = r.at();
    let mut seen = 0u64;
    loop {
        let n = r.u32()?;
        if n == 0 {
            break;
        }
        seen = seen.saturating_add(u64::from(n));
        if total != PLP_UNKNOWN && seen > total {
            return Err(r.bad(4, PLP_MISMATCH));
        }
        r.take(usize::try_from(n).unwrap_or(usize::MAX))?;
    }
    if total != PLP_UNKNOWN && seen != total {
        return Err(r.bad(4, PLP_MISMATCH));
    }
    let data = chunks.take(r.at().saturating_sub(start))?;
    Ok(RawValue { null: false, data })
}
