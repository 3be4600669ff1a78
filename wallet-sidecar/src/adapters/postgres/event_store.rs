//! The event store on PostgreSQL: one statement commits a batch under the head's lock; readers see positions without a gap.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use weir_contracts::money::Currency;
use weir_servers::postgres::{Isolation, Pool, PostgresError, Row, types::FromSql, types::ToSql};

use super::{
    arrays::Arrays,
    schema::{COMMIT, SCHEMA},
};
use crate::{
    ledger::Posting,
    ports::event_store::{
        Batch, EventStore, OutMessage, OutboxItem, Posted, READ_ROWS_MAX, Snapshot, StoreError, StoredAnswer,
    },
    wallet::{Recorded, WalletId},
};

/// Readings of a gap between positions before it counts as damage. Our own commits never show one.
const GAP_READS: u32 = 10;
/// Between these.
const GAP_PAUSE: Duration = Duration::from_millis(100);
/// Wallets of a snapshot read or written at once: about a megabyte.
const SNAPSHOT_ROWS: usize = 1000;

impl From<PostgresError> for StoreError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Damaged(said) => Self::Damaged(said),
            PostgresError::Unavailable(said) => Self::Unavailable(format!("PostgreSQL: {said}")),
            // A right that was taken away while we run is given back while we run.
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// The event store in one schema of a PostgreSQL database. Its calls block: never on a worker of the runtime.
pub struct PostgresEventStore {
    pool: Pool,
}

impl PostgresEventStore {
    /// Opens the store, its tables made or brought forward.
    ///
    /// # Errors
    /// `Settings` when an administrator must do something first; `Damaged` when the tables are a newer program's or do not agree.
    pub async fn open(pool: Pool) -> Result<Self, PostgresError> {
        pool.migrate(SCHEMA).await?;
        let found = pool
            .get()
            .await?
            .query_one(
                "SELECT position, (SELECT coalesce(max(position), 0) FROM events) FROM head",
                &[],
            )
            .await?;
        let (head, last): (i64, i64) = (found.try_get(0)?, found.try_get(1)?);
        if head != last {
            return Err(PostgresError::Damaged(format!(
                "the last event is {last} and the head is {head}: restore the schema {} from a backup",
                pool.options().schema
            )));
        }
        Ok(Self { pool })
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self
            .pool
            .block(async { self.pool.get().await?.query(sql, params).await })?;
        rows.iter().map(read).collect()
    }

    fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<(), StoreError> {
        self.pool
            .block(async { self.pool.get().await?.execute(sql, params).await })?;
        Ok(())
    }

    async fn try_commit(&self, batch: &Batch) -> Result<bool, StoreError> {
        let arrays = Arrays::of(batch)?;
        let mut client = self.pool.get().await?;
        let row = match client.query_one(COMMIT, &arrays.params()).await {
            Ok(row) => row,
            Err(PostgresError::UniqueViolation { .. } | PostgresError::Serialization(_)) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        Ok(get::<i64>(&row, 0)? == 1)
    }

    async fn read_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let mut client = self.pool.get().await?;
        let mut moment = client.begin(Isolation::OneMoment).await?;
        let head = moment
            .query_one("SELECT format, position FROM snapshot", &[])
            .await?;
        let Some(format) = get::<Option<i64>>(&head, 0)? else {
            moment.rollback().await?;
            return Ok(None);
        };
        let mut wallets = Vec::new();
        let mut after = Uuid::nil();
        loop {
            let rows = moment
                .query(
                    "SELECT wallet_id, body FROM snapshot_wallets WHERE wallet_id > $1 ORDER BY wallet_id LIMIT $2",
                    &[&after, &row_limit(SNAPSHOT_ROWS, SNAPSHOT_ROWS)],
                )
                .await?;
            for row in &rows {
                after = get(row, 0)?;
                wallets.push(get(row, 1)?);
            }
            if rows.len() < SNAPSHOT_ROWS {
                break;
            }
        }
        moment.rollback().await?;
        Ok(Some(Snapshot {
            format: u32::try_from(format).map_err(damaged)?,
            position: get_u64(&head, 1)?,
            wallets,
        }))
    }

