//! Values and their framing in rows, output parameters and sql_variant [MS-TDS 2.2.5.2, 2.2.5.5].

use bytes::{BufMut, BytesMut};

use super::column::{Collation, ColumnType};
use super::type_info::{Framing, decimal_len, fixed_len, framing, put_collation};
use super::{cp1252, patch_u16, put_at};
use crate::data_type::DataType;
use crate::lengths::{Lengths, variant_holds};
use crate::utf16;
use crate::version::TdsVersion;

/// PLP total that says NULL.
const PLP_NULL: u64 = u64::MAX;
/// PLP total that says that the length is not known.
const PLP_UNKNOWN: u64 = u64::MAX - 1;
/// Most bytes of a value with a u16 length: 0xFFFF says NULL.
const SHORT_MAX: usize = 0xFFFE;
/// Text pointer and timestamp that SQL Server itself sends where there is no real one.
const TEXT_POINTER: &[u8; 25] = b"\x10dummy textptr\0\0\0dummyTS\0";

/// A decimal: magnitude and sign. The scale is the column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The number without its point.
    pub magnitude: u128,
    /// Below zero.
    pub negative: bool,
}

impl From<i128> for Decimal {
    fn from(value: i128) -> Self {
        Self {
            magnitude: value.unsigned_abs(),
            negative: value < 0,
        }
    }
}

/// A PLP value in chunks of the caller's choice [MS-TDS 2.2.5.2.3].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plp<'a> {
    /// State the total, or say that it is not known.
    pub known: bool,
    /// Data; empty chunks are left out, because a chunk of length 0 ends the value.
    pub chunks: &'a [&'a [u8]],
}

