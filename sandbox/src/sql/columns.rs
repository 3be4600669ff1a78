//! Columns and rows of a result: names and types from the SELECT list, SQLite's declared types and the first values.

use rusqlite::types::{Value as Held, ValueRef};
use rusqlite::{CachedStatement, Rows};
use sqlparser::ast::{Expr, SelectItem};
use weir_tds::build::{ColumnDef, Value};

use super::answer::Answer;
use super::cell::{self, Scratch};
use super::fault::Fault;
use super::infer::Scope;
use super::query::ColumnTypes;
use super::types::{Column, SqlType};
use crate::tokens::Message;

/// Rows looked at before the columns are told, where only values can tell a column's type.
const LOOK_AHEAD: usize = 32;

/// What the SELECT list tells about the columns: by position from the front, and from the back behind a `*`.
pub(super) struct Told {
    front: Vec<(String, Option<SqlType>)>,
    back: Vec<(String, Option<SqlType>)>,
    starred: bool,
}

/// A column whose type may still be open.
pub(super) struct Draft {
    name: String,
    kind: Option<SqlType>,
}

impl Told {
    pub(super) fn of(items: &[SelectItem], scope: &Scope<'_>) -> Self {
        let one = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { expr, alias } => Some((alias.value.clone(), scope.kind(expr))),
            SelectItem::UnnamedExpr(expr) => {
                let name = match expr {
                    Expr::Identifier(ident) if !ident.value.starts_with('@') => ident.value.clone(),
                    Expr::CompoundIdentifier(parts) => {
                        parts.last().map(|p| p.value.clone()).unwrap_or_default()
                    }
                    _ => String::new(),
                };
                Some((name, scope.kind(expr)))
            }
            _ => None,
        };
        let front: Vec<_> = items.iter().map_while(one).collect();
        let starred = front.len() < items.len() || items.is_empty();
        let mut back: Vec<_> = if starred {
            items.iter().rev().map_while(one).collect()
        } else {
            Vec::new()
        };
        back.reverse();
        Self { front, back, starred }
    }

    /// The columns of a prepared statement: SQLite's declared type first, then what the list tells. INTEGER says too little
    /// (see `ddl`), so there the list and the tables' own columns go first.
    pub(super) fn columns(&self, prepared: &CachedStatement<'_>, types: &ColumnTypes) -> Vec<Draft> {
        let described = prepared.columns();
        let behind = described.len().saturating_sub(self.back.len());
        let draft = |(at, column): (usize, rusqlite::Column<'_>)| {
            let told = match (self.starred, at.checked_sub(behind)) {
                (true, Some(from_back)) => self.back.get(from_back),
                _ => self.front.get(at),
            };
            let key = column.decl_type() == Some("INTEGER");
            let of_table = types.get(&column.name().to_lowercase()).copied();
            let declared = match column.decl_type().and_then(SqlType::from_declared) {
                Some(kind) if key => told.and_then(|(_, kind)| *kind).or(of_table).or(Some(kind)),
                declared => declared,
            };
            Draft {
                name: told.map_or_else(|| column.name().to_owned(), |(name, _)| name.clone()),
                kind: declared.or_else(|| told.and_then(|(_, kind)| *kind)),
            }
        };
        described.enumerate().map(draft).collect()
    }
}

impl Draft {
    pub(super) fn settle(&mut self, at: usize, ahead: &[Vec<Held>]) -> Column {
        let seen = || {
            let kinds = ahead
                .iter()
                .filter_map(|row| row.get(at))
                .filter_map(cell::kind_of);
            kinds.reduce(|a, b| match (a, b) {
                (SqlType::Int, other) | (other, SqlType::Int) if other.is_number() => other,
                (a, b) if a == b || !b.is_text() => a,
                (_, b) => b,
            })
        };
        let kind = self.kind.or_else(seen).unwrap_or(SqlType::TEXT);
        Column {
            name: std::mem::take(&mut self.name),
            kind,
            nullable: true,
            identity: false,
        }
    }
}

/// Reads one row, so that errors come before the columns; more while a column's type is open.
pub(super) fn look_ahead(
    rows: &mut Rows<'_>,
    columns: &[Draft],
    ahead: &mut Vec<Vec<Held>>,
) -> Result<(), Fault> {
    let mut open: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(_, c)| c.kind.is_none())
        .map(|(at, _)| at)
        .collect();
    while ahead.is_empty() || (!open.is_empty() && ahead.len() < LOOK_AHEAD) {
        let Some(row) = rows.next()? else { return Ok(()) };
        let values: Vec<Held> = (0..columns.len())
            .map(|at| row.get(at))
            .collect::<Result<_, _>>()?;
        open.retain(|at| matches!(values.get(*at), Some(Held::Null) | None));
        ahead.push(values);
    }
    Ok(())
}

pub(super) fn send_row<'a>(
    answer: &mut Answer<'_>,
    defs: &[ColumnDef],
    kinds: &[SqlType],
    cell_at: impl Fn(usize) -> ValueRef<'a>,
) -> Result<(), Fault> {
    let mut scratches: Vec<Scratch> = vec![Scratch::new(); kinds.len()];
    let mut values: Vec<Value<'_>> = Vec::with_capacity(kinds.len());
    for ((at, kind), scratch) in kinds.iter().enumerate().zip(&mut scratches) {
        let held = cell_at(at);
        let value = cell::to_wire(held, *kind, scratch).map_err(|_| {
            let name = defs.get(at).map_or("", |d| d.name.as_str());
            Message::new(
                8114,
                16,
                5,
                format!(
                    "The value '{}' of column '{name}' is not a {}.",
                    cell::print(held),
                    kind.name()
                ),
            )
        })?;
        values.push(value);
    }
    answer.tokens().row(defs, &values)?;
    answer.row_written()?;
    Ok(())
}
