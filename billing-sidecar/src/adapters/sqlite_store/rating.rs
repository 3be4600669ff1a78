//! Applies rating in SQLite: facts in, plan, and all of it written in the caller's one transaction.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use weir_contracts::{
    event::Place,
    ids::{AccountId, ProxyId},
    money::Currency,
};

use super::{
    super::{
        sqlite_thread::SqlError,
        stored::{self, EntryColumns, Named, to_db},
    },
    accounts, leases,
};
use crate::{
    domain::rating::{Batch, Charge, EntryRow, Facts, Rated, Totals, plan},
    ports::billing_store::RateOutcome,
};

pub(super) fn mark(c: &Connection, proxy: ProxyId) -> Result<Option<Place>, SqlError> {
    let mut statement = c.prepare_cached("SELECT epoch, sequence FROM marks WHERE proxy = ?1")?;
    let mut rows = statement.query([proxy.to_string()])?;
    rows.next()?.map(|row| stored::place(row, 0)).transpose()
}

pub(super) fn marks(c: &Connection) -> Result<Vec<(ProxyId, Place)>, SqlError> {
    let mut statement = c.prepare_cached("SELECT proxy, epoch, sequence FROM marks ORDER BY proxy")?;
    let mut rows = statement.query([])?;
    let mut marks = Vec::new();
    while let Some(row) = rows.next()? {
        marks.push(stored::proxy_mark(row)?);
    }
    Ok(marks)
}

pub(super) fn rate(c: &Connection, batch: &Batch, now: &str) -> Result<RateOutcome, SqlError> {
    let (facts, currencies) = facts(c, batch)?;
    match stored::decided(plan(facts, batch.clone())) {
        Err(answer) => Ok(answer),
        Ok(rated) => {
            write(c, batch.proxy, &rated, &currencies, now)?;
            Ok(stored::rated(&rated))
        }
    }
}

type Currencies = HashMap<AccountId, Currency>;

fn facts(c: &Connection, batch: &Batch) -> Result<(Facts, Currencies), SqlError> {
    let mut facts = Facts {
        mark: mark(c, batch.proxy)?,
        ..Facts::default()
    };
    let proxy = batch.proxy.to_string();
    let mut hash =
        c.prepare_cached("SELECT hash FROM entries WHERE proxy = ?1 AND epoch = ?2 AND sequence = ?3")?;
    for (entry, _) in &batch.entries {
        let sequence = entry.id.sequence;
        let place = Place {
            epoch: batch.epoch,
            sequence,
        };
        if facts.mark.is_some_and(|mark| place <= mark) {
            let seen = hash
                .query_row(params![proxy, to_db(batch.epoch), to_db(sequence)], |row| {
                    row.get(0)
                })
                .optional()?;
            facts.seen.extend(seen.map(|hash| (sequence, hash)));
        }
    }
    let named = Named::above(facts.mark, batch);
    let mut currencies = Currencies::new();
    for id in named.accounts {
        if let Some(account) = accounts::by_id(c, &id)? {
            currencies.insert(id.clone(), account.currency);
            facts.accounts.insert(id);
        }
    }
    for id in named.leases {
        facts
            .leases
            .extend(leases::by_id(c, id)?.map(|lease| (id, lease)));
    }
    for version in named.tariffs {
        let priced = accounts::tariff(c, &version)?;
        facts.tariffs.extend(priced.map(|p| (version, p.tariff)));
    }
    Ok((facts, currencies))
}

