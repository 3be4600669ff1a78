//! Billing over gRPC: the port's types to protobuf and back, the bearer token, and what each status code means.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use weir_contracts::{
    ids::ProxyId,
    proto::billing::{self as wire, gate_client::GateClient, lease_reply, notice, resolve_tenant_reply},
};

use crate::ports::billing::{
    Billing, BillingError, CloseReport, Cut, Denial, DenialReason, LeaseAnswer, LeaseAsk, Login, Mode,
    Notice, Resolved, Start, Terms,
};

/// A connection attempt takes at most this.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// A silent connection is probed this often, and given up after as long without an answer: a vanished peer must not look like no news.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Why the client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BillingConfigError {
    /// Not a URL.
    #[error("billing URL `{0}`: write it like http://127.0.0.1:3006")]
    Url(String),
    /// The token has characters that no header can carry.
    #[error("the billing token holds characters that a header cannot carry")]
    Token,
}

/// A client that connects when it is first used, and again whenever the connection is lost.
#[derive(Clone)]
pub struct BillingGrpc {
    client: GateClient<Channel>,
    token: Option<MetadataValue<Ascii>>,
    limit: Duration,
}

impl std::fmt::Debug for BillingGrpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BillingGrpc")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl BillingGrpc {
    /// A client of `url`, which sends `token` with each call and waits at most `limit` for each answer. Needs a runtime.
    ///
    /// # Errors
    /// The URL or the token cannot be used at all; that billing is away is no error here.
    pub fn new(url: &str, token: &str, limit: Duration) -> Result<Self, BillingConfigError> {
        let endpoint =
            Endpoint::from_shared(url.to_owned()).map_err(|_| BillingConfigError::Url(url.to_owned()))?;
        let channel = endpoint
            .connect_timeout(CONNECT_LIMIT.min(limit))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        let token = if token.is_empty() {
            None
        } else {
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
                .parse()
                .map_err(|_| BillingConfigError::Token)?;
            value.set_sensitive(true);
            Some(value)
        };
        Ok(Self {
            client: GateClient::new(channel),
            token,
            limit,
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    /// As [`Self::request`], with the deadline of one answer.
    fn call<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(self.limit);
        request
    }
}

fn failed(status: Status) -> BillingError {
    match status.code() {
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
            BillingError::Refused(status.message().to_owned())
        }
        code => BillingError::Unavailable(format!("{code}: {}", status.message())),
    }
}

fn strange(what: &str) -> BillingError {
    BillingError::Unavailable(format!(
        "billing answered something this proxy does not understand: {what}"
    ))
}

fn terms(terms: wire::Terms) -> Result<Terms, BillingError> {
    let mode = match terms.mode() {
        wire::Mode::Observe => Mode::Observe,
        wire::Mode::Enforce => Mode::Enforce,
        wire::Mode::Unspecified => return Err(strange("terms without a mode")),
    };
    let cut = match terms.cut() {
        wire::Cut::AtRow | wire::Cut::Unspecified => Cut::AtRow,
        wire::Cut::AtResult => Cut::AtResult,
        wire::Cut::Close => Cut::Close,
    };
    Ok(Terms {
        account: terms.account.parse().map_err(|_| strange("an account name"))?,
        currency: terms.currency.parse().map_err(|_| strange("a currency"))?,
        mode,
        cut,
        tariff: Arc::new(
            terms
                .tariff
                .ok_or_else(|| strange("terms without a tariff"))?
                .into(),
        ),
        row_credit_bytes: terms.row_credit_bytes,
    })
}

fn denial(denial: wire::Denial) -> Denial {
    let reason = match denial.reason() {
        wire::DenialReason::Frozen => DenialReason::Frozen,
        wire::DenialReason::UnknownAccount => DenialReason::UnknownAccount,
        wire::DenialReason::LeaseClosed => DenialReason::LeaseClosed,
        // A reason of a newer version is still a refusal.
        wire::DenialReason::CreditSpent | wire::DenialReason::Unspecified => DenialReason::CreditSpent,
    };
    Denial {
        reason,
        message: denial.message,
        balance: denial.balance,
        available: denial.available,
        currency: denial.currency,
    }
}

