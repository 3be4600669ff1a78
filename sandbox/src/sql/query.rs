//! Queries and changes: translated, run on SQLite, told in T-SQL's types as they come.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rusqlite::CachedStatement;
use rusqlite::types::{Value as Held, ValueRef};
use sqlparser::ast::{Expr, ObjectName, Query, Select, SelectItem, SetExpr, Statement, Visit, Visitor};
use weir_tds::build::ColumnDef;

use super::answer::Answer;
use super::columns::{Told, look_ahead, send_row};
use super::connection::Connection;
use super::cursors::CURSOR_ROWS_MAX;
use super::expressions::bracketed;
use super::facts::Variable;
use super::fault::Fault;
use super::infer::Scope;
use super::translate::{table_name, translate};
use super::types::{Column, SqlType};
use super::{cast, cell, ddl};
use crate::conn::reply::Stopped;
use crate::demo;
use crate::tokens::{Message, command, status};

/// Types of columns by lower-case name.
pub(super) type ColumnTypes = HashMap<String, SqlType>;

impl Connection {
    /// Runs a statement of `sqlparser`'s.
    pub(super) fn sql(&mut self, statement: &Statement, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let reads_or_writes = matches!(
            statement,
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
        );
        if self.options.implicit_transactions && self.facts.transactions == 0 && reads_or_writes {
            self.begin(answer)?;
        }
        match statement {
            Statement::Query(query) => self.locked(answer, |this, answer| this.query(query, answer)),
            Statement::Insert(insert) => self.locked(answer, |this, answer| this.insert(insert, answer)),
            Statement::Update(update) => self.locked(answer, |this, answer| this.update(update, answer)),
            Statement::Delete(delete) => self.locked(answer, |this, answer| this.delete(delete, answer)),
            other => {
                let text = ddl::translate(other, |node| self.translated(node))?;
                self.locked(answer, |this, _| Ok(this.opened()?.execute_batch(&text)?))?;
                if let Ok(db) = self.opened() {
                    db.flush_prepared_statement_cache();
                }
                answer.done(status::FINAL, command::NONE, 0);
                Ok(())
            }
        }
    }

    fn translated(&self, query: &mut Query) -> Result<(), Message> {
        let columns = ColumnTypes::new();
        translate(
            query,
            Scope {
                facts: &self.facts,
                variables: &self.variables,
                columns: &columns,
            },
        )
    }

    fn query(&mut self, query: &Query, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let select = top_select(query);
        if let Some(into) = select.and_then(|s| s.into.as_ref()) {
            return self.select_into(query, &into.targets, answer);
        }
        if let Some(names) = select.and_then(assigned_variables) {
            return self.select_assign(query, &names, answer);
        }
        if self.captured.is_some() {
            let (_, rows) = self.collect(&Statement::Query(Box::new(query.clone())), answer)?;
            if let Some(captured) = &mut self.captured {
                captured.extend(rows);
            }
            return Ok(());
        }
        if let Some(plan) = demo::plan(query, &self.variables) {
            let limit = if self.options.row_limit == 0 {
                u64::MAX
            } else {
                self.options.row_limit
            };
            let rows = plan.run(answer, limit, self.options.format_only)?;
            self.select_done(rows, answer);
            return Ok(());
        }
        let rows = self.stream(Statement::Query(Box::new(query.clone())), select, answer)?;
        self.select_done(rows, answer);
        Ok(())
    }

    /// Types of the columns of one table, by lower-case name.
    pub(super) fn column_types_of(&self, table: &str) -> Result<ColumnTypes, Fault> {
        let mut types = ColumnTypes::new();
        add_column_types(self.opened()?, table, &mut types)?;
        Ok(types)
    }

    fn select_done(&mut self, rows: u64, answer: &mut Answer<'_>) {
        self.facts.row_count = rows;
        let count = if self.options.no_count {
            status::FINAL
        } else {
            status::COUNT
        };
        answer.done(count, command::SELECT, rows);
    }

    /// Runs a statement with a result and sends it; returns the rows.
    pub(super) fn stream(
        &mut self,
        statement: Statement,
        select: Option<&Select>,
        answer: &mut Answer<'_>,
    ) -> Result<u64, Fault> {
        let mut sending = Sending {
            answer,
            defs: Vec::new(),
            kinds: Vec::new(),
        };
        self.result(statement, select, &mut sending)
    }

