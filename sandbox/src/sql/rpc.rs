//! RPC requests: parameters in, the numbered procedures, statuses and output parameters back.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::types::{Value as Held, ValueRef};
use weir_tds::build::{Returned, Value};
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::{ProcId, RpcReader, Separator};

use super::answer::Answer;
use super::batch::Flow;
use super::connection::{Connection, fault_message, syntax};
use super::facts::Variable;
use super::fault::Fault;
use super::parameters::{Sent, read_parameter};
use super::session::scalar_kind;
use super::types::SqlType;
use super::{cast, cell};
use crate::tokens::{Message, status};
use crate::tsql::{self, Declaration, DeclaredType, Stmt};

/// Prepared statements of one session.
const PREPARED_MAX: usize = 4096;
/// Calls of one message.
const CALLS_MAX: usize = 10_000;

/// A prepared statement.
#[derive(Debug)]
pub(crate) struct Prepared {
    declarations: Vec<Declaration>,
    statements: Vec<Stmt>,
}

/// A call of a message, ready to run.
struct Asked {
    name: String,
    id: Option<ProcId>,
    sent: Vec<Sent>,
    no_exec: bool,
}

impl Connection {
    pub(super) fn rpc(
        &mut self,
        body: &[u8],
        options: RequestOptions,
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        let calls = read_calls(body, options)?;
        let count = calls.len();
        for (at, call) in calls.into_iter().enumerate() {
            let in_batch = if at + 1 < count { status::RPC_IN_BATCH } else { 0 };
            self.variables = HashMap::new();
            self.try_depth = 0;
            self.facts.procedure_depth = 1;
            let options = self.options.clone();
            answer.enter();
            let ran = if call.no_exec {
                Err(Message::error(50000, "The call was marked not to be executed.").into())
            } else {
                self.call(&call, answer)
            };
            answer.leave();
            self.facts.procedure_depth = 0;
            self.options = options;
            self.notice_lost_transaction(answer);
            match ran {
                Ok(failed) => answer.done_proc(in_batch | if failed { status::ERROR } else { 0 }),
                Err(Fault::Stopped(stopped)) => return Err(Fault::Stopped(stopped)),
                Err(fault) => {
                    let message = fault_message(fault);
                    self.facts.error = message.number;
                    answer.message(&message);
                    answer.done_proc(in_batch | status::ERROR);
                }
            }
        }
        Ok(())
    }

    /// Runs one call up to its DONEPROC; true if a statement in it failed.
    fn call(&mut self, call: &Asked, answer: &mut Answer<'_>) -> Result<bool, Fault> {
        match call.id {
            Some(ProcId::ExecuteSql) => {
                let (text, declared) = (text_of(&call.sent, 0)?, optional_text(&call.sent, 1));
                let prepared = read_prepared(&text, &declared)?;
                self.run_prepared(&prepared, call.sent.get(2..).unwrap_or_default(), 2, answer)
            }
            Some(ProcId::Prepare) => {
                let (declared, text) = (optional_text(&call.sent, 1), text_of(&call.sent, 2)?);
                let handle = self.keep(read_prepared(&text, &declared)?)?;
                answer.tokens().return_status(0);
                return_handle(answer, &call.sent, handle)?;
                Ok(false)
            }
            Some(ProcId::PrepExec) => {
                let (declared, text) = (optional_text(&call.sent, 1), text_of(&call.sent, 2)?);
                let handle = self.keep(read_prepared(&text, &declared)?)?;
                let prepared = self.prepared_statement(handle)?;
                let rest = call.sent.get(3..).unwrap_or_default();
                let failed = self.run_body(&prepared, rest, answer)?;
                answer.tokens().return_status(i32::from(failed));
                return_handle(answer, &call.sent, handle)?;
                self.return_outputs(&prepared, rest, 3, answer)?;
                Ok(failed)
            }
            Some(ProcId::Execute) => {
                let handle = handle_of(&call.sent)?;
                let prepared = self.prepared_statement(handle)?;
                self.run_prepared(&prepared, call.sent.get(1..).unwrap_or_default(), 1, answer)
            }
            Some(ProcId::Unprepare) => {
                let handle = handle_of(&call.sent)?;
                self.forget(handle)?;
                answer.tokens().return_status(0);
                Ok(false)
            }
            Some(other) => self.cursor_call(other, &call.sent, answer),
            None => self.call_by_name(&call.name, &call.sent, answer),
        }
    }

