//! TYPE_INFO of a [`ColumnType`] [MS-TDS 2.2.5.6], and the framing class of its values.

use bytes::{BufMut, BytesMut};

use super::column::{Collation, ColumnType};
use super::{put_b_varchar, put_us_varchar};
use crate::version::TdsVersion;

/// Max length that SQL Server states for sql_variant.
const VARIANT_MAX: u32 = 8009;

/// How a value is framed in a row [MS-TDS 2.2.5.4].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No length, never null.
    Fixed,
    /// A byte of length; 0 = null.
    Byte,
    /// A u16 of length; 0xFFFF = null.
    Short,
    /// A u32 of length; 0 = null.
    Variant,
    /// Text pointer, then an i32 of length.
    Text,
    /// Partially length-prefixed.
    Plp,
}

pub(super) const fn framing(ty: &ColumnType) -> Framing {
    match ty {
        ty if ty.is_fixed() => Framing::Fixed,
        ty if ty.is_plp() => Framing::Plp,
        ty if ty.is_text() => Framing::Text,
        ColumnType::Variant => Framing::Variant,
        ColumnType::Char(..)
        | ColumnType::VarChar(..)
        | ColumnType::NChar(..)
        | ColumnType::NVarChar(..)
        | ColumnType::Binary(_)
        | ColumnType::VarBinary(_)
        | ColumnType::Vector { .. } => Framing::Short,
        _ => Framing::Byte,
    }
}

/// Bytes of a fixed type's value; `None` for the others.
pub(super) const fn fixed_len(ty: &ColumnType) -> Option<usize> {
    match ty {
        ColumnType::TinyInt | ColumnType::Bit => Some(1),
        ColumnType::SmallInt => Some(2),
        ColumnType::Int | ColumnType::Real | ColumnType::SmallMoney | ColumnType::SmallDateTime => Some(4),
        ColumnType::BigInt | ColumnType::Float | ColumnType::Money | ColumnType::DateTime => Some(8),
        _ => None,
    }
}

/// Bytes of a decimal of `precision` on the wire, its sign byte included.
pub(super) const fn decimal_len(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

/// Appends the type byte and what follows it.
pub(super) fn put_type_info(out: &mut BytesMut, version: TdsVersion, ty: &ColumnType) {
    out.put_u8(ty.byte());
    match ty {
        ColumnType::IntN(n) | ColumnType::FloatN(n) | ColumnType::MoneyN(n) | ColumnType::DateTimeN(n) => {
            out.put_u8(*n)
        }
        ColumnType::BitN => out.put_u8(1),
        ColumnType::Guid => out.put_u8(16),
        ColumnType::Time(scale) | ColumnType::DateTime2(scale) | ColumnType::DateTimeOffset(scale) => {
            out.put_u8(*scale)
        }
        ColumnType::DecimalN { precision, scale }
        | ColumnType::NumericN { precision, scale }
        | ColumnType::LegacyDecimal { precision, scale }
        | ColumnType::LegacyNumeric { precision, scale } => {
            out.put_slice(&[decimal_len(*precision), *precision, *scale]);
        }
        ColumnType::Char(max, collation)
        | ColumnType::VarChar(max, collation)
        | ColumnType::NChar(max, collation)
        | ColumnType::NVarChar(max, collation) => {
            out.put_u16_le(*max);
            put_collation(out, version, *collation);
        }
        ColumnType::VarCharMax(collation) | ColumnType::NVarCharMax(collation) => {
            out.put_u16_le(u16::MAX);
            put_collation(out, version, *collation);
        }
        ColumnType::Binary(max) | ColumnType::VarBinary(max) => out.put_u16_le(*max),
        ColumnType::VarBinaryMax => out.put_u16_le(u16::MAX),
        ColumnType::Text(collation) => {
            out.put_u32_le(0x7FFF_FFFF);
            put_collation(out, version, *collation);
        }
        ColumnType::NText(collation) => {
            out.put_u32_le(0x7FFF_FFFE);
            put_collation(out, version, *collation);
        }
        ColumnType::Image => out.put_u32_le(0x7FFF_FFFF),
        ColumnType::Variant => out.put_u32_le(VARIANT_MAX),
        ColumnType::Vector { max, element } => {
            out.put_u16_le(*max);
            out.put_u8(*element);
        }
        ColumnType::LegacyChar(max, collation) | ColumnType::LegacyVarChar(max, collation) => {
            out.put_u8(*max);
            if let Some(collation) = collation {
                put_collation(out, version, *collation);
            }
        }
        ColumnType::LegacyBinary(max) | ColumnType::LegacyVarBinary(max) => out.put_u8(*max),
        ColumnType::Xml(_) | ColumnType::Udt { .. } => put_named(out, ty),
        _ => {}
    }
}

fn put_named(out: &mut BytesMut, ty: &ColumnType) {
    match ty {
        ColumnType::Xml(None) => out.put_u8(0),
        ColumnType::Xml(Some(names)) => {
            out.put_u8(1);
            put_b_varchar(out, &names.database);
            put_b_varchar(out, &names.schema);
            put_us_varchar(out, &names.collection, usize::from(u16::MAX));
        }
        ColumnType::Udt {
            max,
            database,
            schema,
            name,
            assembly,
        } => {
            out.put_u16_le(*max);
            put_b_varchar(out, database);
            put_b_varchar(out, schema);
            put_b_varchar(out, name);
            put_us_varchar(out, assembly, usize::from(u16::MAX));
        }
        _ => {}
    }
}

/// 5 bytes, absent in 7.0.
pub(super) fn put_collation(out: &mut BytesMut, version: TdsVersion, collation: Collation) {
    if version > TdsVersion::V7_0 {
        out.put_slice(&collation.0);
    }
}
