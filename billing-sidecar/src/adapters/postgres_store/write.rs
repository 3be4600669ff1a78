//! Writes a rated batch down in the transaction that holds its mark: one statement per table, rows passed as arrays.

use std::collections::{BTreeMap, HashMap, HashSet};

use weir_contracts::{
    ids::{AccountId, LeaseId},
    money::Currency,
};
use weir_servers::postgres::{PostgresError, Transaction};

use super::{
    super::stored::{Columns, EntryColumns, Unreadable, to_db},
    failure::{Failure, money},
    rating::Held,
};
use crate::domain::{
    lease::Lease,
    rating::{Batch, Charge, EntryRow, Mistake, Rated, Totals},
};

/// Numbers come last, since everyone who rates waits for them.
pub(super) async fn write(
    t: &mut Transaction<'_>,
    batch: &Batch,
    rated: &Rated,
    held: &Held,
    now: &str,
) -> Result<(), Failure> {
    let moved = t
        .execute(
            "UPDATE marks SET epoch = $2, sequence = $3 WHERE proxy = $1 AND (epoch, sequence) < ($2, $3)",
            &[
                &batch.proxy.0,
                &to_db(rated.mark.epoch),
                &to_db(rated.mark.sequence),
            ],
        )
        .await?;
    if moved != 1 {
        return Err(overtaken("the mark"));
    }
    leases(t, &rated.leases, &held.leases).await?;
    let (charges_before, entries_before) = numbers(t, rated).await?;
    charges(t, &rated.charges, charges_before, &held.currencies, now).await?;
    entries(t, batch, &rated.entries, entries_before, charges_before).await?;
    requests(t, entries_before, rated.entries.len()).await?;
    totals(t, &rated.accounts).await?;
    mistakes(t, &rated.mistakes, now).await
}

fn overtaken(what: &str) -> Failure {
    PostgresError::Serialization(format!("{what} was changed meanwhile")).into()
}

/// How many there are of a thing that there are at most 500 of.
fn count(things: usize) -> i64 {
    to_db(u64::try_from(things).unwrap_or(u64::MAX))
}

/// Takes the next numbers for this batch; answers the last ones before them, of charges and of entries.
async fn numbers(t: &mut Transaction<'_>, rated: &Rated) -> Result<(i64, i64), Failure> {
    let row = t
        .query_one(
            "UPDATE numbers SET charges = charges + $1, entries = entries + $2 RETURNING charges - $1, entries - $2",
            &[&count(rated.charges.len()), &count(rated.entries.len())],
        )
        .await?;
    Ok((row.int(0)?, row.int(1)?))
}

async fn charges(
    t: &mut Transaction<'_>,
    charges: &[Charge],
    before: i64,
    currencies: &HashMap<AccountId, Currency>,
    now: &str,
) -> Result<(), Failure> {
    if charges.is_empty() {
        return Ok(());
    }
    let currency = |charge: &Charge| {
        let known = currencies.get(&charge.account).map(|c| c.code());
        known.ok_or_else(|| Unreadable::new(format!("account {} has no currency", charge.account)))
    };
    let currencies: Vec<&str> = charges.iter().map(currency).collect::<Result<_, _>>()?;
    let column = |of: fn(&Charge) -> String| charges.iter().map(of).collect::<Vec<_>>();
    let counts = |of: fn(&Totals) -> u64| charges.iter().map(|c| to_db(of(&c.totals))).collect::<Vec<_>>();
    let leases: Vec<Option<String>> = charges.iter().map(|c| c.lease.map(|l| l.to_string())).collect();
    t.execute(
        "INSERT INTO charges (number, id, account, lease, tariff, currency, amount, requests, rows, bytes_out, state, rated_at)
         SELECT $1 + nth, id, account, lease, tariff, currency, amount::numeric, requests, rows, bytes_out, 'pending', $2
         FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bigint[],
                     $11::bigint[]) WITH ORDINALITY
              AS c (id, account, lease, tariff, currency, amount, requests, rows, bytes_out, nth)",
        &[
            &before,
            &now,
            &column(|c| c.id.to_string()),
            &column(|c| c.account.to_string()),
            &leases,
            &column(|c| c.tariff.clone()),
            &currencies,
            &column(|c| money(c.amount_nanos)),
            &counts(|t| t.requests),
            &counts(|t| t.rows),
            &counts(|t| t.bytes_out),
        ],
    )
    .await?;
    Ok(())
}

