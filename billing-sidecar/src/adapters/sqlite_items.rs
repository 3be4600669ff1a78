//! Financial items in a SQLite file of their own, where SQL Server stands in the product.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};
use weir_contracts::money::Amount;

use super::sqlite_thread::{SqlError, SqliteThread};
use crate::ports::{
    PortError,
    items::{FinancialItem, Items, ScratchItems},
};

const NAME: &str = "the financial items";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS financial_items (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, amount_nanos TEXT NOT NULL, item TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_account ON financial_items (account);";

/// The items in one file.
#[derive(Debug, Clone)]
pub struct SqliteItems(SqliteThread);

impl SqliteItems {
    /// Opens or makes the file. Blocking.
    pub fn open(path: &Path) -> Result<Self, PortError> {
        SqliteThread::open(path, NAME, SCHEMA).map(Self)
    }
}

#[async_trait]
impl Items for SqliteItems {
    async fn write(&self, item: &FinancialItem) -> Result<(), PortError> {
        let item = item.clone();
        self.0
            .call(move |c| {
                let text = serde_json::to_string(&item).map_err(SqlError::corrupt)?;
                let there: Option<String> = c
                    .prepare_cached("SELECT item FROM financial_items WHERE id = ?1")?
                    .query_row([&item.id], |row| row.get(0))
                    .optional()?;
                match there {
                    Some(there) if there == text => return Ok(()),
                    Some(_) => return Err(SqlError::OtherContent(format!("item {}", item.id))),
                    None => {}
                }
                c.prepare_cached(
                    "INSERT INTO financial_items (id, account, amount_nanos, item) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    item.id,
                    item.account.as_str(),
                    item.amount.nanos().to_string(),
                    text
                ])?;
                Ok(())
            })
            .await
    }

    async fn amounts_after(&self, after: &str, limit: usize) -> Result<Vec<(String, Amount)>, PortError> {
        let (after, limit) = (after.to_owned(), i64::try_from(limit).unwrap_or(i64::MAX));
        self.0
            .call(move |c| {
                let mut statement = c.prepare_cached(
                    "SELECT id, amount_nanos FROM financial_items WHERE id > ?1 ORDER BY id LIMIT ?2",
                )?;
                let mut rows = statement.query(params![after, limit])?;
                let mut amounts = Vec::new();
                while let Some(row) = rows.next()? {
                    let nanos: String = row.get(1)?;
                    let nanos = nanos.parse().map_err(SqlError::corrupt)?;
                    amounts.push((row.get(0)?, Amount::from_nanos(nanos)));
                }
                Ok(amounts)
            })
            .await
    }
}

/// Files for a self-test in one directory.
#[derive(Debug)]
pub struct SqliteScratch(PathBuf);

impl SqliteScratch {
    /// In a directory that exists.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.0.join(format!("selftest-{name}.db{ending}"))
    }

    async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let ended = |e: tokio::task::JoinError| PortError::Unavailable(NAME, e.to_string());
        tokio::task::spawn_blocking(work).await.map_err(ended)?
    }
}

#[async_trait]
impl ScratchItems for SqliteScratch {
    fn place(&self) -> String {
        format!("SQLite in {}", self.0.display())
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Items>, PortError> {
        let file = self.file(name, "");
        let items = Self::blocking(move || SqliteItems::open(&file)).await?;
        Ok(Arc::new(items))
    }

    async fn remove(&self, name: &str) -> Result<(), PortError> {
        let files = ["", "-wal", "-shm"].map(|ending| self.file(name, ending));
        Self::blocking(move || {
            for file in files {
                match std::fs::remove_file(&file) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        let cause = format!("{}: {e}", file.display());
                        return Err(PortError::Unavailable(NAME, cause));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}
