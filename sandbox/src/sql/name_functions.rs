//! Scalar functions that name things: parts of names, data types, what a variant holds.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value as Held, ValueRef};
use rusqlite::{Connection, Result};

use super::functions::{int, text, text1};
use super::system;

/// Registers them.
///
/// # Errors
/// SQLite refused one.
pub(super) fn register(db: &Connection) -> Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("tsql_last_part", 1, pure, |c| {
        text1(c, |s| {
            let last = s.rsplit('.').next().unwrap_or_default();
            Held::Text(last.trim_matches(['[', ']', '"', ' ']).to_lowercase())
        })
    })?;
    db.create_scalar_function("type_name", 1, pure, |c| {
        Ok(system::type_name(int(c, 0)?).map_or(Held::Null, |name| Held::Text(name.to_owned())))
    })?;
    db.create_scalar_function("sql_variant_property", 2, pure, |c| {
        let base = match c.get_raw(0) {
            ValueRef::Null => return Ok(Held::Null),
            ValueRef::Integer(n) if i32::try_from(n).is_ok() => "int",
            ValueRef::Integer(_) => "bigint",
            ValueRef::Real(_) => "float",
            ValueRef::Text(_) => "nvarchar",
            ValueRef::Blob(_) => "varbinary",
        };
        let is_base = text(c, 1)?.eq_ignore_ascii_case("basetype");
        Ok(if is_base {
            Held::Text(base.to_owned())
        } else {
            Held::Null
        })
    })
}
