//! The Gate server: translates gRPC into asks of the desk, the hub and the tenants. Everything is behind a bearer token.

use std::{pin::Pin, sync::Arc};

use tokio::sync::{broadcast, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, service::Interceptor};
use weir_contracts::{
    ids::{AccountId, IdError, LeaseId, ProxyId},
    proto::billing::{self as proto, gate_server},
};

use crate::{
    config::Token,
    domain::{lease::Ask, proxies::Registration},
    flow::{
        desk::{Desk, DeskError},
        hub::{Hub, Report, Watching},
        tenants::Tenants,
    },
    ports::{PortError, billing_store::BillingStore},
};

/// Notices under way to one proxy; behind them the hub's own bound counts.
const STREAM_NOTICES_MAX: usize = 64;
/// Longest nonce that is taken down, bytes.
const NONCE_LEN_MAX: usize = 64;

/// Refuses calls without the token.
#[derive(Clone)]
pub struct BearerGuard(pub Token);

impl Interceptor for BearerGuard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization");
        let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text.strip_prefix("Bearer ") {
            Some(token) if self.0.matches(token) => Ok(request),
            _ => Err(Status::unauthenticated("the bearer token is missing or wrong")),
        }
    }
}

/// The gate's side of billing.
pub struct GateServer {
    /// Lends.
    pub desk: Arc<Desk>,
    /// Tells.
    pub hub: Arc<Hub>,
    /// Knows logins.
    pub tenants: Arc<Tenants>,
    /// Remembers starts.
    pub store: Arc<dyn BillingStore>,
    /// Ends streams.
    pub stop: CancellationToken,
    /// Waits for streams.
    pub tasks: TaskTracker,
}

fn bad_id(error: IdError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn port_status(error: &PortError) -> Status {
    match error {
        PortError::Unavailable(..) => Status::unavailable(error.to_string()),
        PortError::Corrupt(..) | PortError::OtherContent(..) | PortError::Settings(..) => {
            Status::internal(error.to_string())
        }
    }
}

fn desk_status(error: &DeskError) -> Status {
    match error {
        DeskError::Start(e) => Status::failed_precondition(e.to_string()),
        DeskError::Ask(e) => Status::invalid_argument(e.to_string()),
        DeskError::Port(e) => port_status(e),
        DeskError::Wallet(_) | DeskError::NoWallet => Status::unavailable(error.to_string()),
    }
}

#[tonic::async_trait]
impl gate_server::Gate for GateServer {
    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterReply>, Status> {
        let message = request.into_inner();
        let proxy: ProxyId = message.proxy.parse().map_err(bad_id)?;
        let long = message.boot_nonce.len().max(message.previous_boot_nonce.len()) > NONCE_LEN_MAX;
        if message.epoch == 0 || message.boot_nonce.is_empty() || long {
            return Err(Status::invalid_argument(
                "epoch and boot_nonce must be given, nonces at most 64 bytes",
            ));
        }
        let start = Registration {
            proxy,
            epoch: message.epoch,
            boot_nonce: message.boot_nonce,
            previous_boot_nonce: message.previous_boot_nonce,
        };
        match self.store.register(start).await.map_err(|e| port_status(&e))? {
            Ok(()) => Ok(Response::new(proto::RegisterReply {})),
            Err(refused) => {
                tracing::error!(%proxy, "a proxy's start is refused: {refused}");
                Err(Status::failed_precondition(refused.to_string()))
            }
        }
    }

    async fn resolve_tenant(
        &self,
        request: Request<proto::ResolveTenantRequest>,
    ) -> Result<Response<proto::ResolveTenantReply>, Status> {
        let login = request.into_inner().login;
        let outcome = self.tenants.resolve(&login).await.map_err(|e| port_status(&e))?;
        Ok(Response::new(proto::ResolveTenantReply {
            outcome: Some(outcome),
        }))
    }

    async fn lease(
        &self,
        request: Request<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaseReply>, Status> {
        let message = request.into_inner();
        let proxy: ProxyId = message.proxy.parse().map_err(bad_id)?;
        let lease: LeaseId = message.lease_id.parse().map_err(bad_id)?;
        let account: AccountId = message.account.parse().map_err(bad_id)?;
        if lease.proxy != proxy {
            return Err(Status::invalid_argument("the lease's id names another proxy"));
        }
        let ask = Ask {
            epoch: message.epoch,
            lease,
            account,
            known_nanos: message.known_grant_nanos,
            want_nanos: message.want_nanos,
        };
        let reply = self.desk.ask(&ask).await.map_err(|e| desk_status(&e))?;
        Ok(Response::new(reply))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::Notice, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let message = request.into_inner();
        let proxy: ProxyId = message.proxy.parse().map_err(bad_id)?;
        let (to_proxy, stream) = mpsc::channel(STREAM_NOTICES_MAX);
        let feed = Feed {
            notices: self.hub.subscribe(),
            watching: self.hub.watching(proxy),
            hub: Arc::clone(&self.hub),
            proxy,
            to_proxy,
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = feed.run() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn report_closed(
        &self,
        request: Request<proto::CloseReport>,
    ) -> Result<Response<proto::CloseReportReply>, Status> {
        let message = request.into_inner();
        let proxy: ProxyId = message.proxy.parse().map_err(bad_id)?;
        let report = Report {
            epoch: message.epoch,
            last_sequence: message.last_sequence,
            busy: message.busy,
        };
        self.hub.report(&message.request_id, proxy, report);
        Ok(Response::new(proto::CloseReportReply {}))
    }
}

/// One proxy's stream: everything once, then each change; after falling behind, everything again.
struct Feed {
    notices: broadcast::Receiver<proto::Notice>,
    hub: Arc<Hub>,
    proxy: ProxyId,
    to_proxy: mpsc::Sender<Result<proto::Notice, Status>>,
    watching: Watching,
}

impl Feed {
    async fn run(mut self) {
        if !self.all().await {
            return;
        }
        loop {
            let next = tokio::select! {
                () = self.to_proxy.closed() => return,
                next = self.notices.recv() => next,
            };
            let open = match next {
                Ok(notice) => self.send(notice).await,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(proxy = %self.proxy, missed, "a proxy is behind: it is told everything anew");
                    self.all().await
                }
                Err(broadcast::error::RecvError::Closed) => false,
            };
            if !open {
                drop(self.watching);
                return;
            }
        }
    }

    async fn all(&self) -> bool {
        for notice in self.hub.snapshot() {
            if !self.send(notice).await {
                return false;
            }
        }
        true
    }

    async fn send(&self, notice: proto::Notice) -> bool {
        self.hub.spares(&notice, self.proxy) || self.to_proxy.send(Ok(notice)).await.is_ok()
    }
}
