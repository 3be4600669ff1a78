//! The one written form of every value (`../README.md`), and the generated rows of bulk loads and table parameters.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Longest written form of a text or binary that stands in the answer itself.
const LONGEST: usize = 300;

/// Days from 0001-01-01 to 1900-01-01.
pub(crate) const DAYS_1900: i64 = 693_595;

const NANOS: u64 = 1_000_000_000;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn integer(value: impl Into<i64>) -> Value {
    format!("i:{}", value.into()).into()
}

pub(crate) fn float(value: f64) -> Value {
    format!("f:{}", hex(&value.to_be_bytes())).into()
}

pub(crate) fn text(value: &str) -> Value {
    if value.len() > LONGEST {
        let hash = hex(&Sha256::digest(value));
        return format!("s#{}:{hash}", value.len()).into();
    }
    format!("s:{value}").into()
}

pub(crate) fn binary(value: &[u8]) -> Value {
    if value.len() * 2 > LONGEST {
        return format!("b#{}:{}", value.len(), hex(&Sha256::digest(value))).into();
    }
    format!("b:{}", hex(value)).into()
}

/// A decimal of this magnitude, divided by ten to the power of `scale`.
pub(crate) fn decimal(negative: bool, magnitude: u128, scale: u8) -> Value {
    let scale = usize::from(scale);
    let digits = format!("{magnitude:0>width$}", width = scale + 1);
    let (whole, places) = digits.split_at(digits.len() - scale);
    let places = places.trim_end_matches('0');
    let point = if places.is_empty() { "" } else { "." };
    let sign = if negative && magnitude != 0 { "-" } else { "" };
    format!("n:{sign}{whole}{point}{places}").into()
}

/// The date of a day counted from 0001-01-01.
pub(crate) fn date(days: i64) -> String {
    // Years as if they began in March, in eras of 400 years (146 097 days).
    let shifted = days + 306;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The time of day after so many nanoseconds, without trailing zeros of its fraction.
pub(crate) fn clock(nanos: u64) -> String {
    let seconds = nanos / NANOS;
    let fraction = format!("{:09}", nanos % NANOS);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!(
        "{:02}:{:02}:{:02}{point}{fraction}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

pub(crate) fn moment(days: i64, nanos: u64) -> Value {
    format!("m:{}T{}", date(days), clock(nanos)).into()
}

/// A datetimeoffset, told by the wire in UTC, written in its own offset (minutes).
pub(crate) fn with_offset(days: i64, nanos: u64, offset: i16) -> Value {
    let day = i64::try_from(86_400 * NANOS).unwrap_or(i64::MAX);
    let local =
        i64::try_from(nanos).unwrap_or(0) + i64::from(offset) * 60 * i64::try_from(NANOS).unwrap_or(0);
    let (days, nanos) = (days + local.div_euclid(day), local.rem_euclid(day));
    let sign = if offset < 0 { '-' } else { '+' };
    let offset = offset.unsigned_abs();
    let clock = clock(nanos.unsigned_abs());
    format!(
        "o:{}T{clock}{sign}{:02}:{:02}",
        date(days),
        offset / 60,
        offset % 60
    )
    .into()
}

/// Nanoseconds of so many 300ths of a second, to the millisecond as datetime is written.
pub(crate) fn of_300ths(ticks: u32) -> u64 {
    (u64::from(ticks) * 10 + 1) / 3 * 1_000_000
}

/// What a generated row has in a column, by the column's name.
pub(crate) enum Made {
    Number(i32),
    Text(Option<String>),
    Hundredths(i64),
    Bytes(Option<Vec<u8>>),
}

/// Column `name` of row `i`, from 1.
pub(crate) fn made(name: &str, i: i32) -> Made {
    match name {
        "id" => Made::Number(i),
        "name" => Made::Text(Some(format!("name-{i}"))),
        "amount" => Made::Hundredths(i64::from(i) * 100 + 25),
        "note" => Made::Text((i % 3 != 0).then(|| format!("ä{i}"))),
        "data" => Made::Bytes((i % 5 != 0).then(|| i.to_be_bytes().to_vec())),
        other => panic!("no column {other}"),
    }
}

/// The names in a step's `columns`.
pub(crate) fn names(step: &Value) -> Vec<String> {
    let names = step["columns"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A step's `rows`.
pub(crate) fn count(step: &Value) -> i32 {
    step["rows"]
        .as_i64()
        .and_then(|rows| i32::try_from(rows).ok())
        .unwrap_or(0)
}

/// The text with `before1`, `before2` … for its parameters.
pub(crate) fn marked(step: &Value, before: &str) -> String {
    let mut sql = step["sql"].as_str().unwrap_or_default().to_owned();
    for at in 1..=9 {
        sql = sql.replace(&format!("{{{at}}}"), &format!("{before}{at}"));
    }
    sql
}
