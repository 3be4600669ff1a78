//! `/health`: the process answers. `/ready`: it can do its work (seed 003 §10.1).

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use crate::service::Service;

pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok", "service": "weir-wallet", "version": env!("CARGO_PKG_VERSION")}))
}

pub(super) async fn ready(State(service): State<Service>) -> (StatusCode, Json<Value>) {
    let checks = service.checks().await;
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"ready": ready, "checks": checks})))
}
