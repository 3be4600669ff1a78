//! Parameters of RPCs: types and values off the wire into the form that SQLite holds.

use rusqlite::types::Value as Held;
use weir_tds::data_type::DataType;
use weir_tds::request::parameter::{Parameter, ParameterStatus, ParameterValue, value_bytes};
use weir_tds::type_info::{RawValue, TypeInfo};
use weir_tds::version::TdsVersion;

use super::datetime::{DAY_1900, Moment, SECOND};
use super::fault::Fault;
use super::table_types::{TableValue, read_table};
use super::types::{Length, SqlType};
use super::{cast, cell};
use crate::tokens::Message;

/// A parameter as the client sent it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Lower case, with its `@`; empty if it goes by position.
    pub(crate) name: String,
    pub(crate) kind: SqlType,
    pub(crate) value: Held,
    pub(crate) output: bool,
    /// The rows of a table-valued parameter.
    pub(crate) table: Option<TableValue>,
}

/// Reads a parameter.
///
/// # Errors
/// A value that does not fit its type.
pub(super) fn read_parameter(
    parameter: &Parameter<'_>,
    body: &[u8],
    version: TdsVersion,
) -> Result<Sent, Fault> {
    let name = parameter.name().to_lowercase();
    let output = parameter.status.is_output();
    let (kind, value, table) = match parameter.value {
        ParameterValue::Scalar(info, raw) => {
            let kind = kind_of(info);
            (kind, held(info, kind, raw)?, None)
        }
        ParameterValue::Table(_) => {
            let bytes = body.get(parameter.range.0..parameter.range.1).unwrap_or_default();
            (SqlType::TEXT, Held::Null, Some(read_table(bytes, version)?))
        }
    };
    Ok(Sent {
        name,
        kind,
        value,
        output,
        table,
    })
}

/// A value off the wire in the form that SQLite holds.
///
/// # Errors
/// Bytes that are no value of the type.
pub(super) fn held(info: TypeInfo, kind: SqlType, raw: RawValue<'_>) -> Result<Held, Fault> {
    // A value of NULLTYPE has no bytes and is NULL: so drivers send a NULL whose type they do not know.
    if raw.null || info.data_type == DataType::Null {
        return Ok(Held::Null);
    }
    let value = ParameterValue::Scalar(info, raw);
    let as_parameter = Parameter {
        name: &[],
        status: ParameterStatus::default(),
        value,
        range: (0, 0),
    };
    if let Some(text) = as_parameter.text() {
        return Ok(Held::Text(text));
    }
    let bytes = value_bytes(info, raw);
    held_of(info, kind, &bytes).ok_or_else(|| {
        let text = format!(
            "The supplied value is not a valid instance of data type {}.",
            kind.name()
        );
        Message::error(8023, text).into()
    })
}

/// The T-SQL type that a TYPE_INFO says.
pub(super) fn kind_of(info: TypeInfo) -> SqlType {
    let length = |unit: u32| match info.max_len {
        0xFFFF => Length::Max,
        n => Length::Of(u16::try_from(n / unit).unwrap_or(u16::MAX).max(1)),
    };
    let fixed = |unit: u32| u16::try_from(info.max_len / unit).unwrap_or(u16::MAX).max(1);
    match info.data_type {
        DataType::Bit | DataType::BitN => SqlType::Bit,
        DataType::Int1 => SqlType::TinyInt,
        DataType::Int2 => SqlType::SmallInt,
        DataType::Int4 => SqlType::Int,
        DataType::Int8 => SqlType::BigInt,
        DataType::IntN => match info.max_len {
            1 => SqlType::TinyInt,
            2 => SqlType::SmallInt,
            4 => SqlType::Int,
            _ => SqlType::BigInt,
        },
        DataType::Float4 => SqlType::Real,
        DataType::FloatN if info.max_len == 4 => SqlType::Real,
        DataType::Float8 | DataType::FloatN => SqlType::Float,
        DataType::Money4 => SqlType::SmallMoney,
        DataType::MoneyN if info.max_len == 4 => SqlType::SmallMoney,
        DataType::Money | DataType::MoneyN => SqlType::Money,
        DataType::DateTime4 => SqlType::SmallDateTime,
        DataType::DateTimeN if info.max_len == 4 => SqlType::SmallDateTime,
        DataType::DateTime | DataType::DateTimeN => SqlType::DateTime,
        DataType::Decimal | DataType::Numeric | DataType::DecimalN | DataType::NumericN => SqlType::Decimal {
            precision: info.precision,
            scale: info.scale,
        },
        DataType::Date => SqlType::Date,
        DataType::Time => SqlType::Time(info.scale),
        DataType::DateTime2 => SqlType::DateTime2(info.scale),
        DataType::DateTimeOffset => SqlType::DateTimeOffset(info.scale),
        DataType::Guid => SqlType::Guid,
        DataType::BigVarChar | DataType::VarChar => SqlType::VarChar(length(1)),
        DataType::BigChar | DataType::Char => SqlType::Char(fixed(1)),
        DataType::NChar => SqlType::NChar(fixed(2)),
        DataType::BigVarBinary | DataType::VarBinary => SqlType::VarBinary(length(1)),
        DataType::BigBinary | DataType::Binary => SqlType::Binary(fixed(1)),
        DataType::Text => SqlType::VarChar(Length::Max),
        DataType::NText | DataType::Xml => SqlType::NVarChar(Length::Max),
        DataType::Image => SqlType::VarBinary(Length::Max),
        _ => SqlType::NVarChar(length(2)),
    }
}

