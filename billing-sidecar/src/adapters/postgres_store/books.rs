//! What reconciliation reads from PostgreSQL.

use std::time::Duration;

use weir_contracts::ids::AccountId;
use weir_servers::postgres::{Client, Isolation, Transaction};

use super::{
    super::stored::{self, Columns, NAMED_MAX, limit_of},
    failure::Failure,
};
use crate::ports::billing_store::{BookFacts, BookedCharge};

/// Longest statement of reconciliation: every lease is compared with its charges.
pub(super) const BOOKS_DEADLINE: Duration = Duration::from_secs(60);

async fn texts(t: &mut Transaction<'_>, sql: &str) -> Result<Vec<String>, Failure> {
    let rows = t.query(sql, &[&NAMED_MAX]).await?;
    rows.iter().map(|row| row.text(0)).collect()
}

pub(super) async fn facts(mut c: Client) -> Result<BookFacts, Failure> {
    // Asks for nothing: a server that is stopped already is noticed within the usual deadline.
    c.batch("").await?;
    let mut c = c.with_deadline(BOOKS_DEADLINE);
    let mut t = c.begin(Isolation::OneMoment).await?;
    let longest = BOOKS_DEADLINE.as_millis();
    t.batch(&format!("SET LOCAL statement_timeout = {longest}"))
        .await?;
    let newest = t
        .query_one("SELECT coalesce(max(number), 0) FROM charges", &[])
        .await?;
    let rows = t
        .query(
            "SELECT account, wallet_id FROM accounts WHERE wallet_id IS NOT NULL",
            &[],
        )
        .await?;
    let wallets: Result<_, Failure> = rows
        .iter()
        .map(|row| Ok((row.parsed::<AccountId>(0)?, row.text(1)?)))
        .collect();
    let facts = BookFacts {
        newest_charge: newest.int(0)?,
        wallets: wallets?,
        mistakes: texts(
            &mut t,
            "SELECT 'entry ' || entry || ' of account ' || account || ': ' || what FROM mistakes ORDER BY n LIMIT $1",
        )
        .await?,
        uncharged: texts(
            &mut t,
            "SELECT 'entry ' || replace(proxy::text, '-', '') || '.' || epoch || '.' || sequence || ' costs ' ||
                    trunc(cost * 1000000000) || ' nano-units and has no charge'
             FROM entries WHERE cost > 0 AND charge IS NULL ORDER BY n LIMIT $1",
        )
        .await?,
        lease_differences: texts(
            &mut t,
            "SELECT 'lease ' || l.lease || ': ' || trunc(l.rated * 1000000000) || ' nano-units were rated, its charges are ' ||
                    trunc(coalesce(s.charged, 0) * 1000000000)
             FROM leases l LEFT JOIN (SELECT lease, sum(amount) AS charged FROM charges WHERE lease IS NOT NULL GROUP BY lease) s
                  ON s.lease = l.lease
             WHERE l.rated <> coalesce(s.charged, 0) ORDER BY l.lease LIMIT $1",
        )
        .await?,
    };
    t.commit().await?;
    Ok(facts)
}

pub(super) async fn charges(c: &mut Client, after: i64, limit: usize) -> Result<Vec<BookedCharge>, Failure> {
    let rows = c
        .query(
            "SELECT number, id, account, lease, currency, amount::text, state, txn_id,
                    (SELECT coalesce(sum(e.cost), 0) FROM entries e WHERE e.charge = c.number)::text
             FROM charges c WHERE number > $1 ORDER BY number LIMIT $2",
            &[&after, &limit_of(limit)],
        )
        .await?;
    let booked = rows.iter().map(|row| stored::booked_charge(row, row.amount(8)?));
    booked.collect()
}
