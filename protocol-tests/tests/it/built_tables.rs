//! Result sets of random columns and values, built in every layout, and read back by the naive decoder and by the walker.

use weir_protocol_tests::naive_decoder::decode;
use weir_protocol_tests::trace::trace;
use weir_tds::build::{Collation, ColumnDef, ColumnType, Plp, TokenBuf, Value};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

const SEED: u64 = 0x0B11_D7AB;
const TABLES: u32 = 300;

/// The types that every version knows.
fn old_types() -> Vec<ColumnType> {
    let c = Collation::LATIN1;
    vec![
        ColumnType::TinyInt,
        ColumnType::Bit,
        ColumnType::SmallInt,
        ColumnType::Int,
        ColumnType::BigInt,
        ColumnType::Real,
        ColumnType::Float,
        ColumnType::Money,
        ColumnType::SmallMoney,
        ColumnType::DateTime,
        ColumnType::SmallDateTime,
        ColumnType::IntN(8),
        ColumnType::FloatN(4),
        ColumnType::BitN,
        ColumnType::MoneyN(8),
        ColumnType::DateTimeN(8),
        ColumnType::DecimalN {
            precision: 19,
            scale: 4,
        },
        ColumnType::NumericN {
            precision: 38,
            scale: 0,
        },
        ColumnType::Guid,
        ColumnType::Char(10, c),
        ColumnType::VarChar(8000, c),
        ColumnType::NChar(20, c),
        ColumnType::NVarChar(8000, c),
        ColumnType::Binary(16),
        ColumnType::VarBinary(8000),
        ColumnType::Text(c),
        ColumnType::NText(c),
        ColumnType::Image,
        ColumnType::Variant,
        ColumnType::LegacyBinary(200),
        ColumnType::LegacyDecimal {
            precision: 9,
            scale: 2,
        },
    ]
}

/// One of every type that a server of `version` may send.
fn types(version: TdsVersion) -> Vec<ColumnType> {
    let c = Collation::LATIN1;
    let mut all = old_types();
    if version == TdsVersion::V7_0 {
        all.extend([
            ColumnType::LegacyChar(9, None),
            ColumnType::LegacyVarChar(9, None),
        ]);
    }
    if version >= TdsVersion::V7_2 {
        all.extend([
            ColumnType::VarCharMax(c),
            ColumnType::NVarCharMax(c),
            ColumnType::VarBinaryMax,
            ColumnType::Xml(None),
            ColumnType::Udt {
                max: 0xFFFF,
                database: "db".into(),
                schema: "sys".into(),
                name: "geometry".into(),
                assembly: "an assembly".into(),
            },
        ]);
    }
    if version >= TdsVersion::V7_3A {
        let time = [
            ColumnType::Time(7),
            ColumnType::DateTime2(3),
            ColumnType::DateTimeOffset(0),
        ];
        all.extend(time.into_iter().chain([ColumnType::Date]));
    }
    if version >= TdsVersion::V7_4 {
        all.extend([ColumnType::Json, ColumnType::Vector { max: 100, element: 0 }]);
    }
    all
}

/// The lengths of a type that has but a few [MS-TDS 2.2.5.4.1, 2.2.5.4.2], and whether it has NULL.
fn few_lengths(ty: &ColumnType) -> Option<(&'static [usize], bool)> {
    Some(match ty {
        ColumnType::TinyInt | ColumnType::Bit => (&[1], false),
        ColumnType::SmallInt => (&[2], false),
        ColumnType::Int | ColumnType::Real | ColumnType::SmallMoney | ColumnType::SmallDateTime => {
            (&[4], false)
        }
        ColumnType::BigInt | ColumnType::Float | ColumnType::Money | ColumnType::DateTime => (&[8], false),
        ColumnType::IntN(_) => (&[1, 2, 4, 8], true),
        ColumnType::BitN => (&[1], true),
        ColumnType::FloatN(_) | ColumnType::MoneyN(_) | ColumnType::DateTimeN(_) => (&[4, 8], true),
        ColumnType::DecimalN { .. }
        | ColumnType::NumericN { .. }
        | ColumnType::LegacyDecimal { .. }
        | ColumnType::LegacyNumeric { .. } => (&[5, 9, 13, 17], true),
        ColumnType::Guid => (&[16], true),
        ColumnType::Date => (&[3], true),
        ColumnType::Time(7) => (&[5], true),
        ColumnType::DateTime2(3) => (&[7], true),
        ColumnType::DateTimeOffset(0) => (&[8], true),
        _ => return None,
    })
}

