//! Definitions: T-SQL's CREATE, ALTER and DROP as SQLite's, with the declared types kept so that results can be typed.

use sqlparser::ast::{
    AlterTableOperation, ColumnDef, ColumnOption, CreateIndex, CreateTable, IndexColumn, ObjectName,
    ObjectType, Query, Statement, TableConstraint,
};

use super::expressions::bracketed;
use super::fault::Fault;
use super::translate::table_name;
use super::types::{Column, SqlType};
use crate::tokens::Message;

/// Collation of columns that are compared without case, as the databases' own collation says.
const NO_CASE: &str = " COLLATE NOCASE";
/// Collation of columns that were declared with a binary one; the catalogue recognises it by this text.
pub(super) const BINARY: &str = " COLLATE BINARY";

/// A definition in SQLite's dialect; `query` translates the query inside a view.
pub(crate) fn translate(
    statement: &Statement,
    query: impl Fn(&mut Query) -> Result<(), Message>,
) -> Result<String, Fault> {
    match statement {
        Statement::CreateTable(table) => create_table(table),
        Statement::CreateIndex(index) => create_index(index),
        Statement::CreateView(view) => {
            let mut body = view.query.clone();
            query(&mut body)?;
            Ok(format!("CREATE VIEW {} AS {body}", quoted(&view.name)))
        }
        Statement::AlterTable(alter) => {
            let table = quoted(&alter.name);
            let steps: Result<Vec<String>, Fault> = alter
                .operations
                .iter()
                .map(|op| alter_table(&table, op))
                .collect();
            Ok(steps?.join("; "))
        }
        Statement::Truncate(truncate) => {
            let deletes = truncate
                .table_names
                .iter()
                .map(|t| format!("DELETE FROM {}", quoted(&t.name)));
            Ok(deletes.collect::<Vec<_>>().join("; "))
        }
        Statement::Drop {
            object_type,
            if_exists,
            names,
            table,
            ..
        } => drop(*object_type, *if_exists, names, table.as_ref()),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            Err(unsupported(&words.join(" ")))
        }
    }
}

fn unsupported(what: &str) -> Fault {
    Message::error(50000, format!("The sandbox does not support {what}.")).into()
}

fn quoted(name: &ObjectName) -> String {
    bracketed(&table_name(name)).to_string()
}

