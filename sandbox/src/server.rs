//! The listener: accepts up to a bound, counts, and stops within a deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;

/// How long `stop` waits for connections to end by themselves.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why a sandbox could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on: in use, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A sandbox that runs until `stop`.
#[derive(Debug)]
pub struct Running {
    /// The bound address.
    pub addr: SocketAddr,
    stop: CancellationToken,
    tracker: TaskTracker,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicU64,
}

impl Running {
    /// Connections accepted since the start.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// Stops listening, closes every connection, and returns when all are gone or after 5 s.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(STOP_DEADLINE, self.tracker.wait()).await;
    }
}

/// Starts a sandbox; it is ready for connections when this returns.
///
/// # Errors
/// The listener cannot be bound, the certificate cannot be read, or the data directory cannot be written.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let bound = TcpListener::bind(config.listen).await;
    let listener = bound.map_err(|source| StartError::Listen {
        address: config.listen,
        source,
    })?;
    let addr = listener.local_addr().map_err(|source| StartError::Listen {
        address: config.listen,
        source,
    })?;
    let running = Running {
        addr,
        stop: CancellationToken::new(),
        tracker: TaskTracker::new(),
        counters: Arc::new(Counters::default()),
    };
    let (stop, counters) = (running.stop.clone(), Arc::clone(&running.counters));
    running.tracker.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, _)) = accepted {
                counters.accepted.fetch_add(1, Ordering::Relaxed);
                serve(stream);
            }
        }
    });
    Ok(running)
}

fn serve(stream: TcpStream) {
    drop(stream);
}
