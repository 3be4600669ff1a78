//! Leases in SQLite.

use rusqlite::{Connection, params};
use weir_contracts::ids::{AccountId, LeaseId};

use super::super::{
    sqlite_thread::SqlError,
    stored::{self, to_db},
};
use crate::domain::lease::Lease;

const COLUMNS: &str =
    "lease, account, tariff, granted_nanos, state, records, reported_nanos, rated_nanos, last_sequence";

pub(super) fn by_id(c: &Connection, id: LeaseId) -> Result<Option<Lease>, SqlError> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM leases WHERE lease = ?1"))?;
    let mut rows = statement.query([id.to_string()])?;
    rows.next()?.map(stored::lease).transpose()
}

/// Every lease of an account that is not settled, blocked ones included.
pub(super) fn unsettled(c: &Connection, account: &AccountId) -> Result<Vec<Lease>, SqlError> {
    let sql =
        format!("SELECT {COLUMNS} FROM leases WHERE account = ?1 AND state <> 'settled' ORDER BY lease");
    let mut statement = c.prepare_cached(&sql)?;
    let mut rows = statement.query([account.as_str()])?;
    let mut leases = Vec::new();
    while let Some(row) = rows.next()? {
        leases.push(stored::lease(row)?);
    }
    Ok(leases)
}

/// Writes a new lease down; one that is there stays as it is.
pub(super) fn open(c: &Connection, new: &Lease) -> Result<(), SqlError> {
    if by_id(c, new.id)?.is_none() {
        put(c, new)?;
    }
    Ok(())
}

/// Writes a lease as rating leaves it. What is granted is not rating's to change.
pub(super) fn put(c: &Connection, lease: &Lease) -> Result<(), SqlError> {
    c.prepare_cached(
        "INSERT INTO leases (lease, account, tariff, granted_nanos, state, records, reported_nanos, rated_nanos, last_sequence)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (lease) DO UPDATE SET state = ?5, records = ?6, reported_nanos = ?7, rated_nanos = ?8, last_sequence = ?9",
    )?
    .execute(params![
        lease.id.to_string(),
        lease.account.as_str(),
        lease.tariff,
        lease.granted_nanos,
        lease.state.name(),
        to_db(lease.tally.records),
        lease.tally.reported_nanos,
        lease.tally.rated_nanos,
        to_db(lease.tally.last_sequence),
    ])?;
    Ok(())
}

pub(super) fn set_granted(c: &Connection, id: LeaseId, granted_nanos: i64) -> Result<(), SqlError> {
    c.prepare_cached("UPDATE leases SET granted_nanos = max(granted_nanos, ?2) WHERE lease = ?1")?
        .execute(params![id.to_string(), granted_nanos])?;
    Ok(())
}

pub(super) fn set_settled(c: &Connection, id: LeaseId) -> Result<(), SqlError> {
    c.prepare_cached("UPDATE leases SET state = 'settled' WHERE lease = ?1 AND state = 'closing'")?
        .execute([id.to_string()])?;
    Ok(())
}
