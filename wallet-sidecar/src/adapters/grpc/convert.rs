//! Between protobuf messages and the domain: texts become checked values, errors become statuses.

use std::{fmt::Display, str::FromStr};

use tonic::{Code, Status, metadata::MetadataValue};
use weir_contracts::{
    event::{TransactionCreated, WalletUpdated},
    money::Amount,
    proto::wallet as proto,
};

use crate::{
    ports::event_store::StoreError,
    wallet::{
        Move, Refusal,
        command::{DESCRIPTION_BYTES_MAX, REFERENCE_BYTES_MAX},
    },
    writer::{CommandError, Key},
};

/// Metadata key of an error's name.
pub(super) const CODE_KEY: &str = "weir-code";

/// An error with its name, in the message and as metadata.
pub(super) fn status(code: Code, name: &'static str, message: impl Display) -> Status {
    let mut status = Status::new(code, format!("{name}: {message}"));
    status
        .metadata_mut()
        .insert(CODE_KEY, MetadataValue::from_static(name));
    status
}

pub(super) fn invalid(field: &str, problem: impl Display) -> Status {
    status(
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
        format!("{field}: {problem}"),
    )
}

#[allow(clippy::needless_pass_by_value, reason = "used as `map_err(refused)`")]
pub(super) fn refused(error: CommandError) -> Status {
    let code = match &error {
        CommandError::Refused(refusal) => match refusal {
            Refusal::UnknownWallet => Code::NotFound,
            Refusal::WalletExists => Code::AlreadyExists,
            Refusal::NotPositive | Refusal::OutOfRange | Refusal::OtherCurrency { .. } => {
                Code::InvalidArgument
            }
            Refusal::TooManyHolds => Code::ResourceExhausted,
            Refusal::Frozen
            | Refusal::Closed
            | Refusal::InsufficientFunds { .. }
            | Refusal::HoldReleased
            | Refusal::NotSettled { .. } => Code::FailedPrecondition,
        },
        CommandError::KeyReused => Code::AlreadyExists,
        CommandError::Late => Code::DeadlineExceeded,
        CommandError::Store(StoreError::Damaged(_)) => Code::DataLoss,
        CommandError::Stopped | CommandError::Store(_) => Code::Unavailable,
    };
    status(code, error.code(), &error)
}

pub(super) fn field<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|e| invalid(name, e))
}

pub(super) fn key(text: &str) -> Result<Key, Status> {
    Key::of_service(text).map_err(|e| invalid("key", e))
}

pub(super) fn bounded(name: &str, text: String, bytes_max: usize) -> Result<String, Status> {
    if text.len() > bytes_max {
        return Err(invalid(name, format!("longer than {bytes_max} bytes")));
    }
    Ok(text)
}

pub(super) fn movement(request: proto::MoveRequest) -> Result<Move, Status> {
    Ok(Move {
        amount: field::<Amount>("amount", &request.amount)?,
        currency: None,
        reference_id: bounded("reference_id", request.reference_id, REFERENCE_BYTES_MAX)?,
        reference_type: bounded("reference_type", request.reference_type, REFERENCE_BYTES_MAX)?,
        description: bounded("description", request.description, DESCRIPTION_BYTES_MAX)?,
    })
}

pub(super) fn wallet(view: &WalletUpdated) -> proto::Wallet {
    proto::Wallet {
        wallet_id: view.wallet_id.clone(),
        user_id: view.user_id.clone(),
        currency: view.currency.clone(),
        status: view.status.clone(),
        balance: view.balance.clone(),
        held: view.held.clone(),
        available: view.available.clone(),
        receivable: view.receivable.clone(),
        position: view.position,
    }
}

pub(super) fn transaction(txn: TransactionCreated) -> proto::Transaction {
    proto::Transaction {
        txn_id: txn.txn_id,
        wallet_id: txn.wallet_id,
        amount: txn.amount,
        r#type: txn.r#type,
        description: txn.description,
        reference_id: txn.reference_id,
        reference_type: txn.reference_type,
        status: txn.status,
        created_at: txn.created_at,
        balance_after: txn.balance_after,
        position: txn.position,
    }
}
