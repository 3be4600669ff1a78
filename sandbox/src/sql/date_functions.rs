//! T-SQL's date functions: DATEADD, DATEDIFF, DATEPART and what follows from them.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value as Held, ValueRef};
use rusqlite::{Connection, Error, Result};

use super::datetime::{DAY, Moment, SECOND, civil, day_of, month_days};
use super::functions::{fault, int, is_null, text};
use crate::tokens::Message;

/// Registers them all.
///
/// # Errors
/// SQLite refused one.
pub(super) fn register(db: &Connection) -> Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let put = |name: &str, args: i32, f: fn(&Context<'_>) -> Result<Held>| {
        db.create_scalar_function(name, args, pure, f)
    };
    put("isdate", 1, |c| {
        Ok(Held::Integer(i64::from(moment(c, 0)?.is_some())))
    })?;
    put("dateadd", 3, date_add)?;
    put("datediff", 3, date_diff)?;
    put("datediff_big", 3, date_diff)?;
    put("datepart", 2, |c| Ok(held(date_part(c, &text(c, 0)?, 1)?)))?;
    put("year", 1, |c| Ok(held(date_part(c, "year", 0)?)))?;
    put("month", 1, |c| Ok(held(date_part(c, "month", 0)?)))?;
    put("day", 1, |c| Ok(held(date_part(c, "day", 0)?)))?;
    put("datename", 2, date_name)?;
    put("eomonth", 1, end_of_month)?;
    put("datefromparts", 3, |c| {
        let day = day_of(int(c, 0)?, int(c, 1)?, int(c, 2)?);
        Ok(Held::Text(
            Moment {
                day,
                ticks: 0,
                offset: 0,
            }
            .date_text(),
        ))
    })
}

fn held(number: Option<i64>) -> Held {
    number.map_or(Held::Null, Held::Integer)
}

fn moment(ctx: &Context<'_>, at: usize) -> Result<Option<Moment>> {
    Ok(match ctx.get_raw(at) {
        ValueRef::Null => None,
        _ => Moment::parse(&text(ctx, at)?),
    })
}

/// Ticks of a date part with a fixed length.
fn part_ticks(part: &str) -> Option<i64> {
    Some(match part {
        "day" | "dd" | "d" | "dayofyear" | "dy" | "y" | "weekday" | "dw" => DAY,
        "week" | "wk" | "ww" => 7 * DAY,
        "hour" | "hh" => 3600 * SECOND,
        "minute" | "mi" | "n" => 60 * SECOND,
        "second" | "ss" | "s" => SECOND,
        "millisecond" | "ms" => SECOND / 1000,
        "microsecond" | "mcs" => 10,
        _ => return None,
    })
}

/// Months of a date part that counts months.
fn part_months(part: &str) -> Option<i64> {
    Some(match part {
        "year" | "yy" | "yyyy" => 12,
        "quarter" | "qq" | "q" => 3,
        "month" | "mm" | "m" => 1,
        _ => return None,
    })
}

fn bad_part(part: &str) -> Error {
    fault(&Message::new(
        155,
        15,
        1,
        format!("'{part}' is not a recognized datepart option."),
    ))
}

fn date_add(ctx: &Context<'_>) -> Result<Held> {
    let (part, Some(at)) = (text(ctx, 0)?, moment(ctx, 2)?) else {
        return Ok(Held::Null);
    };
    if is_null(ctx, 1) {
        return Ok(Held::Null);
    }
    let count = int(ctx, 1)?;
    let moved = if let Some(months) = part_months(&part) {
        let (year, month, day) = civil(at.day);
        let month = month + count.saturating_mul(months).clamp(-120_000, 120_000);
        let day = day.min(month_days(year, month));
        Moment {
            day: day_of(year, month, day),
            ..at
        }
    } else {
        let ticks = part_ticks(&part).ok_or_else(|| bad_part(&part))?;
        Moment::from_total(at.total().saturating_add(ticks.saturating_mul(count)), at.offset)
    };
    if !(0..=3_652_058).contains(&moved.day) {
        let text = "Adding a value to a 'datetime' column caused an overflow.";
        return Err(fault(&Message::error(517, text)));
    }
    let input = text(ctx, 2)?;
    let scale = input.split_once('.').map_or(3, |(_, f)| {
        f.bytes().take_while(u8::is_ascii_digit).count().min(7)
    });
    let date_only = input.len() == 10 && part_ticks(&part).is_none_or(|t| t >= DAY);
    Ok(Held::Text(if date_only {
        moved.date_text()
    } else {
        moved.text(u8::try_from(scale).unwrap_or(7))
    }))
}

fn date_diff(ctx: &Context<'_>) -> Result<Held> {
    let (part, Some(from), Some(to)) = (text(ctx, 0)?, moment(ctx, 1)?, moment(ctx, 2)?) else {
        return Ok(Held::Null);
    };
    if let Some(months) = part_months(&part) {
        let index = |m: Moment| {
            let (year, month, _) = civil(m.day);
            (year * 12 + month - 1).div_euclid(months)
        };
        return Ok(Held::Integer(index(to) - index(from)));
    }
    // Borders crossed, not time passed.
    let ticks = part_ticks(&part).ok_or_else(|| bad_part(&part))?;
    let shift = if ticks == 7 * DAY { DAY } else { 0 };
    Ok(Held::Integer(
        (to.total() + shift).div_euclid(ticks) - (from.total() + shift).div_euclid(ticks),
    ))
}

fn date_part(ctx: &Context<'_>, part: &str, at: usize) -> Result<Option<i64>> {
    let Some(at) = moment(ctx, at)? else {
        return Ok(None);
    };
    let (year, month, day) = civil(at.day);
    Ok(Some(match part {
        "year" | "yy" | "yyyy" => year,
        "quarter" | "qq" | "q" => (month + 2) / 3,
        "month" | "mm" | "m" => month,
        "day" | "dd" | "d" => day,
        "dayofyear" | "dy" | "y" => at.day - day_of(year, 1, 1) + 1,
        "weekday" | "dw" => (at.day + 1) % 7 + 1,
        "week" | "wk" | "ww" => (at.day - day_of(year, 1, 1) + (day_of(year, 1, 1) + 1) % 7) / 7 + 1,
        "hour" | "hh" => at.ticks / (3600 * SECOND),
        "minute" | "mi" | "n" => at.ticks / (60 * SECOND) % 60,
        "second" | "ss" | "s" => at.ticks / SECOND % 60,
        "millisecond" | "ms" => at.ticks % SECOND / 10_000,
        "microsecond" | "mcs" => at.ticks % SECOND / 10,
        _ => return Err(bad_part(part)),
    }))
}

fn date_name(ctx: &Context<'_>) -> Result<Held> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = [
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
    ];
    let part = text(ctx, 0)?;
    let Some(number) = date_part(ctx, &part, 1)? else {
        return Ok(Held::Null);
    };
    let index = usize::try_from(number - 1).unwrap_or(0);
    let name = match part.as_str() {
        "month" | "mm" | "m" => MONTHS.get(index).map(|s| (*s).to_owned()),
        "weekday" | "dw" => DAYS.get(index).map(|s| (*s).to_owned()),
        _ => None,
    };
    Ok(Held::Text(name.unwrap_or_else(|| number.to_string())))
}

fn end_of_month(ctx: &Context<'_>) -> Result<Held> {
    let Some(at) = moment(ctx, 0)? else {
        return Ok(Held::Null);
    };
    let (year, month, _) = civil(at.day);
    let day = day_of(year, month, month_days(year, month));
    Ok(Held::Text(Moment { day, ..at }.date_text()))
}
