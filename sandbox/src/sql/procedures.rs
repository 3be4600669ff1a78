//! Procedures by name, from EXEC and from RPC: the system's few, and those made with CREATE PROCEDURE.

use std::sync::Arc;

use rusqlite::types::{Value as Held, ValueRef};

use super::answer::Answer;
use super::batch::Flow;
use super::cell;
use super::connection::Connection;
use super::facts::Variable;
use super::fault::Fault;
use super::parameters::Sent;
use super::rpc::{Prepared, read_prepared, return_value};
use super::system_procedures;
use super::types::SqlType;
use crate::tokens::{Message, status};
use crate::tsql::{Argument, Procedure};

/// What stands behind a name.
enum Known {
    Stored(Arc<Prepared>, Vec<(String, bool)>),
    System(Prepared),
}

impl Connection {
    /// `EXEC name args` in a batch; returns the status.
    pub(super) fn call_by_exec(
        &mut self,
        parts: &[String],
        args: &[Argument],
        answer: &mut Answer<'_>,
    ) -> Result<i32, Fault> {
        let name = parts.last().map(|p| p.to_lowercase()).unwrap_or_default();
        let mut sent = Vec::new();
        for argument in args {
            let value = match &argument.value {
                // A bare word is a string here: EXEC sp_help orders.
                Some(sqlparser::ast::Expr::Identifier(word)) if !word.value.starts_with('@') => {
                    Held::Text(word.value.clone())
                }
                Some(expr) => self.evaluate(expr, answer)?,
                None => continue,
            };
            let name = argument.name.clone().unwrap_or_default();
            sent.push(Sent {
                name,
                kind: SqlType::TEXT,
                value,
                output: argument.output,
                table: None,
            });
        }
        match name.as_str() {
            "sp_executesql" => return self.exec_sql(&sent, args, answer),
            "sp_unprepare" | "sp_cursorunprepare" => {
                let handle = sent
                    .first()
                    .and_then(|s| cell::integer(ValueRef::from(&s.value)).ok())
                    .unwrap_or(0);
                self.forget(i32::try_from(handle).unwrap_or(0))?;
                self.end_call(0, answer);
                return Ok(0);
            }
            _ => {}
        }
        let (prepared, outputs) = self.known(&name, parts)?.split();
        let (status, changed) = self.in_procedure(&prepared, &sent, answer)?;
        for (argument, (target, value)) in args.iter().enumerate().filter_map(|(at, a)| {
            let name = a
                .name
                .clone()
                .or_else(|| outputs.get(at).map(|(n, _)| n.clone()))?;
            let value = changed.iter().find(|(n, _)| *n == name)?.1.clone();
            match (&a.value, a.output) {
                (Some(sqlparser::ast::Expr::Identifier(target)), true) => {
                    Some((a, (target.value.to_lowercase(), value)))
                }
                _ => None,
            }
        }) {
            debug_assert!(argument.output);
            if let Some(variable) = self.variables.get_mut(&target) {
                variable.value = value;
            }
        }
        self.end_call(status, answer);
        Ok(status)
    }

    fn end_call(&mut self, return_status: i32, answer: &mut Answer<'_>) {
        if self.captured.is_some() {
            return;
        }
        answer.tokens().return_status(return_status);
        answer.done_proc(status::FINAL);
    }

    /// `EXEC sp_executesql N'…', N'@a int', @a = 1` in a batch.
    fn exec_sql(&mut self, sent: &[Sent], args: &[Argument], answer: &mut Answer<'_>) -> Result<i32, Fault> {
        let text = |at: usize| {
            sent.get(at)
                .map_or_else(String::new, |s| cell::print(ValueRef::from(&s.value)))
        };
        let prepared = read_prepared(&text(0), &text(1))?;
        let (status, changed) = self.in_procedure(&prepared, sent.get(2..).unwrap_or_default(), answer)?;
        for argument in args.iter().filter(|a| a.output) {
            if let (Some(name), Some(sqlparser::ast::Expr::Identifier(target))) =
                (&argument.name, &argument.value)
                && let Some((_, value)) = changed.iter().find(|(n, _)| n == name)
                && let Some(variable) = self.variables.get_mut(&target.value.to_lowercase())
            {
                variable.value = value.clone();
            }
        }
        self.end_call(status, answer);
        Ok(status)
    }

