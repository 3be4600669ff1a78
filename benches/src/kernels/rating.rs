//! Rating: a broker's message of usage records, read, checked for its form and decided about.

use weir_billing::domain::lease::Lease;
use weir_billing::domain::rating::{Batch, Facts, Plan, plan};
use weir_contracts::entry::{Entry, EntryBody, Outcome, RequestKind, UsageRecord};
use weir_contracts::event::{CloudEvent, USAGE_BATCH_ENTRIES_MAX, USAGE_TOPIC, UsageBatch};
use weir_contracts::ids::{AccountId, EntryId, LeaseId, ProxyId};

use super::Work;
use crate::failure::{Failure, Trying};

/// Whose leases these are.
const PROXY: ProxyId = ProxyId(uuid::Uuid::from_u128(7));

/// A usage record of one statement, priced by the tariff of the kernels.
pub(super) fn record(lease: LeaseId) -> Result<UsageRecord, Failure> {
    let account: AccountId = "bench".parse().trying("account")?;
    let mut record = UsageRecord {
        account,
        principal: "bench".to_owned(),
        session: 1,
        request: 1,
        kind: RequestKind::Rpc,
        requests: 1,
        rows: 20,
        rows_affected: 0,
        result_sets: 1,
        bytes_out: 2_048,
        bytes_in: 310,
        bulk_rows: 0,
        bulk_bytes: 0,
        server_nanos: 1_234_567,
        started_unix_nanos: 1_700_000_000_000_000_000,
        ended_unix_nanos: 1_700_000_000_002_000_000,
        outcome: Outcome::Completed,
        drift: false,
        unparsed: false,
        tariff: super::meter::tariff().version,
        lease: Some(lease),
        cost_nanos: 0,
    };
    record.cost_nanos = super::meter::tariff().cost_nanos(&record.quantity());
    Ok(record)
}

/// As many records as a message holds, all under one lease.
pub(super) fn batch() -> Result<Work, Failure> {
    let lease = LeaseId {
        proxy: PROXY,
        epoch: 1,
        number: 1,
    };
    let one = record(lease)?;
    let count = USAGE_BATCH_ENTRIES_MAX as u64;
    let entries = (1..=count).map(|sequence| Entry {
        id: EntryId {
            proxy: PROXY,
            epoch: 1,
            sequence,
        },
        body: EntryBody::Usage(UsageRecord {
            request: sequence,
            ..one.clone()
        }),
    });
    let data = UsageBatch {
        after: None,
        entries: entries.collect(),
    };
    let (source, id) = (format!("weir/proxy/{PROXY}"), "1.1".to_owned());
    let event = CloudEvent::new(USAGE_TOPIC, source, id, String::new(), data);
    let message = serde_json::to_vec(&event).trying("usage batch")?;
    let due = one.cost_nanos * i64::try_from(count).trying("count")?;
    Ok(Box::new(move || {
        let event: CloudEvent<UsageBatch> = serde_json::from_slice(&message).trying("usage batch")?;
        let batch = Batch::try_from(event.data).trying("usage batch")?;
        let rated = match plan(facts(&one, lease), batch) {
            Plan::Rate(rated) => rated,
            other => return Err(Failure(format!("the batch is not rated: {other:?}"))),
        };
        let charged: Vec<i64> = rated.charges.iter().map(|charge| charge.amount_nanos).collect();
        if charged != [due] || !rated.mistakes.is_empty() {
            return Err(Failure(format!("{charged:?} is charged, {due} is due")));
        }
        super::streams::check("usage records", rated.entries.len() as u64, count)
    }))
}

/// What the store knows: the account, its tariff, its lease.
fn facts(record: &UsageRecord, lease: LeaseId) -> Facts {
    let open = Lease::new(lease, record.account.clone(), record.tariff.clone());
    Facts {
        tariffs: [(record.tariff.clone(), super::meter::tariff())].into(),
        leases: [(lease, open)].into(),
        accounts: [record.account.clone()].into(),
        ..Facts::default()
    }
}
