//! The listener: accepts up to a bound, counts, and stops within a deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::Backends;
use crate::config::{Backend, Config, EncryptionPolicy};
use crate::conn::{Shared, TlsSetup, serve};
use crate::sql::Store;

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
    /// Encryption is forced and there is nothing to encrypt with.
    #[error("encryption `{policy:?}` needs a certificate and its key")]
    NoCertificate {
        /// As configured.
        policy: EncryptionPolicy,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::conn::TlsError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] crate::sql::StoreError),
    /// The start was cut short.
    #[error("the start was cut short")]
    Cut,
}

/// First process id; SQL Server's own users begin here.
const FIRST_SPID: u16 = 51;

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
    let forced = !matches!(
        config.encryption,
        EncryptionPolicy::None | EncryptionPolicy::LoginOnly
    );
    if forced && config.tls.is_none() {
        return Err(StartError::NoCertificate {
            policy: config.encryption,
        });
    }
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
    let backend = config.backend.clone();
    let (directory, files) = (config.data_dir.clone(), config.tls.clone());
    // Files are read and made off the runtime.
    let prepared = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
        let tls = files.as_ref().map(TlsSetup::load).transpose()?;
        let backends = match backend {
            Backend::Sqlite => Backends::Sqlite(Store::open(directory.as_deref())?),
            Backend::Scenario(scenario) => Backends::Scenario(Arc::new(scenario)),
        };
        Ok((tls, backends))
    });
    let (tls, backends) = prepared.await.map_err(|_| StartError::Cut)??;
    let shared = Arc::new(Shared {
        config,
        tls,
        backends,
        stop: running.stop.clone(),
    });
    running.tracker.spawn(accept(
        listener,
        shared,
        Arc::clone(&running.counters),
        running.tracker.clone(),
    ));
    Ok(running)
}

/// Accepts until the stop; a connection above the bound is closed at once.
async fn accept(listener: TcpListener, shared: Arc<Shared>, counters: Arc<Counters>, tracker: TaskTracker) {
    let next_spid = AtomicU16::new(FIRST_SPID);
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: closing connections make room, so let them run.
            tokio::task::yield_now().await;
            continue;
        };
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        if counters.open.load(Ordering::Relaxed) >= shared.config.connections_max as u64 {
            continue;
        }
        let spid = match next_spid.fetch_add(1, Ordering::Relaxed) {
            0 => next_spid.fetch_add(1, Ordering::Relaxed),
            spid => spid,
        };
        counters.open.fetch_add(1, Ordering::Relaxed);
        let (shared, counters) = (Arc::clone(&shared), Arc::clone(&counters));
        tracker.spawn(async move {
            if let Err(error) = serve(stream, spid, shared).await {
                tracing::debug!(spid, %error, "a connection ended");
            }
            counters.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