async fn entries(
    t: &mut Transaction<'_>,
    batch: &Batch,
    rows: &[EntryRow],
    before: i64,
    charges_before: i64,
) -> Result<(), Failure> {
    let kept: Vec<EntryColumns<'_>> = rows
        .iter()
        .map(|row| EntryColumns::of(&row.entry))
        .collect::<Result<_, _>>()?;
    let sequences: Vec<i64> = rows.iter().map(|r| to_db(r.entry.id.sequence)).collect();
    let hashes: Vec<&[u8]> = rows.iter().map(|r| r.hash.as_slice()).collect();
    let bodies: Vec<&str> = kept.iter().map(|k| k.body.as_str()).collect();
    let accounts: Vec<&str> = kept.iter().map(|k| k.account.as_str()).collect();
    let sessions: Vec<Option<i64>> = kept.iter().map(|k| k.request.map(|r| r.0)).collect();
    let requests: Vec<Option<i64>> = kept.iter().map(|k| k.request.map(|r| r.1)).collect();
    let leases: Vec<Option<String>> = kept.iter().map(|k| k.lease.map(|l| l.to_string())).collect();
    let costs: Vec<String> = rows.iter().map(|r| money(r.cost_nanos)).collect();
    // Charges are numbered from 1 in the order of the plan.
    let charges: Vec<Option<i64>> = rows
        .iter()
        .map(|r| r.charge.map(|index| charges_before + count(index) + 1))
        .collect();
    t.execute(
        "INSERT INTO entries (n, proxy, epoch, sequence, hash, body, account, session, request, lease, cost, charge)
         SELECT $1 + nth, $2, $3, sequence, hash, body, account, session, request, lease, cost::numeric, charge
         FROM unnest($4::bigint[], $5::bytea[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[], $11::text[],
                     $12::bigint[]) WITH ORDINALITY
              AS e (sequence, hash, body, account, session, request, lease, cost, charge, nth)",
        &[
            &before,
            &batch.proxy.0,
            &to_db(batch.epoch),
            &sequences,
            &hashes,
            &bodies,
            &accounts,
            &sessions,
            &requests,
            &leases,
            &costs,
            &charges,
        ],
    )
    .await?;
    Ok(())
}

/// Places the requests that begin in this batch, whose entries are the next `entries` ones after `before`.
async fn requests(t: &mut Transaction<'_>, before: i64, entries: usize) -> Result<(), Failure> {
    t.execute(
        "INSERT INTO requests (proxy, epoch, session, request, first_n, account)
         SELECT DISTINCT ON (proxy, epoch, session, request) proxy, epoch, session, request, n, account
         FROM entries WHERE n > $1 AND n <= $2 AND request IS NOT NULL ORDER BY proxy, epoch, session, request, n
         ON CONFLICT (proxy, epoch, session, request) DO NOTHING",
        &[&before, &(before + count(entries))],
    )
    .await?;
    Ok(())
}

/// Leases as rating leaves them; what is granted is not rating's to change. Those that were there are held since they were read; one
/// that someone opened since then makes the insert fail, and the batch is read anew.
async fn leases(t: &mut Transaction<'_>, leases: &[Lease], known: &HashSet<LeaseId>) -> Result<(), Failure> {
    let (old, new): (Vec<&Lease>, Vec<&Lease>) = leases.iter().partition(|l| known.contains(&l.id));
    let update = "UPDATE leases l SET state = r.state, records = r.records, reported = r.reported::numeric, rated = r.rated::numeric,
                         last_sequence = r.last_sequence
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::bigint[])
              AS r (lease, account, tariff, state, records, reported, rated, last_sequence)
         WHERE l.lease = r.lease";
    let insert = "INSERT INTO leases (lease, account, tariff, granted, state, records, reported, rated, last_sequence)
         SELECT lease, account, tariff, 0, state, records, reported::numeric, rated::numeric, last_sequence
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::bigint[])
              AS r (lease, account, tariff, state, records, reported, rated, last_sequence)";
    for (leases, sql) in [(old, update), (new, insert)] {
        if leases.is_empty() {
            continue;
        }
        let text = |of: fn(&Lease) -> String| leases.iter().map(|l| of(l)).collect::<Vec<_>>();
        let number = |of: fn(&Lease) -> u64| leases.iter().map(|l| to_db(of(l))).collect::<Vec<_>>();
        let written = t
            .execute(
                sql,
                &[
                    &text(|l| l.id.to_string()),
                    &text(|l| l.account.to_string()),
                    &text(|l| l.tariff.clone()),
                    &text(|l| l.state.name().to_owned()),
                    &number(|l| l.tally.records),
                    &text(|l| money(l.tally.reported_nanos)),
                    &text(|l| money(l.tally.rated_nanos)),
                    &number(|l| l.tally.last_sequence),
                ],
            )
            .await?;
        if written != u64::try_from(leases.len()).unwrap_or(u64::MAX) {
            return Err(overtaken("a lease"));
        }
    }
    Ok(())
}

async fn totals(
    t: &mut Transaction<'_>,
    accounts: &BTreeMap<AccountId, (Totals, i64)>,
) -> Result<(), Failure> {
    let names: Vec<&str> = accounts.keys().map(AccountId::as_str).collect();
    let counts = |of: fn(&Totals) -> u64| accounts.values().map(|(t, _)| to_db(of(t))).collect::<Vec<_>>();
    let costs: Vec<String> = accounts.values().map(|(_, spent)| money(*spent)).collect();
    t.execute(
        "INSERT INTO account_totals AS t (account, requests, rows, bytes_out, cut_offs, cost)
         SELECT account, requests, rows, bytes_out, cut_offs, cost::numeric
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[])
              AS a (account, requests, rows, bytes_out, cut_offs, cost)
         ON CONFLICT (account) DO UPDATE SET requests = t.requests + excluded.requests, rows = t.rows + excluded.rows,
             bytes_out = t.bytes_out + excluded.bytes_out, cut_offs = t.cut_offs + excluded.cut_offs, cost = t.cost + excluded.cost",
        &[
            &names,
            &counts(|t| t.requests),
            &counts(|t| t.rows),
            &counts(|t| t.bytes_out),
            &counts(|t| t.cut_offs),
            &costs,
        ],
    )
    .await?;
    Ok(())
}

async fn mistakes(t: &mut Transaction<'_>, mistakes: &[Mistake], now: &str) -> Result<(), Failure> {
    if mistakes.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Mistake) -> String| mistakes.iter().map(of).collect::<Vec<_>>();
    t.execute(
        "INSERT INTO mistakes (entry, account, what, at)
         SELECT entry, account, what, $1 FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY
              AS m (entry, account, what, nth) ORDER BY nth",
        &[
            &now,
            &column(|m| m.entry.to_string()),
            &column(|m| m.account.to_string()),
            &column(|m| m.what.clone()),
        ],
    )
    .await?;
    Ok(())
}
