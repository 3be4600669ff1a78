//! Values built from numbers, dates and text, against the vectors of every data type: the same bytes again.

use serde_json::Value as Json;
use weir_protocol_tests::vectors::{load, unhex};
use weir_tds::build::{Collation, ColumnDef, ColumnType, Decimal, Plp, TokenBuf, Value};

use crate::built_tokens::{column, list, text};

/// Days from 0001-01-01 to a date of the Gregorian calendar.
fn days(date: &str) -> u32 {
    let parts: Vec<u32> = date.split('-').map(|p| p.parse().unwrap()).collect();
    let [year, month, day] = parts[..] else {
        panic!("{date}")
    };
    let leap = |y: u32| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let before = year - 1;
    let lengths = [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let in_year: u32 = lengths[..(month - 1) as usize].iter().sum();
    before * 365 + before / 4 - before / 100 + before / 400 + in_year + day - 1
}

/// Units of 10^-scale seconds of a time of day.
fn ticks(time: &str, scale: u32) -> u64 {
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let parts: Vec<u64> = clock.split(':').map(|p| p.parse().unwrap()).collect();
    let seconds = parts.iter().fold(0, |sum, part| sum * 60 + part);
    let digits: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(scale as usize)
        .collect();
    seconds * 10u64.pow(scale) + digits.parse::<u64>().unwrap_or(0)
}

/// A decimal string as an integer with its point `scale` digits from the right.
fn scaled(text: &str, scale: usize) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(scale)
        .collect();
    let magnitude: i128 = format!("{}{digits}", whole.trim_start_matches('-'))
        .parse()
        .unwrap();
    if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    }
}