    /// Keeps a prepared statement under a new handle.
    pub(super) fn keep(&mut self, prepared: Prepared) -> Result<i32, Fault> {
        if self.prepared.len() >= PREPARED_MAX {
            return Err(Message::error(50000, "The session has prepared too many statements.").into());
        }
        let handle = self.next_handle;
        self.next_handle = self.next_handle.wrapping_add(1).max(1);
        self.prepared.insert(handle, Arc::new(prepared));
        Ok(handle)
    }

    pub(super) fn prepared_statement(&self, handle: i32) -> Result<Arc<Prepared>, Fault> {
        self.prepared
            .get(&handle)
            .cloned()
            .ok_or_else(|| no_handle(handle))
    }

    pub(super) fn forget(&mut self, handle: i32) -> Result<(), Fault> {
        self.prepared
            .remove(&handle)
            .map(|_| ())
            .ok_or_else(|| no_handle(handle))
    }

    /// Body, status, output parameters; their ordinals count the procedure's own `offset` parameters too.
    pub(super) fn run_prepared(
        &mut self,
        prepared: &Prepared,
        sent: &[Sent],
        offset: u16,
        answer: &mut Answer<'_>,
    ) -> Result<bool, Fault> {
        let failed = self.run_body(prepared, sent, answer)?;
        answer.tokens().return_status(i32::from(failed));
        self.return_outputs(prepared, sent, offset, answer)?;
        Ok(failed)
    }

    /// Declares the parameters with the values sent and runs the statements.
    pub(super) fn run_body(
        &mut self,
        prepared: &Prepared,
        sent: &[Sent],
        answer: &mut Answer<'_>,
    ) -> Result<bool, Fault> {
        Ok(self.run_body_flow(prepared, sent, answer)? == Flow::Abort)
    }

    pub(super) fn run_body_flow(
        &mut self,
        prepared: &Prepared,
        sent: &[Sent],
        answer: &mut Answer<'_>,
    ) -> Result<Flow, Fault> {
        self.declare_parameters(prepared, sent, answer)?;
        self.block(&prepared.statements, answer)
    }

    pub(super) fn declare_parameters(
        &mut self,
        prepared: &Prepared,
        sent: &[Sent],
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        for (at, declaration) in prepared.declarations.iter().enumerate() {
            let DeclaredType::Scalar(kind) = &declaration.kind else {
                return Err(unsupported("a parameter of this type"));
            };
            if let Some(columns) = self.table_type(kind) {
                let table = find(sent, &declaration.name, at).and_then(|s| s.table.as_ref());
                self.fill_table(&declaration.name, &columns, table, answer)?;
                continue;
            }
            let kind = scalar_kind(kind)?;
            let value = match find(sent, &declaration.name, at) {
                Some(sent) => cast::cast(&sent.value, kind, 0)?,
                None => match &declaration.value {
                    Some(default) => self.evaluate(default, answer)?,
                    None => {
                        let text = format!(
                            "The parameterized query expects the parameter '{}', which was not supplied.",
                            declaration.name
                        );
                        return Err(Message::error(8178, text).into());
                    }
                },
            };
            self.variables
                .insert(declaration.name.clone(), Variable { kind, value });
        }
        Ok(())
    }

    fn return_outputs(
        &self,
        prepared: &Prepared,
        sent: &[Sent],
        offset: u16,
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        for (at, declaration) in prepared.declarations.iter().enumerate() {
            let wanted = find(sent, &declaration.name, at).is_some_and(|s| s.output);
            if let (true, Some(variable)) = (wanted, self.variables.get(&declaration.name)) {
                let ordinal = offset.saturating_add(u16::try_from(at).unwrap_or(u16::MAX));
                let value = self.variable_value(&declaration.name);
                return_value(answer, ordinal, &declaration.name, variable.kind, &value)?;
            }
        }
        Ok(())
    }
}

