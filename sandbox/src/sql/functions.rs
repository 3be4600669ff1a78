//! T-SQL's built-in functions where SQLite has none of the kind, registered on each connection.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value as Held, ValueRef};
use rusqlite::{Connection, Error, Result};

use super::cast::cast;
use super::cell;
use super::date_functions;
use super::datetime::Moment;
use super::name_functions;
use super::types::SqlType;
use crate::clock::unix_now;
use crate::tokens::Message;

/// Longest text that a function makes, in bytes: REPLICATE must not take the machine down.
const TEXT_MAX: usize = 64 * 1024 * 1024;
/// In front of the text of an error that carries its own number.
pub(crate) const MARK: &str = "tsql";

pub(super) fn fault(message: &Message) -> Error {
    let text = format!(
        "{MARK}:{}:{}:{}:{}",
        message.number, message.class, message.state, message.text
    );
    Error::UserFunctionError(text.into())
}

/// Registers them all.
///
/// # Errors
/// SQLite refused one.
pub(crate) fn register(db: &Connection) -> Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let impure = FunctionFlags::SQLITE_UTF8;
    let put = |name: &str, args: i32, f: fn(&Context<'_>) -> Result<Held>| {
        db.create_scalar_function(name, args, pure, f)
    };
    put("tsql_add", 2, add)?;
    put("tsql_divide", 2, |c| divide(c, false))?;
    put("tsql_divide_exact", 2, |c| divide(c, true))?;
    put("tsql_modulo", 2, modulo)?;
    put("tsql_xor", 2, |c| Ok(Held::Integer(int(c, 0)? ^ int(c, 1)?)))?;
    put("tsql_cast", 3, |c| convert(c).map_err(|m| fault(&m)))?;
    put("tsql_try_cast", 3, |c| Ok(convert(c).unwrap_or(Held::Null)))?;
    put("tsql_len", 1, |c| {
        text1(c, |s| Held::Integer(units(s.trim_end_matches(' '))))
    })?;
    put("tsql_datalength", 1, data_length)?;
    put("tsql_charindex", 2, char_index)?;
    put("tsql_charindex", 3, char_index)?;
    put("tsql_left", 2, |c| cut(c, true))?;
    put("tsql_right", 2, |c| cut(c, false))?;
    put("reverse", 1, |c| {
        text1(c, |s| Held::Text(s.chars().rev().collect()))
    })?;
    put("space", 1, |c| Ok(repeat(" ", int(c, 0)?)))?;
    put("replicate", 2, |c| {
        if any_null(c, 2) {
            Ok(Held::Null)
        } else {
            Ok(repeat(&text(c, 0)?, int(c, 1)?))
        }
    })?;
    put("stuff", 4, stuff)?;
    put("quotename", 1, |c| {
        text1(c, |s| Held::Text(format!("[{}]", s.replace(']', "]]"))))
    })?;
    put("ascii", 1, |c| {
        text1(c, |s| {
            s.chars()
                .next()
                .map_or(Held::Null, |ch| Held::Integer(i64::from(u32::from(ch))))
        })
    })?;
    put("isnumeric", 1, |c| {
        Ok(Held::Integer(i64::from(cell::number(c.get_raw(0)).is_ok())))
    })?;
    put("tsql_round", 2, round)?;
    put("tsql_round", 3, round)?;
    let put = |name: &str, f: fn() -> Held| db.create_scalar_function(name, 0, impure, move |_| Ok(f()));
    put("tsql_now3", || Held::Text(now().text(3)))?;
    put("tsql_now7", || Held::Text(now().text(7)))?;
    put("tsql_now_offset", || Held::Text(now().offset_text(7)))?;
    put("tsql_newid", || Held::Text(cell::print_guid(new_guid())))?;
    put("tsql_rand", || Held::Real(fastrand::f64()))?;
    name_functions::register(db)?;
    date_functions::register(db)
}

fn now() -> Moment {
    let (seconds, nanos) = unix_now();
    Moment::from_unix(seconds, nanos)
}

/// A version 4 GUID.
fn new_guid() -> [u8; 16] {
    let mut bytes = fastrand::u128(..).to_be_bytes();
    if let Some(b) = bytes.get_mut(6) {
        *b = (*b & 0x0F) | 0x40;
    }
    if let Some(b) = bytes.get_mut(8) {
        *b = (*b & 0x3F) | 0x80;
    }
    bytes
}

