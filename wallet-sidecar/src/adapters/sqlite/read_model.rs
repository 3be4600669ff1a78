//! The read model on SQLite, in a file of its own: it can be deleted and is rebuilt by the sweep.

use std::{path::Path, sync::Mutex};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, TransactionBehavior, params};
use weir_contracts::event::{TransactionCreated, WalletUpdated};

use super::{Durability, as_i64, as_u64, failed, locked, migrate, open};
use crate::ports::{
    event_store::StoreError,
    read_model::{Applied, Change, Filter, PAGE_ROWS_MAX, Page, ReadModel},
};

/// Documents are kept as JSON beside the columns that queries need.
const SCHEMA: &[&str] = &[
    "
CREATE TABLE wallets (
    wallet_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    status TEXT NOT NULL,
    position INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX idx_wallets_user_id ON wallets (user_id);
CREATE INDEX idx_wallets_status ON wallets (status);
CREATE INDEX wallets_by_position ON wallets (position);
CREATE TABLE transactions (
    txn_id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    reference_id TEXT NOT NULL,
    reference_type TEXT NOT NULL,
    created_micros INTEGER NOT NULL,
    position INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idx_transactions_wallet_id ON transactions (wallet_id, position);
CREATE INDEX idx_transactions_created_at ON transactions (wallet_id, created_micros);
CREATE INDEX idx_transactions_reference ON transactions (reference_id, reference_type);
",
    "
CREATE TABLE swept (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL) STRICT;
INSERT INTO swept VALUES (1, 0);
",
];

/// The read model in one SQLite file.
pub struct SqliteReadModel {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl SqliteReadModel {
    /// Opens the read model, made when it is missing. Blocks.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Full: a message is acknowledged once its effect is committed here, and does not come again.
        let mut writer = open(path, Durability::Full)?;
        migrate(&mut writer, SCHEMA)?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(open(path, Durability::Lazy)?),
        })
    }
}

fn json<T: serde::Serialize>(document: &T) -> Result<String, StoreError> {
    serde_json::to_string(document).map_err(|e| StoreError::Damaged(e.to_string()))
}