    /// The columns and all rows of a query, for a cursor.
    pub(super) fn collect(
        &mut self,
        statement: &Statement,
        answer: &mut Answer<'_>,
    ) -> Result<(Vec<Column>, Vec<Vec<Held>>), Fault> {
        let select = match statement {
            Statement::Query(query) => top_select(query),
            _ => None,
        };
        let mut collecting = Collecting {
            answer,
            columns: Vec::new(),
            rows: Vec::new(),
        };
        self.result(statement.clone(), select, &mut collecting)?;
        Ok((collecting.columns, collecting.rows))
    }

    fn result(
        &mut self,
        mut statement: Statement,
        select: Option<&Select>,
        sink: &mut impl Sink,
    ) -> Result<u64, Fault> {
        let types = column_types(self.opened()?, &statement)?;
        let scope = Scope {
            facts: &self.facts,
            variables: &self.variables,
            columns: &types,
        };
        let items = select.map(|s| s.projection.as_slice()).unwrap_or_default();
        let (format_only, row_limit) = (self.options.format_only, self.options.row_limit);
        let told = Told::of(items, &scope);
        translate(&mut statement, scope)?;
        let mut prepared = self.prepare(&statement.to_string())?;
        let mut columns = told.columns(&prepared, &types);
        let mut rows = prepared.raw_query();
        let mut ahead = Vec::new();
        if !format_only {
            look_ahead(&mut rows, &columns, &mut ahead)?;
        }
        let columns: Vec<Column> = columns
            .iter_mut()
            .enumerate()
            .map(|(at, c)| c.settle(at, &ahead))
            .collect();
        sink.columns(&columns)?;
        let limit = if row_limit == 0 { u64::MAX } else { row_limit };
        let mut count = 0;
        for row in &ahead {
            if count == limit {
                return Ok(count);
            }
            sink.row(|at| row.get(at).map_or(ValueRef::Null, ValueRef::from))?;
            count += 1;
        }
        // Asking again behind the last row gives none: rusqlite forgets the statement at its end.
        while !format_only
            && count < limit
            && let Some(row) = rows.next()?
        {
            sink.row(|at| row.get_ref(at).unwrap_or(ValueRef::Null))?;
            count += 1;
        }
        Ok(count)
    }

