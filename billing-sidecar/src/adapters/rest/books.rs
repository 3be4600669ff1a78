//! Usage, statements, reconciliation and live numbers over REST.

use std::sync::Arc;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use weir_contracts::{ids::AccountId, money::Amount};

use super::{Api, accounts::account_id, error::ApiError};
use crate::{
    domain::reconcile::Verdict,
    flow::{books::history, tenants::wallet_of},
    ports::{PortError, billing_store::RequestUsage},
};

/// Requests in one page at most.
const PAGE_MAX: usize = 10_000;
/// Requests read at a time for an answer without limit.
const CHUNK: usize = 1_000;

#[derive(Debug, Deserialize)]
pub(super) struct UsageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// One page when a limit is given; else all of it, streamed, so that memory is bounded by one chunk.
pub(super) async fn usage(
    State(api): State<Arc<Api>>,
    Path(account): Path<String>,
    Query(query): Query<UsageQuery>,
) -> Result<Response, ApiError> {
    let id = account_id(&account)?;
    if api.hub.account(&id).is_none() {
        return Err(ApiError::not_found(format!("there is no account {id}")));
    }
    if let Some(limit) = query.limit {
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(ApiError::invalid(format!("limit must be 1 to {PAGE_MAX}")));
        }
        let page = api.store.usage(&id, query.after.as_deref(), limit).await?;
        return Ok(Json(page).into_response());
    }
    let first = api.store.usage(&id, query.after.as_deref(), CHUNK).await?;
    let body = Body::from_stream(futures_util::stream::unfold(Some((api, id, first, true)), chunk));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

type Reading = Option<(Arc<Api>, AccountId, Vec<RequestUsage>, bool)>;

/// Writes a chunk of the array and reads the next one. An error ends the connection: a cut array is no JSON.
async fn chunk(reading: Reading) -> Option<(Result<Bytes, PortError>, Reading)> {
    let (api, id, requests, first) = reading?;
    let mut text = String::from(if first { "[" } else { "" });
    for (i, request) in requests.iter().enumerate() {
        if !first || i > 0 {
            text.push(',');
        }
        match serde_json::to_string(request) {
            Ok(json) => text.push_str(&json),
            Err(e) => return Some((Err(PortError::Corrupt("the billing store", e.to_string())), None)),
        }
    }
    let next = match requests.last() {
        Some(last) if requests.len() == CHUNK => api.store.usage(&id, Some(&last.id), CHUNK).await,
        _ => Ok(Vec::new()),
    };
    match next {
        Err(e) => Some((Err(e), None)),
        Ok(next) if next.is_empty() => {
            text.push(']');
            Some((Ok(text.into()), None))
        }
        Ok(next) => Some((Ok(text.into()), Some((api, id, next, false)))),
    }
}

/// The wallet's whole history with the usage behind it.
pub(super) async fn statement(
    State(api): State<Arc<Api>>,
    Path(account): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = account_id(&account)?;
    let view = api.tenants.show(&id).await?;
    let transactions = history(&*api.wallet, wallet_of(&view)?).await?;
    let totals = api.store.totals().await?.get(&id).copied().unwrap_or_default();
    let closing = transactions.last().map_or(Amount::ZERO, |t| t.balance_after);
    let lines: Vec<Value> = transactions
        .iter()
        .map(|t| {
            json!({
                "at": t.created_at, "type": t.kind, "amount": t.amount, "description": t.description,
                "reference": t.reference_id, "reference_type": t.reference_type, "balance_after": t.balance_after,
            })
        })
        .collect();
    Ok(Json(json!({
        "account": id,
        "currency": view.account.currency,
        "opening": Amount::ZERO,
        "closing": closing,
        "lines": lines,
        "usage": {
            "requests": totals.totals.requests,
            "rows": totals.totals.rows,
            "bytes": totals.totals.bytes_out,
            "cost": totals.cost,
        },
    })))
}

pub(super) async fn reconcile(State(api): State<Arc<Api>>) -> Result<Json<Verdict>, ApiError> {
    Ok(Json(api.reconciler.reconcile().await?))
}

/// What the console shows: totals, rates, balances, lag.
pub(super) async fn live(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let totals = api.store.totals().await?;
    let rates = api.live.rates();
    let open = api.store.charges_open().await?;
    let lag = api.live.lag();
    let accounts: Vec<Value> = api
        .hub
        .accounts()
        .into_iter()
        .map(|view| {
            let id = &view.account.id;
            let used = totals.get(id).copied().unwrap_or_default();
            let rate = rates.get(id).copied().unwrap_or_default();
            let wallet = view.wallet.as_ref();
            json!({
                "account": id,
                "currency": view.account.currency,
                "status": wallet.map(|w| w.status.clone()),
                "balance": wallet.map(|w| w.balance),
                "held": wallet.map(|w| w.held),
                "available": wallet.map(|w| w.available),
                "requests": used.totals.requests,
                "rows": used.totals.rows,
                "bytes": used.totals.bytes_out,
                "cost": used.cost,
                "cut_offs": used.totals.cut_offs,
                "requests_per_second": rate.requests,
                "rows_per_second": rate.rows,
                "bytes_per_second": rate.bytes,
            })
        })
        .collect();
    Ok(Json(json!({
        "at": (api.now)(),
        "accounts": accounts,
        "outbox_lag": lag.entries,
        "outbox_streams_behind": lag.streams,
        "charges_pending": open.open,
        "charges_failed": open.failed,
        "proxies": api.hub.watchers().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "blocked": api.meters.blocked(),
    })))
}
