//! Transactions and top-ups.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use weir_contracts::event::TransactionCreated;

use super::{
    error::ApiError,
    request::{Body, bounded, from_date, json, key, parsed, until_date},
    wallets::WalletBody,
};
use crate::{
    ports::read_model::{Filter, PAGE_ROWS_MAX},
    service::Service,
    wallet::{
        Command, Move, Refusal, WalletId,
        command::{DESCRIPTION_BYTES_MAX, REFERENCE_BYTES_MAX},
    },
    writer::{CommandError, Key},
};

/// Rows of a page when none are asked for.
const PAGE_ROWS: u32 = 20;
/// Last page that can be asked for: further back, narrow the dates.
const PAGES_MAX: u32 = 100_000;
/// Types of a transaction.
const TYPES: [&str; 4] = ["CREDIT", "DEBIT", "TRANSFER_IN", "TRANSFER_OUT"];
/// States of a transaction.
const STATUSES: [&str; 4] = ["PENDING", "COMPLETED", "FAILED", "CANCELLED"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    page: Option<u32>,
    limit: Option<u32>,
    start_date: Option<String>,
    end_date: Option<String>,
    r#type: Option<String>,
    status: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ListBody {
    transactions: Vec<TransactionBody>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct TransactionBody {
    txn_id: String,
    amount: String,
    r#type: String,
    description: String,
    reference_id: String,
    reference_type: String,
    status: String,
    balance_after: String,
    created_at: String,
}

#[derive(Serialize)]
struct Pagination {
    page: u32,
    limit: u32,
    total: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveBody {
    amount: String,
    r#type: Option<String>,
    currency: Option<String>,
    description: Option<String>,
    reference_id: Option<String>,
    reference_type: Option<String>,
}

#[derive(Serialize)]
pub(super) struct MoveReply {
    txn_id: String,
    status: &'static str,
    wallet: WalletBody,
}

impl From<TransactionCreated> for TransactionBody {
    fn from(txn: TransactionCreated) -> Self {
        Self {
            txn_id: txn.txn_id,
            amount: txn.amount,
            r#type: txn.r#type,
            description: txn.description,
            reference_id: txn.reference_id,
            reference_type: txn.reference_type,
            status: txn.status,
            balance_after: txn.balance_after,
            created_at: txn.created_at,
        }
    }
}

fn one_of(field: &str, text: Option<String>, allowed: &[&str]) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if !allowed.contains(&text.as_str()) => Err(ApiError::invalid(
            field,
            format!("use one of {}", allowed.join(", ")),
        )),
        other => Ok(other),
    }
}

fn within(field: &str, given: Option<u32>, default: u32, max: u32) -> Result<u32, ApiError> {
    match given.unwrap_or(default) {
        n if (1..=max).contains(&n) => Ok(n),
        _ => Err(ApiError::invalid(field, format!("1 to {max}"))),
    }
}

fn filter(query: ListQuery) -> Result<Filter, ApiError> {
    let date = |field, text: Option<String>, read: fn(&str, &str) -> Result<i64, ApiError>| {
        text.map(|text| read(field, &text)).transpose()
    };
    Ok(Filter {
        page: within("page", query.page, 1, PAGES_MAX)?,
        limit: within("limit", query.limit, PAGE_ROWS, PAGE_ROWS_MAX)?,
        from_micros: date("start_date", query.start_date, from_date)?,
        until_micros: date("end_date", query.end_date, until_date)?,
        r#type: one_of("type", query.r#type, &TYPES)?,
        status: one_of("status", query.status, &STATUSES)?,
    })
}

pub(super) async fn list(
    State(service): State<Service>,
    Path(wallet): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListBody>, ApiError> {
    let wallet: WalletId = parsed("walletId", &wallet)?;
    let Query(query) = query.map_err(|e| ApiError::invalid("query", e.body_text()))?;
    let filter = filter(query)?;
    let (page, limit) = (filter.page, filter.limit);
    if service.wallet(wallet).is_none() {
        return Err(CommandError::Refused(Refusal::UnknownWallet).into());
    }
    let found = service.page(wallet, filter).await?;
    Ok(Json(ListBody {
        transactions: found.transactions.into_iter().map(Into::into).collect(),
        pagination: Pagination {
            page,
            limit,
            total: found.total,
        },
    }))
}

/// Key and move of a request that must have both.
fn keyed_move(headers: &HeaderMap, body: MoveBody) -> Result<(Key, Move), ApiError> {
    let key = key(headers)?.ok_or_else(ApiError::key_required)?;
    let movement = Move {
        amount: parsed("amount", &body.amount)?,
        currency: body.currency.map(|text| parsed("currency", &text)).transpose()?,
        reference_id: bounded("reference_id", body.reference_id, REFERENCE_BYTES_MAX)?,
        reference_type: bounded("reference_type", body.reference_type, REFERENCE_BYTES_MAX)?,
        description: bounded("description", body.description, DESCRIPTION_BYTES_MAX)?,
    };
    Ok((key, movement))
}

async fn moved(
    service: &Service,
    wallet: &str,
    key: Key,
    command: Command,
) -> Result<(StatusCode, Json<MoveReply>), ApiError> {
    let wallet: WalletId = parsed("walletId", wallet)?;
    let answer = service.command(wallet, Some(key), command).await?;
    Ok((
        StatusCode::CREATED,
        Json(MoveReply {
            txn_id: answer.txn_id.unwrap_or_default(),
            status: "COMPLETED",
            wallet: answer.wallet.into(),
        }),
    ))
}

pub(super) async fn create(
    State(service): State<Service>,
    Path(wallet): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<MoveReply>), ApiError> {
    let mut body: MoveBody = json(body)?;
    let kind = body.r#type.take();
    let (key, movement) = keyed_move(&headers, body)?;
    let command = match kind.as_deref() {
        Some("CREDIT") => Command::TopUp(movement),
        Some("DEBIT") => Command::Withdraw(movement),
        _ => return Err(ApiError::invalid("type", "use CREDIT or DEBIT")),
    };
    moved(&service, &wallet, key, command).await
}

pub(super) async fn top_up(
    State(service): State<Service>,
    Path(wallet): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<MoveReply>), ApiError> {
    let body: MoveBody = json(body)?;
    if body.r#type.is_some() {
        return Err(ApiError::invalid(
            "type",
            "a top-up is always a credit: leave it out",
        ));
    }
    let (key, movement) = keyed_move(&headers, body)?;
    moved(&service, &wallet, key, Command::TopUp(movement)).await
}
