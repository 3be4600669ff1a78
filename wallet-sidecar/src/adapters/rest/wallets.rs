//! Wallets: made, looked at, frozen, closed.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use weir_contracts::{
    event::WalletUpdated,
    money::{Amount, Currency},
};

use super::{
    error::ApiError,
    request::{Body, bounded, json, key, parsed},
};
use crate::{
    service::Service,
    wallet::{Command, Refusal, Status, UserId, WalletId, command::DESCRIPTION_BYTES_MAX},
    writer::CommandError,
};

/// A wallet, with what is held of it and owed on it.
#[derive(Debug, Serialize)]
pub(super) struct WalletBody {
    wallet_id: String,
    user_id: String,
    balance: String,
    held: String,
    available: String,
    receivable: String,
    currency: String,
    status: String,
    created_at: String,
    updated_at: String,
}

impl From<WalletUpdated> for WalletBody {
    fn from(view: WalletUpdated) -> Self {
        Self {
            wallet_id: view.wallet_id,
            user_id: view.user_id,
            balance: view.balance,
            held: view.held,
            available: view.available,
            receivable: view.receivable,
            currency: view.currency,
            status: view.status,
            created_at: view.created_at,
            updated_at: view.updated_at,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    user_id: String,
    initial_balance: Option<String>,
    currency: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStatus {
    status: String,
    reason: Option<String>,
}

pub(super) async fn of_user(
    State(service): State<Service>,
    Path(user): Path<String>,
) -> Result<Json<WalletBody>, ApiError> {
    let user: UserId = parsed("userId", &user)?;
    let found = service.wallet_of_user(&user).await?;
    let view = found.ok_or(CommandError::Refused(Refusal::UnknownWallet))?;
    Ok(Json(view.into()))
}

pub(super) async fn create(
    State(service): State<Service>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<WalletBody>), ApiError> {
    let key = key(&headers)?;
    let create: Create = json(body)?;
    let user: UserId = parsed("user_id", &create.user_id)?;
    let wallet = WalletId::of_user(&user);
    let command = Command::Create {
        user,
        currency: create
            .currency
            .map_or(Ok(Currency::USD), |text| parsed("currency", &text))?,
        initial: create
            .initial_balance
            .map_or(Ok(Amount::ZERO), |text| parsed("initial_balance", &text))?,
    };
    let answer = service.command(wallet, key, command).await?;
    Ok((StatusCode::CREATED, Json(answer.wallet.into())))
}

pub(super) async fn set_status(
    State(service): State<Service>,
    Path(wallet): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<WalletBody>, ApiError> {
    let wallet: WalletId = parsed("walletId", &wallet)?;
    let key = key(&headers)?;
    let change: SetStatus = json(body)?;
    let command = Command::SetStatus {
        status: parsed::<Status>("status", &change.status)?,
        reason: bounded("reason", change.reason, DESCRIPTION_BYTES_MAX)?,
    };
    let answer = service.command(wallet, key, command).await?;
    Ok(Json(answer.wallet.into()))
}