    async fn write_snapshot(
        &self,
        format: u32,
        position: u64,
        changed: &[(WalletId, String)],
    ) -> Result<bool, StoreError> {
        let mut client = self.pool.get().await?;
        let mut commit = client.begin(Isolation::ReadCommitted).await?;
        let head = commit
            .query_one("SELECT format, position FROM snapshot FOR UPDATE", &[])
            .await?;
        let same = get::<Option<i64>>(&head, 0)? == Some(i64::from(format));
        if same && get_u64(&head, 1)? >= position {
            commit.rollback().await?;
            return Ok(false);
        }
        if !same {
            commit.execute("DELETE FROM snapshot_wallets", &[]).await?;
        }
        for part in changed.chunks(SNAPSHOT_ROWS) {
            let (ids, bodies): (Vec<Uuid>, Vec<&str>) =
                part.iter().map(|(id, body)| (id.0, body.as_str())).unzip();
            commit
                .execute(
                    "INSERT INTO snapshot_wallets (wallet_id, body) SELECT * FROM unnest($1::uuid[], $2::text[])
                     ON CONFLICT (wallet_id) DO UPDATE SET body = excluded.body",
                    &[&ids, &bodies],
                )
                .await?;
        }
        commit
            .execute(
                "UPDATE snapshot SET format = $1, position = $2",
                &[&i64::from(format), &as_i64(position)],
            )
            .await?;
        commit.commit().await?;
        Ok(true)
    }
}

/// What follows `position` without a gap; `None` when there is something, and the next position is not.
fn dense(position: u64, mut events: Vec<Recorded>) -> Option<Vec<Recorded>> {
    let follows = (position + 1..)
        .zip(&events)
        .take_while(|(next, event)| *next == event.position);
    let whole = follows.count();
    let gap = whole == 0 && !events.is_empty();
    events.truncate(whole);
    (!gap).then_some(events)
}

impl EventStore for PostgresEventStore {
    fn head(&self) -> Result<u64, StoreError> {
        let found = self.rows("SELECT position FROM head", &[], |row| get_u64(row, 0))?;
        found
            .first()
            .copied()
            .ok_or_else(|| StoreError::Damaged("the head is missing".to_owned()))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.pool.block(self.try_commit(batch))? {
            return Ok(());
        }
        Err(StoreError::Conflict {
            expected: batch.expected_head,
            found: self.head()?,
        })
    }

    fn answer(&self, key: &str) -> Result<Option<StoredAnswer>, StoreError> {
        let found = self.rows("SELECT hash, body FROM answers WHERE key = $1", &[&key], |row| {
            let hash: Vec<u8> = get(row, 0)?;
            Ok(StoredAnswer {
                key: key.to_owned(),
                hash: hash.try_into().map_err(|_| {
                    StoreError::Damaged(format!("the hash of the answer {key} has not 32 bytes"))
                })?,
                body: get(row, 1)?,
            })
        })?;
        Ok(found.into_iter().next())
    }

    fn events_after(&self, position: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        for attempt in 0..GAP_READS {
            if attempt > 0 {
                self.pool.block(async { tokio::time::sleep(GAP_PAUSE).await });
            }
            let events = self.rows(
                "SELECT position, wallet_id, version, at, body FROM events WHERE position > $1 ORDER BY position LIMIT $2",
                &[&as_i64(position), &row_limit(limit, READ_ROWS_MAX)],
                recorded,
            )?;
            if let Some(events) = dense(position, events) {
                return Ok(events);
            }
        }
        Err(StoreError::Damaged(format!(
            "event {} is missing while later ones are there: restore the schema {} from a backup",
            position + 1,
            self.pool.options().schema
        )))
    }

