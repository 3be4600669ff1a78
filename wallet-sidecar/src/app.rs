//! The composition root: opens the stores, binds the listeners, starts the tasks, and stops them in order.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    adapters::{
        embedded_broker::EmbeddedBroker,
        grpc::{self, auth::BearerToken},
        rest,
        sqlite::{SqliteEventStore, SqliteReadModel},
        system_clock::SystemClock,
    },
    config::{Config, ConfigError},
    health::Healths,
    meters::Meters,
    ports::{broker::BrokerError, event_store::StoreError},
    projections::{Projector, Sweep},
    relay::Relay,
    service::{self, Service},
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
    let paths = Paths::of(&config);
    let stores = tokio::task::spawn_blocking(move || Stores::open(&paths))
        .await
        .map_err(|e| StartError::Io {
            what: "open the stores".to_owned(),
            source: e.into(),
        })??;
    let (stop, background, failed): (CancellationToken, CancellationToken, CancellationToken) =
        Default::default();
    let projected = watch::Sender::new(0);
    let healths = Healths::default();
    let background_parts = Background::of(&stores, &projected, &healths);
    background_parts.projector.bind().await?;
    let board = Arc::clone(&stores.board);
    let (writer, writer_thread) =
        Writer::start(stores.desk, failed.clone()).map_err(|source| StartError::Io {
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
        meters: stores.meters,
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
    fn of(stores: &Stores, projected: &watch::Sender<u64>, healths: &Healths) -> Self {
        Self {
            relay: Relay {
                store: stores.store.clone(),
                broker: Arc::new(stores.broker.clone()),
                board: Arc::clone(&stores.board),
                health: Arc::clone(&healths.relay),
                meters: Arc::clone(&stores.meters),
            },
            projector: Projector {
                broker: Arc::new(stores.broker.clone()),
                read_model: stores.read_model.clone(),
                position: projected.clone(),
                health: Arc::clone(&healths.projector),
                meters: Arc::clone(&stores.meters),
            },
            sweep: Sweep {
                store: stores.store.clone(),
                board: Arc::clone(&stores.board),
                read_model: stores.read_model.clone(),
                position: projected.clone(),
                health: Arc::clone(&healths.sweep),
                meters: Arc::clone(&stores.meters),
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

struct Paths {
    data_dir: PathBuf,
    broker: PathBuf,
}

impl Paths {
    fn of(config: &Config) -> Self {
        Self {
            data_dir: config.data_dir.clone(),
            broker: config.broker_path.clone(),
        }
    }
}

struct Stores {
    store: Arc<SqliteEventStore>,
    read_model: Arc<SqliteReadModel>,
    broker: EmbeddedBroker,
    board: Arc<Board>,
    meters: Arc<Meters>,
    desk: Desk,
}

impl Stores {
    /// Blocks: opens the files and reads every event.
    fn open(paths: &Paths) -> Result<Self, StartError> {
        make_private_dir(&paths.data_dir)?;
        if let Some(parent) = paths.broker.parent() {
            // Shared with the other services: as the system makes directories.
            std::fs::create_dir_all(parent).map_err(|source| not_made(parent, source))?;
        }
        let store = Arc::new(SqliteEventStore::open(&paths.data_dir.join("events.db"))?);
        let read_model = Arc::new(SqliteReadModel::open(&paths.data_dir.join("read-model.db"))?);
        let broker = EmbeddedBroker::open(&paths.broker)?;
        let (board, meters) = (Arc::<Board>::default(), Arc::<Meters>::default());
        let desk = Desk::open(writer::Parts {
            store: store.clone(),
            clock: Arc::new(SystemClock),
            board: Arc::clone(&board),
            meters: Arc::clone(&meters),
        })?;
        Ok(Self {
            store,
            read_model,
            broker,
            board,
            meters,
            desk,
        })
    }
}

/// Balances are nobody else's business, so the directory is ours alone; one that exists keeps its mode.
fn make_private_dir(path: &Path) -> Result<(), StartError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| not_made(path, source))
}

fn not_made(path: &Path, source: std::io::Error) -> StartError {
    StartError::Io {
        what: format!("make the directory {}", path.display()),
        source,
    }
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
