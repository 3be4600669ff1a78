//! CAST and CONVERT: a held value into the form that a T-SQL type has in SQLite.

use rusqlite::types::{Value as Held, ValueRef};

use super::cell::{self, Misfit};
use super::datetime::{DAY, DAY_1900, Moment};
use super::types::{Length, SqlType};
use crate::tokens::Message;

/// Digits that a double keeps exactly.
const DOUBLE_DIGITS: i128 = 1_000_000_000_000_000;

/// Converts a value.
///
/// # Errors
/// 245, 241, 8114, 8115 or 8169, worded as a server words them.
pub(crate) fn cast(value: &Held, target: SqlType, style: i64) -> Result<Held, Message> {
    let held = ValueRef::from(value);
    if matches!(held, ValueRef::Null) {
        return Ok(Held::Null);
    }
    let converted = match target {
        SqlType::Bit => bit(held).map(Held::Integer),
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => return whole(held, target),
        SqlType::Real => cell::number(held).map(|f| Held::Real(f64::from(f as f32))),
        SqlType::Float => cell::number(held).map(Held::Real),
        SqlType::Decimal { scale, precision } => {
            let number = cell::decimal(held, scale);
            if let (Ok(n), Some(most)) = (number, 10_i128.checked_pow(u32::from(precision)))
                && n.abs() >= most
            {
                return Err(overflow("numeric"));
            }
            number.map(|n| exact(n, scale))
        }
        SqlType::Money | SqlType::SmallMoney => cell::decimal(held, 4).map(|n| exact(n, 4)),
        SqlType::Guid => guid(held),
        SqlType::VarBinary(_) | SqlType::Binary(_) | SqlType::Image | SqlType::RowVersion => {
            Ok(binary(held, target))
        }
        SqlType::Variant => Ok(value.clone()),
        kind if kind.is_moment() => moment(held, kind).map(Held::Text),
        kind => Ok(Held::Text(text(held, kind, style))),
    };
    converted.map_err(|Misfit| failed(held, target))
}

fn failed(held: ValueRef<'_>, target: SqlType) -> Message {
    let name = target.name();
    match target {
        kind if kind.is_moment() => {
            let text = "Conversion failed when converting date and/or time from character string.";
            Message::error(241, text)
        }
        SqlType::Guid => Message::new(
            8169,
            16,
            2,
            "Conversion failed when converting from a character string to uniqueidentifier.",
        ),
        SqlType::Decimal { .. } | SqlType::Float | SqlType::Real | SqlType::Money | SqlType::SmallMoney => {
            Message::new(
                8114,
                16,
                5,
                format!("Error converting data type varchar to {name}."),
            )
        }
        _ => {
            let value = cell::print(held);
            Message::error(
                245,
                format!("Conversion failed when converting the varchar value '{value}' to data type {name}."),
            )
        }
    }
}

fn overflow(name: &str) -> Message {
    Message::new(
        8115,
        16,
        2,
        format!("Arithmetic overflow error converting expression to data type {name}."),
    )
}

fn bit(held: ValueRef<'_>) -> Result<i64, Misfit> {
    match held {
        ValueRef::Text(t) if t.eq_ignore_ascii_case(b"true") => Ok(1),
        ValueRef::Text(t) if t.eq_ignore_ascii_case(b"false") => Ok(0),
        other => cell::number(other).map(|f| i64::from(f != 0.0)),
    }
}

fn whole(held: ValueRef<'_>, target: SqlType) -> Result<Held, Message> {
    let number = cell::integer(held).map_err(|Misfit| failed(held, target))?;
    let fits = match target {
        SqlType::TinyInt => u8::try_from(number).is_ok(),
        SqlType::SmallInt => i16::try_from(number).is_ok(),
        SqlType::Int => i32::try_from(number).is_ok(),
        _ => true,
    };
    if fits {
        Ok(Held::Integer(number))
    } else {
        Err(overflow(target.name()))
    }
}

/// A number where a double keeps it, text where it would not.
pub(super) fn exact(number: i128, scale: u8) -> Held {
    match i64::try_from(number) {
        Ok(n) if scale == 0 => Held::Integer(n),
        Ok(_) if number.abs() < DOUBLE_DIGITS => {
            Held::Real(cell::print_decimal(number, scale).parse().unwrap_or_default())
        }
        _ => Held::Text(cell::print_decimal(number, scale)),
    }
}

fn guid(held: ValueRef<'_>) -> Result<Held, Misfit> {
    let mut scratch = cell::Scratch::new();
    match cell::to_wire(held, SqlType::Guid, &mut scratch)? {
        weir_tds::build::Value::Guid(bytes) => Ok(Held::Text(cell::print_guid(cell::swap_guid(bytes)))),
        _ => Err(Misfit),
    }
}