    /// Prepares translated text and binds the variables that it names.
    pub(super) fn prepare(&self, text: &str) -> Result<CachedStatement<'_>, Fault> {
        let mut prepared = self.opened()?.prepare_cached(text)?;
        for at in 1..=prepared.parameter_count() {
            let name = prepared.parameter_name(at).unwrap_or_default().to_lowercase();
            let value = self.variables.get(&name).map_or(&Held::Null, |v| &v.value);
            prepared.raw_bind_parameter(at, value)?;
        }
        Ok(prepared)
    }

    /// The value of an expression.
    pub(super) fn evaluate(&mut self, expr: &Expr, answer: &mut Answer<'_>) -> Result<Held, Fault> {
        if let Expr::Identifier(ident) = expr
            && let Some(variable) = self.variables.get(&ident.value.to_lowercase())
        {
            return Ok(variable.value.clone());
        }
        self.locked(answer, |this, _| this.evaluate_here(expr.clone()))
    }

    fn evaluate_here(&self, mut expr: Expr) -> Result<Held, Fault> {
        let types = ColumnTypes::new();
        translate(
            &mut expr,
            Scope {
                facts: &self.facts,
                variables: &self.variables,
                columns: &types,
            },
        )?;
        let mut prepared = self.prepare(&format!("SELECT {expr}"))?;
        let mut rows = prepared.raw_query();
        Ok(match rows.next()? {
            Some(row) => row.get(0)?,
            None => Held::Null,
        })
    }

    /// True if a condition holds; NULL does not.
    pub(super) fn holds(&mut self, condition: &Expr, answer: &mut Answer<'_>) -> Result<bool, Fault> {
        let value = self.evaluate(condition, answer)?;
        Ok(cell::number(ValueRef::from(&value)).is_ok_and(|n| n != 0.0))
    }

    /// `SELECT @a = expr, …`: the last row's values.
    fn select_assign(
        &mut self,
        query: &Query,
        names: &[String],
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        let mut statement = Statement::Query(Box::new(query.clone()));
        let types = column_types(self.opened()?, &statement)?;
        translate(
            &mut statement,
            Scope {
                facts: &self.facts,
                variables: &self.variables,
                columns: &types,
            },
        )?;
        let text = statement.to_string();
        let lower = text.to_lowercase();
        let reads =
            |name: &String| lower.contains(&format!(" {name} ")) || lower.contains(&format!("({name}"));
        if names.iter().any(reads) {
            return self.accumulate(&text, names, answer);
        }
        let mut last: Option<Vec<Held>> = None;
        let mut count = 0;
        {
            let mut prepared = self.prepare(&text)?;
            let mut rows = prepared.raw_query();
            while let Some(row) = rows.next()? {
                last = Some((0..names.len()).map(|at| row.get(at)).collect::<Result<_, _>>()?);
                count += 1;
            }
        }
        self.assign_all(names, last.unwrap_or_default())?;
        self.select_done(count, answer);
        Ok(())
    }

    /// `SELECT @a = @a + b FROM …`: row by row, because each sees what the one before assigned.
    fn accumulate(&mut self, text: &str, names: &[String], answer: &mut Answer<'_>) -> Result<(), Fault> {
        let mut count = 0_u64;
        loop {
            let row: Option<Vec<Held>> = {
                let mut prepared = self.prepare(&format!("SELECT * FROM ({text}) LIMIT 1 OFFSET {count}"))?;
                let mut rows = prepared.raw_query();
                match rows.next()? {
                    Some(row) => Some((0..names.len()).map(|at| row.get(at)).collect::<Result<_, _>>()?),
                    None => None,
                }
            };
            let Some(row) = row else { break };
            self.assign_all(names, row)?;
            count += 1;
            if answer.is_cancelled() {
                return Err(Fault::Stopped(Stopped::Cancelled));
            }
        }
        self.select_done(count, answer);
        Ok(())
    }

    fn assign_all(&mut self, names: &[String], values: Vec<Held>) -> Result<(), Fault> {
        for (name, value) in names.iter().zip(values) {
            let Some(kind) = self.variables.get(name).map(|v| v.kind) else {
                return Err(Message::new(
                    137,
                    15,
                    2,
                    format!("Must declare the scalar variable \"{name}\"."),
                )
                .into());
            };
            let value = cast::cast(&value, kind, 0)?;
            self.variables.insert(name.clone(), Variable { kind, value });
        }
        Ok(())
    }

    fn select_into(&mut self, query: &Query, targets: &[Expr], answer: &mut Answer<'_>) -> Result<(), Fault> {
        let target = targets.first().map(ToString::to_string).unwrap_or_default();
        let name = target
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let mut query = query.clone();
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.into = None;
        }
        let select = top_select(&query).cloned();
        let mut statement = Statement::Query(Box::new(query));
        let types = column_types(self.opened()?, &statement)?;
        let scope = Scope {
            facts: &self.facts,
            variables: &self.variables,
            columns: &types,
        };
        let told = Told::of(
            select
                .as_ref()
                .map(|s| s.projection.as_slice())
                .unwrap_or_default(),
            &scope,
        );
        translate(&mut statement, scope)?;
        let text = statement.to_string();
        let create = {
            let mut prepared = self.prepare(&text)?;
            let mut columns = told.columns(&prepared, &types);
            let mut rows = prepared.raw_query();
            let mut ahead = Vec::new();
            look_ahead(&mut rows, &columns, &mut ahead)?;
            let settled: Vec<Column> = columns
                .iter_mut()
                .enumerate()
                .map(|(at, c)| c.settle(at, &ahead))
                .collect();
            ddl::create_from_columns(&name, &settled)
        };
        self.opened()?.execute_batch(&create)?;
        let rows = self
            .prepare(&format!("INSERT INTO {} {text}", bracketed(&name)))?
            .raw_execute()?;
        self.changed(command::SELECT, rows, answer);
        Ok(())
    }
}

/// Where a result goes.
trait Sink {
    fn columns(&mut self, columns: &[Column]) -> Result<(), Fault>;
    fn row<'a>(&mut self, cell_at: impl Fn(usize) -> ValueRef<'a>) -> Result<(), Fault>;
}

