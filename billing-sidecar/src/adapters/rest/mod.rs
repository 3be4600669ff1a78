//! REST for operators, the console page, and `/health /ready /metrics`.
//!
//! | route (all but the last line want `authorization: Bearer …`) | does |
//! |---|---|
//! | `GET /api/accounts`, `POST /api/accounts` `{account, login, currency, initial_credit, tariff, mode}` | lists; creates with its wallet, once |
//! | `GET /api/accounts/{a}[?wait_settled=1]` | balance, held, available, status, terms; settled first when asked |
//! | `POST /api/accounts/{a}/top-up` `{amount, key}` | adds credit once per key |
//! | `PUT /api/accounts/{a}/status` `{status: ACTIVE or FROZEN}` | opens or shuts the gate |
//! | `GET /api/accounts/{a}/usage[?limit&after]` | one object per request, oldest first; all of it, or a page after an id |
//! | `GET /api/accounts/{a}/statement` | the wallet's history and the usage behind it |
//! | `GET /api/tariffs`, `PUT /api/tariffs/{version}` `{currency, per_row, …}` | decimal prices; a version never changes |
//! | `GET /api/reconcile`, `GET /api/live` | do the books agree; what happens now |
//! | `GET /api/dead-letters`, `POST /api/dead-letters/{tag}/replay` | usage batches that were refused, with the cause |
//! | `POST /api/selftest/items` | runs the contract suite on the store of financial items: `{ok, place, checks: [{check, ok, detail}]}` |
//! | `GET /`, `/health`, `/ready`, `/metrics` | console page (holds no data), liveness, readiness, counters |
//!
//! Errors are `{"error": {"code", "message", "fault"}}`; amounts are decimal strings.

mod accounts;
mod admin;
mod books;
mod error;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post, put},
};

use crate::{
    config::Token,
    flow::{books::Reconciler, hub::Hub, live::Live, meters::Meters, tenants::Tenants},
    ports::{billing_store::BillingStore, broker::Broker, items::ScratchItems, wallet_client::WalletClient},
};
use error::ApiError;

/// Largest request body.
const BODY_MAX: usize = 64 * 1024;
/// Longest time for an answer: beyond the longest wait inside (settling and the self-test, 25 s; reconciliation, 10 s + 10 s).
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// What the routes need.
pub struct Api {
    /// Guards `/api`.
    pub token: Token,
    /// Where everything is kept.
    pub store: Arc<dyn BillingStore>,
    /// Histories.
    pub wallet: Arc<dyn WalletClient>,
    /// Dead letters.
    pub broker: Arc<dyn Broker>,
    /// Stores for the self-test of the financial items.
    pub scratch_items: Arc<dyn ScratchItems>,
    /// Held by the self-test that runs.
    pub selftest: tokio::sync::Mutex<()>,
    /// Accounts and tariffs.
    pub tenants: Arc<Tenants>,
    /// What is known now.
    pub hub: Arc<Hub>,
    /// Compares books.
    pub reconciler: Reconciler,
    /// Rates.
    pub live: Arc<Live>,
    /// Counts.
    pub meters: Arc<Meters>,
    /// Longest wait for an account to settle.
    pub settle_wait: Duration,
    /// The wall clock, for stamps.
    pub now: fn() -> String,
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    let guarded = Router::new()
        .route("/accounts", get(accounts::list).post(accounts::create))
        .route("/accounts/{account}", get(accounts::show))
        .route("/accounts/{account}/top-up", post(accounts::top_up))
        .route("/accounts/{account}/status", put(accounts::set_status))
        .route("/accounts/{account}/usage", get(books::usage))
        .route("/accounts/{account}/statement", get(books::statement))
        .route("/tariffs", get(accounts::tariffs))
        .route("/tariffs/{version}", put(accounts::put_tariff))
        .route("/reconcile", get(books::reconcile))
        .route("/live", get(books::live))
        .route("/selftest/items", post(admin::selftest_items))
        .route("/dead-letters", get(admin::dead_letters))
        .route("/dead-letters/{tag}/replay", post(admin::replay))
        .fallback(async || ApiError::not_found("there is no such resource"))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), guard));
    Router::new()
        .route("/", get(console))
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(admin::ready))
        .route("/metrics", get(admin::metrics))
        .nest("/api", guarded)
        .fallback(async || ApiError::not_found("there is no such page"))
        .layer(middleware::from_fn(deadline))
        .with_state(api)
}

/// The console page: static, holds no data; it asks for the token and calls `/api`.
async fn console() -> Response {
    let mut response = Html(include_str!("../../../console/index.html")).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let allowed = text
        .strip_prefix("Bearer ")
        .is_some_and(|token| api.token.matches(token));
    if allowed {
        return next.run(request).await;
    }
    let message = "send `authorization: Bearer …` with the token of this service";
    ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "client", message).into_response()
}

async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {ANSWER_DEADLINE:?}");
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "DEADLINE", "billing", message).into_response()
        }
    }
}
