//! What goes wrong with PostgreSQL, in the classes that callers act on. Never holds an address, a password or a row's values.

use std::error::Error as _;

use tokio_postgres::error::{DbError, SqlState};

/// Why PostgreSQL did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// The address, a setting of the server or a right of the role is wrong: an operator must mend it; trying again does not help.
    #[error("{0}")]
    Settings(String),
    /// The server is away, overloaded, full, or did not answer in time. A commit that failed so may be found written later.
    #[error("PostgreSQL cannot be used now: {0}")]
    Unavailable(String),
    /// A row with this key is there already. Nothing was written.
    #[error("a row with the same key exists ({constraint})")]
    UniqueViolation {
        /// The index or constraint that it would break.
        constraint: String,
    },
    /// Another transaction was in the way (deadlock, serialization). Nothing was written: read again and decide anew.
    #[error("another transaction was in the way: {0}")]
    Serialization(String),
    /// The database is not as this program knows it, or refuses what it must take: an operator must look.
    #[error("the database is not as expected: {0}")]
    Damaged(String),
}

impl PostgresError {
    /// True when trying the same again may help.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Serialization(_))
    }

    /// After this error the connection is as it was before the call.
    pub(super) const fn leaves_connection_whole(&self) -> bool {
        matches!(self, Self::UniqueViolation { .. } | Self::Serialization(_))
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => of_server(db),
            None => of_client(&error),
        }
    }
}

/// By SQLSTATE. The server's `detail` and `hint` are left out: they quote rows.
fn of_server(error: &DbError) -> PostgresError {
    let code = error.code();
    let said = format!("{} ({})", error.message(), code.code());
    if *code == SqlState::UNIQUE_VIOLATION {
        let constraint = error.constraint().unwrap_or("unnamed").to_owned();
        return PostgresError::UniqueViolation { constraint };
    }
    if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED {
        return PostgresError::Serialization(said);
    }
    // A demoted server: the next connection may reach the new primary.
    let passing = [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    if passing.contains(code) {
        return PostgresError::Unavailable(said);
    }
    match code.code().get(..2) {
        // Connection, resources (disk full, too many connections), operator (shutdown, cancel), system (I/O).
        Some("08" | "53" | "57" | "58") => PostgresError::Unavailable(said),
        Some("28") => PostgresError::Settings(format!(
            "PostgreSQL refuses the login: {said}; check user and password in the database URL and the server's pg_hba.conf"
        )),
        Some("3D") => PostgresError::Settings(format!(
            "{said}: have an administrator CREATE DATABASE, or name another one in the database URL"
        )),
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => PostgresError::Settings(format!(
            "{said}: the role of the database URL needs all rights on its schema (GRANT ALL ON SCHEMA … TO …, and ownership of its tables)"
        )),
        _ => PostgresError::Damaged(said),
    }
}

fn of_client(error: &tokio_postgres::Error) -> PostgresError {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    // By what the client says, since its kinds are private: parameters and columns that do not fit are our own fault.
    let ours = [
        "error serializing",
        "error deserializing",
        "invalid column",
        "expected ",
        "query returned",
    ];
    if ours.iter().any(|start| said.starts_with(start)) {
        return PostgresError::Damaged(said);
    }
    if said.starts_with("error performing TLS handshake") {
        return PostgresError::Settings(format!(
            "{said}: PostgreSQL's certificate must be issued by a known authority (SSL_CERT_FILE names others) to the host of the database URL; sslmode=disable does without TLS"
        ));
    }
    if said.starts_with("authentication error") || said.starts_with("invalid configuration") {
        return PostgresError::Settings(format!("{said}: check the database URL"));
    }
    PostgresError::Unavailable(said)
}
