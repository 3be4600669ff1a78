//! `INSERT … EXEC`: what a call answers goes into a table.

use rusqlite::types::Value as Held;

use super::answer::Answer;
use super::batch::Flow;
use super::connection::Connection;
use super::expressions::bracketed;
use super::fault::Fault;
use super::types::SqlType;
use super::{cast, query::ColumnTypes};
use crate::tokens::{Message, command};
use crate::tsql::Exec;

impl Connection {
    pub(super) fn insert_exec(
        &mut self,
        table: &str,
        columns: &[String],
        exec: &Exec,
        answer: &mut Answer<'_>,
    ) -> Result<Flow, Fault> {
        if self.captured.is_some() {
            return Err(Message::error(8164, "An INSERT EXEC statement cannot be nested.").into());
        }
        self.captured = Some(Vec::new());
        let ran = self.execute(exec, answer);
        let rows = self.captured.take().unwrap_or_default();
        if ran? == Flow::Abort {
            return Ok(Flow::Abort);
        }
        let inserted = self.locked(answer, |this, _| this.insert_captured(table, columns, &rows))?;
        self.changed(command::INSERT, inserted, answer);
        Ok(Flow::Next)
    }

    fn insert_captured(&self, table: &str, columns: &[String], rows: &[Vec<Held>]) -> Result<usize, Fault> {
        let db = self.opened()?;
        let types: ColumnTypes = self.column_types_of(table)?;
        let names: Vec<String> = if columns.is_empty() {
            let mut described = db.prepare("SELECT name FROM pragma_table_info(?1)")?;
            let names = described.query_map([table], |row| row.get(0))?;
            names.collect::<Result<_, _>>()?
        } else {
            columns.to_vec()
        };
        let kinds: Vec<SqlType> = names
            .iter()
            .map(|name| types.get(&name.to_lowercase()).copied().unwrap_or(SqlType::TEXT))
            .collect();
        let list: Vec<String> = names.iter().map(|n| bracketed(n).to_string()).collect();
        let places = vec!["?"; names.len()].join(", ");
        let mut insert = db.prepare(&format!(
            "INSERT INTO {} ({}) VALUES ({places})",
            bracketed(table),
            list.join(", ")
        ))?;
        for row in rows {
            if row.len() != names.len() {
                let text = "Column name or number of supplied values does not match table definition.";
                return Err(Message::error(213, text).into());
            }
            for (at, (value, kind)) in row.iter().zip(&kinds).enumerate() {
                insert.raw_bind_parameter(at + 1, cast::cast(value, *kind, 0)?)?;
            }
            insert.raw_execute()?;
        }
        Ok(rows.len())
    }
}
