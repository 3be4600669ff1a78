//! Leases in PostgreSQL. Each rule that goes only forward is in its statement: there is nothing between reading and writing.

use weir_contracts::ids::{AccountId, LeaseId};
use weir_servers::postgres::{Client, Transaction};

use super::{
    super::stored::{self, to_db},
    failure::{Failure, holdable, money},
};
use crate::domain::lease::Lease;

pub(super) async fn by_id(c: &mut Client, id: LeaseId) -> Result<Option<Lease>, Failure> {
    let sql = "SELECT lease, account, tariff, granted::text, state, records, reported::text, rated::text, last_sequence
               FROM leases WHERE lease = $1";
    let row = c.query_opt(sql, &[&id.to_string()]).await?;
    row.as_ref().map(stored::lease).transpose()
}

/// Every lease of an account that is not settled, blocked ones included.
pub(super) async fn unsettled(t: &mut Transaction<'_>, account: &AccountId) -> Result<Vec<Lease>, Failure> {
    let sql = "SELECT lease, account, tariff, granted::text, state, records, reported::text, rated::text, last_sequence
               FROM leases WHERE account = $1 AND state <> 'settled' ORDER BY lease";
    let rows = t.query(sql, &[&account.as_str()]).await?;
    rows.iter().map(stored::lease).collect()
}

/// Writes a new lease down; one that is there stays as it is.
pub(super) async fn open(c: &mut Client, new: &Lease) -> Result<(), Failure> {
    c.execute(
        "INSERT INTO leases (lease, account, tariff, granted, state, records, reported, rated, last_sequence)
         VALUES ($1, $2, $3, $4::text::numeric, $5, $6, $7::text::numeric, $8::text::numeric, $9) ON CONFLICT DO NOTHING",
        &[
            &new.id.to_string(),
            &new.account.as_str(),
            &holdable(&new.tariff),
            &money(new.granted_nanos),
            &new.state.name(),
            &to_db(new.tally.records),
            &money(new.tally.reported_nanos),
            &money(new.tally.rated_nanos),
            &to_db(new.tally.last_sequence),
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn set_granted(c: &mut Client, id: LeaseId, granted_nanos: i64) -> Result<(), Failure> {
    c.execute(
        "UPDATE leases SET granted = $2::text::numeric WHERE lease = $1 AND granted < $2::text::numeric",
        &[&id.to_string(), &money(granted_nanos)],
    )
    .await?;
    Ok(())
}

pub(super) async fn set_settled(c: &mut Client, id: LeaseId) -> Result<(), Failure> {
    let sql = "UPDATE leases SET state = 'settled' WHERE lease = $1 AND state = 'closing'";
    c.execute(sql, &[&id.to_string()]).await?;
    Ok(())
}