fn create_table(table: &CreateTable) -> Result<String, Fault> {
    let name = table_name(&table.name);
    if crate::demo::is_table(&name) {
        return Err(Message::new(
            2714,
            16,
            6,
            format!("There is already an object named '{name}' in the database."),
        )
        .into());
    }
    let temporary = if name.starts_with('#') { "TEMP " } else { "" };
    let key = table.constraints.iter().find_map(|c| match c {
        TableConstraint::PrimaryKey(key) => Some(index_columns(&key.columns)),
        _ => None,
    });
    let mut parts = columns(&table.columns)?;
    let identity = table.columns.iter().any(is_identity);
    for constraint in &table.constraints {
        match constraint {
            // The identity column is SQLite's key already; another key becomes unique.
            TableConstraint::PrimaryKey(_) => {
                let list = key.as_deref().unwrap_or_default().join(", ");
                let identity_alone = identity && key.as_ref().is_some_and(|k| k.len() == 1);
                if !identity {
                    parts.push(format!("PRIMARY KEY ({list})"));
                } else if !identity_alone {
                    parts.push(format!("UNIQUE ({list})"));
                }
            }
            TableConstraint::Unique(unique) => {
                parts.push(format!("UNIQUE ({})", index_columns(&unique.columns).join(", ")))
            }
            TableConstraint::ForeignKey(foreign) => {
                let names = |list: &[sqlparser::ast::Ident]| {
                    list.iter()
                        .map(|i| bracketed(&i.value).to_string())
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                let (from, to) = (names(&foreign.columns), names(&foreign.referred_columns));
                let target = quoted(&foreign.foreign_table);
                let target_columns = if to.is_empty() {
                    String::new()
                } else {
                    format!(" ({to})")
                };
                let on_delete = foreign
                    .on_delete
                    .as_ref()
                    .map_or_else(String::new, |a| format!(" ON DELETE {a}"));
                parts.push(format!(
                    "FOREIGN KEY ({from}) REFERENCES {target}{target_columns}{on_delete}"
                ));
            }
            TableConstraint::Check(check) => parts.push(format!("CHECK ({})", check.expr)),
            _ => {}
        }
    }
    let exists = if table.if_not_exists { "IF NOT EXISTS " } else { "" };
    Ok(format!(
        "CREATE {temporary}TABLE {exists}{} ({})",
        bracketed(&name),
        parts.join(", ")
    ))
}

fn index_columns(columns: &[IndexColumn]) -> Vec<String> {
    let name = |expr: &sqlparser::ast::Expr| match expr {
        sqlparser::ast::Expr::Identifier(ident) => bracketed(&ident.value).to_string(),
        other => other.to_string(),
    };
    columns.iter().map(|c| name(&c.column.expr)).collect()
}

/// A column that is compared by code points, which is how SQLite compares without being told otherwise.
fn is_binary(column: &ColumnDef) -> bool {
    column.options.iter().any(|o| match &o.option {
        ColumnOption::Collation(name) => {
            let name = name.to_string().to_ascii_uppercase();
            name.ends_with("_BIN2") || name.ends_with("_BIN")
        }
        _ => false,
    })
}

fn is_identity(column: &ColumnDef) -> bool {
    column
        .options
        .iter()
        .any(|o| matches!(o.option, ColumnOption::Identity(_)))
}

fn columns(columns: &[ColumnDef]) -> Result<Vec<String>, Fault> {
    columns.iter().map(column).collect()
}

fn column(column: &ColumnDef) -> Result<String, Fault> {
    let name = bracketed(&column.name.value);
    let Some(kind) = SqlType::from_ast(&column.data_type) else {
        let text = format!(
            "Column, parameter, or variable: Cannot find data type {}.",
            column.data_type
        );
        return Err(Message::error(2715, text).into());
    };
    if is_identity(column) {
        // SQLite numbers rows only through a key declared exactly INTEGER, in any case of letters: the case keeps the type.
        let declared = if kind == SqlType::BigInt {
            "Integer"
        } else {
            "INTEGER"
        };
        return Ok(format!("{name} {declared} PRIMARY KEY AUTOINCREMENT"));
    }
    let mut text = format!("{name} {}", kind.stored());
    if kind.is_text() {
        text.push_str(if is_binary(column) { BINARY } else { NO_CASE });
    }
    for option in &column.options {
        match &option.option {
            ColumnOption::NotNull => text.push_str(" NOT NULL"),
            ColumnOption::PrimaryKey(_) => text.push_str(" PRIMARY KEY"),
            ColumnOption::Unique(_) => text.push_str(" UNIQUE"),
            ColumnOption::Default(value) => text.push_str(&format!(" DEFAULT ({})", default_value(value))),
            ColumnOption::Check(check) => text.push_str(&format!(" CHECK ({})", check.expr)),
            ColumnOption::ForeignKey(foreign) => {
                text.push_str(&format!(" REFERENCES {}", quoted(&foreign.foreign_table)));
                if let Some(target) = foreign.referred_columns.first() {
                    text.push_str(&format!(" ({})", bracketed(&target.value)));
                }
            }
            _ => {}
        }
    }
    Ok(text)
}

/// A default as SQLite evaluates it at each insert: the clock and GUID functions under our names.
fn default_value(value: &sqlparser::ast::Expr) -> String {
    let text = value.to_string();
    match text.trim_matches(['(', ')']).to_ascii_lowercase().as_str() {
        "getdate" | "getutcdate" | "current_timestamp" => "tsql_now3()".to_owned(),
        "sysdatetime" | "sysutcdatetime" => "tsql_now7()".to_owned(),
        "newid" | "newsequentialid" => "tsql_newid()".to_owned(),
        _ => match text.strip_prefix('N') {
            Some(rest) if rest.starts_with('\'') => rest.to_owned(),
            _ => text,
        },
    }
}

/// A temporary table for a table variable.
pub(crate) fn create_temporary(name: &str, list: &[ColumnDef]) -> Result<String, Fault> {
    Ok(format!(
        "CREATE TEMP TABLE {} ({})",
        bracketed(name),
        columns(list)?.join(", ")
    ))
}

/// The table of a SELECT INTO.
pub(crate) fn create_from_columns(name: &str, columns: &[Column]) -> String {
    let temporary = if name.starts_with('#') { "TEMP " } else { "" };
    let one = |c: &Column| {
        let collation = if c.kind.is_text() { NO_CASE } else { "" };
        format!("{} {}{collation}", bracketed(&c.name), c.kind.stored())
    };
    let list: Vec<String> = columns.iter().map(one).collect();
    format!(
        "CREATE {temporary}TABLE {} ({})",
        bracketed(name),
        list.join(", ")
    )
}

fn create_index(index: &CreateIndex) -> Result<String, Fault> {
    let table = table_name(&index.table_name);
    let name = index.name.as_ref().map(table_name).unwrap_or_default();
    let unique = if index.unique { "UNIQUE " } else { "" };
    let columns = index_columns(&index.columns).join(", ");
    // Index names are the table's own in T-SQL and the database's in SQLite.
    let full = bracketed(&format!("{table}.{name}"));
    Ok(format!(
        "CREATE {unique}INDEX {full} ON {} ({columns})",
        bracketed(&table)
    ))
}

fn alter_table(table: &str, operation: &AlterTableOperation) -> Result<String, Fault> {
    match operation {
        AlterTableOperation::AddColumn { column_def, .. } => {
            Ok(format!("ALTER TABLE {table} ADD COLUMN {}", column(column_def)?))
        }
        AlterTableOperation::DropColumn { column_names, .. } => {
            let steps = column_names
                .iter()
                .map(|c| format!("ALTER TABLE {table} DROP COLUMN {}", bracketed(&c.value)));
            Ok(steps.collect::<Vec<_>>().join("; "))
        }
        // SQLite keeps constraints as they were made.
        AlterTableOperation::AddConstraint { .. } => Ok(String::new()),
        _ => Err(unsupported("this ALTER TABLE")),
    }
}

fn drop(
    kind: ObjectType,
    if_exists: bool,
    names: &[ObjectName],
    table: Option<&ObjectName>,
) -> Result<String, Fault> {
    let word = match kind {
        ObjectType::Table => "TABLE",
        ObjectType::View => "VIEW",
        ObjectType::Index => "INDEX",
        _ => return Err(unsupported("this DROP")),
    };
    let exists = if if_exists { "IF EXISTS " } else { "" };
    let one = |name: &ObjectName| {
        let name = match table {
            Some(table) => bracketed(&format!("{}.{}", table_name(table), table_name(name))).to_string(),
            None => quoted(name),
        };
        format!("DROP {word} {exists}{name}")
    };
    Ok(names.iter().map(one).collect::<Vec<_>>().join("; "))
}