fn notice(notice: wire::Notice) -> Result<Notice, BillingError> {
    match notice.what.ok_or_else(|| strange("an empty notice"))? {
        notice::What::Account(state) => Ok(Notice::Account {
            account: state.account.parse().map_err(|_| strange("an account name"))?,
            frozen: state.frozen,
            balance: state.balance,
            available: state.available,
            terms: state.terms.map(terms).transpose()?,
        }),
        notice::What::CloseLeases(close) => Ok(Notice::CloseLeases {
            account: close.account.parse().map_err(|_| strange("an account name"))?,
            request_id: close.request_id,
        }),
        notice::What::Confirm(confirm) => Ok(Notice::Confirm {
            account: confirm.account.parse().map_err(|_| strange("an account name"))?,
            request_id: confirm.request_id,
        }),
    }
}

impl Billing for BillingGrpc {
    fn register(&self, start: Start) -> BoxFuture<'_, Result<(), BillingError>> {
        let message = wire::RegisterRequest {
            proxy: start.proxy.to_string(),
            epoch: start.epoch,
            boot_nonce: start.boot_nonce.to_string(),
            previous_boot_nonce: start
                .previous_boot_nonce
                .map_or_else(String::new, |n| n.to_string()),
        };
        async move {
            self.client
                .clone()
                .register(self.call(message))
                .await
                .map_err(failed)?;
            Ok(())
        }
        .boxed()
    }

    fn resolve_tenant(&self, login: Login) -> BoxFuture<'_, Result<Resolved, BillingError>> {
        let message = wire::ResolveTenantRequest {
            login: login.login,
            database: login.database,
            application: login.application,
            server: login.server,
        };
        async move {
            let reply = self
                .client
                .clone()
                .resolve_tenant(self.call(message))
                .await
                .map_err(failed)?;
            match reply.into_inner().outcome.ok_or_else(|| strange("no outcome"))? {
                resolve_tenant_reply::Outcome::Terms(found) => Ok(Resolved::Terms(terms(found)?)),
                resolve_tenant_reply::Outcome::Unknown(unknown) => Ok(Resolved::Unknown(unknown.message)),
            }
        }
        .boxed()
    }

    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'_, Result<LeaseAnswer, BillingError>> {
        let message = wire::LeaseRequest {
            proxy: ask.lease.proxy.to_string(),
            epoch: ask.lease.epoch,
            account: ask.account.to_string(),
            lease_id: ask.lease.to_string(),
            known_grant_nanos: ask.known_grant_nanos,
            want_nanos: ask.want_nanos,
        };
        async move {
            let reply = self
                .client
                .clone()
                .lease(self.call(message))
                .await
                .map_err(failed)?;
            match reply.into_inner().outcome.ok_or_else(|| strange("no outcome"))? {
                lease_reply::Outcome::Denial(refusal) => Ok(LeaseAnswer::Denial(denial(refusal))),
                lease_reply::Outcome::Grant(grant) if grant.lease_id != ask.lease.to_string() => {
                    Err(strange("a grant under another lease"))
                }
                lease_reply::Outcome::Grant(grant) => Ok(LeaseAnswer::Grant {
                    granted_total_nanos: grant.granted_total_nanos,
                    terms: terms(grant.terms.ok_or_else(|| strange("a grant without terms"))?)?,
                    valid: Duration::from_millis(u64::from(grant.valid_ms)),
                }),
            }
        }
        .boxed()
    }

    fn watch(
        &self,
        proxy: ProxyId,
        epoch: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Notice, BillingError>>, BillingError>> {
        let message = wire::WatchRequest {
            proxy: proxy.to_string(),
            epoch,
        };
        async move {
            let stream = self
                .client
                .clone()
                .watch(self.request(message))
                .await
                .map_err(failed)?;
            let notices = stream
                .into_inner()
                .map(|told| told.map_err(failed).and_then(notice));
            Ok(notices.boxed())
        }
        .boxed()
    }

    fn report_closed(
        &self,
        proxy: ProxyId,
        epoch: u64,
        report: CloseReport,
    ) -> BoxFuture<'_, Result<(), BillingError>> {
        let message = wire::CloseReport {
            request_id: report.request_id,
            proxy: proxy.to_string(),
            epoch,
            account: report.account.to_string(),
            last_sequence: report.last_sequence,
            busy: report.busy,
        };
        async move {
            self.client
                .clone()
                .report_closed(self.call(message))
                .await
                .map_err(failed)?;
            Ok(())
        }
        .boxed()
    }
}
