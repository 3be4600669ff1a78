//! A batch as arrays, so that one statement takes all of it whatever its size.

use uuid::Uuid;
use weir_servers::postgres::types::ToSql;

use super::event_store::{as_i64, damaged};
use crate::{
    ports::event_store::{Batch, StoreError},
    wallet::Recorded,
};

/// A batch as the arrays that [`super::schema::COMMIT`] takes, in the order of its parameters.
#[derive(Default)]
pub(super) struct Arrays<'a> {
    expected: i64,
    head: i64,
    messages: i64,
    positions: Vec<i64>,
    wallets: Vec<Uuid>,
    versions: Vec<i64>,
    ats: Vec<String>,
    are_transactions: Vec<bool>,
    bodies: Vec<String>,
    posting_positions: Vec<i64>,
    posting_numbers: Vec<i32>,
    posting_accounts: Vec<&'static str>,
    posting_currencies: Vec<&'static str>,
    posting_amounts: Vec<String>,
    answer_keys: Vec<&'a str>,
    answer_hashes: Vec<&'a [u8]>,
    answer_bodies: Vec<&'a str>,
    message_topics: Vec<&'a str>,
    message_ids: Vec<&'a str>,
    message_bodies: Vec<&'a [u8]>,
}

impl<'a> Arrays<'a> {
    pub(super) fn of(batch: &'a Batch) -> Result<Self, StoreError> {
        let mut arrays = Self {
            expected: as_i64(batch.expected_head),
            head: as_i64(batch.last_position()?),
            ..Self::default()
        };
        for append in &batch.appends {
            for (recorded, postings) in &append.events {
                arrays.add_event(recorded)?;
                for (n, side) in (0..).zip(postings) {
                    arrays.posting_positions.push(as_i64(recorded.position));
                    arrays.posting_numbers.push(n);
                    arrays.posting_accounts.push(side.account.name());
                    arrays.posting_currencies.push(append.currency.code());
                    arrays.posting_amounts.push(side.amount.to_string());
                }
            }
            if let Some(answer) = &append.answer {
                arrays.answer_keys.push(&answer.key);
                arrays.answer_hashes.push(&answer.hash);
                arrays.answer_bodies.push(&answer.body);
            }
            for message in &append.messages {
                arrays.messages += 1;
                arrays.message_topics.push(&message.topic);
                arrays.message_ids.push(&message.id);
                arrays.message_bodies.push(&message.body);
            }
        }
        Ok(arrays)
    }

    fn add_event(&mut self, recorded: &Recorded) -> Result<(), StoreError> {
        self.positions.push(as_i64(recorded.position));
        self.wallets.push(recorded.wallet.0);
        self.versions.push(as_i64(recorded.version));
        self.ats.push(recorded.at.to_string());
        self.are_transactions.push(recorded.event.is_transaction());
        self.bodies
            .push(serde_json::to_string(&recorded.event).map_err(damaged)?);
        Ok(())
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 20] {
        [
            &self.expected,
            &self.head,
            &self.messages,
            &self.positions,
            &self.wallets,
            &self.versions,
            &self.ats,
            &self.are_transactions,
            &self.bodies,
            &self.posting_positions,
            &self.posting_numbers,
            &self.posting_accounts,
            &self.posting_currencies,
            &self.posting_amounts,
            &self.answer_keys,
            &self.answer_hashes,
            &self.answer_bodies,
            &self.message_topics,
            &self.message_ids,
            &self.message_bodies,
        ]
    }
}
