//! What happened to a wallet. Stored as JSON for ever: fields are added, never changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_contracts::{
    event::TransactionCreated,
    money::{Amount, Currency},
};

use super::{
    ids::{HoldId, TxnId, UserId, WalletId},
    state::Status,
};

/// A fact about one wallet. Amounts are zero or more; the sum of each event's postings is zero (`ledger::posting`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "fields repeat the command's; those that do not are documented"
)]
pub enum Event {
    /// The wallet was made, empty.
    Opened { user: UserId, currency: Currency },
    /// Money came in.
    ToppedUp {
        amount: Amount,
        /// Part of `amount` that paid what the wallet owed.
        to_receivable: Amount,
        balance_after: Amount,
        reference_id: String,
        reference_type: String,
        description: String,
    },
    /// Money went out.
    Withdrawn {
        amount: Amount,
        balance_after: Amount,
        reference_id: String,
        reference_type: String,
        description: String,
    },
    /// A hold was made or grew.
    HoldPlaced {
        hold: HoldId,
        /// By how much it grew.
        by: Amount,
    },
    /// Usage was paid: `amount = from_hold + from_available + to_receivable`.
    Captured {
        hold: Option<HoldId>,
        amount: Amount,
        from_hold: Amount,
        from_available: Amount,
        /// Part that neither the hold nor the balance covered: owed by the user.
        to_receivable: Amount,
        balance_after: Amount,
        reference_id: String,
        description: String,
    },
    /// A hold ended.
    HoldReleased {
        hold: HoldId,
        /// What was left of it.
        amount: Amount,
        /// Part of `amount` that paid what the wallet owed.
        to_receivable: Amount,
    },
    /// The status changed.
    StatusChanged { status: Status, reason: String },
}

/// An event with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Place among all events, from 1, in commit order, without a gap.
    pub position: u64,
    /// Whose event.
    pub wallet: WalletId,
    /// Place in the wallet's stream, from 1.
    pub version: u64,
    /// When it was decided (for people).
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// The reference type of a capture: its reference is a charge's id.
pub const CHARGE_REFERENCE: &str = "charge";

impl Event {
    /// True for what a statement shows: money came in or went out.
    #[must_use]
    pub fn is_transaction(&self) -> bool {
        matches!(
            self,
            Self::ToppedUp { .. } | Self::Withdrawn { .. } | Self::Captured { .. }
        )
    }
}

impl Recorded {
    /// The transaction that this event is, if it is one. Credits are positive, debits negative.
    #[must_use]
    pub fn transaction(&self) -> Option<TransactionCreated> {
        let (amount, r#type, balance_after, reference_id, reference_type, description) = match &self.event {
            Event::ToppedUp {
                amount,
                balance_after,
                reference_id,
                reference_type,
                description,
                ..
            } => (
                *amount,
                "CREDIT",
                balance_after,
                reference_id,
                reference_type.as_str(),
                description,
            ),
            Event::Withdrawn {
                amount,
                balance_after,
                reference_id,
                reference_type,
                description,
            } => (
                amount.negated(),
                "DEBIT",
                balance_after,
                reference_id,
                reference_type.as_str(),
                description,
            ),
            Event::Captured {
                amount,
                balance_after,
                reference_id,
                description,
                ..
            } => (
                amount.negated(),
                "DEBIT",
                balance_after,
                reference_id,
                CHARGE_REFERENCE,
                description,
            ),
            Event::Opened { .. }
            | Event::HoldPlaced { .. }
            | Event::HoldReleased { .. }
            | Event::StatusChanged { .. } => return None,
        };
        Some(TransactionCreated {
            txn_id: TxnId::at(self.wallet, self.version).to_string(),
            wallet_id: self.wallet.to_string(),
            amount: amount.to_string(),
            r#type: r#type.to_owned(),
            description: description.clone(),
            reference_id: reference_id.clone(),
            reference_type: reference_type.to_owned(),
            status: "COMPLETED".to_owned(),
            created_at: self.at.to_string(),
            balance_after: balance_after.to_string(),
            position: self.position,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One event of each kind as the store keeps it: what was written once must be read for ever.
    const GOLDEN: &str = r#"
{"type":"opened","user":"demo","currency":"USD"}
{"type":"topped_up","amount":"5.00","to_receivable":"1.00","balance_after":"4.00","reference_id":"p","reference_type":"payment","description":"d"}
{"type":"withdrawn","amount":"0.000000001","balance_after":"4.00","reference_id":"","reference_type":"","description":""}
{"type":"hold_placed","hold":"p.1.1","by":"2.00"}
{"type":"captured","hold":"p.1.1","amount":"3.00","from_hold":"2.00","from_available":"0.50","to_receivable":"0.50","balance_after":"0.00","reference_id":"c","description":""}
{"type":"captured","hold":null,"amount":"3.00","from_hold":"0.00","from_available":"3.00","to_receivable":"0.00","balance_after":"0.00","reference_id":"c","description":""}
{"type":"hold_released","hold":"p.1.1","amount":"1.00","to_receivable":"0.00"}
{"type":"status_changed","status":"FROZEN","reason":"late"}
"#;

    #[test]
    fn stored_events_are_read_and_written_as_ever() {
        for line in GOLDEN.trim().lines() {
            let event: Event = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&event).unwrap(), line);
            assert!(
                crate::ledger::posting::balanced(&crate::ledger::postings(&event)),
                "{line}"
            );
        }
    }
}
