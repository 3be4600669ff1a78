//! The composition root: binds the listeners, wires adapters to the domain's drivers, and stops them in order.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use tokio::net::TcpListener;
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};
use weir_contracts::proto::billing::{self as proto, gate_server};

use crate::config::{Config, ConfigError};

/// How long `stop` waits for what is under way before it drops it. Everything is durable, so dropping loses no money.
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operator's configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener cannot be bound: taken, or not ours.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

/// The running service.
#[derive(Debug)]
pub struct Running {
    /// Where REST, the console and `/health /ready /metrics` answer.
    pub rest_addr: SocketAddr,
    /// Where the gate's gRPC answers.
    pub grpc_addr: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Stops taking work, lets what is under way end, at most [`STOP_DEADLINE`].
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("billing: still busy after {STOP_DEADLINE:?}, dropped");
        }
    }
}

/// Starts the service; returns when both listeners are bound and it is ready.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let config = config.resolve()?;
    let rest = bind(config.rest_listen).await?;
    let grpc = bind(config.grpc_listen).await?;
    let (rest_addr, grpc_addr) = (
        address(&rest, config.rest_listen),
        address(&grpc, config.grpc_listen),
    );
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let router = axum::Router::new().route("/health", axum::routing::get(async || "ok\n"));
    let until = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        let _ = axum::serve(rest, router).with_graceful_shutdown(until).await;
    });
    let until = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        let _ = tonic::transport::Server::builder()
            .add_service(gate_server::GateServer::new(Stub))
            .serve_with_incoming_shutdown(TcpListenerStream::new(grpc), until)
            .await;
    });
    Ok(Running {
        rest_addr,
        grpc_addr,
        stop,
        tasks,
    })
}

async fn bind(at: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(at).await.map_err(|e| StartError::Listen(at, e))
}

fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

struct Stub;

#[tonic::async_trait]
impl gate_server::Gate for Stub {
    async fn register(
        &self,
        _: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterReply>, Status> {
        Err(Status::unimplemented("soon"))
    }

    async fn resolve_tenant(
        &self,
        _: Request<proto::ResolveTenantRequest>,
    ) -> Result<Response<proto::ResolveTenantReply>, Status> {
        Err(Status::unimplemented("soon"))
    }

    async fn lease(&self, _: Request<proto::LeaseRequest>) -> Result<Response<proto::LeaseReply>, Status> {
        Err(Status::unimplemented("soon"))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::Notice, Status>> + Send>>;

    async fn watch(&self, _: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("soon"))
    }

    async fn report_closed(
        &self,
        _: Request<proto::CloseReport>,
    ) -> Result<Response<proto::CloseReportReply>, Status> {
        Err(Status::unimplemented("soon"))
    }
}
