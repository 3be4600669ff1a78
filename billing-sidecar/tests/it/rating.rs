//! Batches that can never be rated, and a store to rate the others on.

use std::path::Path;

use weir_billing::{
    adapters::SqliteStore,
    domain::rating::{Batch, BatchError},
};
use weir_contracts::{
    entry::{Entry, EntryBody},
    event::{USAGE_BATCH_ENTRIES_MAX, UsageBatch},
};

use crate::{
    contract::billing_store::furnish,
    world::{Journal, record},
};

pub(crate) async fn store(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(&path.join("billing.db")).unwrap();
    furnish(&store).await;
    store
}

fn journal(records: u64) -> Journal {
    let mut journal = Journal::new(1);
    for request in 1..=records {
        journal.usage(record(None, request, 10));
    }
    journal
}

#[test]
fn malformed_batches_are_refused_with_their_reason() {
    let e = journal(3).entries;
    let form = |entries: Vec<Entry>| Batch::try_from(UsageBatch { after: None, entries }).err();
    assert_eq!(form(vec![]), Some(BatchError::Empty));
    assert_eq!(
        form(vec![e[0].clone(), e[2].clone()]),
        Some(BatchError::Order(e[2].id.to_string()))
    );
    let many = journal(u64::try_from(USAGE_BATCH_ENTRIES_MAX).unwrap() + 1).entries;
    assert_eq!(form(many), Some(BatchError::TooLong(USAGE_BATCH_ENTRIES_MAX + 1)));
    let mut large = e[0].clone();
    if let EntryBody::Usage(record) = &mut large.body {
        record.bytes_out = u64::MAX;
    }
    assert_eq!(form(vec![large]), Some(BatchError::TooLarge(e[0].id.to_string())));
}