pub(super) fn is_null(ctx: &Context<'_>, at: usize) -> bool {
    matches!(ctx.get_raw(at), ValueRef::Null)
}

fn any_null(ctx: &Context<'_>, count: usize) -> bool {
    (0..count).any(|at| is_null(ctx, at))
}

pub(super) fn text(ctx: &Context<'_>, at: usize) -> Result<String> {
    Ok(cell::print(ctx.get_raw(at)))
}

pub(super) fn int(ctx: &Context<'_>, at: usize) -> Result<i64> {
    let misfit = || {
        fault(&Message::new(
            8114,
            16,
            5,
            "Error converting data type varchar to int.",
        ))
    };
    cell::integer(ctx.get_raw(at)).map_err(|_| misfit())
}

fn units(text: &str) -> i64 {
    i64::try_from(text.encode_utf16().count()).unwrap_or(i64::MAX)
}

pub(super) fn text1(ctx: &Context<'_>, f: impl Fn(&str) -> Held) -> Result<Held> {
    if is_null(ctx, 0) {
        Ok(Held::Null)
    } else {
        Ok(f(&text(ctx, 0)?))
    }
}

fn repeat(text: &str, times: i64) -> Held {
    let most = TEXT_MAX / text.len().max(1);
    match usize::try_from(times) {
        Ok(n) => Held::Text(text.repeat(n.min(most))),
        Err(_) => Held::Null,
    }
}

/// `+` where the types did not tell: text is put together, anything else is added.
fn add(ctx: &Context<'_>) -> Result<Held> {
    match (ctx.get_raw(0), ctx.get_raw(1)) {
        (ValueRef::Null, _) | (_, ValueRef::Null) => Ok(Held::Null),
        (ValueRef::Text(_), ValueRef::Text(_)) => Ok(Held::Text(text(ctx, 0)? + &text(ctx, 1)?)),
        (ValueRef::Blob(a), ValueRef::Blob(b)) => Ok(Held::Blob([a, b].concat())),
        (ValueRef::Integer(a), ValueRef::Integer(b)) => match a.checked_add(b) {
            Some(sum) => Ok(Held::Integer(sum)),
            None => Err(fault(&Message::error(
                8115,
                "Arithmetic overflow error converting expression to data type bigint.",
            ))),
        },
        (a, b) => match (cell::number(a), cell::number(b)) {
            (Ok(x), Ok(y))
                if x.fract() == 0.0
                    && y.fract() == 0.0
                    && !matches!((a, b), (ValueRef::Real(_), _) | (_, ValueRef::Real(_))) =>
            {
                Ok(Held::Integer((x + y) as i64))
            }
            (Ok(x), Ok(y)) => Ok(Held::Real(x + y)),
            _ => {
                let value = if cell::number(a).is_err() { a } else { b };
                let text = format!(
                    "Conversion failed when converting the varchar value '{}' to data type int.",
                    cell::print(value)
                );
                Err(fault(&Message::error(245, text)))
            }
        },
    }
}

fn zero() -> Error {
    fault(&Message::error(8134, "Divide by zero error encountered."))
}

fn numbers(ctx: &Context<'_>) -> Result<(f64, f64)> {
    let number = |at| cell::number(ctx.get_raw(at));
    match (number(0), number(1)) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        _ => Err(fault(&Message::new(
            8114,
            16,
            5,
            "Error converting data type varchar to numeric.",
        ))),
    }
}

fn divide(ctx: &Context<'_>, exact: bool) -> Result<Held> {
    match (ctx.get_raw(0), ctx.get_raw(1)) {
        (ValueRef::Null, _) | (_, ValueRef::Null) => Ok(Held::Null),
        (ValueRef::Integer(_), ValueRef::Integer(0)) => Err(zero()),
        (ValueRef::Integer(a), ValueRef::Integer(b)) if !exact => {
            Ok(Held::Integer(a.checked_div(b).unwrap_or(i64::MAX)))
        }
        _ => match numbers(ctx)? {
            (_, 0.0) => Err(zero()),
            (a, b) => Ok(Held::Real(a / b)),
        },
    }
}

