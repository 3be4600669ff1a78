//! One SQLite connection on a thread of its own: blocking work stays off the runtime, writes are in order.

use std::path::Path;

use rusqlite::{Connection, Row, types::ValueRef};
use tokio::sync::{mpsc, oneshot};
use weir_contracts::money::Amount;

use super::stored::{Columns, Unreadable};
use crate::ports::PortError;

/// Calls that wait for the thread; a caller beyond them waits to enter.
const CALLS_MAX: usize = 1024;
/// How long SQLite waits for another process's lock.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the thread; the thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct SqliteThread {
    jobs: mpsc::Sender<Job>,
    name: &'static str,
}

impl SqliteThread {
    /// Opens or makes the file (WAL, `synchronous=FULL`) and its tables. Blocking.
    pub(crate) fn open(path: &Path, name: &'static str, schema: &str) -> Result<Self, PortError> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", "ON")?;
            connection.set_prepared_statement_cache_capacity(64);
            connection.execute_batch(schema)?;
            Ok(connection)
        };
        let mut connection =
            open().map_err(|e| PortError::Unavailable(name, format!("{}: {e}", path.display())))?;
        let (jobs, mut queue) = mpsc::channel::<Job>(CALLS_MAX);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(|e| PortError::Unavailable(name, e.to_string()))?;
        Ok(Self { jobs, name })
    }

    /// Runs `work` in one transaction: committed when it returns `Ok`, rolled back otherwise.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, SqlError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let name = self.name;
        let job: Job = Box::new(move |connection| {
            let result = in_transaction(connection, work).map_err(|e| e.into_port(name));
            let _ = answer.send(result);
        });
        let ended = || PortError::Unavailable(name, "its thread has ended".to_owned());
        self.jobs.send(job).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    let transaction = rusqlite::Transaction::new(connection, rusqlite::TransactionBehavior::Immediate)?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// Why a statement on the thread failed.
#[derive(Debug)]
pub(crate) enum SqlError {
    Sqlite(rusqlite::Error),
    Corrupt(String),
    OtherContent(String),
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl SqlError {
    /// Something stored does not parse.
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }

    fn into_port(self, name: &'static str) -> PortError {
        match self {
            Self::Sqlite(e) => PortError::Unavailable(name, e.to_string()),
            Self::Corrupt(what) => PortError::Corrupt(name, what),
            Self::OtherContent(what) => PortError::OtherContent(name, what),
        }
    }
}

impl From<Unreadable> for SqlError {
    fn from(Unreadable(what): Unreadable) -> Self {
        Self::Corrupt(what)
    }
}

impl Columns for Row<'_> {
    type Error = SqlError;

    fn text(&self, column: usize) -> Result<String, SqlError> {
        Ok(self.get(column)?)
    }

    fn text_or_null(&self, column: usize) -> Result<Option<String>, SqlError> {
        Ok(self.get(column)?)
    }

    fn int(&self, column: usize) -> Result<i64, SqlError> {
        Ok(self.get(column)?)
    }

    /// Nano-units: an integer, or its digits where it may outgrow SQLite's integers.
    fn amount(&self, column: usize) -> Result<Amount, SqlError> {
        let nanos = match self.get_ref(column)? {
            ValueRef::Text(digits) => std::str::from_utf8(digits)
                .map_err(SqlError::corrupt)?
                .parse()
                .map_err(SqlError::corrupt)?,
            _ => i128::from(self.get::<_, i64>(column)?),
        };
        Ok(Amount::from_nanos(nanos))
    }
}
