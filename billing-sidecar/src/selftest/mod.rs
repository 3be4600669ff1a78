//! Suites that prove what a store promises, on the store that an operator configured. The crate's own tests run the same ones.

pub mod items;

use serde::Serialize;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub check: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was seen; of a failure, the first difference.
    pub detail: String,
}

/// A suite's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// True when every check holds.
    pub ok: bool,
    /// What was tested, without secrets.
    pub place: String,
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}
