//! Readiness, metrics, dead letters and self-tests.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::{Api, error::ApiError};
use crate::{
    flow::rater::RATING_QUEUE,
    selftest::{self, Report},
};

/// Ready when the store answers. A wallet that is away is told beside: leases in hand still serve.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let open = api.store.charges_open().await?;
    let known = api.hub.accounts();
    let without_wallet = known.iter().filter(|view| view.wallet.is_none()).count();
    Ok(Json(json!({
        "ready": true,
        "accounts": known.len(),
        "accounts_without_wallet_state": without_wallet,
        "charges_open": open.open,
        "blocked": api.meters.blocked(),
    })))
}

/// Counters and gauges in the Prometheus text format.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    let open = api.store.charges_open().await?;
    let marks = api.store.marks().await?;
    let lag = api.live.lag();
    let mut text = String::new();
    for (name, value) in api.meters.all() {
        let _ = writeln!(
            text,
            "# TYPE weir_billing_{name} counter\nweir_billing_{name} {value}"
        );
    }
    let mut gauge = |name: &str, value: u64| {
        let _ = writeln!(
            text,
            "# TYPE weir_billing_{name} gauge\nweir_billing_{name} {value}"
        );
    };
    gauge("outbox_lag_entries", lag.entries);
    gauge("charges_open", open.open);
    gauge("charges_failed", open.failed);
    gauge(
        "proxies_watching",
        u64::try_from(api.hub.watchers().len()).unwrap_or(u64::MAX),
    );
    gauge(
        "streams_blocked",
        u64::try_from(api.meters.blocked().len()).unwrap_or(u64::MAX),
    );
    let _ = writeln!(text, "# TYPE weir_billing_mark_sequence gauge");
    for (proxy, mark) in marks {
        let labels = format!("proxy=\"{proxy}\",epoch=\"{}\"", mark.epoch);
        let _ = writeln!(text, "weir_billing_mark_sequence{{{labels}}} {}", mark.sequence);
    }
    Ok((
        StatusCode::OK,
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        text,
    ))
}

/// Usage batches that could not be rated, with the cause.
pub(super) async fn dead_letters(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let letters = api.broker.dead_letters(RATING_QUEUE).await?;
    let shown: Vec<Value> = letters
        .iter()
        .map(|l| json!({ "tag": l.tag, "cause": l.cause, "body": String::from_utf8_lossy(&l.body) }))
        .collect();
    Ok(Json(json!(shown)))
}

/// Puts one back into the queue.
pub(super) async fn replay(
    State(api): State<Arc<Api>>,
    Path(tag): Path<u64>,
) -> Result<Json<Value>, ApiError> {
    api.broker.replay(RATING_QUEUE, tag).await?;
    Ok(Json(json!({ "replayed": tag })))
}

/// Runs the suite on a scratch store beside the service's own, one at a time.
pub(super) async fn selftest_items(State(api): State<Arc<Api>>) -> Result<Json<Report>, ApiError> {
    let Ok(_running) = api.selftest.try_lock() else {
        let message = "a self-test is running; ask again when it has ended";
        return Err(ApiError::new(StatusCode::CONFLICT, "BUSY", "client", message));
    };
    Ok(Json(selftest::items::run(&*api.scratch_items).await))
}
