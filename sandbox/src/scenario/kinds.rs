//! Types and values of a script: every data type of the wire by name, every value from JSON.

use rusqlite::types::{Value as Held, ValueRef};
use serde_json::Value as Json;
use weir_tds::build::{BuildError, Collation, ColumnType, Plp, Value, XmlSchema};
use weir_tds::version::TdsVersion;

use super::stage::unhex;
use crate::sql::{Scratch, SqlType, cast, to_wire};

/// Bytes of a UDT that is not large.
const UDT_MAX: u16 = 8000;
/// Dimension type of float32.
const FLOAT32: u8 = 0;
/// Header of a vector's value.
const VECTOR_HEADER: u16 = 8;

/// What is done with a value.
type Use<'f> = dyn FnMut(&Value<'_>) -> Result<(), BuildError> + 'f;

/// A column's type: how it stands on the wire, and how JSON is read into its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    pub(super) ty: ColumnType,
    /// `None` where T-SQL's own conversions say nothing: JSON, vectors, UDTs, variants.
    sql: Option<SqlType>,
    pub(super) user_type: u32,
}

impl Kind {
    /// From a T-SQL type (`int`, `nvarchar(max)`), or one that only the wire has: `sql_variant`, `json`, `vector(3)`,
    /// `udt(geometry)`, `xml(db.schema.collection)`, `numeric(10,2)`, `utf8(20)`, and the types of old servers, `legacy_char(10)`,
    /// `legacy_varchar(10)`, `legacy_binary(10)`, `legacy_varbinary(10)`, `legacy_decimal(10,2)`, `legacy_numeric(10,2)`.
    /// `None` if it is none of them.
    pub(super) fn parse(text: &str, nullable: bool, version: TdsVersion) -> Option<Self> {
        let (name, args) = text.trim().split_once('(').unwrap_or((text.trim(), ""));
        let args: Vec<&str> = args
            .trim_end_matches(')')
            .split([',', '.'])
            .map(str::trim)
            .collect();
        let number = |at: usize| args.get(at).and_then(|n| n.parse::<u16>().ok());
        let small = |at: usize, or: u8| number(at).and_then(|n| u8::try_from(n).ok()).unwrap_or(or);
        let part = |at: usize| args.get(at).map_or_else(String::new, |p| (*p).to_owned());
        let (precision, scale, length) = (small(0, 18), small(1, 0), small(0, 10));
        let decimal = Some(SqlType::Decimal { precision, scale });
        let text_type = Some(SqlType::from_declared("varchar(255)")?);
        let bytes_type = Some(SqlType::from_declared("varbinary(255)")?);
        let (ty, sql) = match name.to_ascii_lowercase().as_str() {
            "sql_variant" => (ColumnType::Variant, None),
            "json" => (ColumnType::Json, None),
            "vector" => {
                let max = VECTOR_HEADER.saturating_add(number(0).unwrap_or(1).saturating_mul(4));
                (
                    ColumnType::Vector {
                        max,
                        element: FLOAT32,
                    },
                    None,
                )
            }
            "udt" => (udt(&part(0), UDT_MAX), None),
            "geometry" | "geography" | "hierarchyid" => (udt(name, u16::MAX), None),
            "xml" if !part(0).is_empty() => {
                let schema = XmlSchema {
                    database: part(0),
                    schema: part(1),
                    collection: part(2),
                };
                (ColumnType::Xml(Some(schema)), Some(SqlType::Xml))
            }
            "numeric" => (ColumnType::NumericN { precision, scale }, decimal),
            "utf8" => (
                ColumnType::VarChar(number(0).unwrap_or(100), Collation::UTF8),
                text_type,
            ),
            "legacy_char" => (ColumnType::LegacyChar(length, Some(Collation::LATIN1)), text_type),
            "legacy_varchar" => (
                ColumnType::LegacyVarChar(length, Some(Collation::LATIN1)),
                text_type,
            ),
            "legacy_binary" => (ColumnType::LegacyBinary(length), bytes_type),
            "legacy_varbinary" => (ColumnType::LegacyVarBinary(length), bytes_type),
            "legacy_decimal" => (ColumnType::LegacyDecimal { precision, scale }, decimal),
            "legacy_numeric" => (ColumnType::LegacyNumeric { precision, scale }, decimal),
            _ => {
                let kind = SqlType::from_declared(text)?.for_version(version);
                (kind.to_wire(nullable), Some(kind))
            }
        };
        let user_type = if sql == Some(SqlType::RowVersion) { 0x50 } else { 0 };
        Some(Self { ty, sql, user_type })
    }

