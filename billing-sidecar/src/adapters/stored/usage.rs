//! Usage as it is shown: one object per request, its parts added up.

use weir_contracts::{entry::UsageRecord, ids::EntryId, money::Amount};

use crate::ports::billing_store::RequestUsage;

/// One entry of a request.
pub(crate) struct Part {
    /// Number of the request's first entry: parts that share it are one request.
    pub(crate) first: i64,
    /// Its own id.
    pub(crate) id: EntryId,
    /// What rating made of it.
    pub(crate) cost: Amount,
    /// What it says.
    pub(crate) record: UsageRecord,
}

/// Requests whose parts come in order, one request after the other.
#[derive(Default)]
pub(crate) struct AddedUp {
    requests: Vec<RequestUsage>,
    first_of_last: Option<i64>,
}

impl AddedUp {
    pub(crate) fn part(&mut self, part: Part) {
        match self.requests.last_mut() {
            Some(request) if self.first_of_last == Some(part.first) => {
                add(request, part.id, part.cost, part.record);
            }
            _ => self.requests.push(alone(part.id, part.cost, part.record)),
        }
        self.first_of_last = Some(part.first);
    }

    /// How many requests were begun.
    #[cfg(feature = "servers")]
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn requests(self) -> Vec<RequestUsage> {
        self.requests
    }
}

/// The entry that an id from outside names; `None` is an id of nothing.
pub(crate) fn entry_id(text: &str) -> Option<EntryId> {
    let mut parts = text.split('.');
    let (Some(proxy), Some(epoch), Some(sequence), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    Some(EntryId {
        proxy: proxy.parse().ok()?,
        epoch: epoch.parse().ok()?,
        sequence: sequence.parse().ok()?,
    })
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