fn write(
    c: &Connection,
    proxy: ProxyId,
    rated: &Rated,
    currencies: &Currencies,
    now: &str,
) -> Result<(), SqlError> {
    let proxy = proxy.to_string();
    c.prepare_cached(
        "INSERT INTO marks (proxy, epoch, sequence) VALUES (?1, ?2, ?3)
         ON CONFLICT (proxy) DO UPDATE SET epoch = ?2, sequence = ?3",
    )?
    .execute(params![
        proxy,
        to_db(rated.mark.epoch),
        to_db(rated.mark.sequence)
    ])?;
    let mut numbers = Vec::with_capacity(rated.charges.len());
    for charge in &rated.charges {
        numbers.push(write_charge(c, charge, currencies, now)?);
    }
    for row in &rated.entries {
        let charge = row.charge.and_then(|index| numbers.get(index).copied());
        write_entry(c, &proxy, row, charge)?;
    }
    for lease in &rated.leases {
        leases::put(c, lease)?;
    }
    for (account, (totals, spent)) in &rated.accounts {
        add_totals(c, account, totals, *spent)?;
    }
    let mut mistake =
        c.prepare_cached("INSERT INTO mistakes (entry, account, what, at) VALUES (?1, ?2, ?3, ?4)")?;
    for m in &rated.mistakes {
        mistake.execute(params![m.entry.to_string(), m.account.as_str(), m.what, now])?;
    }
    Ok(())
}

fn write_charge(
    c: &Connection,
    charge: &Charge,
    currencies: &Currencies,
    now: &str,
) -> Result<i64, SqlError> {
    let currency = currencies
        .get(&charge.account)
        .ok_or_else(|| SqlError::corrupt(format!("account {} has no currency", charge.account)))?;
    c.prepare_cached(
        "INSERT INTO charges (id, account, lease, tariff, currency, amount_nanos, requests, rows, bytes_out, state, rated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'pending', ?10)",
    )?
    .execute(params![
        charge.id.to_string(),
        charge.account.as_str(),
        charge.lease.map(|l| l.to_string()),
        charge.tariff,
        currency.code(),
        charge.amount_nanos,
        to_db(charge.totals.requests),
        to_db(charge.totals.rows),
        to_db(charge.totals.bytes_out),
        now,
    ])?;
    Ok(c.last_insert_rowid())
}

fn write_entry(c: &Connection, proxy: &str, row: &EntryRow, charge: Option<i64>) -> Result<(), SqlError> {
    let id = row.entry.id;
    let EntryColumns {
        body,
        account,
        request,
        lease,
    } = EntryColumns::of(&row.entry)?;
    c.prepare_cached(
        "INSERT INTO entries (proxy, epoch, sequence, hash, body, account, session, request, lease, cost_nanos, charge)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        proxy,
        to_db(id.epoch),
        to_db(id.sequence),
        row.hash,
        body,
        account.as_str(),
        request.map(|r| r.0),
        request.map(|r| r.1),
        lease.map(|l| l.to_string()),
        row.cost_nanos,
        charge,
    ])?;
    if let Some((session, request)) = request {
        let first = c.last_insert_rowid();
        c.prepare_cached(
            "INSERT INTO requests (proxy, epoch, session, request, first_n, account) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![proxy, to_db(id.epoch), session, request, first, account.as_str()])?;
    }
    Ok(())
}

fn add_totals(c: &Connection, account: &AccountId, totals: &Totals, spent: i64) -> Result<(), SqlError> {
    let before: Option<String> = c
        .prepare_cached("SELECT cost_nanos FROM account_totals WHERE account = ?1")?
        .query_row([account.as_str()], |row| row.get(0))
        .optional()?;
    let before: i128 = before
        .map_or(Ok(0), |text| text.parse())
        .map_err(SqlError::corrupt)?;
    let after = before.saturating_add(i128::from(spent)).to_string();
    c.prepare_cached(
        "INSERT INTO account_totals (account, requests, rows, bytes_out, cut_offs, cost_nanos)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (account) DO UPDATE SET requests = requests + ?2, rows = rows + ?3,
             bytes_out = bytes_out + ?4, cut_offs = cut_offs + ?5, cost_nanos = ?6",
    )?
    .execute(params![
        account.as_str(),
        to_db(totals.requests),
        to_db(totals.rows),
        to_db(totals.bytes_out),
        to_db(totals.cut_offs),
        after,
    ])?;
    Ok(())
}
