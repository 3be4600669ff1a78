//! Statements that change the session or speak: SET, USE, DECLARE, RAISERROR, THROW.

use rusqlite::types::{Value as Held, ValueRef};
use sqlparser::ast::Expr;

use super::answer::Answer;
use super::connection::Connection;
use super::facts::Variable;
use super::fault::Fault;
use super::types::SqlType;
use super::{cast, cell, database_name, ddl};
use crate::tokens::{Message, command, status};
use crate::tsql::{Declaration, DeclaredType, Raise, SetOption};

impl Connection {
    pub(super) fn set_option(&mut self, option: &SetOption, answer: &mut Answer<'_>) {
        let on = option.value == "ON";
        let number = option.value.parse::<i64>();
        for name in option.name.split(',') {
            match name {
                "NOCOUNT" => self.options.no_count = on,
                "XACT_ABORT" => self.options.xact_abort = on,
                "IMPLICIT_TRANSACTIONS" => self.options.implicit_transactions = on,
                "FMTONLY" => self.options.format_only = on,
                "NOEXEC" | "PARSEONLY" => self.options.no_exec = on,
                "ROWCOUNT" => {
                    self.options.row_limit = number
                        .clone()
                        .ok()
                        .and_then(|n| u64::try_from(n).ok())
                        .unwrap_or(0)
                }
                "LOCK_TIMEOUT" => self.facts.lock_timeout = number.clone().unwrap_or(-1),
                "TEXTSIZE" => self.facts.text_size = number.clone().unwrap_or(2_147_483_647),
                "LANGUAGE" => {
                    answer.tokens().env_language("us_english", "us_english");
                }
                _ => {}
            }
        }
    }

    pub(super) fn use_database(&mut self, name: &str, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let Some(database) = database_name(name) else {
            let text =
                format!("Database '{name}' does not exist. Make sure that the name is entered correctly.");
            return Err(Message::error(911, text).into());
        };
        answer.tokens().env_database(&database, &self.facts.database);
        answer.message(&Message::new(
            5701,
            0,
            2,
            format!("Changed database context to '{database}'."),
        ));
        self.facts.database = database;
        answer.done(status::FINAL, command::NONE, 0);
        Ok(())
    }

    pub(super) fn declare(&mut self, list: &[Declaration], answer: &mut Answer<'_>) -> Result<(), Fault> {
        for item in list {
            match &item.kind {
                DeclaredType::Scalar(kind) => {
                    if let Some(columns) = self.table_type(kind) {
                        self.fill_table(&item.name, &columns, None, answer)?;
                        continue;
                    }
                    let kind = scalar_kind(kind)?;
                    self.variables.insert(
                        item.name.clone(),
                        Variable {
                            kind,
                            value: Held::Null,
                        },
                    );
                    if let Some(value) = &item.value {
                        self.assign(&item.name, value, answer)?;
                    }
                }
                DeclaredType::Table(columns) => {
                    let text = ddl::create_temporary(&item.name, columns)?;
                    let drop = format!("DROP TABLE IF EXISTS temp.\"{}\"", item.name);
                    self.db(answer)?.execute_batch(&format!("{drop}; {text}"))?;
                }
                DeclaredType::Cursor => {
                    return Err(Message::error(50000, "The sandbox does not support cursors.").into());
                }
            }
        }
        Ok(())
    }

    pub(super) fn assign(&mut self, name: &str, value: &Expr, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let Some(kind) = self.variables.get(name).map(|v| v.kind) else {
            return Err(Message::new(
                137,
                15,
                2,
                format!("Must declare the scalar variable \"{name}\"."),
            )
            .into());
        };
        let value = cast::cast(&self.evaluate(value, answer)?, kind, 0)?;
        self.variables.insert(name.to_owned(), Variable { kind, value });
        Ok(())
    }

    /// RAISERROR: an error, or INFO up to class 10; its `%s` and `%d` are filled in.
    pub(super) fn raise(&mut self, raise: &Raise, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let Raise {
            message,
            severity,
            state,
            args,
        } = raise;
        let message = self.evaluate(message, answer)?;
        let class = self.small_number(severity, answer)?;
        let state = self.small_number(state, answer)?;
        let mut text = match &message {
            Held::Integer(number) => format!("Error {number}, severity {class}, state {state} was raised."),
            other => cell::print(ValueRef::from(other)),
        };
        for arg in args {
            let value = self.evaluate(arg, answer)?;
            let value = cell::print(ValueRef::from(&value));
            let place = ["%s", "%d", "%i", "%u", "%x"]
                .iter()
                .filter_map(|p| text.find(p))
                .min();
            if let Some(at) = place {
                text.replace_range(at..at + 2, &value);
            }
        }
        let number = match message {
            Held::Integer(n) => i32::try_from(n).unwrap_or(50000),
            _ => 50000,
        };
        let raised = Message::new(number, class, state, text);
        if raised.is_error() {
            return Err(raised.into());
        }
        answer.message(&raised);
        Ok(())
    }

    fn small_number(&mut self, expr: &Expr, answer: &mut Answer<'_>) -> Result<u8, Fault> {
        let value = self.evaluate(expr, answer)?;
        Ok(cell::integer(ValueRef::from(&value)).map_or(0, |n| u8::try_from(n.clamp(0, 25)).unwrap_or(0)))
    }

    pub(super) fn throw(
        &mut self,
        what: Option<&(Expr, Expr, Expr)>,
        answer: &mut Answer<'_>,
    ) -> Result<Message, Fault> {
        let Some((number, message, state)) = what else {
            let none = "To rethrow an error, a THROW statement must be used inside a CATCH block.";
            return Ok(self
                .facts
                .caught
                .clone()
                .unwrap_or_else(|| Message::new(10704, 15, 1, none)));
        };
        let number = self.evaluate(number, answer)?;
        let text = self.evaluate(message, answer)?;
        let state = self.small_number(state, answer)?;
        let number = cell::integer(ValueRef::from(&number))
            .ok()
            .and_then(|n| i32::try_from(n).ok());
        Ok(Message::new(
            number.unwrap_or(50000),
            16,
            state,
            cell::print(ValueRef::from(&text)),
        ))
    }
}

/// A declared scalar type, or the error for one that is not known.
pub(super) fn scalar_kind(kind: &sqlparser::ast::DataType) -> Result<SqlType, Fault> {
    SqlType::from_ast(kind).ok_or_else(|| {
        Message::error(
            2715,
            format!("Column, parameter, or variable: Cannot find data type {kind}."),
        )
        .into()
    })
}