/// Random bytes of a length that the type has; `None` is NULL.
fn cell(rng: &mut fastrand::Rng, ty: &ColumnType) -> Option<Vec<u8>> {
    let few = few_lengths(ty);
    if few.is_none_or(|(_, nullable)| nullable) && rng.u32(..4) == 0 {
        return None;
    }
    let len = match few {
        Some((lengths, _)) => *rng.choice(lengths).expect("a length"),
        // Types with a byte or a u32 of length cannot tell an empty value from NULL.
        None => rng.usize(1..200),
    };
    let mut bytes: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
    if *ty == ColumnType::Variant {
        // varbinary(8000) [MS-TDS 2.2.5.5.4].
        bytes.splice(..0, [0xA5, 2, 0x40, 0x1F]);
    }
    Some(bytes)
}

/// COLMETADATA with its CekTable, and ROW behind it [MS-TDS 2.2.5.7, 2.2.7.20].
#[test]
fn random_tables_are_read_back() {
    let mut rng = fastrand::Rng::with_seed(SEED);
    for _ in 0..TABLES {
        let versions = [
            TdsVersion::V7_0,
            TdsVersion::V7_1,
            TdsVersion::V7_1Rev1,
            TdsVersion::V7_2,
            TdsVersion::V7_3A,
            TdsVersion::V7_3B,
            TdsVersion::V7_4,
            TdsVersion::V8_0,
        ];
        let version = versions[rng.usize(..versions.len())];
        let known = types(version);
        let columns: Vec<ColumnDef> = (0..rng.usize(1..20))
            .map(|i| {
                ColumnDef::new(format!("c{i}"), known[rng.usize(..known.len())].clone())
                    .with_table(&["dbo", "t"])
            })
            .collect();
        let mut out = TokenBuf::new(version);
        out.col_metadata(&columns).unwrap().order(&[1, 2]).unwrap();
        let rows: Vec<Vec<Option<Vec<u8>>>> = (0..rng.usize(..30))
            .map(|_| columns.iter().map(|c| cell(&mut rng, &c.ty)).collect())
            .collect();
        for row in &rows {
            build_row(&mut rng, &mut out, &columns, row);
        }
        out.done(0x10, 0xC1, rows.len() as u64);
        let bytes = out.take();
        let options = WalkerOptions::new(version);
        let (tokens, error) = decode(&bytes, options);
        assert_eq!(error, None, "{version:?} {columns:?}");
        let read: Vec<&Vec<Option<Vec<u8>>>> = tokens
            .iter()
            .filter(|t| matches!(t.token, 0xD1 | 0xD2))
            .map(|t| &t.values)
            .collect();
        assert_eq!(read, rows.iter().collect::<Vec<_>>(), "{version:?} {columns:?}");
        let cuts: Vec<usize> = (1..bytes.len()).filter(|_| rng.u32(..50) == 0).collect();
        let walked = trace(&bytes, &cuts, options);
        assert_eq!(
            (walked.end, walked.counts),
            (Ok(()), (rows.len() as u64, 1, bytes.len() as u64))
        );
    }
}

/// A row in one of the ways to build it: whole, with a bitmap of nulls, or value by value with PLP in pieces.
fn build_row(rng: &mut fastrand::Rng, out: &mut TokenBuf, columns: &[ColumnDef], row: &[Option<Vec<u8>>]) {
    let values: Vec<Value<'_>> = row
        .iter()
        .map(|c| c.as_deref().map_or(Value::Null, Value::Bytes))
        .collect();
    match rng.u32(..3) {
        0 if out.version() >= TdsVersion::V7_3B => drop(out.nbc_row(columns, &values).unwrap()),
        1 => {
            out.begin_row();
            for (column, value) in columns.iter().zip(&values) {
                match value {
                    Value::Bytes(bytes) if column.ty.is_plp() => {
                        let chunks: Vec<&[u8]> = bytes.chunks(rng.usize(1..50)).collect();
                        if rng.bool() {
                            let plp = Plp {
                                known: rng.bool(),
                                chunks: &chunks,
                            };
                            out.value(&column.ty, &Value::Plp(plp)).unwrap();
                            continue;
                        }
                        out.begin_plp(rng.bool().then_some(bytes.len() as u64));
                        for chunk in chunks {
                            out.plp_chunk(chunk).plp_chunk(&[]);
                        }
                        out.end_plp();
                    }
                    value => drop(out.value(&column.ty, value).unwrap()),
                }
            }
        }
        _ => drop(out.row(columns, &values).unwrap()),
    }
}