    fn transactions_after(
        &self,
        wallet: Option<WalletId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, StoreError> {
        let (position, limit) = (as_i64(position), row_limit(limit, READ_ROWS_MAX));
        match wallet {
            Some(wallet) => self.rows(
                "SELECT position, wallet_id, version, at, body FROM events
                 WHERE is_transaction AND wallet_id = $1 AND position > $2 ORDER BY position LIMIT $3",
                &[&wallet.0, &position, &limit],
                recorded,
            ),
            None => self.rows(
                "SELECT position, wallet_id, version, at, body FROM events
                 WHERE is_transaction AND position > $1 ORDER BY position LIMIT $2",
                &[&position, &limit],
                recorded,
            ),
        }
    }

    fn postings_after(&self, position: u64, limit: usize) -> Result<Vec<Posted>, StoreError> {
        self.rows(
            "SELECT position, account, currency, amount::text FROM postings WHERE position > $1 AND position <=
             coalesce((SELECT max(position) FROM (SELECT DISTINCT position FROM postings WHERE position > $1
                       ORDER BY position LIMIT $2) AS first), 0) ORDER BY position, n",
            &[&as_i64(position), &row_limit(limit, READ_ROWS_MAX)],
            posted,
        )
    }

    fn outbox(&self, limit: usize) -> Result<Vec<OutboxItem>, StoreError> {
        self.rows(
            "SELECT sequence, topic, id, body FROM outbox ORDER BY sequence LIMIT $1",
            &[&row_limit(limit, READ_ROWS_MAX)],
            |row| {
                Ok(OutboxItem {
                    sequence: get_u64(row, 0)?,
                    message: OutMessage {
                        topic: get(row, 1)?,
                        id: get(row, 2)?,
                        body: get(row, 3)?,
                    },
                })
            },
        )
    }

    fn relayed(&self, up_to: u64) -> Result<(), StoreError> {
        self.execute("DELETE FROM outbox WHERE sequence <= $1", &[&as_i64(up_to)])
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        self.pool.block(self.read_snapshot())
    }

    fn save_snapshot(
        &self,
        format: u32,
        position: u64,
        changed: &[(WalletId, String)],
    ) -> Result<bool, StoreError> {
        self.pool.block(self.write_snapshot(format, position, changed))
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.execute("UPDATE probe SET n = n + 1", &[])
    }
}

fn recorded(row: &Row) -> Result<Recorded, StoreError> {
    let position = get_u64(row, 0)?;
    let (at, body): (&str, &str) = (get(row, 3)?, get(row, 4)?);
    Ok(Recorded {
        position,
        wallet: WalletId(get(row, 1)?),
        version: get_u64(row, 2)?,
        at: at.parse::<Timestamp>().map_err(damaged)?,
        event: serde_json::from_str(body)
            .map_err(|e| StoreError::Damaged(format!("event {position} cannot be read: {e}")))?,
    })
}

fn posted(row: &Row) -> Result<Posted, StoreError> {
    let (account, currency, amount): (&str, &str, &str) = (get(row, 1)?, get(row, 2)?, get(row, 3)?);
    Ok(Posted {
        position: get_u64(row, 0)?,
        currency: currency.parse::<Currency>().map_err(damaged)?,
        posting: Posting {
            account: account.parse().map_err(damaged)?,
            amount: amount.parse().map_err(damaged)?,
        },
    })
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(|e| PostgresError::from(e).into())
}

fn get_u64(row: &Row, column: usize) -> Result<u64, StoreError> {
    let n: i64 = get(row, column)?;
    u64::try_from(n).map_err(|_| StoreError::Damaged(format!("negative number {n}")))
}

pub(super) fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// A position as PostgreSQL counts: beyond `i64::MAX` there is nothing.
pub(super) fn as_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn row_limit(limit: usize, max: usize) -> i64 {
    i64::try_from(limit.min(max)).unwrap_or(i64::MAX)
}
