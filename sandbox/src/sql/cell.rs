//! From what SQLite holds to what the wire carries, by the column's T-SQL type; and the limits on the way.

use rusqlite::types::{Value as Held, ValueRef};
use weir_tds::build::{Decimal, Value};

use super::datetime::{DAY, DAY_1900, Moment};
use super::types::{Length, SqlType};

/// A value that its type cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit;

/// Bytes made for a value that SQLite holds in another form.
pub(crate) type Scratch = Vec<u8>;

/// The value for the wire; borrows from the row, or from `scratch` where a number is told as text.
pub(crate) fn to_wire<'a>(
    held: ValueRef<'a>,
    kind: SqlType,
    scratch: &'a mut Scratch,
) -> Result<Value<'a>, Misfit> {
    if matches!(held, ValueRef::Null) {
        return Ok(Value::Null);
    }
    if kind.is_moment() {
        return moment(text_of(held)?, kind);
    }
    match kind {
        SqlType::Bit => Ok(Value::Bool(number(held)? != 0.0)),
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => {
            integer(held).map(Value::Int)
        }
        SqlType::Real | SqlType::Float => number(held).map(Value::Float),
        SqlType::Decimal { scale, .. } => decimal(held, scale).map(|n| Value::Decimal(Decimal::from(n))),
        SqlType::Money | SqlType::SmallMoney => {
            decimal(held, 4).and_then(|n| i64::try_from(n).map(Value::Money).map_err(|_| Misfit))
        }
        SqlType::Guid => guid(held).map(Value::Guid),
        SqlType::VarBinary(_) | SqlType::Binary(_) | SqlType::Image | SqlType::RowVersion => {
            let bytes = match held {
                ValueRef::Blob(b) | ValueRef::Text(b) => b,
                _ => return Err(Misfit),
            };
            Ok(Value::Bytes(clip_bytes(bytes, kind)))
        }
        SqlType::Variant => {
            put_variant(held, scratch)?;
            Ok(Value::Bytes(scratch))
        }
        _ => {
            let text = match held {
                ValueRef::Text(b) => std::str::from_utf8(b).map_err(|_| Misfit)?,
                ValueRef::Blob(b) => {
                    scratch.extend_from_slice(String::from_utf8_lossy(b).as_bytes());
                    std::str::from_utf8(scratch).map_err(|_| Misfit)?
                }
                other => {
                    scratch.extend_from_slice(print(other).as_bytes());
                    std::str::from_utf8(scratch).map_err(|_| Misfit)?
                }
            };
            Ok(Value::Str(clip_text(text, kind)))
        }
    }
}

/// Most bytes of a string inside a variant.
const VARIANT_TEXT_MAX: usize = 8000;