fn modulo(ctx: &Context<'_>) -> Result<Held> {
    match (ctx.get_raw(0), ctx.get_raw(1)) {
        (ValueRef::Null, _) | (_, ValueRef::Null) => Ok(Held::Null),
        (ValueRef::Integer(_), ValueRef::Integer(0)) => Err(zero()),
        (ValueRef::Integer(a), ValueRef::Integer(b)) => Ok(Held::Integer(a.checked_rem(b).unwrap_or(0))),
        _ => match numbers(ctx)? {
            (_, 0.0) => Err(zero()),
            (a, b) => Ok(Held::Real(a % b)),
        },
    }
}

fn convert(ctx: &Context<'_>) -> std::result::Result<Held, Message> {
    let target = SqlType::from_declared(&cell::print(ctx.get_raw(1))).unwrap_or(SqlType::TEXT);
    let style = cell::integer(ctx.get_raw(2)).unwrap_or(0);
    cast(
        &Held::try_from(ctx.get_raw(0)).unwrap_or(Held::Null),
        target,
        style,
    )
}

fn data_length(ctx: &Context<'_>) -> Result<Held> {
    Ok(match ctx.get_raw(0) {
        ValueRef::Null => Held::Null,
        ValueRef::Integer(_) => Held::Integer(4),
        ValueRef::Real(_) => Held::Integer(8),
        ValueRef::Blob(b) => Held::Integer(i64::try_from(b.len()).unwrap_or(i64::MAX)),
        ValueRef::Text(_) => Held::Integer(2 * units(&text(ctx, 0)?)),
    })
}

fn char_index(ctx: &Context<'_>) -> Result<Held> {
    if any_null(ctx, 2) {
        return Ok(Held::Null);
    }
    let (needle, hay) = (text(ctx, 0)?.to_lowercase(), text(ctx, 1)?.to_lowercase());
    let skip = if ctx.len() > 2 {
        usize::try_from(int(ctx, 2)?.max(1) - 1).unwrap_or(0)
    } else {
        0
    };
    let start = hay.char_indices().nth(skip).map_or(hay.len(), |(at, _)| at);
    let tail = hay.get(start..).unwrap_or_default();
    let found = tail.find(&needle).filter(|_| !needle.is_empty());
    let index = found.map_or(0, |at| {
        units(tail.get(..at).unwrap_or_default()) + i64::try_from(skip).unwrap_or(0) + 1
    });
    Ok(Held::Integer(index))
}

fn cut(ctx: &Context<'_>, from_left: bool) -> Result<Held> {
    if any_null(ctx, 2) {
        return Ok(Held::Null);
    }
    let (text, count) = (text(ctx, 0)?, usize::try_from(int(ctx, 1)?).unwrap_or(0));
    let length = text.chars().count();
    let skip = if from_left {
        0
    } else {
        length.saturating_sub(count)
    };
    Ok(Held::Text(text.chars().skip(skip).take(count).collect()))
}

fn stuff(ctx: &Context<'_>) -> Result<Held> {
    if any_null(ctx, 3) {
        return Ok(Held::Null);
    }
    let (text_in, start, length) = (text(ctx, 0)?, int(ctx, 1)?, int(ctx, 2)?);
    let (Ok(start), Ok(length)) = (usize::try_from(start - 1), usize::try_from(length)) else {
        return Ok(Held::Null);
    };
    let head: String = text_in.chars().take(start).collect();
    let tail: String = text_in.chars().skip(start + length).collect();
    Ok(Held::Text(head + &text(ctx, 3)? + &tail))
}

fn round(ctx: &Context<'_>) -> Result<Held> {
    let digits = i32::try_from(int(ctx, 1)?.clamp(-18, 18)).unwrap_or(0);
    let whole = ctx.len() > 2 && int(ctx, 2)? != 0;
    let factor = 10_f64.powi(digits);
    let apply = |f: f64| {
        if whole {
            (f * factor).trunc() / factor
        } else {
            (f * factor).round() / factor
        }
    };
    Ok(match ctx.get_raw(0) {
        ValueRef::Null => Held::Null,
        ValueRef::Integer(n) if digits >= 0 => Held::Integer(n),
        ValueRef::Integer(n) => Held::Integer(apply(n as f64) as i64),
        other => cell::number(other).map_or(Held::Null, |f| Held::Real(apply(f))),
    })
}
