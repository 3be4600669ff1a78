//! Rows of either billing store as values of the domain, and the columns of an entry. Each function says in which order it reads.

use serde::Serialize;
use weir_contracts::{
    entry::{Entry, EntryBody},
    event::Place,
    ids::{AccountId, EntryId, LeaseId, ProxyId},
    money::Amount,
    tariff::Tariff,
};

use super::{Columns, Part, Unreadable, to_db};
use crate::{
    domain::{
        accounts::Account,
        lease::{Lease, LeaseState, Tally},
        proxies::KnownStart,
        rating::Totals,
        settle::{ChargeState, PendingCharge},
        tariffs::PricedTariff,
    },
    ports::billing_store::{AccountTotals, BookedCharge},
};

/// The word of one of our enums, as JSON has it.
pub(crate) fn word(value: &impl Serialize) -> Result<String, Unreadable> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(Unreadable::new("a value that is not a word")),
    }
}

/// From account, login, currency, mode, cut, tariff, row credit, initial credit, wallet.
pub(crate) fn account<R: Columns>(row: &R) -> Result<Account, R::Error> {
    Ok(Account {
        id: row.of_word(0)?,
        login: row.text(1)?,
        currency: row.of_word(2)?,
        mode: row.of_word(3)?,
        cut: row.of_word(4)?,
        tariff: row.text(5)?,
        row_credit_bytes: row.count(6)?,
        initial_credit: row.amount(7)?,
        wallet_id: row.text_or_null(8)?,
    })
}

/// From currency, prices (JSON).
pub(crate) fn priced<R: Columns>(row: &R) -> Result<PricedTariff, R::Error> {
    let tariff: Tariff = serde_json::from_str(&row.text(1)?).map_err(Unreadable::new)?;
    Ok(PricedTariff {
        tariff,
        currency: row.of_word(0)?,
    })
}

/// From epoch, nonce.
pub(crate) fn known_start<R: Columns>(row: &R) -> Result<KnownStart, R::Error> {
    Ok(KnownStart {
        epoch: row.count(0)?,
        boot_nonce: row.text(1)?,
    })
}

/// From lease, account, tariff, granted, state, records, reported, rated, last sequence.
pub(crate) fn lease<R: Columns>(row: &R) -> Result<Lease, R::Error> {
    let state = row.text(4)?;
    Ok(Lease {
        id: row.parsed(0)?,
        account: row.parsed(1)?,
        tariff: row.text(2)?,
        granted_nanos: row.nanos(3)?,
        state: LeaseState::named(&state).ok_or(Unreadable(state))?,
        tally: Tally {
            records: row.count(5)?,
            reported_nanos: row.nanos(6)?,
            rated_nanos: row.nanos(7)?,
            last_sequence: row.count(8)?,
        },
    })
}

/// From epoch, sequence at `column` and after it.
pub(crate) fn place<R: Columns>(row: &R, column: usize) -> Result<Place, R::Error> {
    Ok(Place {
        epoch: row.count(column)?,
        sequence: row.count(column + 1)?,
    })
}

/// From proxy, epoch, sequence.
pub(crate) fn proxy_mark<R: Columns>(row: &R) -> Result<(ProxyId, Place), R::Error> {
    Ok((row.parsed(0)?, place(row, 1)?))
}

fn charge_state<R: Columns>(row: &R, column: usize) -> Result<ChargeState, R::Error> {
    let state = row.text(column)?;
    Ok(ChargeState::named(&state).ok_or(Unreadable(state))?)
}

/// From number, id, account, wallet, lease, tariff, currency, amount, requests, rows, bytes, state, transaction, when.
pub(crate) fn charge<R: Columns>(row: &R) -> Result<PendingCharge, R::Error> {
    Ok(PendingCharge {
        number: row.int(0)?,
        id: row.text(1)?,
        account: row.parsed(2)?,
        wallet_id: row.text_or_null(3)?,
        lease: row.parsed_or_null(4)?,
        tariff: row.text(5)?,
        currency: row.parsed(6)?,
        amount: row.amount(7)?,
        totals: Totals {
            requests: row.count(8)?,
            rows: row.count(9)?,
            bytes_out: row.count(10)?,
            cut_offs: 0,
        },
        state: charge_state(row, 11)?,
        txn_id: row.text_or_null(12)?,
        rated_at: row.text(13)?,
    })
}

/// From number, id, account, lease, currency, amount, state, transaction; `usage` is the sum of its entries' costs.
pub(crate) fn booked_charge<R: Columns>(row: &R, usage: Amount) -> Result<BookedCharge, R::Error> {
    Ok(BookedCharge {
        number: row.int(0)?,
        id: row.text(1)?,
        account: row.parsed(2)?,
        lease: row.parsed_or_null(3)?,
        currency: row.parsed(4)?,
        amount: row.amount(5)?,
        usage,
        state: charge_state(row, 6)?.name(),
        txn_id: row.text_or_null(7)?,
    })
}

/// From account, requests, rows, bytes, cut-offs, cost.
pub(crate) fn account_totals<R: Columns>(row: &R) -> Result<(AccountId, AccountTotals), R::Error> {
    let totals = Totals {
        requests: row.count(1)?,
        rows: row.count(2)?,
        bytes_out: row.count(3)?,
        cut_offs: row.count(4)?,
    };
    let cost = row.amount(5)?;
    Ok((row.parsed(0)?, AccountTotals { totals, cost }))
}

/// From proxy, epoch, sequence, cost, body (JSON), number of the request's first entry.
pub(crate) fn usage_part<R: Columns>(row: &R) -> Result<Part, R::Error> {
    let (proxy, place) = proxy_mark(row)?;
    let id = EntryId {
        proxy,
        epoch: place.epoch,
        sequence: place.sequence,
    };
    match serde_json::from_str(&row.text(4)?).map_err(Unreadable::new)? {
        EntryBody::Usage(record) => Ok(Part {
            first: row.int(5)?,
            id,
            cost: row.amount(3)?,
            record,
        }),
        EntryBody::LeaseClosed(_) => Err(Unreadable(format!("entry {id} is no usage")).into()),
    }
}

/// What is kept of an entry beside its place, its hash and its cost.
pub(crate) struct EntryColumns<'a> {
    /// Its content as JSON.
    pub(crate) body: String,
    /// Whose.
    pub(crate) account: &'a AccountId,
    /// Session and request; none for a closing record.
    pub(crate) request: Option<(i64, i64)>,
    /// Which lease it names.
    pub(crate) lease: Option<LeaseId>,
}

impl<'a> EntryColumns<'a> {
    pub(crate) fn of(entry: &'a Entry) -> Result<Self, Unreadable> {
        let (account, request, lease) = match &entry.body {
            EntryBody::Usage(u) => (&u.account, Some((to_db(u.session), to_db(u.request))), u.lease),
            EntryBody::LeaseClosed(closed) => (&closed.account, None, Some(closed.lease)),
        };
        Ok(Self {
            body: serde_json::to_string(&entry.body).map_err(Unreadable::new)?,
            account,
            request,
            lease,
        })
    }
}
