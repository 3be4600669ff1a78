//! What reconciliation reads from SQLite. Sums are added in `i128` here, never by SQL, whose integers would overflow.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use weir_contracts::{ids::AccountId, money::Amount};

use super::{
    super::{
        sqlite_thread::SqlError,
        stored::{self, NAMED_MAX, limit_of},
    },
    accounts,
};
use crate::ports::billing_store::{BookFacts, BookedCharge};

pub(super) fn facts(c: &Connection) -> Result<BookFacts, SqlError> {
    let texts = |sql: &str| -> rusqlite::Result<Vec<String>> {
        c.prepare_cached(sql)?
            .query_map([NAMED_MAX], |row| row.get(0))?
            .collect()
    };
    let wallets: BTreeMap<AccountId, String> = accounts::all(c)?
        .into_iter()
        .filter_map(|a| Some((a.id, a.wallet_id?)))
        .collect();
    let newest_charge = c
        .prepare_cached("SELECT coalesce(max(number), 0) FROM charges")?
        .query_row([], |row| row.get(0))?;
    Ok(BookFacts {
        newest_charge,
        wallets,
        mistakes: texts("SELECT 'entry ' || entry || ' of account ' || account || ': ' || what FROM mistakes ORDER BY n LIMIT ?1")?,
        uncharged: texts(
            "SELECT 'entry ' || proxy || '.' || epoch || '.' || sequence || ' costs ' || cost_nanos || ' nano-units and has no charge'
             FROM entries WHERE cost_nanos > 0 AND charge IS NULL ORDER BY n LIMIT ?1",
        )?,
        lease_differences: texts(
            "SELECT 'lease ' || l.lease || ': ' || l.rated_nanos || ' nano-units were rated, its charges are ' ||
                    coalesce(s.charged, 0)
             FROM leases l LEFT JOIN (SELECT lease, sum(amount_nanos) AS charged FROM charges GROUP BY lease) s
                  ON s.lease = l.lease
             WHERE l.rated_nanos <> coalesce(s.charged, 0) ORDER BY l.lease LIMIT ?1",
        )?,
    })
}

pub(super) fn charges(c: &Connection, after: i64, limit: usize) -> Result<Vec<BookedCharge>, SqlError> {
    let mut usage = c.prepare_cached("SELECT cost_nanos FROM entries WHERE charge = ?1")?;
    let mut statement = c.prepare_cached(
        "SELECT number, id, account, lease, currency, amount_nanos, state, txn_id FROM charges
         WHERE number > ?1 ORDER BY number LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, limit_of(limit)])?;
    let mut charges = Vec::new();
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let mut sum = 0_i128;
        for cost in usage.query_map([number], |row| row.get::<_, i64>(0))? {
            sum = sum.saturating_add(i128::from(cost?));
        }
        charges.push(stored::booked_charge(row, Amount::from_nanos(sum))?);
    }
    Ok(charges)
}
