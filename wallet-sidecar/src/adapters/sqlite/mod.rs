//! SQLite: opening a database the one way that survives power loss, and what its errors mean.

pub mod event_store;
pub mod read_model;

use std::{path::Path, sync::Mutex, time::Duration};

use rusqlite::{Connection, ErrorCode};

use crate::ports::event_store::StoreError;

pub use event_store::SqliteEventStore;
pub use read_model::SqliteReadModel;

/// Longest wait for another process's write.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Prepared statements kept per connection; more than there are.
const STATEMENTS_MAX: usize = 64;

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Power loss.
    Full,
    /// Process death; after power loss the last commits may be gone, the database stays whole.
    Lazy,
}

fn open(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)
        .map_err(|e| StoreError::Unavailable(format!("cannot open {}: {e}", path.display())))?;
    connection.busy_timeout(BUSY_WAIT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(failed)?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Lazy => "NORMAL",
    };
    connection
        .pragma_update(None, "synchronous", synchronous)
        .map_err(failed)?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(failed)?;
    Ok(connection)
}

/// Brings a new or older database to the newest version; one script per version, each in its own commit.
fn migrate(connection: &mut Connection, scripts: &[&str]) -> Result<(), StoreError> {
    let version: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map_err(failed)
        .and_then(|v| usize::try_from(v).map_err(|_| StoreError::Damaged(format!("user_version {v}"))))?;
    if version > scripts.len() {
        return Err(StoreError::Damaged(format!(
            "written by a newer weir-wallet (version {version} > {})",
            scripts.len()
        )));
    }
    for (index, script) in scripts.iter().enumerate().skip(version) {
        let commit = connection.transaction().map_err(failed)?;
        commit.execute_batch(script).map_err(failed)?;
        commit
            .pragma_update(None, "user_version", row_limit(index + 1, usize::MAX))
            .map_err(failed)?;
        commit.commit().map_err(failed)?;
    }
    Ok(())
}

/// The connection, also after a thread died with it: SQLite rolls an unfinished commit back by itself.
fn locked(connection: &Mutex<Connection>) -> std::sync::MutexGuard<'_, Connection> {
    connection
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[allow(clippy::needless_pass_by_value, reason = "used as `map_err(failed)`")]
fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// A position as SQLite counts: beyond `i64::MAX` there is nothing.
fn as_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn as_u64(n: i64) -> Result<u64, StoreError> {
    u64::try_from(n).map_err(|_| StoreError::Damaged(format!("negative number {n}")))
}

fn row_limit(limit: usize, max: usize) -> i64 {
    i64::try_from(limit.min(max)).unwrap_or(i64::MAX)
}
