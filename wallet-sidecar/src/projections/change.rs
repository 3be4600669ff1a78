//! What a broker message means for the read model. Pure.

use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use weir_contracts::{
    event::{CloudEvent, TRANSACTION_CREATED_TOPIC, TransactionCreated, WALLET_UPDATED_TOPIC, WalletUpdated},
    money::Amount,
};

use crate::ports::read_model::Change;

/// The message can never be applied; the sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a wallet event: {0}")]
pub struct Poison(pub String);

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

/// Reads a message.
pub fn read(body: &[u8]) -> Result<Change, Poison> {
    let kind: Kind = parse(body)?;
    match kind.r#type.as_str() {
        WALLET_UPDATED_TOPIC => {
            let wallet: WalletUpdated = parse::<CloudEvent<_>>(body)?.data;
            for amount in [
                &wallet.balance,
                &wallet.held,
                &wallet.available,
                &wallet.receivable,
            ] {
                check_amount(amount)?;
            }
            Ok(Change::Wallet(wallet))
        }
        TRANSACTION_CREATED_TOPIC => {
            let txn: TransactionCreated = parse::<CloudEvent<_>>(body)?.data;
            check_amount(&txn.amount)?;
            txn.created_at
                .parse::<Timestamp>()
                .map_err(|e| Poison(format!("created_at: {e}")))?;
            Ok(Change::Transaction(txn))
        }
        other => Err(Poison(format!(
            "unknown type `{}`",
            other.chars().take(64).collect::<String>()
        ))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Poison> {
    serde_json::from_slice(body).map_err(|e| Poison(e.to_string()))
}

fn check_amount(text: &str) -> Result<(), Poison> {
    text.parse::<Amount>()
        .map(|_| ())
        .map_err(|e| Poison(e.to_string()))
}