/// A variant as it stands behind its length: the inner type, what its kind needs, the value [MS-TDS 2.2.5.5.4]. SQLite
/// keeps what a value is stored as, so the inner type is int, bigint, float, nvarchar or varbinary.
fn put_variant(held: ValueRef<'_>, out: &mut Scratch) -> Result<(), Misfit> {
    const COLLATION: [u8; 5] = weir_tds::build::Collation::LATIN1.0;
    const MOST: [u8; 2] = 8000_u16.to_le_bytes();
    match held {
        ValueRef::Null => return Err(Misfit),
        ValueRef::Integer(n) => match i32::try_from(n) {
            Ok(n) => {
                out.extend_from_slice(&[0x38, 0]);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Err(_) => {
                out.extend_from_slice(&[0x7F, 0]);
                out.extend_from_slice(&n.to_le_bytes());
            }
        },
        ValueRef::Real(n) => {
            out.extend_from_slice(&[0x3E, 0]);
            out.extend_from_slice(&n.to_le_bytes());
        }
        ValueRef::Text(_) => {
            out.extend_from_slice(&[0xE7, 7]);
            out.extend_from_slice(&COLLATION);
            out.extend_from_slice(&MOST);
            let units = text_of(held)?.encode_utf16().take(VARIANT_TEXT_MAX / 2);
            out.extend(units.flat_map(u16::to_le_bytes));
        }
        ValueRef::Blob(bytes) => {
            out.extend_from_slice(&[0xA5, 2]);
            out.extend_from_slice(&MOST);
            out.extend_from_slice(bytes.get(..VARIANT_TEXT_MAX).unwrap_or(bytes));
        }
    }
    Ok(())
}

/// A value as T-SQL prints it.
pub(crate) fn print(held: ValueRef<'_>) -> String {
    match held {
        ValueRef::Null => String::new(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(f) if f == f.trunc() && f.abs() < 1e15 => format!("{f:.0}"),
        ValueRef::Real(f) => f.to_string(),
        ValueRef::Text(b) => String::from_utf8_lossy(b).into_owned(),
        ValueRef::Blob(b) => b.iter().map(|b| format!("{b:02X}")).collect(),
    }
}

/// The type of a value whose expression told none.
pub(crate) fn kind_of(held: &Held) -> Option<SqlType> {
    Some(match held {
        Held::Null => return None,
        Held::Integer(n) if i32::try_from(*n).is_ok() => SqlType::Int,
        Held::Integer(_) => SqlType::BigInt,
        Held::Real(_) => SqlType::Float,
        Held::Text(t) if t.len() > 4000 => SqlType::NVarChar(Length::Max),
        Held::Text(_) => SqlType::TEXT,
        Held::Blob(b) if b.len() > 8000 => SqlType::VarBinary(Length::Max),
        Held::Blob(_) => SqlType::VarBinary(Length::Of(8000)),
    })
}

fn text_of(held: ValueRef<'_>) -> Result<&str, Misfit> {
    match held {
        ValueRef::Text(b) => std::str::from_utf8(b).map_err(|_| Misfit),
        _ => Err(Misfit),
    }
}

/// A number; text that reads as one counts.
pub(crate) fn number(held: ValueRef<'_>) -> Result<f64, Misfit> {
    match held {
        ValueRef::Integer(n) => Ok(n as f64),
        ValueRef::Real(f) => Ok(f),
        ValueRef::Text(_) => text_of(held)?.trim().parse().map_err(|_| Misfit),
        _ => Err(Misfit),
    }
}

/// A whole number; fractions are cut off, as T-SQL does.
pub(crate) fn integer(held: ValueRef<'_>) -> Result<i64, Misfit> {
    match held {
        ValueRef::Integer(n) => Ok(n),
        ValueRef::Real(f) if f.abs() < 9.2e18 => Ok(f as i64),
        ValueRef::Text(_) => text_of(held)?.trim().parse().map_err(|_| Misfit),
        ValueRef::Blob(b) if b.len() <= 8 => Ok(b.iter().fold(0, |n, b| (n << 8) | i64::from(*b))),
        _ => Err(Misfit),
    }
}

/// A number times 10^scale, rounded half away from zero.
pub(crate) fn decimal(held: ValueRef<'_>, scale: u8) -> Result<i128, Misfit> {
    match held {
        ValueRef::Integer(n) => i128::from(n)
            .checked_mul(10_i128.checked_pow(u32::from(scale)).ok_or(Misfit)?)
            .ok_or(Misfit),
        // Printing is the shortest form that reads back, so 1.1 stays 1.1.
        ValueRef::Real(f) if f.abs() < 1e37 => parse_decimal(&f.to_string(), scale),
        ValueRef::Text(_) => parse_decimal(text_of(held)?.trim().trim_start_matches('$'), scale),
        _ => Err(Misfit),
    }
}

/// Reads `-12.345` to a scale, rounding half away from zero.
pub(crate) fn parse_decimal(text: &str, scale: u8) -> Result<i128, Misfit> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty())
        || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
    {
        return Err(Misfit);
    }
    let mut value = 0_i128;
    let mut push = |b: u8| -> Result<(), Misfit> {
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i128::from(b - b'0')))
            .ok_or(Misfit)?;
        Ok(())
    };
    whole.bytes().try_for_each(&mut push)?;
    (0..usize::from(scale)).try_for_each(|i| push(fraction.as_bytes().get(i).copied().unwrap_or(b'0')))?;
    if fraction
        .as_bytes()
        .get(usize::from(scale))
        .is_some_and(|b| *b >= b'5')
    {
        value += 1;
    }
    Ok(if negative { -value } else { value })
}

/// A decimal as text.
pub(crate) fn print_decimal(value: i128, scale: u8) -> String {
    let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

/// 16 bytes in wire order: the first three groups are little-endian.
fn guid(held: ValueRef<'_>) -> Result<[u8; 16], Misfit> {
    if let ValueRef::Blob(bytes) = held {
        return bytes.try_into().map_err(|_| Misfit);
    }
    let hex: Vec<u8> = text_of(held)?
        .bytes()
        .filter(|b| !matches!(b, b'-' | b'{' | b'}'))
        .collect();
    if hex.len() != 32 {
        return Err(Misfit);
    }
    let mut bytes = [0_u8; 16];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| Misfit)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| Misfit)?;
    }
    Ok(swap_guid(bytes))
}

