//! Why a call on PostgreSQL failed, and its rows as the stores read them.

use std::borrow::Cow;

use weir_contracts::money::Amount;
use weir_servers::postgres::{PostgresError, Row};

use super::{
    super::stored::{Columns, Unreadable},
    NAME,
};
use crate::ports::PortError;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Postgres(PostgresError),
    Corrupt(String),
}

impl From<PostgresError> for Failure {
    fn from(error: PostgresError) -> Self {
        Self::Postgres(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl From<Unreadable> for Failure {
    fn from(Unreadable(what): Unreadable) -> Self {
        Self::Corrupt(what)
    }
}

impl Failure {
    /// Another transaction was first: what was read is old, what is there now decides.
    pub(super) const fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Postgres(PostgresError::UniqueViolation { .. } | PostgresError::Serialization(_))
        )
    }

    /// While the service runs: a setting that went wrong meanwhile can be put right again, so it is waited for.
    pub(super) fn into_port(self) -> PortError {
        match self {
            Self::Postgres(e @ (PostgresError::Damaged(_) | PostgresError::UniqueViolation { .. })) => {
                PortError::Corrupt(NAME, e.to_string())
            }
            Self::Postgres(e) => PortError::Unavailable(NAME, e.to_string()),
            Self::Corrupt(what) => PortError::Corrupt(NAME, what),
        }
    }

    /// At the start: a wrong setting ends it.
    pub(super) fn into_start(self) -> PortError {
        match self {
            Self::Postgres(PostgresError::Settings(what)) => PortError::Settings(NAME, what),
            other => other.into_port(),
        }
    }
}

impl Columns for Row {
    type Error = Failure;

    fn text(&self, column: usize) -> Result<String, Failure> {
        Ok(self.try_get(column)?)
    }

    fn text_or_null(&self, column: usize) -> Result<Option<String>, Failure> {
        Ok(self.try_get(column)?)
    }

    fn int(&self, column: usize) -> Result<i64, Failure> {
        Ok(self.try_get(column)?)
    }

    /// A `numeric` that the query made a text of.
    fn amount(&self, column: usize) -> Result<Amount, Failure> {
        self.parsed(column)
    }
}

/// A text from outside as PostgreSQL can hold it: U+0000 becomes its picture.
pub(super) fn holdable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{2400}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Nano-units as the text that a `numeric` is made of.
pub(super) fn money(nanos: i64) -> String {
    Amount::from(nanos).to_string()
}