fn find<'s>(sent: &'s [Sent], name: &str, at: usize) -> Option<&'s Sent> {
    sent.iter()
        .find(|s| s.name == name)
        .or_else(|| sent.get(at).filter(|s| s.name.is_empty()))
}

pub(super) fn unsupported(what: &str) -> Fault {
    Message::error(50000, format!("The sandbox does not support {what}.")).into()
}

pub(super) fn no_handle(handle: i32) -> Fault {
    Message::error(
        8179,
        format!("Could not find prepared statement with handle {handle}."),
    )
    .into()
}

/// Reads the text and the declarations of a prepared statement.
pub(super) fn read_prepared(text: &str, declared: &str) -> Result<Prepared, Fault> {
    let declarations = tsql::parse_declarations(declared).map_err(|e| syntax(&e))?;
    let statements = tsql::parse(text).map_err(|e| syntax(&e))?;
    Ok(Prepared {
        declarations,
        statements,
    })
}

impl Prepared {
    pub(super) fn statements(&self) -> &[Stmt] {
        &self.statements
    }

    pub(super) fn new(declarations: Vec<Declaration>, statements: Vec<Stmt>) -> Self {
        Self {
            declarations,
            statements,
        }
    }
}

/// Sends an output parameter.
pub(super) fn return_value(
    answer: &mut Answer<'_>,
    ordinal: u16,
    name: &str,
    kind: SqlType,
    value: &Held,
) -> Result<(), Fault> {
    let kind = kind.for_version(answer.version());
    let ty = kind.to_wire(true);
    let mut scratch = cell::Scratch::new();
    let value = cell::to_wire(ValueRef::from(value), kind, &mut scratch)
        .map_err(|_| Message::error(8114, format!("The value of {name} does not fit its type.")))?;
    answer
        .tokens()
        .return_value(&Returned::output(ordinal, name, &ty), &value)?;
    Ok(())
}

/// The handle of 11 and 13: int, ordinal 0, under the name the client gave.
fn return_handle(answer: &mut Answer<'_>, sent: &[Sent], handle: i32) -> Result<(), Fault> {
    let name = sent.first().map_or("", |s| s.name.as_str());
    let ty = SqlType::Int.to_wire(true);
    answer
        .tokens()
        .return_value(&Returned::output(0, name, &ty), &Value::Int(i64::from(handle)))?;
    Ok(())
}

pub(super) fn text_of(sent: &[Sent], at: usize) -> Result<String, Fault> {
    let text = optional_text(sent, at);
    if sent.len() > at {
        Ok(text)
    } else {
        Err(Message::error(214, "Procedure expects parameter '@statement'.").into())
    }
}

pub(super) fn optional_text(sent: &[Sent], at: usize) -> String {
    sent.get(at)
        .map_or_else(String::new, |s| cell::print(ValueRef::from(&s.value)))
}

/// The number sent as the parameter at this place.
pub(super) fn integer_of(sent: &[Sent], at: usize) -> Option<i64> {
    let value = &sent.get(at)?.value;
    cell::integer(ValueRef::from(value)).ok()
}

pub(super) fn handle_of(sent: &[Sent]) -> Result<i32, Fault> {
    let handle = integer_of(sent, 0).and_then(|n| i32::try_from(n).ok());
    handle.ok_or_else(|| no_handle(0))
}

fn read_calls(body: &[u8], options: RequestOptions) -> Result<Vec<Asked>, Fault> {
    let bad = |e: weir_tds::error::WireError| -> Fault {
        Message::new(4002, 16, 1, format!("The incoming RPC is not well formed: {e}.")).into()
    };
    let mut reader = RpcReader::new(body, options).map_err(bad)?;
    let mut calls = Vec::new();
    while let Some(call) = reader.next_call().map_err(bad)? {
        let mut sent = Vec::new();
        while let Some(parameter) = reader.next_parameter().map_err(bad)? {
            sent.push(read_parameter(&parameter, body, options.version)?);
        }
        let no_exec = reader.separator() == Some(Separator::NoExec);
        calls.push(Asked {
            name: call.procedure.name(),
            id: call.procedure.id(),
            sent,
            no_exec,
        });
        if calls.len() > CALLS_MAX {
            return Err(Message::error(50000, "The message has too many calls.").into());
        }
    }
    Ok(calls)
}