    /// In the place of a type that is not known: nvarchar(4000).
    pub(super) fn unknown() -> Self {
        Self {
            ty: SqlType::TEXT.to_wire(true),
            sql: Some(SqlType::TEXT),
            user_type: 0,
        }
    }

    /// Gives `f` the value that a script means: dates and decimals as strings, binary as `0x…`, a vector as an array, a
    /// variant as `{ type, value }`, a PLP value in chunks as `{ chunks, known }`.
    pub(super) fn with_value(&self, json: &Json, f: &mut Use<'_>) -> Result<(), BuildError> {
        if let (true, Some(chunks)) = (self.ty.is_plp(), json.get("chunks").and_then(Json::as_array)) {
            let chunks: Vec<Vec<u8>> = chunks.iter().map(bytes_of).collect();
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let known = json.get("known").and_then(Json::as_bool).unwrap_or(false);
            return f(&Value::Plp(Plp {
                known,
                chunks: &chunks,
            }));
        }
        match (&self.ty, json) {
            (_, Json::Null) => f(&Value::Null),
            (ColumnType::Variant, json) => {
                let base = json.get("type").and_then(Json::as_str).unwrap_or("int");
                match Self::parse(base, false, TdsVersion::V7_4) {
                    Some(inner) => {
                        let value = json.get("value").unwrap_or(&Json::Null);
                        inner.with_value(value, &mut |value| f(&Value::Variant(&inner.ty, value)))
                    }
                    None => f(&Value::Null),
                }
            }
            (ColumnType::Json, Json::String(text)) => f(&Value::Str(text)),
            (ColumnType::Json, other) => f(&Value::Str(&other.to_string())),
            (ColumnType::Vector { .. }, Json::Array(numbers)) => {
                let numbers: Vec<f32> = numbers.iter().map(|n| n.as_f64().unwrap_or(0.0) as f32).collect();
                f(&Value::Vector(&numbers))
            }
            (ty, json) => match self.sql {
                Some(kind) => {
                    let (held, mut scratch) = (held(json, kind), Scratch::default());
                    let value = to_wire(ValueRef::from(&held), kind, &mut scratch).unwrap_or(Value::Null);
                    f(&value)
                }
                None if matches!(ty, ColumnType::Udt { .. }) => f(&Value::Bytes(&bytes_of(json))),
                None => f(&Value::Null),
            },
        }
    }
}

fn udt(name: &str, max: u16) -> ColumnType {
    ColumnType::Udt {
        max,
        database: "demo".to_owned(),
        schema: "sys".to_owned(),
        name: name.to_owned(),
        assembly:
            "Microsoft.SqlServer.Types, Version=16.0.0.0, Culture=neutral, PublicKeyToken=89845dcd8080cc91"
                .to_owned(),
    }
}

/// `0x…` as those bytes, other text as its UTF-8.
fn bytes_of(json: &Json) -> Vec<u8> {
    match json.as_str() {
        Some(text) => match text.strip_prefix("0x") {
            Some(hex) => unhex(hex),
            None => text.as_bytes().to_vec(),
        },
        None => Vec::new(),
    }
}

/// A script's value in the form that SQLite would hold.
fn held(value: &Json, kind: SqlType) -> Held {
    let held = match value {
        Json::Null => Held::Null,
        Json::Bool(b) => Held::Integer(i64::from(*b)),
        Json::Number(n) => n
            .as_i64()
            .map_or_else(|| Held::Real(n.as_f64().unwrap_or(0.0)), Held::Integer),
        Json::String(s) => match s.strip_prefix("0x") {
            Some(hex) if !kind.is_text() => Held::Blob(unhex(hex)),
            _ => Held::Text(s.clone()),
        },
        other => Held::Text(other.to_string()),
    };
    cast(&held, kind, 0).unwrap_or(held)
}
