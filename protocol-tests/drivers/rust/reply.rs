//! What a statement came to, as it grows, and why a scenario ended early.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::values::hex;

/// Rows that stand in the answer; of larger sets only a digest.
const ROWS_SHOWN: u64 = 50;

/// Why a scenario ended early.
pub(crate) enum Failure {
    /// What the driver cannot do.
    Unsupported(&'static str),
    /// An error that is no part of a reply.
    Error(Value),
}

/// An error in the contract's form.
pub(crate) fn error(number: i64, state: u8, class: i64, message: &str) -> Value {
    json!({"number": number, "state": state, "class": class, "message": message})
}

#[derive(Default)]
struct Set {
    columns: Vec<String>,
    rows: u64,
    shown: Vec<Value>,
    hash: Sha256,
}

/// All result sets and errors of one statement.
#[derive(Default)]
pub(crate) struct Reply {
    sets: Vec<Set>,
    pub(crate) errors: Vec<Value>,
    pub(crate) affected: Option<u64>,
}

impl Reply {
    pub(crate) fn columns(&mut self, columns: Vec<String>) {
        self.sets.push(Set {
            columns,
            ..Set::default()
        });
    }

    pub(crate) fn row(&mut self, row: Vec<Value>) {
        let Some(set) = self.sets.last_mut() else {
            panic!("a row without columns");
        };
        let row = Value::from(row);
        set.rows += 1;
        set.hash.update(row.to_string());
        if set.rows <= ROWS_SHOWN {
            set.shown.push(row);
        }
    }

    pub(crate) fn told(self) -> Value {
        let sets: Vec<Value> = self.sets.into_iter().map(Set::told).collect();
        let mut told = json!({"sets": sets, "errors": self.errors});
        if let Some(affected) = self.affected {
            told["affected"] = affected.into();
        }
        told
    }
}

impl Set {
    fn told(self) -> Value {
        let mut told = json!({"columns": self.columns, "rows": self.rows});
        if self.rows <= ROWS_SHOWN {
            told["values"] = self.shown.into();
        } else {
            told["digest"] = hex(&self.hash.finalize()).into();
        }
        told
    }
}