/// A value's bytes into the form that SQLite holds; `None` if they do not fit the type.
fn held_of(info: TypeInfo, kind: SqlType, bytes: &[u8]) -> Option<Held> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |n, b| (n << 8) | u64::from(*b));
    let signed = || match *bytes {
        [a] => Some(i64::from(a)),
        [a, b] => Some(i64::from(i16::from_le_bytes([a, b]))),
        [a, b, c, d] => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
        [a, b, c, d, e, f, g, h] => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    };
    Some(match kind {
        SqlType::Bit | SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => {
            Held::Integer(signed()?)
        }
        SqlType::Real => Held::Real(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        SqlType::Float => Held::Real(f64::from_le_bytes(bytes.try_into().ok()?)),
        SqlType::SmallMoney => Held::Text(cell::print_decimal(i128::from(signed()?), 4)),
        SqlType::Money => {
            let (high, low) = bytes.split_at_checked(4)?;
            let value = ((number(high) << 32) | number(low)) as i64;
            Held::Text(cell::print_decimal(i128::from(value), 4))
        }
        SqlType::Decimal { scale, .. } => {
            let (sign, digits) = bytes.split_first()?;
            let magnitude = digits
                .iter()
                .rev()
                .try_fold(0_u128, |n, b| n.checked_mul(256)?.checked_add(u128::from(*b)))?;
            let value = i128::try_from(magnitude).ok()?;
            cast::exact(if *sign == 0 { -value } else { value }, scale)
        }
        kind if kind.is_moment() => Held::Text(cast::print_moment(moment_of(info, kind, bytes)?, kind)),
        SqlType::Guid => Held::Text(cell::print_guid(cell::swap_guid(bytes.try_into().ok()?))),
        _ => Held::Blob(bytes.to_vec()),
    })
}

/// An unsigned little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))
}

/// Units of 10^-scale s as ticks of 100 ns.
fn scaled(info: TypeInfo, units: u64) -> Option<i64> {
    i64::try_from(units)
        .ok()?
        .checked_mul(10_i64.pow(u32::from(7 - info.scale.min(7))))
}

/// A date, a time or both from their bytes.
fn moment_of(info: TypeInfo, kind: SqlType, bytes: &[u8]) -> Option<Moment> {
    Some(match kind {
        SqlType::Date => Moment::at(i64::try_from(number(bytes)).ok()?, 0, 0),
        SqlType::Time(_) => Moment::at(DAY_1900, scaled(info, number(bytes))?, 0),
        SqlType::DateTime2(_) => {
            let (time, day) = bytes.split_at_checked(bytes.len().checked_sub(3)?)?;
            Moment::at(i64::try_from(number(day)).ok()?, scaled(info, number(time))?, 0)
        }
        SqlType::DateTimeOffset(_) => {
            let (rest, offset) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
            let (time, day) = rest.split_at_checked(rest.len().checked_sub(3)?)?;
            let offset = i16::from_le_bytes(offset.try_into().ok()?);
            let utc = Moment {
                day: i64::try_from(number(day)).ok()?,
                ticks: scaled(info, number(time))?,
                offset: 0,
            };
            let local = Moment::from_total(utc.total() + i64::from(offset) * 60 * SECOND, offset);
            Moment::at(local.day, local.ticks, offset)
        }
        SqlType::DateTime => {
            let (days, ticks) = bytes.split_at_checked(4)?;
            let days = i32::from_le_bytes(days.try_into().ok()?);
            Moment::at(
                DAY_1900 + i64::from(days),
                (i64::try_from(number(ticks)).ok()? * 10 + 1) / 3 * 10_000,
                0,
            )
        }
        SqlType::SmallDateTime => {
            let (days, minutes) = bytes.split_at_checked(2)?;
            let ticks = i64::try_from(number(minutes)).ok()? * 60 * SECOND;
            Moment::at(DAY_1900 + i64::try_from(number(days)).ok()?, ticks, 0)
        }
        _ => return None,
    })
}