/// A value of one cell. Borrowed: a row costs no allocation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// NULL; not for fixed types.
    Null,
    /// bit.
    Bool(bool),
    /// tinyint (0..=255), smallint, int, bigint.
    Int(i64),
    /// real, float.
    Float(f64),
    /// money, smallmoney: ten-thousandths.
    Money(i64),
    /// decimal, numeric.
    Decimal(Decimal),
    /// datetime (days since 1900-01-01, 1/300 s) or smalldatetime (days, minutes).
    DateTime {
        /// Days.
        days: i32,
        /// Ticks of 1/300 s, or minutes.
        ticks: u32,
    },
    /// date: days since 0001-01-01.
    Date(u32),
    /// time: units of 10^-scale s.
    Time(u64),
    /// datetime2.
    DateTime2 {
        /// Days since 0001-01-01.
        days: u32,
        /// Units of 10^-scale s.
        ticks: u64,
    },
    /// datetimeoffset; date and time are UTC.
    DateTimeOffset {
        /// Days since 0001-01-01.
        days: u32,
        /// Units of 10^-scale s.
        ticks: u64,
        /// Minutes from UTC.
        minutes: i16,
    },
    /// uniqueidentifier, in wire order.
    Guid([u8; 16]),
    /// Text, for every character type, XML (as UTF-16) and JSON (as UTF-8).
    Str(&'a str),
    /// Bytes as they go on the wire behind the length, for every type; as many as the type has, and those of
    /// sql_variant begin with the inner type byte.
    Bytes(&'a [u8]),
    /// A PLP value with chosen chunks.
    Plp(Plp<'a>),
    /// A float32 vector.
    Vector(&'a [f32]),
    /// sql_variant: the inner type and value.
    Variant(&'a ColumnType, &'a Value<'a>),
}

/// The value does not belong to the type, or is outside its range.
pub(super) struct Misfit;

type Fit = Result<(), Misfit>;

/// Where a value stands: TEXT, NTEXT and IMAGE carry a text pointer in rows only [MS-TDS 2.2.7.24].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// ROW, NBCROW, ALTROW.
    Row,
    /// RETURNVALUE and RPC parameters.
    Bare,
}

/// Appends a value with its framing. May leave half of it behind when it fails; the caller truncates.
pub(super) fn put_value(
    out: &mut BytesMut,
    version: TdsVersion,
    ty: &ColumnType,
    value: &Value<'_>,
    place: Place,
) -> Fit {
    let framing = framing(ty);
    if matches!(value, Value::Null) {
        return put_null(out, framing, place);
    }
    match framing {
        Framing::Fixed => put_payload(out, ty, value),
        Framing::Byte => {
            let at = out.len();
            out.put_u8(0);
            put_payload(out, ty, value)?;
            let len = u8::try_from(out.len() - at - 1).map_err(|_| Misfit)?;
            put_at(out, at, &[len]);
            Ok(())
        }
        Framing::Short => {
            let at = out.len();
            out.put_u16_le(0);
            put_payload(out, ty, value)?;
            if out.len() - at - 2 > SHORT_MAX {
                return Err(Misfit);
            }
            patch_u16(out, at);
            Ok(())
        }
        Framing::Variant => put_variant(out, version, value),
        Framing::Text => {
            if place == Place::Row {
                out.put_slice(TEXT_POINTER);
            }
            let at = out.len();
            out.put_i32_le(0);
            put_payload(out, ty, value)?;
            let len = i32::try_from(out.len() - at - 4).map_err(|_| Misfit)?;
            put_at(out, at, &len.to_le_bytes());
            Ok(())
        }
        Framing::Plp => put_plp(out, ty, value),
    }
}

fn put_null(out: &mut BytesMut, framing: Framing, place: Place) -> Fit {
    match (framing, place) {
        (Framing::Fixed, _) => return Err(Misfit),
        (Framing::Byte, _) | (Framing::Text, Place::Row) => out.put_u8(0),
        (Framing::Short, _) => out.put_u16_le(u16::MAX),
        (Framing::Variant, _) => out.put_u32_le(0),
        (Framing::Text, Place::Bare) => out.put_u32_le(u32::MAX),
        (Framing::Plp, _) => out.put_u64_le(PLP_NULL),
    }
    Ok(())
}

fn put_plp(out: &mut BytesMut, ty: &ColumnType, value: &Value<'_>) -> Fit {
    if let Value::Plp(plp) = value {
        let total: u64 = plp.chunks.iter().map(|c| c.len() as u64).sum();
        begin_plp(out, plp.known.then_some(total));
        for chunk in plp.chunks {
            put_plp_chunk(out, chunk);
        }
        end_plp(out);
        return Ok(());
    }
    let at = out.len();
    out.put_u64_le(0);
    out.put_u32_le(0);
    put_payload(out, ty, value)?;
    let len = out.len() - at - 12;
    put_at(out, at, &(len as u64).to_le_bytes());
    if len == 0 {
        // The chunk length of 0 already stands for the end.
        return Ok(());
    }
    put_at(
        out,
        at + 8,
        &u32::try_from(len).map_err(|_| Misfit)?.to_le_bytes(),
    );
    end_plp(out);
    Ok(())
}

/// Head of a PLP value.
pub(super) fn begin_plp(out: &mut BytesMut, total: Option<u64>) {
    out.put_u64_le(total.unwrap_or(PLP_UNKNOWN));
}

/// One chunk, cut where a u32 cannot say its length.
pub(super) fn put_plp_chunk(out: &mut BytesMut, chunk: &[u8]) {
    for piece in chunk.chunks(usize::try_from(u32::MAX).unwrap_or(usize::MAX)) {
        out.put_u32_le(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        out.put_slice(piece);
    }
}

/// End of a PLP value; also of one with a known total [MS-TDS 2.2.5.2.3].
pub(super) fn end_plp(out: &mut BytesMut) {
    out.put_u32_le(0);
}

/// Appends the data alone, with no length.
fn put_payload(out: &mut BytesMut, ty: &ColumnType, value: &Value<'_>) -> Fit {
    match value {
        Value::Bool(b) if matches!(ty, ColumnType::Bit | ColumnType::BitN) => out.put_u8(u8::from(*b)),
        Value::Int(i) => return put_int(out, ty, *i),
        Value::Float(f) => match ty {
            ColumnType::Real | ColumnType::FloatN(4) => out.put_f32_le(*f as f32),
            ColumnType::Float | ColumnType::FloatN(8) => out.put_f64_le(*f),
            _ => return Err(Misfit),
        },
        Value::Money(m) => return put_money(out, ty, *m),
        Value::Decimal(d) => return put_decimal(out, ty, *d),
        Value::Guid(guid) if *ty == ColumnType::Guid => out.put_slice(guid),
        Value::Str(text) => return put_text(out, ty, text),
        Value::Bytes(bytes) if may_have_len(ty, bytes.len()) => out.put_slice(bytes),
        Value::Vector(numbers) if matches!(ty, ColumnType::Vector { element: 0, .. }) => {
            out.put_slice(&[0xA9, 0x01]);
            out.put_u16_le(u16::try_from(numbers.len()).map_err(|_| Misfit)?);
            out.put_slice(&[0; 4]);
            numbers.iter().for_each(|n| out.put_f32_le(*n));
        }
        _ => return put_moment(out, ty, value),
    }
    Ok(())
}

/// A value that is given as its bytes: whether its type has values of so many.
fn may_have_len(ty: &ColumnType, len: usize) -> bool {
    let scale = match ty {
        ColumnType::Time(scale) | ColumnType::DateTime2(scale) | ColumnType::DateTimeOffset(scale) => *scale,
        _ => 0,
    };
    match framing(ty) {
        Framing::Fixed => fixed_len(ty) == Some(len),
        Framing::Byte => {
            let lengths = DataType::from_byte(ty.byte()).and_then(|ty| Lengths::of(ty, scale));
            u8::try_from(len).is_ok_and(|len| lengths.is_some_and(|lengths| lengths.allow(len)))
        }
        Framing::Short | Framing::Variant | Framing::Text | Framing::Plp => true,
    }
}

fn put_int(out: &mut BytesMut, ty: &ColumnType, value: i64) -> Fit {
    match ty {
        ColumnType::TinyInt | ColumnType::IntN(1) => out.put_u8(value.try_into().map_err(|_| Misfit)?),
        ColumnType::SmallInt | ColumnType::IntN(2) => out.put_i16_le(value.try_into().map_err(|_| Misfit)?),
        ColumnType::Int | ColumnType::IntN(4) => out.put_i32_le(value.try_into().map_err(|_| Misfit)?),
        ColumnType::BigInt | ColumnType::IntN(8) => out.put_i64_le(value),
        _ => return Err(Misfit),
    }
    Ok(())
}

/// money has its high half first [MS-TDS 2.2.5.5.1.4].
fn put_money(out: &mut BytesMut, ty: &ColumnType, value: i64) -> Fit {
    match ty {
        ColumnType::SmallMoney | ColumnType::MoneyN(4) => {
            out.put_i32_le(value.try_into().map_err(|_| Misfit)?)
        }
        ColumnType::Money | ColumnType::MoneyN(8) => {
            let [a, b, c, d, high @ ..] = value.to_le_bytes();
            out.put_slice(&high);
            out.put_slice(&[a, b, c, d]);
        }
        _ => return Err(Misfit),
    }
    Ok(())
}

fn put_decimal(out: &mut BytesMut, ty: &ColumnType, value: Decimal) -> Fit {
    let (ColumnType::DecimalN { precision, .. }
    | ColumnType::NumericN { precision, .. }
    | ColumnType::LegacyDecimal { precision, .. }
    | ColumnType::LegacyNumeric { precision, .. }) = ty
    else {
        return Err(Misfit);
    };
    let most = 10u128.checked_pow(u32::from(*precision)).ok_or(Misfit)?;
    if value.magnitude >= most {
        return Err(Misfit);
    }
    out.put_u8(u8::from(!value.negative));
    let len = usize::from(decimal_len(*precision)) - 1;
    out.put_slice(value.magnitude.to_le_bytes().get(..len).unwrap_or_default());
    Ok(())
}

fn put_text(out: &mut BytesMut, ty: &ColumnType, text: &str) -> Fit {
    let narrow = |out: &mut BytesMut, collation: Collation| {
        if collation.is_utf8() {
            out.put_slice(text.as_bytes());
        } else {
            cp1252::put(out, text);
        }
    };
    match ty {
        ColumnType::NChar(..)
        | ColumnType::NVarChar(..)
        | ColumnType::NVarCharMax(_)
        | ColumnType::NText(_)
        | ColumnType::Xml(_) => utf16::put(out, text),
        ColumnType::Char(_, collation)
        | ColumnType::VarChar(_, collation)
        | ColumnType::VarCharMax(collation)
        | ColumnType::Text(collation) => narrow(out, *collation),
        ColumnType::LegacyChar(_, collation) | ColumnType::LegacyVarChar(_, collation) => {
            narrow(out, collation.unwrap_or(Collation::LATIN1));
        }
        ColumnType::Json => out.put_slice(text.as_bytes()),
        _ => return Err(Misfit),
    }
    Ok(())
}

/// Dates and times.
fn put_moment(out: &mut BytesMut, ty: &ColumnType, value: &Value<'_>) -> Fit {
    match (ty, value) {
        (ColumnType::DateTime | ColumnType::DateTimeN(8), Value::DateTime { days, ticks }) => {
            out.put_i32_le(*days);
            out.put_u32_le(*ticks);
        }
        (ColumnType::SmallDateTime | ColumnType::DateTimeN(4), Value::DateTime { days, ticks }) => {
            out.put_u16_le((*days).try_into().map_err(|_| Misfit)?);
            out.put_u16_le((*ticks).try_into().map_err(|_| Misfit)?);
        }
        (ColumnType::Date, Value::Date(days)) => return put_date(out, *days),
        (ColumnType::Time(scale), Value::Time(ticks)) => return put_time(out, *scale, *ticks),
        (ColumnType::DateTime2(scale), Value::DateTime2 { days, ticks }) => {
            put_time(out, *scale, *ticks)?;
            return put_date(out, *days);
        }
        (ColumnType::DateTimeOffset(scale), Value::DateTimeOffset { days, ticks, minutes }) => {
            put_time(out, *scale, *ticks)?;
            put_date(out, *days)?;
            out.put_i16_le(*minutes);
        }
        _ => return Err(Misfit),
    }
    Ok(())
}

fn put_date(out: &mut BytesMut, days: u32) -> Fit {
    let [a, b, c, high] = days.to_le_bytes();
    if high != 0 {
        return Err(Misfit);
    }
    out.put_slice(&[a, b, c]);
    Ok(())
}

fn put_time(out: &mut BytesMut, scale: u8, ticks: u64) -> Fit {
    let len = match scale {
        0..=2 => 3,
        3..=4 => 4,
        5..=7 => 5,
        _ => return Err(Misfit),
    };
    let bytes = ticks.to_le_bytes();
    let (low, high) = bytes.split_at_checked(len).ok_or(Misfit)?;
    if high.iter().any(|b| *b != 0) {
        return Err(Misfit);
    }
    out.put_slice(low);
    Ok(())
}

/// `u32 length, base type, property bytes, properties, data`; the data has no length of its own [MS-TDS 2.2.5.5.4].
fn put_variant(out: &mut BytesMut, version: TdsVersion, value: &Value<'_>) -> Fit {
    let at = out.len();
    out.put_u32_le(0);
    let (base, inner) = match value {
        Value::Variant(base, inner) => (base, inner),
        Value::Bytes(whole) => {
            out.put_slice(whole);
            let len = u32::try_from(whole.len()).map_err(|_| Misfit)?;
            let head = whole.first_chunk().ok_or(Misfit)?;
            if !variant_holds(u64::from(len), *head) {
                return Err(Misfit);
            }
            put_at(out, at, &len.to_le_bytes());
            return Ok(());
        }
        _ => return Err(Misfit),
    };
    out.put_u8(base.byte());
    out.put_u8(0);
    let properties = out.len();
    match base {
        ColumnType::Time(scale) | ColumnType::DateTime2(scale) | ColumnType::DateTimeOffset(scale) => {
            out.put_u8(*scale)
        }
        ColumnType::Binary(max) | ColumnType::VarBinary(max) => out.put_u16_le(*max),
        ColumnType::DecimalN { precision, scale } | ColumnType::NumericN { precision, scale } => {
            out.put_slice(&[*precision, *scale]);
        }
        ColumnType::Char(max, collation)
        | ColumnType::VarChar(max, collation)
        | ColumnType::NChar(max, collation)
        | ColumnType::NVarChar(max, collation) => {
            put_collation(out, version, *collation);
            out.put_u16_le(*max);
        }
        ColumnType::Guid | ColumnType::Date => {}
        ty if ty.is_fixed() => {}
        _ => return Err(Misfit),
    }
    let len = u8::try_from(out.len() - properties).map_err(|_| Misfit)?;
    put_at(out, properties - 1, &[len]);
    put_payload(out, base, inner)?;
    let len = u32::try_from(out.len() - at - 4).map_err(|_| Misfit)?;
    put_at(out, at, &len.to_le_bytes());
    Ok(())
}