/// Onto the wire.
struct Sending<'s, 'a> {
    answer: &'s mut Answer<'a>,
    defs: Vec<ColumnDef>,
    kinds: Vec<SqlType>,
}

impl Sink for Sending<'_, '_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), Fault> {
        let version = self.answer.version();
        self.defs = columns.iter().map(|c| c.to_def(version)).collect();
        self.kinds = columns.iter().map(|c| c.kind.for_version(version)).collect();
        self.answer.tokens().col_metadata(&self.defs)?;
        Ok(())
    }

    fn row<'a>(&mut self, cell_at: impl Fn(usize) -> ValueRef<'a>) -> Result<(), Fault> {
        send_row(self.answer, &self.defs, &self.kinds, cell_at)
    }
}

/// Into memory, up to the rows of a cursor.
struct Collecting<'s, 'a> {
    answer: &'s mut Answer<'a>,
    columns: Vec<Column>,
    rows: Vec<Vec<Held>>,
}

impl Sink for Collecting<'_, '_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), Fault> {
        self.columns = columns.to_vec();
        Ok(())
    }

    fn row<'a>(&mut self, cell_at: impl Fn(usize) -> ValueRef<'a>) -> Result<(), Fault> {
        if self.rows.len() >= CURSOR_ROWS_MAX {
            let text = format!("The sandbox's cursors take at most {CURSOR_ROWS_MAX} rows.");
            return Err(Message::error(50000, text).into());
        }
        let row = (0..self.columns.len()).map(|at| owned(cell_at(at)));
        self.rows.push(row.collect());
        if self.answer.is_cancelled() {
            return Err(Fault::Stopped(Stopped::Cancelled));
        }
        Ok(())
    }
}

fn owned(value: ValueRef<'_>) -> Held {
    match value {
        ValueRef::Null => Held::Null,
        ValueRef::Integer(n) => Held::Integer(n),
        ValueRef::Real(n) => Held::Real(n),
        ValueRef::Text(text) => Held::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Held::Blob(bytes.to_vec()),
    }
}

/// The SELECT that gives a query its columns: the first of a UNION.
fn top_select(query: &Query) -> Option<&Select> {
    let mut body = query.body.as_ref();
    loop {
        match body {
            SetExpr::Select(select) => return Some(select),
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(inner) => body = inner.body.as_ref(),
            _ => return None,
        }
    }
}

/// The variables of `SELECT @a = …`, if it is one.
fn assigned_variables(select: &Select) -> Option<Vec<String>> {
    select
        .projection
        .iter()
        .map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. }
                if alias.value.starts_with('@') && alias.quote_style.is_none() =>
            {
                Some(alias.value.to_lowercase())
            }
            _ => None,
        })
        .collect()
}

struct Tables(Vec<String>);

impl Visitor for Tables {
    type Break = ();
    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.0.push(table_name(relation));
        ControlFlow::Continue(())
    }
}

/// Types of the columns of every table that a statement names.
pub(super) fn column_types(db: &rusqlite::Connection, statement: &Statement) -> Result<ColumnTypes, Fault> {
    let mut tables = Tables(Vec::new());
    let _ = statement.visit(&mut tables);
    let mut types = ColumnTypes::new();
    for table in tables.0 {
        add_column_types(db, &table, &mut types)?;
    }
    Ok(types)
}

fn add_column_types(db: &rusqlite::Connection, table: &str, types: &mut ColumnTypes) -> Result<(), Fault> {
    // SQLite tells every spelling of INTEGER alike; only the definition's text says which were bigint (see `ddl`).
    let mut described = db.prepare_cached(
        "SELECT c.name, CASE WHEN c.type = 'INTEGER' AND instr(m.sql, '[' || c.name || '] Integer ') > 0 THEN 'bigint' \
         ELSE c.type END FROM pragma_table_info(?1) c LEFT JOIN sqlite_master m ON m.type = 'table' AND m.name = ?1",
    )?;
    let mut rows = described.query([table])?;
    while let Some(row) = rows.next()? {
        let (name, declared): (String, String) = (row.get(0)?, row.get(1)?);
        if let Some(kind) = SqlType::from_declared(&declared) {
            types.insert(name.to_lowercase(), kind);
        }
    }
    Ok(())
}