/// Wire order: the first three groups are little-endian.
fn guid(text: &str) -> [u8; 16] {
    let mut bytes: [u8; 16] = unhex(&text.replace('-', "").to_lowercase()).try_into().unwrap();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn date_time(text: &str) -> (&str, &str) {
    let (date, time) = text.split_once('T').unwrap();
    (date, time)
}

/// Owns what a [`Value`] borrows.
enum Made {
    Value(Value<'static>),
    Text(String),
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

fn moment(ty: &ColumnType, word: &str) -> Value<'static> {
    let epoch = days("1900-01-01");
    match ty {
        ColumnType::DateTime | ColumnType::DateTimeN(8) => {
            let (date, time) = date_time(word);
            let days = i32::try_from(days(date)).unwrap() - i32::try_from(epoch).unwrap();
            let ticks = (ticks(time, 3) * 300 + 500) / 1000;
            Value::DateTime {
                days,
                ticks: ticks.try_into().unwrap(),
            }
        }
        ColumnType::SmallDateTime | ColumnType::DateTimeN(_) => {
            let (date, time) = date_time(word);
            let days = (days(date) - epoch).try_into().unwrap();
            Value::DateTime {
                days,
                ticks: (ticks(time, 0) / 60).try_into().unwrap(),
            }
        }
        ColumnType::Date => Value::Date(days(word)),
        ColumnType::Time(scale) => Value::Time(ticks(word, u32::from(*scale))),
        ColumnType::DateTime2(scale) => {
            let (date, time) = date_time(word);
            Value::DateTime2 {
                days: days(date),
                ticks: ticks(time, u32::from(*scale)),
            }
        }
        ColumnType::DateTimeOffset(scale) => {
            let (moment, offset) = word.split_once("Z (stored UTC) offset_minutes=").unwrap();
            let (date, time) = date_time(moment);
            let ticks = ticks(time, u32::from(*scale));
            Value::DateTimeOffset {
                days: days(date),
                ticks,
                minutes: offset.parse().unwrap(),
            }
        }
        _ => panic!("{ty:?}"),
    }
}

fn make(ty: &ColumnType, json: &Json) -> Made {
    let word = json.as_str().unwrap_or_default();
    Made::Value(match ty {
        _ if json.is_null() => Value::Null,
        ColumnType::Bit | ColumnType::BitN => Value::Bool(json.as_bool().unwrap()),
        ColumnType::TinyInt
        | ColumnType::SmallInt
        | ColumnType::Int
        | ColumnType::BigInt
        | ColumnType::IntN(_) => Value::Int(json.as_i64().unwrap()),
        ColumnType::Real | ColumnType::Float | ColumnType::FloatN(_) => Value::Float(json.as_f64().unwrap()),
        ColumnType::Money | ColumnType::SmallMoney | ColumnType::MoneyN(_) => {
            Value::Money(scaled(word, 4).try_into().unwrap())
        }
        ColumnType::DecimalN { scale, .. }
        | ColumnType::NumericN { scale, .. }
        | ColumnType::LegacyDecimal { scale, .. }
        | ColumnType::LegacyNumeric { scale, .. } => {
            Value::Decimal(Decimal::from(scaled(word, usize::from(*scale))))
        }
        ColumnType::DateTime
        | ColumnType::DateTimeN(_)
        | ColumnType::SmallDateTime
        | ColumnType::Date
        | ColumnType::Time(_)
        | ColumnType::DateTime2(_)
        | ColumnType::DateTimeOffset(_) => moment(ty, word),
        ColumnType::Guid => Value::Guid(guid(word)),
        ColumnType::Vector { .. } => {
            let numbers = json["values"].as_array().unwrap();
            #[expect(clippy::cast_possible_truncation, reason = "the vector's numbers are float32")]
            return Made::Floats(numbers.iter().map(|n| n.as_f64().unwrap() as f32).collect());
        }
        ColumnType::Binary(_)
        | ColumnType::VarBinary(_)
        | ColumnType::VarBinaryMax
        | ColumnType::Image
        | ColumnType::LegacyBinary(_)
        | ColumnType::LegacyVarBinary(_)
        | ColumnType::Udt { .. } => return Made::Bytes(unhex(word)),
        _ => return Made::Text(word.to_owned()),
    })
}

impl Made {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Value(value) => *value,
            Self::Text(text) => Value::Str(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Floats(numbers) => Value::Vector(numbers),
        }
    }
}

/// The inner type of a sql_variant, as the vector shows it beside the value.
fn variant_type(json: &Json) -> ColumnType {
    let properties = unhex(&text(json, "prop_bytes"));
    let byte = json["variant"]["type"].as_u64().unwrap();
    let scale = properties.first().copied().unwrap_or(0);
    let max = |at: usize| u16::from_le_bytes([properties[at], properties[at + 1]]);
    let collation = || Collation(*properties.first_chunk().unwrap());
    match byte {
        0x24 => ColumnType::Guid,
        0x28 => ColumnType::Date,
        0x29 => ColumnType::Time(scale),
        0x2A => ColumnType::DateTime2(scale),
        0x2B => ColumnType::DateTimeOffset(scale),
        0x30 => ColumnType::TinyInt,
        0x32 => ColumnType::Bit,
        0x34 => ColumnType::SmallInt,
        0x38 => ColumnType::Int,
        0x3A => ColumnType::SmallDateTime,
        0x3B => ColumnType::Real,
        0x3C => ColumnType::Money,
        0x3D => ColumnType::DateTime,
        0x3E => ColumnType::Float,
        0x6A => ColumnType::DecimalN {
            precision: scale,
            scale: properties[1],
        },
        0x6C => ColumnType::NumericN {
            precision: scale,
            scale: properties[1],
        },
        0x7A => ColumnType::SmallMoney,
        0x7F => ColumnType::BigInt,
        0xA5 => ColumnType::VarBinary(max(0)),
        0xA7 => ColumnType::VarChar(max(5), collation()),
        0xAD => ColumnType::Binary(max(0)),
        0xAF => ColumnType::Char(max(5), collation()),
        0xE7 => ColumnType::NVarChar(max(5), collation()),
        0xEF => ColumnType::NChar(max(5), collation()),
        other => panic!("variant of {other:#x}"),
    }
}

/// Builds one row of one column from what the vector shows.
fn build_row(out: &mut TokenBuf, columns: &[ColumnDef], shown: &Json) {
    let ty = &columns[0].ty;
    if *ty == ColumnType::Variant && !shown["value"].is_null() {
        let inner = variant_type(shown);
        let made = make(&inner, &shown["value"]);
        out.row(columns, &[Value::Variant(&inner, &made.value())])
            .unwrap();
        return;
    }
    let made = make(ty, &shown["value"]);
    if !ty.is_plp() || shown["value"].is_null() {
        out.row(columns, &[made.value()]).unwrap();
        return;
    }
    // The vectors cut PLP values as they like; the payload is taken from a value built whole: 8 bytes of total, 4 of the
    // chunk's length, 4 of the end.
    let mut whole = TokenBuf::new(out.version());
    whole.value(ty, &made.value()).unwrap();
    let payload = match whole.as_bytes() {
        bytes if bytes.len() > 16 => &bytes[12..bytes.len() - 4],
        _ => &[],
    };
    let mut rest = payload;
    let chunks: Vec<&[u8]> = list(shown, "chunks")
        .iter()
        .map(|len| {
            let (chunk, later) = rest.split_at(usize::try_from(len.as_u64().unwrap()).unwrap());
            rest = later;
            chunk
        })
        .collect();
    out.row(
        columns,
        &[Value::Plp(Plp {
            known: shown["plp"].is_u64(),
            chunks: &chunks,
        })],
    )
    .unwrap();
}

/// Type bytes, TYPE_INFO with collation, and the three framings of values, with sql_variant, money and the date types
/// [MS-TDS 2.2.5.1.2, 2.2.5.2, 2.2.5.2.3, 2.2.5.4, 2.2.5.5.1.4, 2.2.5.5.4, 2.2.5.6].
#[test]
fn every_data_type_is_built_from_its_value_byte_for_byte() {
    let mut types = std::collections::BTreeSet::new();
    let mut values = 0;
    for vector in load() {
        if !vector.name.starts_with("type-") {
            continue;
        }
        let tokens = list(&vector.expected, "tokens");
        let columns: Vec<ColumnDef> = list(&tokens[0], "columns").iter().map(column).collect();
        let mut out = TokenBuf::new(vector.version);
        out.col_metadata(&columns).unwrap();
        for row in tokens.iter().filter(|t| t["token"] == "ROW") {
            let (start, end) = (row["offset"].as_u64().unwrap(), row["end"].as_u64().unwrap());
            assert_eq!(out.len() as u64, start, "{}", vector.name);
            build_row(&mut out, &columns, &list(row, "values")[0]);
            let wanted = &vector.bytes[start as usize..end as usize];
            assert_eq!(
                &out.as_bytes()[start as usize..],
                wanted,
                "{}: {row}",
                vector.name
            );
            values += 1;
        }
        types.insert(columns[0].ty.byte());
    }
    assert!(
        types.len() >= 39 && values > 140,
        "{} types, {values} values",
        types.len()
    );
}

#[test]
fn values_that_do_not_fit_are_refused_and_leave_nothing_behind() {
    let misfits: [(ColumnType, Value<'_>); 19] = [
        (ColumnType::Int, Value::Null),
        (ColumnType::TinyInt, Value::Int(-1)),
        (ColumnType::IntN(2), Value::Int(40_000)),
        (ColumnType::BitN, Value::Int(1)),
        (
            ColumnType::DecimalN {
                precision: 3,
                scale: 0,
            },
            Value::Decimal(Decimal::from(1000)),
        ),
        (ColumnType::SmallMoney, Value::Money(i64::MAX)),
        (ColumnType::Date, Value::Date(1 << 24)),
        (ColumnType::Time(0), Value::Time(1 << 24)),
        (ColumnType::Time(9), Value::Time(0)),
        (ColumnType::DateTimeN(4), Value::DateTime { days: -1, ticks: 0 }),
        (
            ColumnType::Variant,
            Value::Variant(&ColumnType::Json, &Value::Str("{}")),
        ),
        (ColumnType::Int, Value::Bytes(&[1, 2, 3])),
        (ColumnType::DateTimeN(8), Value::Bytes(&[1, 2, 3])),
        (ColumnType::IntN(4), Value::Bytes(&[0; 5])),
        (ColumnType::Guid, Value::Bytes(&[0; 15])),
        (ColumnType::Time(7), Value::Bytes(&[0; 4])),
        (
            ColumnType::Variant,
            Value::Variant(&ColumnType::Date, &Value::Bytes(&[0; 4])),
        ),
        (ColumnType::Variant, Value::Bytes(&[0x38, 0, 1, 2, 3, 4, 5])),
        (ColumnType::Variant, Value::Bytes(&[0x38, 0])),
    ];
    let long = "x".repeat(70_000);
    let mut out = TokenBuf::new(weir_tds::version::TdsVersion::V7_4);
    let last = [
        (ColumnType::varchar(8000), Value::Str(&long)),
        (ColumnType::LegacyBinary(9), Value::Bytes(&[0; 300])),
    ];
    for (ty, value) in misfits.into_iter().chain(last) {
        let columns = [ColumnDef::new("a", ColumnType::IntN(4)), ColumnDef::new("b", ty)];
        assert!(
            out.row(&columns, &[Value::Int(1), value]).is_err(),
            "{columns:?} {value:?}"
        );
        assert!(out.is_empty(), "half a row was left behind");
    }
}