fn binary(held: ValueRef<'_>, target: SqlType) -> Held {
    let mut bytes = match held {
        ValueRef::Blob(b) | ValueRef::Text(b) => b.to_vec(),
        ValueRef::Integer(n) => match i32::try_from(n) {
            Ok(n) => n.to_be_bytes().to_vec(),
            Err(_) => n.to_be_bytes().to_vec(),
        },
        other => cell::print(other).into_bytes(),
    };
    match target {
        SqlType::Binary(n) => bytes.resize(usize::from(n), 0),
        SqlType::VarBinary(Length::Of(n)) => bytes.truncate(usize::from(n)),
        _ => {}
    }
    Held::Blob(bytes)
}

/// The text form that a date or time type has in SQLite.
fn moment(held: ValueRef<'_>, kind: SqlType) -> Result<String, Misfit> {
    let at = match held {
        ValueRef::Text(t) => Moment::parse(std::str::from_utf8(t).map_err(|_| Misfit)?).ok_or(Misfit)?,
        ValueRef::Integer(_) | ValueRef::Real(_) => {
            let days = cell::number(held)?;
            Moment::from_total(DAY_1900 * DAY + (days * DAY as f64) as i64, 0)
        }
        _ => return Err(Misfit),
    };
    Ok(print_moment(at, kind))
}

/// The text form that a date or time type has in SQLite.
pub(crate) fn print_moment(at: Moment, kind: SqlType) -> String {
    match kind {
        SqlType::Date => at.date_text(),
        SqlType::Time(scale) => at.time_text(scale),
        SqlType::DateTimeOffset(scale) => at.offset_text(scale),
        SqlType::DateTime2(scale) => at.text(scale),
        SqlType::SmallDateTime => {
            Moment::from_total((at.total() + DAY / 2880) / (DAY / 1440) * (DAY / 1440), 0).text(0)
        }
        _ => at.text(3),
    }
}

fn text(held: ValueRef<'_>, kind: SqlType, style: i64) -> String {
    let printed = cell::print(held);
    let mut text = match Moment::parse(&printed) {
        Some(at) if style != 0 => styled(at, style),
        _ => printed,
    };
    let most = match kind {
        SqlType::NVarChar(Length::Of(n))
        | SqlType::VarChar(Length::Of(n))
        | SqlType::NChar(n)
        | SqlType::Char(n) => usize::from(n),
        _ => usize::MAX,
    };
    if let Some((at, _)) = text.char_indices().nth(most) {
        text.truncate(at);
    }
    if let SqlType::NChar(n) | SqlType::Char(n) = kind {
        let missing = usize::from(n).saturating_sub(text.chars().count());
        text.push_str(&" ".repeat(missing));
    }
    text
}

/// The styles of CONVERT that programs use.
fn styled(at: Moment, style: i64) -> String {
    let date = at.date_text();
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or_default();
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    match style {
        23 => date,
        20 | 120 => at.text(0),
        21 | 25 | 121 => at.text(3),
        126 | 127 => format!("{date}T{}", at.time_text(3)),
        8 | 24 | 108 => at.time_text(0),
        14 | 114 => at.time_text(3),
        112 => format!("{year}{month}{day}"),
        101 => format!("{month}/{day}/{year}"),
        102 => format!("{year}.{month}.{day}"),
        103 => format!("{day}/{month}/{year}"),
        104 => format!("{day}.{month}.{year}"),
        110 => format!("{month}-{day}-{year}"),
        111 => format!("{year}/{month}/{day}"),
        _ => at.text(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(value: Held, kind: &str, style: i64) -> Result<Held, i32> {
        cast(&value, SqlType::from_declared(kind).unwrap(), style).map_err(|m| m.number)
    }

    fn text(s: &str) -> Held {
        Held::Text(s.to_owned())
    }

    #[test]
    fn conversions_and_their_errors() {
        assert_eq!(to(text("12"), "int", 0), Ok(Held::Integer(12)));
        assert_eq!(to(text("x"), "int", 0), Err(245));
        assert_eq!(to(Held::Integer(300), "tinyint", 0), Err(8115));
        assert_eq!(to(text("x"), "datetime2", 0), Err(241));
        assert_eq!(to(Held::Real(1.005), "decimal(10,2)", 0), Ok(Held::Real(1.01)));
        assert_eq!(
            to(text("12345678901234567890.12"), "decimal(30,2)", 0),
            Ok(text("12345678901234567890.12"))
        );
        assert_eq!(
            to(text("2024-05-06 12:00"), "varchar(10)", 120),
            Ok(text("2024-05-06"))
        );
        assert_eq!(to(text("abc"), "char(5)", 0), Ok(text("abc  ")));
        assert_eq!(
            to(Held::Integer(258), "varbinary(8)", 0),
            Ok(Held::Blob(vec![0, 0, 1, 2]))
        );
    }
}
