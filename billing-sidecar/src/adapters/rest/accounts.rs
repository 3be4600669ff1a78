//! Accounts and tariffs over REST.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use weir_contracts::{
    ids::AccountId,
    money::{Amount, Currency},
};

use super::{
    Api,
    error::{ApiError, Body},
};
use crate::{
    domain::{
        accounts::{Account, Cut, Mode, ROW_CREDIT_BYTES},
        tariffs::Prices,
    },
    flow::{confirmed::confirmed, hub::AccountView, settled::wait_settled},
};

/// Longest idempotency key, bytes.
const KEY_LEN_MAX: usize = 100;

/// An account as it is shown; amounts are decimal strings.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    account: AccountId,
    login: String,
    currency: Currency,
    /// What is not yet captured.
    balance: Amount,
    held: Amount,
    /// `balance` − `held`.
    available: Amount,
    receivable: Amount,
    /// ACTIVE, FROZEN, CLOSED; UNKNOWN while the wallet has not told.
    status: String,
    mode: Mode,
    cut: Cut,
    tariff: String,
    /// Whose wallet it is, in the wallet service.
    user_id: uuid::Uuid,
    wallet_id: Option<String>,
}

impl From<AccountView> for Shown {
    fn from(view: AccountView) -> Self {
        let AccountView { account, wallet, .. } = view;
        let status = wallet
            .as_ref()
            .map_or_else(|| "UNKNOWN".to_owned(), |w| w.status.clone());
        let of = |amount: fn(&crate::ports::wallet_client::WalletState) -> Amount| {
            wallet.as_ref().map(amount).unwrap_or_default()
        };
        Self {
            balance: of(|w| w.balance),
            held: of(|w| w.held),
            available: of(|w| w.available),
            receivable: of(|w| w.receivable),
            status,
            user_id: account.user_id(),
            account: account.id,
            login: account.login,
            currency: account.currency,
            mode: account.mode,
            cut: account.cut,
            tariff: account.tariff,
            wallet_id: account.wallet_id,
        }
    }
}

pub(super) fn account_id(text: &str) -> Result<AccountId, ApiError> {
    text.parse().map_err(ApiError::not_found)
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Vec<Shown>> {
    Json(api.hub.accounts().into_iter().map(Shown::from).collect())
}

/// What an operator says of a new account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAccount {
    account: AccountId,
    login: String,
    currency: Currency,
    #[serde(default)]
    initial_credit: Amount,
    tariff: String,
    /// `observe` or `enforce`, in any case.
    #[serde(default)]
    mode: String,
    #[serde(default)]
    cut: Cut,
    #[serde(default)]
    row_credit_bytes: Option<u64>,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Body(new): Body<NewAccount>,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    let mode = match new.mode.to_ascii_lowercase().as_str() {
        "" | "observe" => Mode::Observe,
        "enforce" => Mode::Enforce,
        other => {
            return Err(ApiError::invalid(format!(
                "mode `{other}`: use observe or enforce"
            )));
        }
    };
    if new.initial_credit.is_negative() {
        return Err(ApiError::invalid("initial_credit must not be negative"));
    }
    let account = Account {
        id: new.account,
        login: new.login,
        currency: new.currency,
        mode,
        cut: new.cut,
        tariff: new.tariff,
        row_credit_bytes: new.row_credit_bytes.unwrap_or(ROW_CREDIT_BYTES),
        initial_credit: new.initial_credit,
        wallet_id: None,
    };
    let view = api.tenants.create(account).await?;
    Ok((StatusCode::CREATED, Json(view.into())))
}

#[derive(Debug, Deserialize)]
pub(super) struct ShowQuery {
    wait_settled: Option<String>,
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(account): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Shown>, ApiError> {
    let id = account_id(&account)?;
    let view = api.tenants.show(&id).await?;
    if !query.wait_settled.is_some_and(|on| on == "1" || on == "true") {
        return Ok(Json(view.into()));
    }
    wait_settled(&*api.store, &api.hub, &id, api.settle_wait).await?;
    let settled = api.tenants.show(&id).await?;
    confirmed(&api.hub, &id).await;
    Ok(Json(settled.into()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopUp {
    amount: Amount,
    key: String,
}

fn key(key: &str) -> Result<&str, ApiError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    if (1..=KEY_LEN_MAX).contains(&key.len()) && key.bytes().all(known) {
        Ok(key)
    } else {
        Err(ApiError::invalid("a key is 1 to 100 of A-Z a-z 0-9 _ . : -"))
    }
}

pub(super) async fn top_up(
    State(api): State<Arc<Api>>,
    Path(account): Path<String>,
    Body(body): Body<TopUp>,
) -> Result<Json<Shown>, ApiError> {
    let id = account_id(&account)?;
    let view = api.tenants.top_up(&id, body.amount, key(&body.key)?).await?;
    Ok(Json(view.into()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Status {
    status: String,
    /// Made here when not given: setting a status twice is harmless.
    key: Option<String>,
}

pub(super) async fn set_status(
    State(api): State<Arc<Api>>,
    Path(account): Path<String>,
    Body(body): Body<Status>,
) -> Result<Json<Shown>, ApiError> {
    let id = account_id(&account)?;
    if !["ACTIVE", "FROZEN"].contains(&body.status.as_str()) {
        return Err(ApiError::invalid("status must be ACTIVE or FROZEN"));
    }
    let made = uuid::Uuid::new_v4().simple().to_string();
    let chosen = key(body.key.as_deref().unwrap_or(&made))?;
    let view = api.tenants.set_status(&id, &body.status, chosen).await?;
    Ok(Json(view.into()))
}

/// A tariff version as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct ShownTariff {
    version: String,
    #[serde(flatten)]
    prices: Prices,
}

pub(super) async fn tariffs(State(api): State<Arc<Api>>) -> Result<Json<Vec<ShownTariff>>, ApiError> {
    let tariffs = api.store.tariffs().await?;
    let shown = tariffs.iter().map(|priced| ShownTariff {
        version: priced.tariff.version.clone(),
        prices: priced.into(),
    });
    Ok(Json(shown.collect()))
}

pub(super) async fn put_tariff(
    State(api): State<Arc<Api>>,
    Path(version): Path<String>,
    Body(prices): Body<Prices>,
) -> Result<Json<ShownTariff>, ApiError> {
    let priced = prices.tariff(&version).map_err(ApiError::invalid)?;
    let stored = api.tenants.put_tariff(priced).await?;
    Ok(Json(ShownTariff {
        version,
        prices: (&stored).into(),
    }))
}
