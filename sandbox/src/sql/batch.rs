//! Statements in order: control flow, variables, messages, and what an error does to the rest of the batch.

use rusqlite::types::{Value as Held, ValueRef};
use sqlparser::ast::Expr;

use super::answer::Answer;
use super::cell;
use super::connection::{Connection, fault_message, syntax};
use super::facts::Variable;
use super::fault::Fault;
use super::types::SqlType;
use crate::conn::reply::Stopped;
use crate::tokens::{Message, command, status};
use crate::tsql::{self, Exec, ExecTarget, Stmt};

/// Calls inside calls, as @@NESTLEVEL bounds them.
const NESTING_MAX: u32 = 32;
/// Errors after which SQL Server goes on with the next statement of the batch.
const GOES_ON: [i32; 12] = [
    515, 547, 1222, 2601, 2627, 2812, 3902, 3903, 8134, 8115, 50000, 3701,
];

/// Where control goes after a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    Break,
    Continue,
    Return(i32),
    /// An error ended the batch; it has been told.
    Abort,
}

impl Connection {
    pub(super) fn block(&mut self, statements: &[Stmt], answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        for statement in statements {
            match self.statement(statement, answer)? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    /// Runs one statement; an error is told here unless a TRY waits for it.
    fn statement(&mut self, statement: &Stmt, answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        if answer.is_cancelled() {
            return Err(Fault::Stopped(Stopped::Cancelled));
        }
        if self.options.no_exec && !matches!(statement, Stmt::Set(_)) {
            return Ok(Flow::Next);
        }
        let ran = self.dispatch(statement, answer);
        self.notice_lost_transaction(answer);
        match ran {
            Ok(flow) => {
                if !matches!(
                    statement,
                    Stmt::If { .. } | Stmt::While { .. } | Stmt::Block(_) | Stmt::Print(_)
                ) {
                    self.facts.error = 0;
                }
                Ok(flow)
            }
            Err(Fault::Stopped(stopped)) => Err(Fault::Stopped(stopped)),
            Err(fault) => {
                let message = fault_message(fault);
                self.facts.error = message.number;
                if self.try_depth > 0 && message.class < 20 {
                    return Err(message.into());
                }
                Ok(self.tell_error(&message, answer))
            }
        }
    }

    fn tell_error(&mut self, message: &Message, answer: &mut Answer<'_>) -> Flow {
        answer.message(message);
        let aborts = self.options.xact_abort || !GOES_ON.contains(&message.number);
        if self.options.xact_abort && self.facts.transactions > 0 {
            self.rollback_all(answer);
        }
        answer.done(status::ERROR, command::NONE, 0);
        if aborts { Flow::Abort } else { Flow::Next }
    }

    fn dispatch(&mut self, statement: &Stmt, answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        match statement {
            Stmt::Set(option) => self.set_option(option, answer),
            Stmt::Use(name) => self.use_database(name, answer)?,
            Stmt::Declare(list) => self.declare(list, answer)?,
            Stmt::Assign { name, value } => self.assign(name, value, answer)?,
            Stmt::Print(expr) => {
                let value = self.evaluate(expr, answer)?;
                answer.message(&Message::new(0, 0, 1, cell::print(ValueRef::from(&value))));
            }
            Stmt::RaisError(raise) => self.raise(raise, answer)?,
            Stmt::Throw(what) => return Err(self.throw(what.as_deref(), answer)?.into()),
            Stmt::Begin => return self.transaction_step(answer, command::BEGIN, Self::begin),
            Stmt::Commit => return self.transaction_step(answer, command::COMMIT, Self::commit),
            Stmt::Rollback(name) => {
                let name = name.clone();
                return self.transaction_step(answer, command::ROLLBACK, |this, answer| {
                    this.rollback(name.as_deref(), answer)
                });
            }
            Stmt::Save(name) => self.save(name, answer)?,
            Stmt::If {
                condition,
                then,
                otherwise,
            } => {
                return if self.holds(condition, answer)? {
                    self.statement(then, answer)
                } else {
                    otherwise
                        .as_ref()
                        .map_or(Ok(Flow::Next), |s| self.statement(s, answer))
                };
            }
            Stmt::While { condition, body } => return self.repeat(condition, body, answer),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
            Stmt::Block(list) => return self.block(list, answer),
            Stmt::Try { body, catch } => return self.attempt(body, catch, answer),
            Stmt::Return(value) => return self.returned(value.as_ref(), answer),
            Stmt::WaitFor(delay) => self.wait_for(delay, answer)?,
            Stmt::Exec(exec) => return self.execute(exec, answer),
            Stmt::InsertExec { table, columns, exec } => {
                return self.insert_exec(table, columns, exec, answer);
            }
            Stmt::InsertBulk { table, columns } => self.announce_bulk(table, columns, answer)?,
            Stmt::CreateProcedure(procedure) => {
                self.create_procedure(procedure, answer)?;
                answer.done(status::FINAL, command::NONE, 0);
            }
            Stmt::DropProcedure { name, if_exists } => {
                self.drop_procedure(name, *if_exists)?;
                answer.done(status::FINAL, command::NONE, 0);
            }
            Stmt::CreateTableType { name, columns } => {
                self.create_table_type(name, columns)?;
                answer.done(status::FINAL, command::NONE, 0);
            }
            Stmt::DropType { name, if_exists } => {
                self.drop_type(name, *if_exists)?;
                answer.done(status::FINAL, command::NONE, 0);
            }
            Stmt::Nothing => answer.done(status::FINAL, command::NONE, 0),
            Stmt::Sql(statement) => self.sql(statement, answer)?,
        }
        Ok(Flow::Next)
    }

    fn transaction_step(
        &mut self,
        answer: &mut Answer<'_>,
        command: u16,
        step: impl FnOnce(&mut Self, &mut Answer<'_>) -> Result<(), Fault>,
    ) -> Result<Flow, Fault> {
        step(self, answer)?;
        answer.done(status::FINAL, command, 0);
        Ok(Flow::Next)
    }

    fn repeat(&mut self, condition: &Expr, body: &Stmt, answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        while self.holds(condition, answer)? {
            match self.statement(body, answer)? {
                Flow::Next | Flow::Continue => {}
                Flow::Break => break,
                other => return Ok(other),
            }
            answer.row_written()?;
        }
        Ok(Flow::Next)
    }

    fn attempt(&mut self, body: &[Stmt], catch: &[Stmt], answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        self.try_depth += 1;
        let tried = self.block(body, answer);
        self.try_depth -= 1;
        match tried {
            Err(Fault::Stopped(stopped)) => Err(Fault::Stopped(stopped)),
            Err(fault) => {
                let outer = self.facts.caught.replace(fault_message(fault));
                let handled = self.block(catch, answer);
                self.facts.caught = outer;
                handled
            }
            ok => ok,
        }
    }

    fn returned(&mut self, value: Option<&Expr>, answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        let Some(expr) = value else {
            return Ok(Flow::Return(0));
        };
        let value = self.evaluate(expr, answer)?;
        let status = cell::integer(ValueRef::from(&value))
            .ok()
            .and_then(|n| i32::try_from(n).ok());
        Ok(Flow::Return(status.unwrap_or(0)))
    }

    fn wait_for(&mut self, delay: &Expr, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let value = self.evaluate(delay, answer)?;
        let text = cell::print(ValueRef::from(&value));
        let Some(time) = super::Moment::parse(&text) else {
            return Err(Message::new(
                148,
                15,
                1,
                format!("Incorrect time syntax in time string '{text}' used with WAITFOR."),
            )
            .into());
        };
        let nanos = u64::try_from(time.ticks).unwrap_or(0).saturating_mul(100);
        if answer
            .reply()
            .cancel()
            .wait(std::time::Duration::from_nanos(nanos))
        {
            return Err(Fault::Stopped(Stopped::Cancelled));
        }
        Ok(())
    }
}

/// Calls.
impl Connection {
    pub(super) fn execute(&mut self, exec: &Exec, answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        if self.facts.procedure_depth >= NESTING_MAX {
            let text =
                "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).";
            return Err(Message::error(217, text).into());
        }
        match &exec.what {
            ExecTarget::Text(expr) => {
                let text = self.evaluate(expr, answer)?;
                let text = cell::print(ValueRef::from(&text));
                self.nested_text(&text, answer)
            }
            ExecTarget::Procedure(parts) => {
                let status = self.call_by_exec(parts, &exec.args, answer)?;
                if let Some(name) = &exec.status {
                    let value = Held::Integer(i64::from(status));
                    self.variables.insert(
                        name.clone(),
                        Variable {
                            kind: SqlType::Int,
                            value,
                        },
                    );
                }
                Ok(Flow::Next)
            }
        }
    }

    /// `EXEC (text)`: a batch inside the batch, with variables of its own.
    fn nested_text(&mut self, text: &str, answer: &mut Answer<'_>) -> Result<Flow, Fault> {
        let statements = tsql::parse(text).map_err(|e| syntax(&e))?;
        let outer = std::mem::take(&mut self.variables);
        let options = self.options.clone();
        self.facts.procedure_depth += 1;
        let ran = self.block(&statements, answer);
        self.facts.procedure_depth -= 1;
        self.options = options;
        self.variables = outer;
        Ok(match ran? {
            Flow::Abort => Flow::Abort,
            _ => Flow::Next,
        })
    }
}
