//! What is to be settled, in PostgreSQL: charges and releases in order, per account. A charge's state goes only forward.

use weir_contracts::ids::AccountId;
use weir_servers::postgres::{Client, Isolation};

use super::{
    super::stored::{self, Columns, limit_of},
    failure::{Failure, holdable},
    leases,
};
use crate::{
    domain::settle::Work,
    ports::billing_store::{OpenCharges, Unsettled},
};

pub(super) async fn accounts(c: &mut Client, limit: usize) -> Result<Vec<AccountId>, Failure> {
    let rows = c
        .query(
            "SELECT account FROM charges WHERE state IN ('pending', 'captured')
             UNION SELECT account FROM leases WHERE state = 'closing' ORDER BY account LIMIT $1",
            &[&limit_of(limit)],
        )
        .await?;
    rows.iter().map(|row| row.parsed(0)).collect()
}

/// Charges in order first; then releases of leases that have no charge left to capture. A lease with a failed charge
/// keeps its hold: the money is not given back while it is owed.
pub(super) async fn work(c: &mut Client, account: &AccountId, limit: usize) -> Result<Vec<Work>, Failure> {
    let mut t = c.begin(Isolation::OneMoment).await?;
    let (name, most) = (account.as_str(), limit_of(limit));
    let charges = t
        .query(
            "SELECT number, id, c.account, a.wallet_id, lease, c.tariff, c.currency, amount::text, requests, rows, bytes_out,
                    state, txn_id, rated_at
             FROM charges c JOIN accounts a ON a.account = c.account
             WHERE c.account = $1 AND state IN ('pending', 'captured') ORDER BY number LIMIT $2",
            &[&name, &most],
        )
        .await?;
    let releases = t
        .query(
            "SELECT lease, wallet_id FROM leases l JOIN accounts a ON a.account = l.account
             WHERE l.account = $1 AND l.state = 'closing' AND NOT EXISTS (
                 SELECT FROM charges c WHERE c.lease = l.lease AND c.state IN ('pending', 'failed'))
             ORDER BY lease LIMIT $2",
            &[&name, &most],
        )
        .await?;
    t.commit().await?;
    let charges = charges
        .iter()
        .map(|row| Ok(Work::Charge(Box::new(stored::charge(row)?))));
    let releases = releases.iter().map(|row| {
        Ok(Work::Release {
            lease: row.parsed(0)?,
            wallet_id: row.text_or_null(1)?,
        })
    });
    charges.chain(releases).collect()
}

pub(super) async fn set_captured(c: &mut Client, charge: &str, txn_id: &str) -> Result<(), Failure> {
    let sql = "UPDATE charges SET state = 'captured', txn_id = $2 WHERE id = $1 AND state = 'pending'";
    c.execute(sql, &[&holdable(charge), &holdable(txn_id)]).await?;
    Ok(())
}

pub(super) async fn set_itemized(c: &mut Client, charge: &str) -> Result<(), Failure> {
    let sql = "UPDATE charges SET state = 'itemized' WHERE id = $1 AND state = 'captured'";
    c.execute(sql, &[&holdable(charge)]).await?;
    Ok(())
}

pub(super) async fn set_failed(c: &mut Client, charge: &str, cause: &str) -> Result<(), Failure> {
    let sql = "UPDATE charges SET state = 'failed', cause = $2 WHERE id = $1 AND state = 'pending'";
    c.execute(sql, &[&holdable(charge), &holdable(cause)]).await?;
    Ok(())
}

pub(super) async fn unsettled(c: &mut Client, account: &AccountId) -> Result<Unsettled, Failure> {
    let mut t = c.begin(Isolation::OneMoment).await?;
    let counts = t
        .query_one(
            "SELECT (SELECT count(*) FROM charges WHERE account = $1 AND state IN ('pending', 'captured')),
                    (SELECT count(*) FROM charges WHERE account = $1 AND state = 'failed')",
            &[&account.as_str()],
        )
        .await?;
    let leases = leases::unsettled(&mut t, account).await?;
    t.commit().await?;
    Ok(Unsettled {
        charges: counts.count(0)?,
        failed: counts.count(1)?,
        leases,
    })
}

pub(super) async fn charges_open(c: &mut Client) -> Result<OpenCharges, Failure> {
    let row = c
        .query_one(
            "SELECT count(*), min(number), (SELECT count(*) FROM charges WHERE state = 'failed')
             FROM charges WHERE state IN ('pending', 'captured')",
            &[],
        )
        .await?;
    Ok(OpenCharges {
        open: row.count(0)?,
        oldest: row.try_get(1)?,
        failed: row.count(2)?,
    })
}