    /// An RPC by name, up to its DONEPROC.
    pub(super) fn call_by_name(
        &mut self,
        name: &str,
        sent: &[Sent],
        answer: &mut Answer<'_>,
    ) -> Result<bool, Fault> {
        let parts: Vec<String> = name
            .split('.')
            .map(|p| p.trim_matches(['[', ']']).to_owned())
            .collect();
        let last = parts.last().map(|p| p.to_lowercase()).unwrap_or_default();
        let (prepared, outputs) = self.known(&last, &parts)?.split();
        let (status, changed) = self.in_procedure(&prepared, sent, answer)?;
        answer.tokens().return_status(status);
        for (at, (name, _)) in outputs.iter().enumerate() {
            let wanted = sent
                .iter()
                .find(|s| s.name == *name)
                .or_else(|| sent.get(at).filter(|s| s.name.is_empty()));
            if let (Some(asked), Some((_, value))) = (
                wanted.filter(|s| s.output),
                changed.iter().find(|(n, _)| n == name),
            ) {
                return_value(
                    answer,
                    u16::try_from(at).unwrap_or(u16::MAX),
                    name,
                    asked.kind,
                    value,
                )?;
            }
        }
        Ok(false)
    }

    /// Runs a body with variables of its own; returns its status and the values of its variables at the end.
    fn in_procedure(
        &mut self,
        prepared: &Prepared,
        sent: &[Sent],
        answer: &mut Answer<'_>,
    ) -> Result<(i32, Vec<(String, Held)>), Fault> {
        let outer = std::mem::take(&mut self.variables);
        // What a procedure SETs holds until it returns.
        let options = self.options.clone();
        self.facts.procedure_depth += 1;
        answer.enter();
        let ran = self.run_procedure(prepared, sent, answer);
        answer.leave();
        self.facts.procedure_depth -= 1;
        self.options = options;
        let inner = std::mem::replace(&mut self.variables, outer);
        let status = ran?;
        Ok((
            status,
            inner
                .into_iter()
                .map(|(name, Variable { value, .. })| (name, value))
                .collect(),
        ))
    }

    fn run_procedure(
        &mut self,
        prepared: &Prepared,
        sent: &[Sent],
        answer: &mut Answer<'_>,
    ) -> Result<i32, Fault> {
        Ok(match self.run_body_flow(prepared, sent, answer)? {
            Flow::Return(status) => status,
            Flow::Abort => 1,
            _ => 0,
        })
    }

    fn known(&self, name: &str, parts: &[String]) -> Result<Known, Fault> {
        if let Some(procedure) = self.procedures().get(name) {
            let outputs = procedure
                .parameters
                .iter()
                .map(|p| (p.name.clone(), p.output))
                .collect();
            let prepared = Prepared::new(procedure.parameters.clone(), procedure.body.clone());
            return Ok(Known::Stored(Arc::new(prepared), outputs));
        }
        let Some((parameters, text)) = system_procedures::find(name) else {
            let shown = parts.join(".");
            return Err(Message::new(
                2812,
                16,
                62,
                format!("Could not find stored procedure '{shown}'."),
            )
            .into());
        };
        Ok(Known::System(read_prepared(&text, parameters)?))
    }

    pub(super) fn create_procedure(
        &mut self,
        procedure: &Procedure,
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        self.db(answer)?;
        self.procedures().put(procedure.clone());
        Ok(())
    }

    pub(super) fn drop_procedure(&mut self, name: &str, if_exists: bool) -> Result<(), Fault> {
        if self.procedures().remove(name) || if_exists {
            return Ok(());
        }
        let text = format!(
            "Cannot drop the procedure '{name}', because it does not exist or you do not have permission."
        );
        Err(Message::new(3701, 11, 5, text).into())
    }
}

impl Known {
    fn split(self) -> (Arc<Prepared>, Vec<(String, bool)>) {
        match self {
            Self::Stored(prepared, outputs) => (prepared, outputs),
            Self::System(prepared) => (Arc::new(prepared), Vec::new()),
        }
    }
}
