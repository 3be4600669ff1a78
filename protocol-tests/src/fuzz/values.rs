//! Columns and values of the input's choice, for the answer builder.

use weir_tds::build::{Collation, ColumnDef, ColumnFlags, ColumnType, Decimal, Plp, Value, XmlSchema};
use weir_tds::version::TdsVersion;

use super::source::Source;

/// Text of the input's choice: ASCII and a few characters of two, three and four bytes.
pub(super) fn text(source: &mut Source<'_>) -> String {
    let units = source.below(40);
    source
        .take(units)
        .iter()
        .map(|byte| match byte {
            0xF0.. => '\u{1F600}',
            0xE0.. => '€',
            0x80.. => 'ü',
            _ => char::from(*byte),
        })
        .collect()
}

/// A column.
pub(super) fn column(source: &mut Source<'_>, version: TdsVersion) -> ColumnDef {
    let ty = column_type(source, version);
    let mut column = ColumnDef::new(text(source), ty).with_flags(ColumnFlags(source.short() & 0x03FF));
    if matches!(
        column.ty,
        ColumnType::Text(_) | ColumnType::NText(_) | ColumnType::Image
    ) {
        column = column.with_table(&["dbo", "t"]);
    }
    column
}

fn collation(source: &mut Source<'_>) -> Collation {
    if source.byte() & 1 == 0 {
        Collation::LATIN1
    } else {
        Collation::UTF8
    }
}

/// A type that exists in `version`: what came later is left to the walker's own target.
fn column_type(source: &mut Source<'_>, version: TdsVersion) -> ColumnType {
    let plp = version.has_wide_counts();
    let (precision, scale) = (source.byte() % 38 + 1, source.byte() % 8);
    let max = source.short() % 8001;
    match source.byte() % 46 {
        0 => ColumnType::TinyInt,
        1 => ColumnType::Bit,
        2 => ColumnType::SmallInt,
        3 => ColumnType::Int,
        4 => ColumnType::BigInt,
        5 => ColumnType::Real,
        6 => ColumnType::Float,
        7 => ColumnType::Money,
        8 => ColumnType::SmallMoney,
        9 => ColumnType::DateTime,
        10 => ColumnType::SmallDateTime,
        11 => ColumnType::IntN(1 << (scale % 4)),
        12 => ColumnType::FloatN(4 + 4 * (scale % 2)),
        13 => ColumnType::BitN,
        14 => ColumnType::MoneyN(4 + 4 * (scale % 2)),
        15 => ColumnType::DateTimeN(4 + 4 * (scale % 2)),
        16 => ColumnType::DecimalN { precision, scale },
        17 => ColumnType::NumericN { precision, scale },
        18 => ColumnType::Guid,
        19 => ColumnType::Date,
        20 => ColumnType::Time(scale),
        21 => ColumnType::DateTime2(scale),
        22 => ColumnType::DateTimeOffset(scale),
        23 => ColumnType::Char(max, collation(source)),
        24 => ColumnType::VarChar(max, collation(source)),
        25 => ColumnType::NChar(max, collation(source)),
        26 => ColumnType::NVarChar(max, collation(source)),
        27 => ColumnType::Binary(max),
        28 => ColumnType::VarBinary(max),
        29 if plp => ColumnType::VarCharMax(collation(source)),
        30 if plp => ColumnType::NVarCharMax(collation(source)),
        31 if plp => ColumnType::VarBinaryMax,
        32 => ColumnType::Text(collation(source)),
        33 => ColumnType::NText(collation(source)),
        34 => ColumnType::Image,
        35 => ColumnType::Variant,
        36 if plp => ColumnType::Xml(None),
        37 if plp => ColumnType::Xml(Some(XmlSchema {
            database: text(source),
            schema: text(source),
            collection: text(source),
        })),
        38 if plp => ColumnType::Udt {
            max,
            database: text(source),
            schema: text(source),
            name: text(source),
            assembly: text(source),
        },
        39 if plp => ColumnType::Json,
        40 if plp => ColumnType::Vector {
            max: 8 + max % 400,
            element: scale % 2,
        },
        41 if version == TdsVersion::V7_0 => ColumnType::LegacyChar(precision, None),
        42 if version == TdsVersion::V7_0 => ColumnType::LegacyVarChar(precision, None),
        43 => ColumnType::LegacyBinary(precision),
        44 => ColumnType::LegacyVarBinary(precision),
        _ => ColumnType::LegacyDecimal { precision, scale },
    }
}

/// A value for `ty`; one time in sixteen one of another kind, which must be refused whole or fit.
pub(super) fn with_value<T>(source: &mut Source<'_>, ty: &ColumnType, run: impl FnOnce(Value<'_>) -> T) -> T {
    let choice = source.byte();
    if choice < 32 {
        return run(Value::Null);
    }
    let (low, wide) = (source.short(), i64::from(source.short()));
    let number = if choice & 1 == 0 {
        wide
    } else {
        source.long().cast_signed()
    };
    let (days, ticks) = (u32::from(low), u64::from(low) * 60);
    if choice >= 0xF0 {
        return match choice & 7 {
            0 => run(Value::Bytes(source.take(usize::from(low) % 64))),
            1 => run(Value::Int(number)),
            2 => run(Value::Str("x")),
            3 => run(Value::Bool(true)),
            4 => run(Value::Variant(&ColumnType::Int, &Value::Int(wide))),
            _ => run(Value::Float(0.5)),
        };
    }
    match ty {
        ColumnType::Bit | ColumnType::BitN => run(Value::Bool(low & 1 == 1)),
        ColumnType::TinyInt
        | ColumnType::SmallInt
        | ColumnType::Int
        | ColumnType::BigInt
        | ColumnType::IntN(_) => run(Value::Int(number)),
        ColumnType::Real | ColumnType::Float | ColumnType::FloatN(_) => {
            run(Value::Float(f64::from(low) / 3.0))
        }
        ColumnType::Money | ColumnType::SmallMoney | ColumnType::MoneyN(_) => run(Value::Money(number)),
        ColumnType::DateTime | ColumnType::SmallDateTime | ColumnType::DateTimeN(_) => run(Value::DateTime {
            days: i32::from(low),
            ticks: u32::try_from(wide).unwrap_or(0),
        }),
        ColumnType::DecimalN { .. } | ColumnType::NumericN { .. } | ColumnType::LegacyDecimal { .. } => {
            run(Value::Decimal(Decimal::from(i128::from(number))))
        }
        ColumnType::Guid => run(Value::Guid([source.byte(); 16])),
        ColumnType::Date => run(Value::Date(days)),
        ColumnType::Time(_) => run(Value::Time(ticks)),
        ColumnType::DateTime2(_) => run(Value::DateTime2 { days, ticks }),
        ColumnType::DateTimeOffset(_) => run(Value::DateTimeOffset {
            days,
            ticks,
            minutes: 60,
        }),
        ColumnType::Vector { .. } => run(Value::Vector(&vec![1.5; usize::from(low) % 100])),
        ColumnType::Variant => {
            let inner = Value::Int(wide & 0x7FFF);
            run(Value::Variant(&ColumnType::Int, &inner))
        }
        ty if ty.is_plp() && choice & 2 == 2 => {
            let chunks = [source.take(usize::from(low) % 50), &[][..], source.take(7)];
            run(Value::Plp(Plp {
                known: choice & 4 == 4,
                chunks: &chunks,
            }))
        }
        ty if ty.is_text() => run(Value::Str(&text(source))),
        _ => run(Value::Bytes(source.take(usize::from(low) % 64))),
    }
}
