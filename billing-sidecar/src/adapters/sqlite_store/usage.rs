//! Usage as it is shown, from SQLite: one object per request, its parts added up.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use weir_contracts::ids::AccountId;

use super::super::{
    sqlite_thread::SqlError,
    stored::{self, AddedUp, entry_id, limit_of, to_db},
};
use crate::ports::billing_store::{AccountTotals, RequestUsage};

pub(super) fn requests(
    c: &Connection,
    account: &AccountId,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RequestUsage>, SqlError> {
    let after = match after {
        None => 0,
        Some(id) => first_of(c, id)?,
    };
    let mut statement = c.prepare_cached(
        "SELECT e.proxy, e.epoch, e.sequence, e.cost_nanos, e.body, r.first_n
         FROM (SELECT * FROM requests WHERE account = ?1 AND first_n > ?2 ORDER BY first_n LIMIT ?3) r
         JOIN entries e ON e.proxy = r.proxy AND e.epoch = r.epoch AND e.session = r.session AND e.request = r.request
         ORDER BY r.first_n, e.sequence",
    )?;
    let mut rows = statement.query(params![account.as_str(), after, limit_of(limit)])?;
    let mut added_up = AddedUp::default();
    while let Some(row) = rows.next()? {
        added_up.part(stored::usage_part(row)?);
    }
    Ok(added_up.requests())
}

/// The number under which the request of an entry is ordered; an unknown id is beyond the end.
fn first_of(c: &Connection, id: &str) -> Result<i64, SqlError> {
    let Some(id) = entry_id(id) else {
        return Ok(i64::MAX);
    };
    let first = c
        .prepare_cached(
            "SELECT r.first_n FROM entries e JOIN requests r ON e.proxy = r.proxy AND e.epoch = r.epoch
                 AND e.session = r.session AND e.request = r.request
             WHERE e.proxy = ?1 AND e.epoch = ?2 AND e.sequence = ?3",
        )?
        .query_row(
            params![id.proxy.to_string(), to_db(id.epoch), to_db(id.sequence)],
            |row| row.get(0),
        )
        .optional()?;
    Ok(first.unwrap_or(i64::MAX))
}

pub(super) fn totals(c: &Connection) -> Result<BTreeMap<AccountId, AccountTotals>, SqlError> {
    let mut statement = c.prepare_cached(
        "SELECT account, requests, rows, bytes_out, cut_offs, cost_nanos FROM account_totals",
    )?;
    let mut rows = statement.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (account, totals) = stored::account_totals(row)?;
        all.insert(account, totals);
    }
    Ok(all)
}
