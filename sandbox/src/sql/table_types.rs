//! Table-valued parameters [MS-TDS 2.2.5.5.5]: the types they need, their rows off the wire, and the table they become.

use rusqlite::types::Value as Held;
use sqlparser::ast::{ColumnDef, DataType};
use weir_tds::read::{Fail, Reader};
use weir_tds::type_info::{Place, TypeInfo};
use weir_tds::version::TdsVersion;

use super::answer::Answer;
use super::connection::Connection;
use super::ddl;
use super::fault::Fault;
use super::parameters::{held, kind_of};
use super::types::SqlType;
use super::{cast, expressions::bracketed};
use crate::tokens::Message;

/// Tokens inside a table [MS-TDS 2.2.5.5.5.3].
const ROW: u8 = 0x01;
const ORDER_UNIQUE: u8 = 0x10;
const COLUMN_ORDER: u8 = 0x11;
const END: u8 = 0x00;
/// Column count of a table that is NULL.
const NULL_TABLE: u16 = 0xFFFF;
/// Column flag: no row has a value for the column.
const DEFAULT: u16 = 0x0200;

/// The rows of a table-valued parameter. Bounded by the message.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TableValue {
    /// For each value of a row, the column of the type that it belongs to.
    places: Vec<usize>,
    rows: Vec<Vec<Held>>,
}

/// Reads a whole parameter, its name and status included.
///
/// # Errors
/// Bytes that are no table, or a value that does not fit its type.
pub(super) fn read_table(parameter: &[u8], version: TdsVersion) -> Result<TableValue, Fault> {
    let mut r = Reader::new(parameter, 0);
    let bad = |fail: Fail| -> Fault {
        let text = fail.into_error("table-valued parameter", 0).to_string();
        Message::error(
            8014,
            format!("The incoming TDS protocol stream is incorrect: {text}."),
        )
        .into()
    };
    let infos = read_columns(&mut r, version).map_err(bad)?;
    let places = read_order(&mut r, &infos).map_err(bad)?;
    let mut rows = Vec::new();
    while r.u8().map_err(bad)? == ROW {
        let mut row = Vec::with_capacity(places.len());
        for at in &places {
            let Some(Some(info)) = infos.get(*at) else {
                continue;
            };
            let raw = info.framing.read_value(&mut r).map_err(bad)?;
            row.push(held(*info, kind_of(*info), raw)?);
        }
        rows.push(row);
    }
    let places = places
        .into_iter()
        .filter(|at| infos.get(*at).is_some_and(Option::is_some))
        .collect();
    Ok(TableValue { places, rows })
}

/// The columns; `None` for those that no row has a value for.
fn read_columns(r: &mut Reader<'_>, version: TdsVersion) -> Result<Vec<Option<TypeInfo>>, Fail> {
    r.b_varchar()?;
    // Status and the type byte 0xF3.
    r.u16()?;
    for _ in 0..3 {
        r.b_varchar()?;
    }
    let count = match r.u16()? {
        NULL_TABLE => 0,
        count => count,
    };
    let mut infos = Vec::new();
    for _ in 0..count {
        r.u32()?;
        let flags = r.u16()?;
        let info = TypeInfo::read(r, version, Place::Parameter)?;
        r.b_varchar()?;
        infos.push((flags & DEFAULT == 0).then_some(info));
    }
    Ok(infos)
}

/// The order of the values in a row: the columns', unless the client tells another.
fn read_order(r: &mut Reader<'_>, infos: &[Option<TypeInfo>]) -> Result<Vec<usize>, Fail> {
    let mut places: Vec<usize> = (0..infos.len()).collect();
    loop {
        match r.u8()? {
            ORDER_UNIQUE => {
                let count = usize::from(r.u16()?);
                r.take(count * 3)?;
            }
            COLUMN_ORDER => {
                let count = r.u16()?;
                places.clear();
                for _ in 0..count {
                    places.push(usize::from(r.u16()?).saturating_sub(1));
                }
            }
            END => return Ok(places),
            _ => return Ok(places),
        }
    }
}

impl Connection {
    /// The columns of a table type, if the declared type is one.
    pub(super) fn table_type(&self, kind: &DataType) -> Option<Vec<ColumnDef>> {
        let DataType::Custom(name, _) = kind else {
            return None;
        };
        let last = name.0.last()?.as_ident()?.value.to_lowercase();
        self.table_types().get(&last)
    }

    /// Makes the table that a variable or parameter of a table type is, with its rows.
    pub(super) fn fill_table(
        &mut self,
        name: &str,
        columns: &[ColumnDef],
        value: Option<&TableValue>,
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        let create = ddl::create_temporary(name, columns)?;
        let table = bracketed(name).to_string();
        let db = self.db(answer)?;
        db.execute_batch(&format!("DROP TABLE IF EXISTS temp.{table}; {create}"))?;
        let Some(value) = value.filter(|v| !v.rows.is_empty()) else {
            return Ok(());
        };
        let of_type = |at: &usize| columns.get(*at);
        let targets: Vec<&ColumnDef> = value.places.iter().filter_map(of_type).collect();
        if targets.len() != value.places.len() {
            let text = "Trying to pass a table-valued parameter with more columns than its type has.";
            return Err(Message::error(500, text).into());
        }
        let names: Vec<String> = targets
            .iter()
            .map(|c| bracketed(&c.name.value).to_string())
            .collect();
        let kinds: Vec<SqlType> = targets
            .iter()
            .map(|c| SqlType::from_ast(&c.data_type).unwrap_or(SqlType::TEXT))
            .collect();
        let places = vec!["?"; names.len()].join(", ");
        let mut insert = db.prepare(&format!(
            "INSERT INTO temp.{table} ({}) VALUES ({places})",
            names.join(", ")
        ))?;
        for row in &value.rows {
            for (at, (value, kind)) in row.iter().zip(&kinds).enumerate() {
                insert.raw_bind_parameter(at + 1, cast::cast(value, *kind, 0)?)?;
            }
            insert.raw_execute()?;
        }
        Ok(())
    }

    pub(super) fn create_table_type(&mut self, name: &str, columns: &[ColumnDef]) -> Result<(), Fault> {
        // A column of an unknown type is refused here and not at the first use.
        ddl::create_temporary(name, columns)?;
        if !self.table_types().put(name, columns) {
            let text =
                format!("The type '{name}' already exists, or you do not have permission to create it.");
            return Err(Message::error(219, text).into());
        }
        Ok(())
    }

    pub(super) fn drop_type(&mut self, name: &str, if_exists: bool) -> Result<(), Fault> {
        if self.table_types().remove(name) || if_exists {
            return Ok(());
        }
        let text = format!(
            "Cannot drop the type '{name}', because it does not exist or you do not have permission."
        );
        Err(Message::new(3701, 11, 5, text).into())
    }
}
