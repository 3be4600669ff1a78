//! The database file: made at the start, opened once more by every connection.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use sqlparser::ast::ColumnDef;

use super::functions;
use crate::demo;
use crate::tsql::Procedure;

/// Name of the file in the data directory.
const FILE: &str = "sandbox.db";
/// How long opening waits for another connection that opens or recovers the file.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// Prepared statements that SQLite keeps per connection.
const STATEMENTS_CACHED: usize = 64;

/// The database file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("cannot make {path}: {source}")]
    Directory {
        /// As configured.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// SQLite refuses the file.
    #[error("cannot open the database file: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Where the data lies. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    file: Arc<PathBuf>,
    /// Stored procedures, for all connections; they live as long as the server.
    pub(super) procedures: Arc<Procedures>,
    /// Table types, as long-lived.
    pub(super) table_types: Arc<TableTypes>,
    /// Open as long as the server is: the last connection to close would lock the file for its checkpoint.
    _keeper: Arc<Mutex<Connection>>,
    /// Present when the directory is ours to remove; dropped last.
    _private: Option<Arc<PrivateDir>>,
}

/// Procedures by lower-case name.
#[derive(Debug, Default)]
pub(super) struct Procedures(Mutex<HashMap<String, Procedure>>);

impl Procedures {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Procedure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<Procedure> {
        self.lock().get(name).cloned()
    }

    pub(super) fn put(&self, procedure: Procedure) {
        self.lock().insert(procedure.name.clone(), procedure);
    }

    pub(super) fn remove(&self, name: &str) -> bool {
        self.lock().remove(name).is_some()
    }
}

/// Columns of table types by lower-case name.
#[derive(Debug, Default)]
pub(super) struct TableTypes(Mutex<HashMap<String, Vec<ColumnDef>>>);

impl TableTypes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<ColumnDef>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<Vec<ColumnDef>> {
        self.lock().get(name).cloned()
    }

    /// False if there is one of the name.
    pub(super) fn put(&self, name: &str, columns: &[ColumnDef]) -> bool {
        let mut types = self.lock();
        let new = !types.contains_key(name);
        if new {
            types.insert(name.to_owned(), columns.to_vec());
        }
        new
    }

    pub(super) fn remove(&self, name: &str) -> bool {
        self.lock().remove(name).is_some()
    }
}

#[derive(Debug)]
struct PrivateDir(PathBuf);

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Store {
    /// Makes the file if it is absent. Blocking; done once at the start.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (directory, private) = match directory {
            Some(path) => (path.to_owned(), None),
            None => {
                let path = std::env::temp_dir().join(format!("weir-sandbox-{}-{number}", std::process::id()));
                (path.clone(), Some(Arc::new(PrivateDir(path))))
            }
        };
        let made = std::fs::create_dir_all(&directory);
        made.map_err(|source| StoreError::Directory {
            path: directory.display().to_string(),
            source,
        })?;
        let file = directory.join(FILE);
        let keeper = Connection::open(&file)?;
        keeper.busy_timeout(OPEN_WAIT)?;
        // Readers see the last committed state while a writer works; a second writer waits for the lock.
        keeper.pragma_update(None, "journal_mode", "WAL")?;
        Ok(Self {
            file: Arc::new(file),
            procedures: Arc::default(),
            table_types: Arc::default(),
            _keeper: Arc::new(Mutex::new(keeper)),
            _private: private,
        })
    }

    /// One more connection, with T-SQL's functions, the generated tables and the catalogue.
    pub(crate) fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let db = Connection::open(self.file.as_path())?;
        db.busy_timeout(OPEN_WAIT)?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "synchronous", "OFF")?;
        db.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        functions::register(&db)?;
        demo::register(&db)?;
        super::system::create_views(&db)?;
        // From here on the lock is waited for by us, so that an ATTENTION can end the wait.
        db.busy_timeout(Duration::ZERO)?;
        Ok(db)
    }
}
