//! Usage as it is shown, from PostgreSQL: one object per request, its parts added up.

use std::collections::BTreeMap;

use weir_contracts::ids::AccountId;
use weir_servers::postgres::{Client, Isolation, Transaction};

use super::{
    super::stored::{self, AddedUp, Columns, entry_id, limit_of, to_db},
    failure::Failure,
};
use crate::ports::billing_store::{AccountTotals, RequestUsage};

/// Parts read at a time, about 1 KiB each: one request may have any number of them.
const PARTS_MAX: usize = 2_000;

pub(super) async fn requests(
    c: &mut Client,
    account: &AccountId,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RequestUsage>, Failure> {
    let mut t = c.begin(Isolation::OneMoment).await?;
    // Where the next page begins: a request by its number, and in it behind a sequence.
    let mut from = match after {
        None => (0, 0),
        Some(id) => match first_of(&mut t, id).await? {
            Some(first) => (first + 1, 0),
            None => return Ok(Vec::new()),
        },
    };
    let mut added_up = AddedUp::default();
    loop {
        // The request in hand may have more parts, so it is asked for again.
        let ended = added_up.len().saturating_sub(1);
        let page = t
            .query(
                "SELECT e.proxy::text, e.epoch, e.sequence, e.cost::text, e.body, r.first_n
                 FROM (SELECT * FROM requests WHERE account = $1 AND first_n >= $2 ORDER BY first_n LIMIT $4) r
                 JOIN entries e ON e.proxy = r.proxy AND e.epoch = r.epoch AND e.session = r.session AND e.request = r.request
                 WHERE r.first_n > $2 OR e.sequence > $3
                 ORDER BY r.first_n, e.sequence LIMIT $5",
                &[
                    &account.as_str(),
                    &from.0,
                    &from.1,
                    &limit_of(limit.saturating_sub(ended)),
                    &limit_of(PARTS_MAX),
                ],
            )
            .await?;
        for row in &page {
            let part = stored::usage_part(row)?;
            from = (part.first, to_db(part.id.sequence));
            added_up.part(part);
        }
        if page.len() < PARTS_MAX {
            break;
        }
    }
    t.commit().await?;
    Ok(added_up.requests())
}

/// The number under which the request of an entry is ordered.
async fn first_of(t: &mut Transaction<'_>, id: &str) -> Result<Option<i64>, Failure> {
    let Some(id) = entry_id(id) else {
        return Ok(None);
    };
    let row = t
        .query_opt(
            "SELECT r.first_n FROM entries e JOIN requests r ON e.proxy = r.proxy AND e.epoch = r.epoch
                 AND e.session = r.session AND e.request = r.request
             WHERE e.proxy = $1 AND e.epoch = $2 AND e.sequence = $3",
            &[&id.proxy.0, &to_db(id.epoch), &to_db(id.sequence)],
        )
        .await?;
    row.map(|row| row.int(0)).transpose()
}

pub(super) async fn totals(c: &mut Client) -> Result<BTreeMap<AccountId, AccountTotals>, Failure> {
    let rows = c
        .query(
            "SELECT account, requests, rows, bytes_out, cut_offs, cost::text FROM account_totals",
            &[],
        )
        .await?;
    rows.iter().map(stored::account_totals).collect()
}
