//! REST errors: a status, a code for programs, a message for people, and whose fault it is.

use axum::{
    Json,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    flow::{books::BooksError, settled::NotSettled, tenants::TenantError},
    ports::{PortError, wallet_client::WalletError},
};

/// An error as REST tells it.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// `client`, `billing` or `wallet`.
    fault: &'static str,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        fault: &'static str,
        message: impl ToString,
    ) -> Self {
        Self {
            status,
            code,
            message: message.to_string(),
            fault,
        }
    }

    pub(super) fn invalid(message: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID", "client", message)
    }

    pub(super) fn not_found(message: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "client", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = json!({ "code": self.code, "message": self.message, "fault": self.fault });
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        let (status, code) = match &error {
            PortError::Unavailable(..) => (StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE"),
            PortError::Corrupt(..) => (StatusCode::INTERNAL_SERVER_ERROR, "STORE_CORRUPT"),
            PortError::OtherContent(..) => (StatusCode::CONFLICT, "OTHER_CONTENT"),
            PortError::Settings(..) => (StatusCode::INTERNAL_SERVER_ERROR, "STORE_SETTINGS"),
        };
        Self::new(status, code, "billing", error)
    }
}

impl From<WalletError> for ApiError {
    fn from(error: WalletError) -> Self {
        let (status, code, fault) = match &error {
            WalletError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "WALLET_UNAVAILABLE", "wallet"),
            WalletError::OtherContent(_) => (StatusCode::UNPROCESSABLE_ENTITY, "KEY_REUSED", "client"),
            WalletError::NotFound(_) => (StatusCode::NOT_FOUND, "WALLET_NOT_FOUND", "wallet"),
            WalletError::Refused(_) => (StatusCode::CONFLICT, "WALLET_REFUSED", "client"),
        };
        Self::new(status, code, fault, error)
    }
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::Unknown(_) => Self::not_found(error),
            TenantError::Exists(_) => Self::new(StatusCode::CONFLICT, "EXISTS", "client", error),
            TenantError::Invalid(_) => Self::invalid(error),
            TenantError::Wallet(e) => e.into(),
            TenantError::Port(e) => e.into(),
        }
    }
}

impl From<BooksError> for ApiError {
    fn from(error: BooksError) -> Self {
        match error {
            BooksError::Port(e) => e.into(),
            BooksError::Wallet(e) => e.into(),
        }
    }
}

impl From<NotSettled> for ApiError {
    fn from(error: NotSettled) -> Self {
        match error {
            NotSettled::Missing { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "NOT_SETTLED", "billing", error)
            }
            NotSettled::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", "billing", error),
            NotSettled::Port(e) => e.into(),
        }
    }
}

/// A JSON body whose errors are told like all others.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = axum::body::Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|e| ApiError::new(e.status(), "BODY", "client", e.body_text()))?;
        let value =
            serde_json::from_slice(&bytes).map_err(|e| ApiError::invalid(format!("the body: {e}")))?;
        Ok(Self(value))
    }
}