/// Between the written order of a GUID and the wire's.
pub(crate) fn swap_guid(bytes: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let mut out = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(tail) = out.get_mut(8..) {
        tail.copy_from_slice(&rest);
    }
    out
}

/// `6F9619FF-8B86-D011-B42D-00C04FC964FF` from written order.
pub(crate) fn print_guid(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    format!(
        "{}-{}-{}-{}-{}",
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32)
    )
}

fn moment(text: &str, kind: SqlType) -> Result<Value<'static>, Misfit> {
    let at = Moment::parse(text).ok_or(Misfit)?;
    let days = u32::try_from(at.day).map_err(|_| Misfit)?;
    let units =
        |scale: u8| u64::try_from(at.ticks / 10_i64.pow(u32::from(7 - scale.min(7)))).map_err(|_| Misfit);
    Ok(match kind {
        SqlType::Date => Value::Date(days),
        SqlType::Time(scale) => Value::Time(units(scale)?),
        SqlType::DateTime2(scale) => Value::DateTime2 {
            days,
            ticks: units(scale)?,
        },
        SqlType::DateTimeOffset(scale) => {
            let utc = Moment::from_total(
                at.total() - i64::from(at.offset) * 60 * super::datetime::SECOND,
                0,
            );
            let units = utc.ticks / 10_i64.pow(u32::from(7 - scale.min(7)));
            Value::DateTimeOffset {
                days: u32::try_from(utc.day).map_err(|_| Misfit)?,
                ticks: u64::try_from(units).map_err(|_| Misfit)?,
                minutes: at.offset,
            }
        }
        SqlType::SmallDateTime => {
            let minutes = (at.ticks + DAY / 2880) / (DAY / 1440);
            let (day, minutes) = (at.day + minutes / 1440, minutes % 1440);
            Value::DateTime {
                days: small_day(day)?,
                ticks: u32::try_from(minutes).map_err(|_| Misfit)?,
            }
        }
        _ => {
            // 1/300 s, rounded to the nearest.
            let ticks = (at.ticks * 3 + 50_000) / 100_000;
            let (day, ticks) = (at.day + ticks / 25_920_000, ticks % 25_920_000);
            Value::DateTime {
                days: small_day(day)?,
                ticks: u32::try_from(ticks).map_err(|_| Misfit)?,
            }
        }
    })
}

fn small_day(day: i64) -> Result<i32, Misfit> {
    i32::try_from(day - DAY_1900).map_err(|_| Misfit)
}

fn clip_bytes(bytes: &[u8], kind: SqlType) -> &[u8] {
    let most = match kind {
        SqlType::VarBinary(Length::Of(n)) | SqlType::Binary(n) => usize::from(n),
        SqlType::RowVersion => 8,
        _ => usize::MAX,
    };
    bytes.get(..most).unwrap_or(bytes)
}

/// No more UTF-16 units (bytes of a narrow type) than the type has room for.
fn clip_text(text: &str, kind: SqlType) -> &str {
    let most = match kind {
        SqlType::NVarChar(Length::Of(n))
        | SqlType::VarChar(Length::Of(n))
        | SqlType::NChar(n)
        | SqlType::Char(n) => usize::from(n),
        _ => return text,
    };
    if text.len() <= most {
        return text;
    }
    let mut units = 0;
    for (at, c) in text.char_indices() {
        units += c.len_utf16();
        if units > most {
            return text.get(..at).unwrap_or(text);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_half_away_from_zero_and_print_back() {
        assert_eq!(parse_decimal("-1.005", 2), Ok(-101));
        assert_eq!(parse_decimal("12", 3), Ok(12_000));
        assert_eq!(print_decimal(-5, 2), "-0.05");
        assert_eq!(decimal(ValueRef::Real(1.1), 2), Ok(110));
        assert!(parse_decimal("x", 0).is_err());
    }

    #[test]
    fn datetime_ticks_are_three_hundredths() {
        let mut scratch = Scratch::new();
        let value = to_wire(
            ValueRef::Text(b"1900-01-02 00:00:01"),
            SqlType::DateTime,
            &mut scratch,
        );
        assert_eq!(value, Ok(Value::DateTime { days: 1, ticks: 300 }));
    }

    #[test]
    fn text_is_clipped_at_characters() {
        assert_eq!(clip_text("aé€😀", SqlType::NVarChar(Length::Of(4))), "aé€");
    }
}
