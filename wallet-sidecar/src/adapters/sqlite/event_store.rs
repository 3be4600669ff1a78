//! The event store on SQLite (WAL): one connection commits, one marks what was relayed, one reads.

use std::{path::Path, sync::Mutex};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};
use weir_contracts::money::{Amount, Currency};

use super::{Durability, as_i64, as_u64, damaged, failed, locked, migrate, open, row_limit};
use crate::{
    ledger::Posting,
    ports::event_store::{
        Append, Batch, EventStore, OutMessage, OutboxItem, Posted, READ_ROWS_MAX, Snapshot, StoreError,
        StoredAnswer,
    },
    wallet::{Recorded, WalletId},
};

const SCHEMA: &[&str] = &["
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    wallet_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    at TEXT NOT NULL,
    is_transaction INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (wallet_id, version)
) STRICT;
CREATE INDEX transactions_by_wallet ON events (wallet_id, position) WHERE is_transaction = 1;
CREATE INDEX transactions_by_position ON events (position) WHERE is_transaction = 1;
CREATE TABLE postings (
    position INTEGER NOT NULL REFERENCES events (position),
    n INTEGER NOT NULL,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    nanos TEXT NOT NULL,
    PRIMARY KEY (position, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE answers (
    key TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL) STRICT;
INSERT INTO probe VALUES (1, 0);
", "
CREATE TABLE snapshot (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, position INTEGER NOT NULL) STRICT;
CREATE TABLE snapshot_wallets (wallet_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
"];

/// The event store in one SQLite file.
pub struct SqliteEventStore {
    /// Commits batches, durable against power loss. Only the writer thread calls it, so it never waits but for `lazy`.
    writer: Mutex<Connection>,
    /// Marks what was relayed and keeps snapshots: a lost mark sends a message twice, which every consumer bears, and a lost
    /// snapshot means more events to read.
    lazy: Mutex<Connection>,
    /// Serializes the two above, so that neither meets SQLite's polling busy wait.
    turn: Mutex<()>,
    reader: Mutex<Connection>,
}

impl SqliteEventStore {
    /// Opens the store, made when it is missing. Blocks.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = open(path, Durability::Full)?;
        migrate(&mut writer, SCHEMA)?;
        Ok(Self {
            writer: Mutex::new(writer),
            lazy: Mutex::new(open(path, Durability::Lazy)?),
            turn: Mutex::new(()),
            reader: Mutex::new(open(path, Durability::Lazy)?),
        })
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn head_of(connection: &Connection) -> Result<u64, StoreError> {
    let head: i64 = connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM events")
        .and_then(|mut s| s.query_row([], |row| row.get(0)))
        .map_err(failed)?;
    as_u64(head)
}

/// A row that exists already means that somebody else wrote it.
fn write_failed(error: rusqlite::Error, expected: u64) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        return StoreError::Conflict {
            expected,
            found: expected,
        };
    }
    failed(error)
}

fn insert(connection: &Connection, append: &Append) -> Result<(), rusqlite::Error> {
    let mut event = connection.prepare_cached(
        "INSERT INTO events (position, wallet_id, version, at, is_transaction, body) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    let mut posting = connection.prepare_cached(
        "INSERT INTO postings (position, n, account, currency, nanos) VALUES (?, ?, ?, ?, ?)",
    )?;
    for (recorded, postings) in &append.events {
        let body = serde_json::to_string(&recorded.event)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        event.execute(params![
            as_i64(recorded.position),
            recorded.wallet.to_string(),
            as_i64(recorded.version),
            recorded.at.to_string(),
            recorded.event.is_transaction(),
            body,
        ])?;
        for (n, side) in postings.iter().enumerate() {
            posting.execute(params![
                as_i64(recorded.position),
                as_i64(n as u64),
                side.account.name(),
                append.currency.code(),
                side.amount.nanos().to_string(),
            ])?;
        }
    }
    if let Some(answer) = &append.answer {
        connection
            .prepare_cached("INSERT INTO answers (key, hash, body) VALUES (?, ?, ?)")?
            .execute(params![answer.key, answer.hash, answer.body])?;
    }
    let mut out = connection.prepare_cached("INSERT INTO outbox (topic, id, body) VALUES (?, ?, ?)")?;
    for message in &append.messages {
        out.execute(params![message.topic, message.id, message.body])?;
    }
    Ok(())
}

fn recorded(row: &Row<'_>) -> Result<Result<Recorded, StoreError>, rusqlite::Error> {
    let (position, wallet, version): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (at, body): (String, String) = (row.get(3)?, row.get(4)?);
    Ok((|| {
        Ok(Recorded {
            position: as_u64(position)?,
            wallet: wallet.parse().map_err(damaged)?,
            version: as_u64(version)?,
            at: at.parse::<Timestamp>().map_err(damaged)?,
            event: serde_json::from_str(&body)
                .map_err(|e| StoreError::Damaged(format!("event {position} cannot be read: {e}")))?,
        })
    })())
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<Result<T, StoreError>, rusqlite::Error>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_map(params, read).map_err(failed)?;
    found.map(|row| row.map_err(failed)?).collect()
}

/// Format and position of the snapshot.
fn snapshot_head(connection: &Connection) -> Result<Option<(u32, u64)>, StoreError> {
    let head: Option<(u32, i64)> = connection
        .query_row("SELECT format, position FROM snapshot", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(failed)?;
    head.map(|(format, position)| Ok((format, as_u64(position)?)))
        .transpose()
}

fn posted(row: &Row<'_>) -> Result<Result<Posted, StoreError>, rusqlite::Error> {
    let position: i64 = row.get(0)?;
    let (account, currency, nanos): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
    Ok((|| {
        Ok(Posted {
            position: as_u64(position)?,
            currency: currency.parse::<Currency>().map_err(damaged)?,
            posting: Posting {
                account: account.parse().map_err(damaged)?,
                amount: Amount::from_nanos(nanos.parse().map_err(damaged)?),
            },
        })
    })())
}

impl EventStore for SqliteEventStore {
    fn head(&self) -> Result<u64, StoreError> {
        head_of(&locked(&self.reader))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        batch.last_position()?;
        let _turn = self.turn();
        let mut writer = locked(&self.writer);
        let commit = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let found = head_of(&commit)?;
        if found != batch.expected_head {
            return Err(StoreError::Conflict {
                expected: batch.expected_head,
                found,
            });
        }
        for append in &batch.appends {
            insert(&commit, append).map_err(|e| write_failed(e, batch.expected_head))?;
        }
        commit.commit().map_err(failed)
    }

    fn answer(&self, key: &str) -> Result<Option<StoredAnswer>, StoreError> {
        locked(&self.writer)
            .prepare_cached("SELECT hash, body FROM answers WHERE key = ?")
            .and_then(|mut s| {
                s.query_row([key], |row| {
                    Ok(StoredAnswer {
                        key: key.to_owned(),
                        hash: row.get(0)?,
                        body: row.get(1)?,
                    })
                })
                .optional()
            })
            .map_err(failed)
    }

    fn events_after(&self, position: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        rows(
            &locked(&self.reader),
            "SELECT position, wallet_id, version, at, body FROM events WHERE position > ? ORDER BY position LIMIT ?",
            params![as_i64(position), row_limit(limit, READ_ROWS_MAX)],
            recorded,
        )
    }

    fn transactions_after(
        &self,
        wallet: Option<WalletId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, StoreError> {
        let limit = row_limit(limit, READ_ROWS_MAX);
        let reader = locked(&self.reader);
        match wallet {
            Some(wallet) => rows(
                &reader,
                "SELECT position, wallet_id, version, at, body FROM events
                 WHERE is_transaction = 1 AND wallet_id = ? AND position > ? ORDER BY position LIMIT ?",
                params![wallet.to_string(), as_i64(position), limit],
                recorded,
            ),
            None => rows(
                &reader,
                "SELECT position, wallet_id, version, at, body FROM events
                 WHERE is_transaction = 1 AND position > ? ORDER BY position LIMIT ?",
                params![as_i64(position), limit],
                recorded,
            ),
        }
    }

    fn postings_after(&self, position: u64, limit: usize) -> Result<Vec<Posted>, StoreError> {
        rows(
            &locked(&self.reader),
            "SELECT position, account, currency, nanos FROM postings WHERE position > ?1 AND position <=
             coalesce((SELECT max(position) FROM (SELECT DISTINCT position FROM postings WHERE position > ?1
                       ORDER BY position LIMIT ?2)), 0) ORDER BY position, n",
            params![as_i64(position), row_limit(limit, READ_ROWS_MAX)],
            posted,
        )
    }

    fn outbox(&self, limit: usize) -> Result<Vec<OutboxItem>, StoreError> {
        rows(
            &locked(&self.reader),
            "SELECT sequence, topic, id, body FROM outbox ORDER BY sequence LIMIT ?",
            params![row_limit(limit, READ_ROWS_MAX)],
            |row| {
                let sequence: i64 = row.get(0)?;
                let message = OutMessage {
                    topic: row.get(1)?,
                    id: row.get(2)?,
                    body: row.get(3)?,
                };
                Ok(as_u64(sequence).map(|sequence| OutboxItem { sequence, message }))
            },
        )
    }

    fn relayed(&self, up_to: u64) -> Result<(), StoreError> {
        let _turn = self.turn();
        locked(&self.lazy)
            .prepare_cached("DELETE FROM outbox WHERE sequence <= ?")
            .and_then(|mut s| s.execute([as_i64(up_to)]))
            .map_err(failed)?;
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let mut reader = locked(&self.reader);
        let moment = reader.transaction().map_err(failed)?;
        let Some((format, position)) = snapshot_head(&moment)? else {
            return Ok(None);
        };
        let wallets = rows(&moment, "SELECT body FROM snapshot_wallets", [], |row| {
            Ok(Ok(row.get(0)?))
        })?;
        Ok(Some(Snapshot {
            format,
            position,
            wallets,
        }))
    }

    fn save_snapshot(
        &self,
        format: u32,
        position: u64,
        changed: &[(WalletId, String)],
    ) -> Result<bool, StoreError> {
        let _turn = self.turn();
        let mut lazy = locked(&self.lazy);
        let commit = lazy
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        match snapshot_head(&commit)? {
            Some((same, there)) if same == format && there >= position => return Ok(false),
            Some((same, _)) if same == format => {}
            _ => {
                commit
                    .execute("DELETE FROM snapshot_wallets", [])
                    .map_err(failed)?;
            }
        }
        {
            let mut upsert = commit
                .prepare_cached(
                    "INSERT INTO snapshot_wallets (wallet_id, body) VALUES (?, ?)
                     ON CONFLICT (wallet_id) DO UPDATE SET body = excluded.body",
                )
                .map_err(failed)?;
            for (wallet, body) in changed {
                upsert
                    .execute(params![wallet.to_string(), body])
                    .map_err(failed)?;
            }
        }
        commit
            .execute(
                "INSERT INTO snapshot (id, format, position) VALUES (1, ?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET format = excluded.format, position = excluded.position",
                params![format, as_i64(position)],
            )
            .map_err(failed)?;
        commit.commit().map_err(failed)?;
        Ok(true)
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        let _turn = self.turn();
        locked(&self.lazy)
            .prepare_cached("UPDATE probe SET n = n + 1 WHERE id = 1")
            .and_then(|mut s| s.execute([]))
            .map_err(failed)?;
        Ok(())
    }
}
