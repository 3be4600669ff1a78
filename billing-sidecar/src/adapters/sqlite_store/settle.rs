//! What is to be settled, in SQLite: charges and releases in order, per account.

use rusqlite::{Connection, params};
use weir_contracts::ids::AccountId;

use super::{
    super::{
        sqlite_thread::SqlError,
        stored::{self, Columns, from_db, limit_of},
    },
    leases,
};
use crate::{
    domain::settle::Work,
    ports::billing_store::{OpenCharges, Unsettled},
};

pub(super) fn accounts(c: &Connection, limit: usize) -> Result<Vec<AccountId>, SqlError> {
    let mut statement = c.prepare_cached(
        "SELECT account FROM charges WHERE state IN ('pending', 'captured')
         UNION SELECT account FROM leases WHERE state = 'closing' AND state <> 'settled' LIMIT ?1",
    )?;
    let mut rows = statement.query([limit_of(limit)])?;
    let mut accounts = Vec::new();
    while let Some(row) = rows.next()? {
        accounts.push(row.parsed(0)?);
    }
    Ok(accounts)
}

/// Charges in order first; then releases of leases that have no charge left to capture. A lease with a failed charge
/// keeps its hold: the money is not given back while it is owed.
pub(super) fn work(c: &Connection, account: &AccountId, limit: usize) -> Result<Vec<Work>, SqlError> {
    let mut statement = c.prepare_cached(
        "SELECT number, id, c.account, a.wallet_id, lease, c.tariff, c.currency, amount_nanos, requests, rows, bytes_out,
                state, txn_id, rated_at
         FROM charges c JOIN accounts a ON a.account = c.account
         WHERE c.account = ?1 AND state IN ('pending', 'captured') ORDER BY number LIMIT ?2",
    )?;
    let mut rows = statement.query(params![account.as_str(), limit_of(limit)])?;
    let mut work = Vec::new();
    while let Some(row) = rows.next()? {
        work.push(Work::Charge(Box::new(stored::charge(row)?)));
    }
    let mut statement = c.prepare_cached(
        "SELECT lease, wallet_id FROM leases l JOIN accounts a ON a.account = l.account
         WHERE l.account = ?1 AND l.state <> 'settled' AND l.state = 'closing' AND NOT EXISTS (
             SELECT 1 FROM charges c WHERE c.lease = l.lease AND c.state IN ('pending', 'failed'))
         ORDER BY lease LIMIT ?2",
    )?;
    let mut rows = statement.query(params![account.as_str(), limit_of(limit)])?;
    while let Some(row) = rows.next()? {
        work.push(Work::Release {
            lease: row.parsed(0)?,
            wallet_id: row.get(1)?,
        });
    }
    Ok(work)
}

pub(super) fn set_captured(c: &Connection, charge: &str, txn_id: &str) -> Result<(), SqlError> {
    c.prepare_cached(
        "UPDATE charges SET state = 'captured', txn_id = ?2 WHERE id = ?1 AND state = 'pending'",
    )?
    .execute([charge, txn_id])?;
    Ok(())
}

pub(super) fn set_itemized(c: &Connection, charge: &str) -> Result<(), SqlError> {
    c.prepare_cached("UPDATE charges SET state = 'itemized' WHERE id = ?1 AND state = 'captured'")?
        .execute([charge])?;
    Ok(())
}

pub(super) fn set_failed(c: &Connection, charge: &str, cause: &str) -> Result<(), SqlError> {
    c.prepare_cached("UPDATE charges SET state = 'failed', cause = ?2 WHERE id = ?1 AND state = 'pending'")?
        .execute([charge, cause])?;
    Ok(())
}

pub(super) fn unsettled(c: &Connection, account: &AccountId) -> Result<Unsettled, SqlError> {
    let count = |sql: &str| -> rusqlite::Result<u64> {
        c.prepare_cached(sql)?
            .query_row([account.as_str()], |row| row.get(0).map(from_db))
    };
    Ok(Unsettled {
        charges: count(
            "SELECT count(*) FROM charges WHERE account = ?1 AND state IN ('pending', 'captured')",
        )?,
        failed: count("SELECT count(*) FROM charges WHERE account = ?1 AND state = 'failed'")?,
        leases: leases::unsettled(c, account)?,
    })
}

pub(super) fn charges_open(c: &Connection) -> Result<OpenCharges, SqlError> {
    let (open, oldest) = c
        .prepare_cached("SELECT count(*), min(number) FROM charges WHERE state IN ('pending', 'captured')")?
        .query_row([], |row| Ok((from_db(row.get(0)?), row.get(1)?)))?;
    let failed = c
        .prepare_cached("SELECT count(*) FROM charges WHERE state = 'failed'")?
        .query_row([], |row| row.get(0).map(from_db))?;
    Ok(OpenCharges { open, failed, oldest })
}