fn apply_wallet(connection: &Connection, wallet: &WalletUpdated) -> Result<Applied, StoreError> {
    let document = json(wallet)?;
    let stored: Option<(i64, String)> = connection
        .prepare_cached("SELECT position, document FROM wallets WHERE wallet_id = ?")
        .and_then(|mut s| {
            s.query_row([&wallet.wallet_id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(failed)?;
    if let Some((position, known)) = stored {
        let position = as_u64(position)?;
        if position == wallet.position && known != document {
            return Ok(Applied::OtherContent);
        }
        if position >= wallet.position {
            return Ok(Applied::Known);
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO wallets (wallet_id, user_id, status, position, document) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (wallet_id) DO UPDATE SET user_id = excluded.user_id, status = excluded.status,
             position = excluded.position, document = excluded.document",
        )
        .and_then(|mut s| {
            s.execute(params![
                wallet.wallet_id,
                wallet.user_id,
                wallet.status,
                as_i64(wallet.position),
                document
            ])
        })
        .map_err(failed)?;
    Ok(Applied::Stored)
}

fn apply_transaction(connection: &Connection, txn: &TransactionCreated) -> Result<Applied, StoreError> {
    let document = json(txn)?;
    let stored: Option<String> = connection
        .prepare_cached("SELECT document FROM transactions WHERE txn_id = ?")
        .and_then(|mut s| s.query_row([&txn.txn_id], |row| row.get(0)).optional())
        .map_err(failed)?;
    if let Some(known) = stored {
        return Ok(if known == document {
            Applied::Known
        } else {
            Applied::OtherContent
        });
    }
    let Ok(created) = txn.created_at.parse::<Timestamp>() else {
        return Ok(Applied::OtherContent);
    };
    connection
        .prepare_cached(
            "INSERT INTO transactions (txn_id, wallet_id, type, status, reference_id, reference_type, created_micros,
             position, document) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .and_then(|mut s| {
            s.execute(params![
                txn.txn_id,
                txn.wallet_id,
                txn.r#type,
                txn.status,
                txn.reference_id,
                txn.reference_type,
                created.as_microsecond(),
                as_i64(txn.position),
                document
            ])
        })
        .map_err(failed)?;
    Ok(Applied::Stored)
}

fn document<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Damaged(format!("a document cannot be read: {e}")))
}

fn wallet_where(
    connection: &Connection,
    sql: &str,
    value: &str,
) -> Result<Option<WalletUpdated>, StoreError> {
    let found: Option<String> = connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([value], |row: &Row<'_>| row.get(0)).optional())
        .map_err(failed)?;
    found.map(|text| document(&text)).transpose()
}

/// What a filter matches, as SQL. Only what is asked for is named: the rest is found in the wallet's index alone, without the rows.
fn matches(filter: &Filter) -> String {
    let conditions = [
        (filter.from_micros.is_some(), " AND created_micros >= :from"),
        (filter.until_micros.is_some(), " AND created_micros < :until"),
        (filter.r#type.is_some(), " AND type = :type"),
        (filter.status.is_some(), " AND status = :status"),
    ];
    conditions.into_iter().filter(|(asked, _)| *asked).fold(
        "FROM transactions WHERE wallet_id = :wallet".to_owned(),
        |sql, (_, condition)| sql + condition,
    )
}

fn bindings<'a>(wallet_id: &'a &'a str, filter: &'a Filter) -> Vec<(&'static str, &'a dyn ToSql)> {
    let mut bound: Vec<(&'static str, &dyn ToSql)> = vec![(":wallet", wallet_id)];
    if let Some(from) = &filter.from_micros {
        bound.push((":from", from));
    }
    if let Some(until) = &filter.until_micros {
        bound.push((":until", until));
    }
    if let Some(kind) = &filter.r#type {
        bound.push((":type", kind));
    }
    if let Some(status) = &filter.status {
        bound.push((":status", status));
    }
    bound
}

impl ReadModel for SqliteReadModel {
    fn apply(&self, changes: &[Change]) -> Result<Vec<Applied>, StoreError> {
        let mut writer = locked(&self.writer);
        let commit = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let applied = changes
            .iter()
            .map(|change| match change {
                Change::Wallet(wallet) => apply_wallet(&commit, wallet),
                Change::Transaction(txn) => apply_transaction(&commit, txn),
            })
            .collect::<Result<Vec<_>, _>>()?;
        commit.commit().map_err(failed)?;
        Ok(applied)
    }

    fn position(&self) -> Result<u64, StoreError> {
        let position: i64 = locked(&self.reader)
            .prepare_cached("SELECT coalesce(max(position), 0) FROM wallets")
            .and_then(|mut s| s.query_row([], |row| row.get(0)))
            .map_err(failed)?;
        as_u64(position)
    }

    fn wallet(&self, wallet_id: &str) -> Result<Option<WalletUpdated>, StoreError> {
        let sql = "SELECT document FROM wallets WHERE wallet_id = ?";
        wallet_where(&locked(&self.reader), sql, wallet_id)
    }

    fn wallet_of_user(&self, user_id: &str) -> Result<Option<WalletUpdated>, StoreError> {
        let sql = "SELECT document FROM wallets WHERE user_id = ?";
        wallet_where(&locked(&self.reader), sql, user_id)
    }

    fn transactions(&self, wallet_id: &str, filter: &Filter) -> Result<Page, StoreError> {
        let limit = filter.limit.clamp(1, PAGE_ROWS_MAX);
        let offset = i64::from(filter.page.max(1) - 1) * i64::from(limit);
        let mut reader = locked(&self.reader);
        // One snapshot for both queries, so that the total fits the page.
        let snapshot = reader.transaction().map_err(failed)?;
        let matches = matches(filter);
        let mut bound = bindings(&wallet_id, filter);
        let total: i64 = snapshot
            .prepare_cached(&format!("SELECT count(*) {matches}"))
            .and_then(|mut s| s.query_row(bound.as_slice(), |row| row.get(0)))
            .map_err(failed)?;
        let mut select = snapshot
            .prepare_cached(&format!(
                "SELECT document {matches} ORDER BY position DESC LIMIT :limit OFFSET :offset"
            ))
            .map_err(failed)?;
        bound.extend([(":limit", &limit as &dyn ToSql), (":offset", &offset)]);
        let texts = select
            .query_map(bound.as_slice(), |row| row.get::<_, String>(0))
            .map_err(failed)?;
        let transactions = texts
            .map(|text| document(&text.map_err(failed)?))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page {
            transactions,
            total: as_u64(total)?,
        })
    }

    fn swept(&self) -> Result<u64, StoreError> {
        let position: i64 = locked(&self.reader)
            .query_row("SELECT position FROM swept", [], |row| row.get(0))
            .map_err(failed)?;
        as_u64(position)
    }

    fn set_swept(&self, position: u64) -> Result<(), StoreError> {
        locked(&self.writer)
            .execute("UPDATE swept SET position = ?", [as_i64(position)])
            .map_err(failed)?;
        Ok(())
    }

    fn clear(&self) -> Result<(), StoreError> {
        locked(&self.writer)
            .execute_batch("BEGIN IMMEDIATE; DELETE FROM transactions; DELETE FROM wallets; UPDATE swept SET position = 0; COMMIT;")
            .map_err(failed)
    }
}
