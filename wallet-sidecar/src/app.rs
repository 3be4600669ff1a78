//! The composition root: opens the stores, binds the listeners, starts the tasks, and stops them in order.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::{Config, ConfigError};

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings cannot work; the operator's to mend.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A directory cannot be made or a port cannot be taken.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, with the address or path.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running service.
pub struct Running {
    /// Where REST listens.
    pub rest_addr: SocketAddr,
    /// Where gRPC listens.
    pub grpc_addr: SocketAddr,
    stop: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Returns when a part of the service has died, so that the service should be stopped and started anew.
    pub async fn failed(&mut self) {
        self.failed.cancelled().await;
    }

    /// Stops: no new calls, those in hand are finished.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts the service: returns when both listeners are bound and the wallets are in memory.
pub async fn start(config: Config) -> Result<Running, StartError> {
    config.check()?;
    let stop = CancellationToken::new();
    let failed = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (_rest, rest_addr) = bind(config.rest_listen).await?;
    let (_grpc, grpc_addr) = bind(config.grpc_listen).await?;
    Ok(Running {
        rest_addr,
        grpc_addr,
        stop,
        failed,
        tasks,
    })
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let io = |source| StartError::Io {
        what: format!("listen on {address}"),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(io)?;
    let bound = listener.local_addr().map_err(io)?;
    Ok((listener, bound))
}
