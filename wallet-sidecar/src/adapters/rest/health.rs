//! `/health`: the process answers. `/ready`: it can do its work. `/metrics`: counters in the Prometheus text format.

use std::fmt::Write as _;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
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

pub(super) async fn metrics(State(service): State<Service>) -> impl IntoResponse {
    let (counters, values) = service.metrics();
    let mut text = String::new();
    for (kind, lines) in [("counter", counters), ("gauge", values)] {
        for (name, value) in lines {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "# TYPE weir_wallet_{name} {kind}\nweir_wallet_{name} {value}"
            );
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
