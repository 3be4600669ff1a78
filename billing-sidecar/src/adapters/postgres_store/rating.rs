//! Applies rating in PostgreSQL: a batch holds its proxy's mark from reading to commit, so what the plan was made of still stands when
//! it is written. Raw usage and charges are inserted in bulk, one statement each.

use std::collections::{HashMap, HashSet};

use weir_contracts::{
    event::Place,
    ids::{AccountId, LeaseId, ProxyId},
    money::Currency,
};
use weir_servers::postgres::{Client, Isolation, Pool, PostgresError, Transaction};

use super::{
    super::stored::{self, Columns, Named, Unreadable, from_db, to_db},
    failure::{Failure, holdable},
    write::write,
};
use crate::{
    domain::rating::{Batch, Facts, plan},
    ports::billing_store::RateOutcome,
};

/// How often a batch is read and decided anew when another transaction was first; each such conflict lets another batch through.
const CONFLICTS_MAX: u32 = 4;

pub(super) async fn mark(c: &mut Client, proxy: ProxyId) -> Result<Option<Place>, Failure> {
    let sql = "SELECT epoch, sequence FROM marks WHERE proxy = $1 AND sequence > 0";
    let row = c.query_opt(sql, &[&proxy.0]).await?;
    row.map(|row| stored::place(&row, 0)).transpose()
}

pub(super) async fn marks(c: &mut Client) -> Result<Vec<(ProxyId, Place)>, Failure> {
    let sql = "SELECT proxy::text, epoch, sequence FROM marks WHERE sequence > 0 ORDER BY proxy";
    let rows = c.query(sql, &[]).await?;
    rows.iter().map(stored::proxy_mark).collect()
}

pub(super) async fn rate(pool: &Pool, batch: &Batch, now: &str) -> Result<RateOutcome, Failure> {
    let mut conflicts = 0;
    loop {
        match once(pool, batch, now).await {
            Err(failure) if failure.is_conflict() && conflicts < CONFLICTS_MAX => conflicts += 1,
            outcome => return outcome,
        }
    }
}

async fn once(pool: &Pool, batch: &Batch, now: &str) -> Result<RateOutcome, Failure> {
    let mut client = pool.get().await?;
    let mut transaction = client.begin(Isolation::ReadCommitted).await?;
    let t = &mut transaction;
    let mark = hold_mark(t, batch.proxy).await?;
    let (facts, held) = facts(t, mark, batch).await?;
    match stored::decided(plan(facts, batch.clone())) {
        Err(answer) => {
            transaction.rollback().await?;
            Ok(answer)
        }
        Ok(rated) => {
            write(t, batch, &rated, &held, now).await?;
            transaction.commit().await?;
            Ok(stored::rated(&rated))
        }
    }
}

/// The mark, held until the transaction ends: another batch of this proxy, or this one again, waits here and then reads what became
/// of it.
async fn hold_mark(t: &mut Transaction<'_>, proxy: ProxyId) -> Result<Option<Place>, Failure> {
    let sql = "SELECT epoch, sequence FROM marks WHERE proxy = $1 FOR UPDATE";
    if let Some(row) = t.query_opt(sql, &[&proxy.0]).await? {
        let place = stored::place(&row, 0)?;
        return Ok((place.sequence > 0).then_some(place));
    }
    // The proxy's first batch. A row that another transaction makes at this moment is waited for.
    let made = t
        .execute(
            "INSERT INTO marks (proxy, epoch, sequence) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING",
            &[&proxy.0],
        )
        .await?;
    if made == 1 {
        return Ok(None);
    }
    Err(PostgresError::Serialization("another batch of the same proxy was the first".to_owned()).into())
}

/// What writing needs beside the plan.
#[derive(Default)]
pub(super) struct Held {
    /// Of the accounts named.
    pub(super) currencies: HashMap<AccountId, Currency>,
    /// Leases that are there: held until the transaction ends.
    pub(super) leases: HashSet<LeaseId>,
}

async fn facts(
    t: &mut Transaction<'_>,
    mark: Option<Place>,
    batch: &Batch,
) -> Result<(Facts, Held), Failure> {
    let named = Named::above(mark, batch);
    let mut facts = Facts {
        mark,
        seen: seen(t, mark, batch).await?,
        ..Facts::default()
    };
    let mut held = Held::default();
    let names: Vec<&str> = named.accounts.iter().map(AccountId::as_str).collect();
    let sql = "SELECT account, currency FROM accounts WHERE account = ANY($1)";
    for row in t.query(sql, &[&names]).await? {
        let account: AccountId = row.parsed(0)?;
        held.currencies.insert(account.clone(), row.parsed(1)?);
        facts.accounts.insert(account);
    }
    let versions: Vec<_> = named.tariffs.iter().map(|version| holdable(version)).collect();
    let sql = "SELECT currency, prices FROM tariffs WHERE version = ANY($1)";
    for row in t.query(sql, &[&versions]).await? {
        let tariff = stored::priced(&row)?.tariff;
        facts.tariffs.insert(tariff.version.clone(), tariff);
    }
    if !named.leases.is_empty() {
        let ids: Vec<String> = named.leases.iter().map(ToString::to_string).collect();
        // Held, and always in the same order, so that two batches that name the same leases wait instead of killing each other.
        let sql = "SELECT lease, account, tariff, granted::text, state, records, reported::text, rated::text, last_sequence
                   FROM leases WHERE lease = ANY($1) ORDER BY lease FOR UPDATE";
        for row in t.query(sql, &[&ids]).await? {
            let lease = stored::lease(&row)?;
            held.leases.insert(lease.id);
            facts.leases.insert(lease.id, lease);
        }
    }
    Ok((facts, held))
}

/// Hashes of the batch's entries at or below the mark.
async fn seen(
    t: &mut Transaction<'_>,
    mark: Option<Place>,
    batch: &Batch,
) -> Result<HashMap<u64, [u8; 32]>, Failure> {
    let sequences: Vec<i64> = batch.entries.iter().map(|(e, _)| to_db(e.id.sequence)).collect();
    let (Some(mark), Some(first), Some(last)) = (mark, sequences.first(), sequences.last()) else {
        return Ok(HashMap::new());
    };
    let place = Place {
        epoch: batch.epoch,
        sequence: from_db(*first),
    };
    if place > mark {
        return Ok(HashMap::new());
    }
    let sql =
        "SELECT sequence, hash FROM entries WHERE proxy = $1 AND epoch = $2 AND sequence BETWEEN $3 AND $4";
    let rows = t
        .query(sql, &[&batch.proxy.0, &to_db(batch.epoch), first, last])
        .await?;
    let hash = |bytes: Vec<u8>| {
        <[u8; 32]>::try_from(bytes).map_err(|_| Unreadable::new("a hash that is not 32 bytes"))
    };
    rows.iter()
        .map(|row| Ok((row.count(0)?, hash(row.try_get(1)?)?)))
        .collect()
}
