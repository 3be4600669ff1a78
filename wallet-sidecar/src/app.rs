//! The composition root: takes the opened stores, binds the listeners, starts the tasks, and stops them in order.

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    adapters::{
        grpc::{self, auth::BearerToken},
        rest,
        system_clock::SystemClock,
    },
    config::{Config, ConfigError},
    health::Healths,
    meters::Meters,
    ports::{broker::BrokerError, event_store::StoreError},
    projections::{Projector, Sweep},
    relay::Relay,
    service::{self, Service},
    stores::Opened,
    writer::{self, Board, Desk, Writer},
};

/// Longest wait for calls in hand when the service stops.
pub const STOP_WAIT: Duration = Duration::from_secs(5);

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
    /// The event store or the read model cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker cannot be opened.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A server did not come up in time.
    #[error(
        "waited {} ms for {url} (`{key}`): {cause}; start it or correct the address, or wait longer with `start_wait_ms`",
        waited.as_millis()
    )]
    Away {
        /// The setting with its address.
        key: &'static str,
        /// The address, without secrets.
        url: String,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt met.
        cause: StoreError,
    },
}

impl StartError {
    /// True when somebody must change a configuration: ours or a server's. Trying again does not help.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Store(StoreError::Settings(_)))
    }
}

/// A running service.
pub struct Running {
    /// Where REST listens.
    pub rest_addr: SocketAddr,
    /// Where gRPC listens.
    pub grpc_addr: SocketAddr,
    /// Ends the faces: no new calls.
    stop: CancellationToken,
    /// Ends relay and projector.
    background: CancellationToken,
    failed: CancellationToken,
    faces: TaskTracker,
    tasks: TaskTracker,
    writer: Writer,
    writer_thread: JoinHandle<()>,
    board: Arc<Board>,
}

impl Running {
    /// Returns when a part of the service has died, so that the service should be stopped and started anew.
    pub async fn failed(&mut self) {
        self.failed.cancelled().await;
    }

    /// Stops in order: no new calls, calls in hand answered, commands in hand committed, then relay and projector. What the relay
    /// has not sent is sent by the next start. Bound: [`STOP_WAIT`] for the calls, and as much again for all after them.
    pub async fn stop(self) {
        self.stop.cancel();
        self.board.end_watches();
        self.faces.close();
        if tokio::time::timeout(STOP_WAIT, self.faces.wait()).await.is_err() {
            tracing::warn!("calls still in hand are cut off: the service stops");
        }
        let rest = async {
            self.writer.stop().await;
            // A panic of the writer was reported when it happened.
            let _ = tokio::task::spawn_blocking(move || self.writer_thread.join()).await;
            self.background.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        };
        if tokio::time::timeout(STOP_WAIT, rest).await.is_err() {
            tracing::warn!("the wallet service did not end in time; what was answered is committed");
        }
    }
}

/// Starts the service: returns when both listeners are bound and the wallets are in memory.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let config = config.resolve()?;
    let (rest, rest_addr) = bind(config.rest_listen).await?;
    let (grpc, grpc_addr) = bind(config.grpc_listen).await?;
    let stores = Opened::open(&config).await?;
    let (board, meters) = (Arc::<Board>::default(), Arc::<Meters>::default());
    let desk = desk(&stores, &board, &meters).await?;
    let (stop, background, failed): (CancellationToken, CancellationToken, CancellationToken) =
        Default::default();
    let projected = watch::Sender::new(0);
    let healths = Healths::default();
    let background_parts = Background::of(&stores, &board, &meters, &projected, &healths);
    background_parts.projector.bind().await?;
    let (writer, writer_thread) = Writer::start(desk, failed.clone()).map_err(|source| StartError::Io {
        what: "start the writer's thread".to_owned(),
        source,
    })?;
    let service = Service::new(service::Parts {
        writer: writer.clone(),
        board: Arc::clone(&board),
        store: stores.store,
        read_model: stores.read_model,
        projected: projected.subscribe(),
        healths,
        meters,
    });
    let tasks = TaskTracker::new();
    background_parts.spawn(&tasks, &failed, &background);
    let guard = BearerToken::new(&config.token);
    let faces = TaskTracker::new();
    spawn(
        &faces,
        &failed,
        grpc::serve(grpc, service.clone(), guard.clone(), stop.clone()),
    );
    spawn(&faces, &failed, rest::serve(rest, service, guard, stop.clone()));
    Ok(Running {
        rest_addr,
        grpc_addr,
        stop,
        background,
        failed,
        faces,
        tasks,
        writer,
        writer_thread,
        board,
    })
}

/// What works beside the calls.
struct Background {
    relay: Relay,
    projector: Projector,
    sweep: Sweep,
}

impl Background {
    fn of(
        stores: &Opened,
        board: &Arc<Board>,
        meters: &Arc<Meters>,
        projected: &watch::Sender<u64>,
        healths: &Healths,
    ) -> Self {
        Self {
            relay: Relay {
                store: Arc::clone(&stores.store),
                broker: Arc::clone(&stores.events_out),
                board: Arc::clone(board),
                health: Arc::clone(&healths.relay),
                meters: Arc::clone(meters),
            },
            projector: Projector {
                broker: Arc::clone(&stores.events_in),
                read_model: Arc::clone(&stores.read_model),
                position: projected.clone(),
                health: Arc::clone(&healths.projector),
                meters: Arc::clone(meters),
            },
            sweep: Sweep {
                store: Arc::clone(&stores.store),
                board: Arc::clone(board),
                read_model: Arc::clone(&stores.read_model),
                position: projected.clone(),
                health: Arc::clone(&healths.sweep),
                meters: Arc::clone(meters),
            },
        }
    }

    fn spawn(self, tasks: &TaskTracker, failed: &CancellationToken, stop: &CancellationToken) {
        spawn(tasks, failed, self.relay.run(stop.clone()));
        spawn(tasks, failed, self.projector.run(stop.clone()));
        spawn(tasks, failed, self.sweep.run(stop.clone()));
    }
}

/// Runs a part; its end, also by a panic, before the stop counts as a failure of the service.
fn spawn(tasks: &TaskTracker, failed: &CancellationToken, part: impl Future<Output = ()> + Send + 'static) {
    let ended = failed.clone().drop_guard();
    tasks.spawn(async move {
        let _ended = ended;
        part.await;
    });
}

/// Reads every event, off the runtime.
async fn desk(stores: &Opened, board: &Arc<Board>, meters: &Arc<Meters>) -> Result<Desk, StartError> {
    let parts = writer::Parts {
        store: Arc::clone(&stores.store),
        clock: Arc::new(SystemClock),
        board: Arc::clone(board),
        meters: Arc::clone(meters),
    };
    let opening = tokio::task::spawn_blocking(move || Desk::open(parts));
    let opened = opening.await.map_err(|e| StartError::Io {
        what: "read the events".to_owned(),
        source: e.into(),
    })?;
    Ok(opened?)
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
