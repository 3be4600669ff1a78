//! INSERT, UPDATE and DELETE, with OUTPUT as SQLite's RETURNING.

use sqlparser::ast::{
    Delete, Expr, FromTable, Insert, ObjectName, OutputClause, SelectItem, SelectItemQualifiedWildcardKind,
    Statement, Update,
};

use super::answer::Answer;
use super::connection::Connection;
use super::expressions::bracketed;
use super::fault::Fault;
use super::infer::Scope;
use super::query::column_types;
use super::translate::{table_name, translate};
use crate::tokens::{Message, command, status};

impl Connection {
    pub(super) fn insert(&mut self, insert: &Insert, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let mut insert = insert.clone();
        insert.into = true;
        insert.columns.iter_mut().for_each(bracket_last);
        insert.returning = returning(insert.output.take())?;
        let rows = self.change(Statement::Insert(insert), command::INSERT, answer)?;
        if rows > 0 {
            self.facts.identity = Some(self.opened()?.last_insert_rowid());
        }
        Ok(())
    }

    pub(super) fn update(&mut self, update: &Update, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let mut update = update.clone();
        update.returning = returning(update.output.take())?;
        self.change(Statement::Update(update), command::UPDATE, answer)
            .map(|_| ())
    }

    pub(super) fn delete(&mut self, delete: &Delete, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let mut delete = delete.clone();
        if let FromTable::WithoutKeyword(tables) = delete.from {
            delete.from = FromTable::WithFromKeyword(tables);
        }
        delete.returning = returning(delete.output.take())?;
        self.change(Statement::Delete(delete), command::DELETE, answer)
            .map(|_| ())
    }

    fn change(
        &mut self,
        mut statement: Statement,
        command: u16,
        answer: &mut Answer<'_>,
    ) -> Result<u64, Fault> {
        let outputs = match &statement {
            Statement::Insert(Insert { returning, .. })
            | Statement::Update(Update { returning, .. })
            | Statement::Delete(Delete { returning, .. }) => returning.is_some(),
            _ => false,
        };
        if outputs {
            let rows = self.stream(statement, None, answer)?;
            self.changed(command, usize::try_from(rows).unwrap_or(usize::MAX), answer);
            return Ok(rows);
        }
        let types = column_types(self.opened()?, &statement)?;
        translate(
            &mut statement,
            Scope {
                facts: &self.facts,
                variables: &self.variables,
                columns: &types,
            },
        )?;
        let rows = self.prepare(&statement.to_string())?.raw_execute()?;
        self.changed(command, rows, answer);
        Ok(rows as u64)
    }

    pub(super) fn changed(&mut self, command: u16, rows: usize, answer: &mut Answer<'_>) {
        self.facts.row_count = rows as u64;
        if !self.options.no_count {
            answer.done(status::COUNT, command, rows as u64);
        } else if self.facts.procedure_depth == 0 {
            answer.done(status::FINAL, command, 0);
        }
    }
}

fn bracket_last(name: &mut ObjectName) {
    let last = table_name(name);
    *name = ObjectName(vec![sqlparser::ast::ObjectNamePart::Identifier(bracketed(&last))]);
}

/// OUTPUT as RETURNING: `inserted.` and `deleted.` fall away.
fn returning(output: Option<OutputClause>) -> Result<Option<Vec<SelectItem>>, Fault> {
    let mut items = match output {
        None => return Ok(None),
        Some(OutputClause::Output {
            into_table: Some(_), ..
        }) => {
            return Err(Message::error(50000, "The sandbox does not support OUTPUT INTO.").into());
        }
        Some(OutputClause::Output { select_items, .. } | OutputClause::Returning { select_items, .. }) => {
            select_items
        }
    };
    for item in &mut items {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                if let Expr::CompoundIdentifier(parts) = expr
                    && let Some(last) = parts.pop()
                {
                    *expr = Expr::Identifier(last);
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), options) => {
                *item = SelectItem::Wildcard(options.clone());
            }
            _ => {}
        }
    }
    Ok(Some(items))
}
