//! Bulk load [MS-TDS 2.2.6.1]: INSERT BULK announces it, the next message carries the rows.

use bytes::Bytes;
use rusqlite::types::Value as Held;
use weir_tds::data_type::DataType;
use weir_tds::read::{Fail, Reader};
use weir_tds::type_info::{Place, TypeInfo};
use weir_tds::version::TdsVersion;

use super::answer::Answer;
use super::connection::Connection;
use super::expressions::bracketed;
use super::fault::Fault;
use super::parameters::held;
use super::types::SqlType;
use super::{cast, parameters};
use crate::tokens::{Message, command, status};

/// Most columns of a load; T-SQL's tables have 1 024.
const COLUMNS_MAX: u16 = 1024;
const COLMETADATA: u8 = 0x81;
const ROW: u8 = 0xD1;
const DONE: u8 = 0xFD;

/// A load that was announced.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    table: String,
    /// Names as announced; empty takes those of the metadata.
    columns: Vec<String>,
}

impl Connection {
    /// `INSERT BULK`: the next message belongs to it.
    pub(super) fn announce_bulk(
        &mut self,
        table: &str,
        columns: &[String],
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        let name = table
            .rsplit('.')
            .next()
            .unwrap_or(table)
            .trim_matches(['[', ']'])
            .to_owned();
        self.db(answer)?
            .prepare(&format!("SELECT 1 FROM {}", bracketed(&name)))?;
        self.bulk = Some(Pending {
            table: name,
            columns: columns.to_vec(),
        });
        answer.done(status::FINAL, command::NONE, 0);
        Ok(())
    }

    /// The message with the rows; all of them are inserted, or none.
    pub(super) fn bulk_load(
        &mut self,
        body: &Bytes,
        version: TdsVersion,
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        let Some(pending) = self.bulk.take() else {
            return Err(Message::new(4002, 16, 1, "Bulk data came without an INSERT BULK before it.").into());
        };
        let load = read(body, version)?;
        let rows = self.locked(answer, |this, _| this.insert_all(&pending, &load))?;
        self.facts.row_count = rows;
        answer.done(status::COUNT, command::BULK, rows);
        Ok(())
    }

    fn insert_all(&self, pending: &Pending, load: &Load) -> Result<u64, Fault> {
        let db = self.opened()?;
        db.execute_batch("SAVEPOINT bulk_load")?;
        let inserted = self.insert_rows(pending, load);
        let end = if inserted.is_ok() {
            "RELEASE bulk_load"
        } else {
            "ROLLBACK TO bulk_load; RELEASE bulk_load"
        };
        db.execute_batch(end)?;
        inserted
    }

    fn insert_rows(&self, pending: &Pending, load: &Load) -> Result<u64, Fault> {
        let db = self.opened()?;
        let names = if pending.columns.is_empty() {
            &load.names
        } else {
            &pending.columns
        };
        let list: Vec<String> = names.iter().map(|n| bracketed(n).to_string()).collect();
        let places = vec!["?"; names.len()].join(", ");
        let table = bracketed(&pending.table);
        let mut insert = db.prepare(&format!(
            "INSERT INTO {table} ({}) VALUES ({places})",
            list.join(", ")
        ))?;
        let kinds = self.kinds_of(&pending.table, names)?;
        let mut count = 0;
        for row in &load.rows {
            for (at, (value, kind)) in row.iter().zip(&kinds).enumerate() {
                insert.raw_bind_parameter(at + 1, cast::cast(value, *kind, 0)?)?;
            }
            insert.raw_execute()?;
            count += 1;
        }
        Ok(count)
    }

    fn kinds_of(&self, table: &str, names: &[String]) -> Result<Vec<SqlType>, Fault> {
        let types = self.column_types_of(table)?;
        let kind = |name: &String| types.get(&name.to_lowercase()).copied().unwrap_or(SqlType::TEXT);
        Ok(names.iter().map(kind).collect())
    }
}

/// What a bulk message holds. Bounded by the message.
struct Load {
    names: Vec<String>,
    rows: Vec<Vec<Held>>,
}

fn read(body: &[u8], version: TdsVersion) -> Result<Load, Fault> {
    let mut r = Reader::new(body, 0);
    let load = read_load(&mut r, version);
    load.map_err(|fail| match fail {
        Broken::Wire(fail) => {
            let text = fail.into_error("bulk load", 0).to_string();
            Message::error(4804, format!("Invalid bulk data: {text}.")).into()
        }
        Broken::Value(fault) => fault,
    })
}

enum Broken {
    Wire(Fail),
    Value(Fault),
}

impl From<Fail> for Broken {
    fn from(fail: Fail) -> Self {
        Self::Wire(fail)
    }
}

fn read_load(r: &mut Reader<'_>, version: TdsVersion) -> Result<Load, Broken> {
    let no_metadata = || Broken::Value(Message::error(4804, "Bulk data without column metadata.").into());
    if r.u8()? != COLMETADATA {
        return Err(no_metadata());
    }
    let count = r.u16()?;
    if count > COLUMNS_MAX {
        return Err(no_metadata());
    }
    let (mut names, mut infos) = (Vec::new(), Vec::new());
    for _ in 0..count {
        if version.has_wide_counts() {
            r.u32()?;
        } else {
            r.u16()?;
        }
        r.u16()?;
        let info = TypeInfo::read(r, version, Place::BulkColumn)?;
        if matches!(info.data_type, DataType::Text | DataType::NText | DataType::Image) {
            r.us_varchar()?;
        }
        names.push(weir_tds::utf16::decode(r.b_varchar()?));
        infos.push(info);
    }
    let mut rows = Vec::new();
    loop {
        // FreeTDS ends its load with the message, without a DONE, and servers take it.
        let token = if r.peek().is_none() { DONE } else { r.u8()? };
        match token {
            ROW => {
                let mut row = Vec::with_capacity(infos.len());
                for info in &infos {
                    let raw = info.framing.read_value(r)?;
                    row.push(held(*info, parameters::kind_of(*info), raw).map_err(Broken::Value)?);
                }
                rows.push(row);
            }
            DONE => return Ok(Load { names, rows }),
            _ => {
                return Err(Broken::Value(
                    Message::error(4804, "Bulk data with an unknown token.").into(),
                ));
            }
        }
    }
}
