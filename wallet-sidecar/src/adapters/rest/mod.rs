//! The REST face of the wallets, with `/health`, `/ready` and `/metrics`.

mod error;
mod health;
mod request;
mod transactions;
mod wallets;

use std::time::Duration;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::header,
    middleware::{self, Next},
    response::Response,
    routing::{get, post, put},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::error::ApiError;
use super::grpc::auth::BearerToken;
use crate::service::Service;

/// Largest request body: the longest command is a description of a thousand bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest time from a request's head to its answer; longer than a command's own deadline, so that that one answers first.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// The routes. One name stands for both ids in a path: the router wants one name per place.
pub fn router(service: Service, guard: BearerToken) -> Router {
    let guarded = Router::new()
        .route("/wallets", post(wallets::create))
        .route("/wallets/{id}", get(wallets::of_user))
        .route("/wallets/{id}/status", put(wallets::set_status))
        .route(
            "/wallets/{id}/transactions",
            get(transactions::list).post(transactions::create),
        )
        .route("/wallets/{id}/top-up", post(transactions::top_up))
        .route_layer(middleware::from_fn_with_state(guard, authenticate));
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .merge(guarded)
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(within_deadline))
        .with_state(service)
}

/// Serves until `stop` is cancelled and the calls in hand are answered.
pub async fn serve(listener: TcpListener, service: Service, guard: BearerToken, stop: CancellationToken) {
    let served = axum::serve(listener, router(service, guard))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(e) = served {
        tracing::error!(error = %e, "the REST listener ended");
    }
}

async fn authenticate(
    State(guard): State<BearerToken>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    if guard.admits(value) {
        Ok(next.run(request).await)
    } else {
        Err(ApiError::unauthenticated())
    }
}

async fn within_deadline(request: Request, next: Next) -> Result<Response, ApiError> {
    tokio::time::timeout(REQUEST_DEADLINE, next.run(request))
        .await
        .map_err(|_| ApiError::late())
}
