//! Usage as it is shown, from SQLite: one object per request, its parts added up.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use weir_contracts::{
    entry::{EntryBody, UsageRecord},
    ids::{AccountId, EntryId, ProxyId},
    money::Amount,
};

use super::super::sqlite_thread::{SqlError, from_db};
use crate::{
    domain::rating::Totals,
    ports::billing_store::{AccountTotals, RequestUsage},
};

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
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![account.as_str(), after, limit])?;
    let mut requests: Vec<RequestUsage> = Vec::new();
    let mut first_of_last = None;
    while let Some(row) = rows.next()? {
        let (id, cost, record) = part(row)?;
        let first: i64 = row.get(5)?;
        match requests.last_mut() {
            Some(request) if first_of_last == Some(first) => add(request, id, cost, record),
            _ => requests.push(alone(id, cost, record)),
        }
        first_of_last = Some(first);
    }
    Ok(requests)
}

/// The number under which the request of an entry is ordered; an unknown id is beyond the end.
fn first_of(c: &Connection, id: &str) -> Result<i64, SqlError> {
    let mut parts = id.split('.');
    let (proxy, epoch, sequence) = (parts.next(), parts.next(), parts.next());
    let (Some(proxy), Some(Ok(epoch)), Some(Ok(sequence))) = (
        proxy,
        epoch.map(str::parse::<i64>),
        sequence.map(str::parse::<i64>),
    ) else {
        return Ok(i64::MAX);
    };
    let first = c
        .prepare_cached(
            "SELECT r.first_n FROM entries e JOIN requests r ON e.proxy = r.proxy AND e.epoch = r.epoch
                 AND e.session = r.session AND e.request = r.request
             WHERE e.proxy = ?1 AND e.epoch = ?2 AND e.sequence = ?3",
        )?
        .query_row(params![proxy, epoch, sequence], |row| row.get(0))
        .optional()?;
    Ok(first.unwrap_or(i64::MAX))
}

fn part(row: &Row<'_>) -> Result<(EntryId, Amount, UsageRecord), SqlError> {
    let (proxy, body): (String, String) = (row.get(0)?, row.get(4)?);
    let proxy: ProxyId = proxy.parse().map_err(SqlError::corrupt)?;
    let id = EntryId {
        proxy,
        epoch: from_db(row.get(1)?),
        sequence: from_db(row.get(2)?),
    };
    match serde_json::from_str(&body).map_err(SqlError::corrupt)? {
        EntryBody::Usage(record) => Ok((id, Amount::from(row.get::<_, i64>(3)?), record)),
        EntryBody::LeaseClosed(_) => Err(SqlError::corrupt(format!("entry {id} is no usage"))),
    }
}

fn time(unix_nanos: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)).map_or_else(|_| String::new(), |t| t.to_string())
}

fn alone(id: EntryId, cost: Amount, record: UsageRecord) -> RequestUsage {
    RequestUsage {
        id: id.to_string(),
        account: record.account,
        principal: record.principal,
        session: record.session,
        request: record.request,
        kind: record.kind,
        parts: 1,
        rows: record.rows,
        rows_affected: record.rows_affected,
        result_sets: record.result_sets,
        bytes: record.bytes_out,
        bytes_in: record.bytes_in,
        bulk_rows: record.bulk_rows,
        server_nanos: record.server_nanos,
        cost,
        outcome: record.outcome,
        started: time(record.started_unix_nanos),
        ended: time(record.ended_unix_nanos),
        tariff: record.tariff,
        drift: record.drift,
        unparsed: record.unparsed,
    }
}

fn add(request: &mut RequestUsage, id: EntryId, cost: Amount, part: UsageRecord) {
    let sum = |to: &mut u64, more: u64| *to = to.saturating_add(more);
    sum(&mut request.rows, part.rows);
    sum(&mut request.rows_affected, part.rows_affected);
    sum(&mut request.result_sets, part.result_sets);
    sum(&mut request.bytes, part.bytes_out);
    sum(&mut request.bytes_in, part.bytes_in);
    sum(&mut request.bulk_rows, part.bulk_rows);
    sum(&mut request.server_nanos, part.server_nanos);
    request.cost = request.cost.add(cost).unwrap_or(request.cost);
    request.id = id.to_string();
    request.parts += 1;
    request.outcome = part.outcome;
    request.ended = time(part.ended_unix_nanos);
    request.tariff = part.tariff;
    request.drift |= part.drift;
    request.unparsed |= part.unparsed;
}

pub(super) fn totals(c: &Connection) -> Result<BTreeMap<AccountId, AccountTotals>, SqlError> {
    let mut statement = c.prepare_cached(
        "SELECT account, requests, rows, bytes_out, cut_offs, cost_nanos FROM account_totals",
    )?;
    let mut rows = statement.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (account, cost): (String, String) = (row.get(0)?, row.get(5)?);
        let totals = Totals {
            requests: from_db(row.get(1)?),
            rows: from_db(row.get(2)?),
            bytes_out: from_db(row.get(3)?),
            cut_offs: from_db(row.get(4)?),
        };
        let cost = Amount::from_nanos(cost.parse().map_err(SqlError::corrupt)?);
        all.insert(
            account.parse().map_err(SqlError::corrupt)?,
            AccountTotals { totals, cost },
        );
    }
    Ok(all)
}
