//! `EXEC weir.…`: what the gate itself answers, in band and free of charge.

use weir_contracts::{entry::UsageRecord, money::Amount};

use super::lexer::Lexeme;

/// A question to the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `weir.balance`: account, balance, currency, and what is held and available.
    Balance,
    /// `weir.usage`: what this session has used.
    Usage,
    /// `weir.why`: the sum behind this session's last refusal.
    Why,
    /// A name that the gate does not know; answered by an error that lists those it knows.
    Unknown(String),
}

/// Schema name of the gate's commands; no schema of the server's may be called so behind Weir.
pub const SCHEMA: &str = "weir";

/// Names that [`Command::of_procedure`] knows, for the error that lists them.
pub const NAMES: &str = "weir.balance, weir.usage, weir.why";

impl Command {
    /// The command of a procedure called `schema.name`; `None` for another schema.
    #[must_use]
    pub fn of_procedure(schema: &str, name: &str) -> Option<Self> {
        if !schema.eq_ignore_ascii_case(SCHEMA) {
            return None;
        }
        Some(match name.to_ascii_lowercase().as_str() {
            "balance" => Self::Balance,
            "usage" => Self::Usage,
            "why" => Self::Why,
            _ => Self::Unknown(name.chars().take(64).collect()),
        })
    }

    /// The command of a procedure name as an RPC carries it: `weir.balance`, `[weir].[balance]`.
    #[must_use]
    pub fn of_rpc_name(name: &str) -> Option<Self> {
        if !name.contains('.') {
            return None;
        }
        match super::lexer::lex(name)?.as_slice() {
            [schema, Lexeme::Symbol('.'), procedure] => Self::of_procedure(schema.name()?, procedure.name()?),
            _ => None,
        }
    }

    /// The command of a batch that is nothing but `EXEC weir.name`.
    #[must_use]
    pub fn of_batch(lexemes: &[Lexeme<'_>]) -> Option<Self> {
        let mut rest = lexemes;
        while let [head @ .., Lexeme::Symbol(';')] = rest {
            rest = head;
        }
        match rest {
            [exec, schema, Lexeme::Symbol('.'), procedure] if exec.is("EXEC") || exec.is("EXECUTE") => {
                Self::of_procedure(schema.name()?, procedure.name()?)
            }
            _ => None,
        }
    }
}

/// What a session knows of itself, for `weir.usage` and `weir.why`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Requests that were answered.
    pub requests: u64,
    /// Rows delivered.
    pub rows: u64,
    /// Token-stream bytes delivered.
    pub bytes: u64,
    /// Their cost, nano-units.
    pub cost_nanos: i64,
    /// Text of the last refusal.
    pub last_refusal: Option<String>,
}

impl Facts {
    /// Adds a record of this session.
    pub fn add(&mut self, record: &UsageRecord) {
        self.requests += record.requests;
        self.rows += record.rows;
        self.bytes += record.bytes_out;
        self.cost_nanos = self.cost_nanos.saturating_add(record.cost_nanos);
    }

    /// The cells of `weir.usage`.
    #[must_use]
    pub fn cells(&self) -> Vec<Option<String>> {
        let cost = Amount::from(self.cost_nanos).to_string();
        [
            self.requests.to_string(),
            self.rows.to_string(),
            self.bytes.to_string(),
            cost,
        ]
        .map(Some)
        .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::Command;
    use crate::gate::lexer::lex;

    fn batch(text: &str) -> Option<Command> {
        Command::of_batch(&lex(text).unwrap())
    }

    #[test]
    fn commands_are_found_in_any_spelling() {
        assert_eq!(batch("EXEC weir.balance"), Some(Command::Balance));
        assert_eq!(batch("execute [WEIR].[Usage];"), Some(Command::Usage));
        assert_eq!(batch(" exec weir . why -- please"), Some(Command::Why));
        assert_eq!(
            batch("EXEC weir.nothing"),
            Some(Command::Unknown("nothing".into()))
        );
        assert_eq!(Command::of_rpc_name("weir.balance"), Some(Command::Balance));
    }

    #[test]
    fn nothing_else_is_a_command() {
        for text in [
            "EXEC dbo.balance",
            "EXEC weir.balance SELECT 1",
            "SELECT 1; EXEC weir.balance",
            "weir.balance",
        ] {
            assert_eq!(batch(text), None, "{text}");
        }
        assert_eq!(Command::of_rpc_name("sp_executesql"), None);
    }
}
