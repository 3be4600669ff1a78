//! T-SQL read into statements: control flow, SET, transactions and EXEC by a reader of ours, queries by `sqlparser`.

mod control;
mod dialect;
mod parse;
mod procedures;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use parse::{parse, parse_declarations};
use sqlparser::ast::{ColumnDef, DataType, Expr, Statement};

/// A statement of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stmt {
    /// `SET option value`.
    Set(SetOption),
    /// `USE database`.
    Use(String),
    /// `DECLARE @a int = 1, …`.
    Declare(Vec<Declaration>),
    /// `SET @a = expr`, `SET @a += expr`.
    Assign { name: String, value: Expr },
    /// `PRINT expr`.
    Print(Expr),
    /// `RAISERROR(…)`.
    RaisError(Box<Raise>),
    /// `THROW [number, message, state]`.
    Throw(Option<Box<(Expr, Expr, Expr)>>),
    /// `BEGIN TRAN [name]`.
    Begin,
    /// `COMMIT [TRAN [name]]`.
    Commit,
    /// `ROLLBACK [TRAN [name]]`: the name may be a savepoint's.
    Rollback(Option<String>),
    /// `SAVE TRAN name`.
    Save(String),
    /// `IF condition statement [ELSE statement]`.
    If {
        condition: Expr,
        then: Box<Stmt>,
        otherwise: Option<Box<Stmt>>,
    },
    /// `WHILE condition statement`.
    While { condition: Expr, body: Box<Stmt> },
    /// Leaves the innermost loop.
    Break,
    /// Next turn of the innermost loop.
    Continue,
    /// `BEGIN … END`.
    Block(Vec<Stmt>),
    /// `BEGIN TRY … END TRY BEGIN CATCH … END CATCH`.
    Try { body: Vec<Stmt>, catch: Vec<Stmt> },
    /// `RETURN [status]`.
    Return(Option<Expr>),
    /// `WAITFOR DELAY 'hh:mm:ss'`.
    WaitFor(Expr),
    /// `EXEC …`.
    Exec(Exec),
    /// `INSERT table (columns) EXEC …`: the rows of the call's results.
    InsertExec {
        table: String,
        columns: Vec<String>,
        exec: Exec,
    },
    /// `INSERT BULK table (…)`: announces a bulk load.
    InsertBulk { table: String, columns: Vec<String> },
    /// `CREATE [OR ALTER] PROCEDURE`.
    CreateProcedure(Box<Procedure>),
    /// `DROP PROCEDURE [IF EXISTS] name`.
    DropProcedure { name: String, if_exists: bool },
    /// `CREATE TYPE name AS TABLE (…)`.
    CreateTableType { name: String, columns: Vec<ColumnDef> },
    /// `DROP TYPE [IF EXISTS] name`.
    DropType { name: String, if_exists: bool },
    /// Accepted and without effect here: `DBCC …`, `CHECKPOINT`, `GRANT …`.
    Nothing,
    /// A query, DML or DDL statement.
    Sql(Box<Statement>),
}

/// `RAISERROR(message, severity, state, args…)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Raise {
    pub(crate) message: Expr,
    pub(crate) severity: Expr,
    pub(crate) state: Expr,
    pub(crate) args: Vec<Expr>,
}

/// `SET` of a session option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetOption {
    /// Upper case, words divided by one space: `ANSI_NULLS`, `TRANSACTION ISOLATION LEVEL`.
    pub(crate) name: String,
    /// Upper case: `ON`, `-1`, `READ COMMITTED`.
    pub(crate) value: String,
}

/// One variable of a DECLARE.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declaration {
    /// With its `@`, lower case.
    pub(crate) name: String,
    /// Its type.
    pub(crate) kind: DeclaredType,
    /// Value given at once.
    pub(crate) value: Option<Expr>,
    /// `OUTPUT` in a procedure's parameter list.
    pub(crate) output: bool,
}

/// Type of a variable.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DeclaredType {
    /// A scalar.
    Scalar(DataType),
    /// `TABLE (…)`.
    Table(Vec<ColumnDef>),
    /// `CURSOR`, which only a refusal needs.
    Cursor,
}

/// `EXEC [@status =] name args`, or `EXEC (text)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exec {
    /// Variable that takes the return status.
    pub(crate) status: Option<String>,
    /// What runs.
    pub(crate) what: ExecTarget,
    /// Arguments in order.
    pub(crate) args: Vec<Argument>,
}

/// What an EXEC runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ExecTarget {
    /// A procedure, name parts as written.
    Procedure(Vec<String>),
    /// Text.
    Text(Box<Expr>),
}

/// An argument of an EXEC.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Argument {
    /// With its `@`, lower case.
    pub(crate) name: Option<String>,
    /// `None` is DEFAULT.
    pub(crate) value: Option<Expr>,
    /// `OUTPUT`.
    pub(crate) output: bool,
}

/// A stored procedure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Procedure {
    /// Last part of its name, lower case.
    pub(crate) name: String,
    /// Its parameters.
    pub(crate) parameters: Vec<Declaration>,
    /// Its statements.
    pub(crate) body: Vec<Stmt>,
}

/// Text that is not T-SQL, or not the T-SQL read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// What stands where it should not; empty at the end of the text.
    pub(crate) near: String,
    /// It is a word of the language.
    pub(crate) keyword: bool,
    /// Line of the text, from 1.
    pub(crate) line: u32,
}
