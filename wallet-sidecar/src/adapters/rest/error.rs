//! REST errors: `{"error": {"code", "message", "fault"}}` with the status that fits.

use axum::{
    Json,
    extract::rejection::BytesRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{ports::event_store::StoreError, wallet::Refusal, writer::CommandError};

/// Whose fault it is: who must do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fault {
    /// The caller: mend the request.
    Caller,
    /// The service: ask again later with the same key.
    Service,
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    fault: Fault,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: &'a str,
    message: &'a str,
    fault: Fault,
}

impl ApiError {
    fn of_caller(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            fault: Fault::Caller,
        }
    }

    pub(super) fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::of_caller(
            StatusCode::BAD_REQUEST,
            "INVALID_ARGUMENT",
            format!("{field}: {problem}"),
        )
    }

    pub(super) fn key_required() -> Self {
        Self::of_caller(
            StatusCode::BAD_REQUEST,
            "IDEMPOTENCY_KEY_REQUIRED",
            "bring an Idempotency-Key header: the same key never moves money twice",
        )
    }

    pub(super) fn unauthenticated() -> Self {
        Self::of_caller(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            "bring `Authorization: Bearer <token>`",
        )
    }

    pub(super) fn no_such_path() -> Self {
        Self::of_caller(
            StatusCode::NOT_FOUND,
            "NO_SUCH_PATH",
            "there is nothing at this path",
        )
    }

    pub(super) fn wrong_method() -> Self {
        Self::of_caller(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "this path has other methods",
        )
    }

    pub(super) fn late() -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            code: "DEADLINE",
            message: "not answered in time: ask again with the same key".to_owned(),
            fault: Fault::Service,
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "BODY_TOO_LARGE",
            _ => "BODY_UNREADABLE",
        };
        Self::of_caller(rejection.status(), code, rejection.body_text())
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let (status, fault) = match &error {
            CommandError::Refused(refusal) => (status_of(refusal), Fault::Caller),
            CommandError::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, Fault::Caller),
            CommandError::Late => (StatusCode::GATEWAY_TIMEOUT, Fault::Service),
            CommandError::Store(StoreError::Damaged(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Fault::Service)
            }
            CommandError::Stopped | CommandError::Store(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, Fault::Service)
            }
        };
        Self {
            status,
            code: error.code(),
            message: error.to_string(),
            fault,
        }
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::UnknownWallet => StatusCode::NOT_FOUND,
        Refusal::NotPositive | Refusal::OutOfRange | Refusal::OtherCurrency { .. } => StatusCode::BAD_REQUEST,
        Refusal::WalletExists
        | Refusal::Frozen
        | Refusal::Closed
        | Refusal::InsufficientFunds { .. }
        | Refusal::HoldReleased
        | Refusal::TooManyHolds
        | Refusal::NotSettled { .. } => StatusCode::CONFLICT,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body {
            error: Inner {
                code: self.code,
                message: &self.message,
                fault: self.fault,
            },
        };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
