//! The composition root: takes the opened stores, binds listeners, wires adapters to the drivers, and stops them in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Notify};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_contracts::{event::USAGE_TOPIC, proto::billing::gate_server};

use crate::{
    adapters::{Api, BearerGuard, GateServer, WalletGrpc, WalletRest, now, router},
    config::{Config, ConfigError},
    flow::{
        books::Reconciler,
        desk::Desk,
        hub::Hub,
        live::{self, Live},
        meters::Meters,
        rater::{RATING_QUEUE, Rater},
        relay::Relay,
        settler::Settler,
        tenants::Tenants,
        wallet_watch,
    },
    ports::{
        PortError,
        wallet_client::{ReadModel, WalletClient},
    },
    stores::Opened,
};

/// How long `stop` waits for what is under way before it drops it. Everything is durable, so dropping loses no money.
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long `start` waits for the wallet to tell the balances. It does not need them; who lists accounts at once does.
const BALANCES_WAIT: Duration = Duration::from_secs(1);
/// Connections that die silently are noticed this soon, so that a proxy that is gone stops counting as watching.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operator's configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener cannot be bound: taken, or not ours.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The data directory cannot be made.
    #[error("cannot make {0}: {1}")]
    Directory(std::path::PathBuf, std::io::Error),
    /// A store cannot be opened.
    #[error(transparent)]
    Store(#[from] PortError),
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
        cause: PortError,
    },
    /// Opening the stores ended by itself.
    #[error("opening the stores ended: {0}")]
    Opening(String),
}

impl StartError {
    /// True when somebody must change a configuration: ours or a server's. Trying again does not help.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Store(PortError::Settings(..)))
    }
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
    let opened = Opened::open(&config).await?;
    let rest = bind(config.rest_listen).await?;
    let grpc = bind(config.grpc_listen).await?;
    let running = Running {
        rest_addr: rest.local_addr().unwrap_or(config.rest_listen),
        grpc_addr: grpc.local_addr().unwrap_or(config.grpc_listen),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    opened.broker.bind(RATING_QUEUE, USAGE_TOPIC).await?;
    let parts = Parts {
        wallet: Arc::new(WalletGrpc::new(&config)?),
        opened,
        hub: Arc::default(),
        meters: Arc::default(),
        live: Arc::default(),
        config,
    };
    let tenants = parts.tenants();
    tenants.load().await?;
    parts.spawn_drivers(&running);
    if tokio::time::timeout(BALANCES_WAIT, parts.balances())
        .await
        .is_err()
    {
        tracing::warn!("the wallet has not told all balances yet; starting without");
    }
    parts.spawn_servers(&running, tenants, rest, grpc);
    Ok(running)
}

async fn bind(at: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(at).await.map_err(|e| StartError::Listen(at, e))
}

/// Everything that more than one driver needs.
struct Parts {
    config: Config,
    opened: Opened,
    wallet: Arc<dyn WalletClient>,
    hub: Arc<Hub>,
    meters: Arc<Meters>,
    live: Arc<Live>,
}

impl Parts {
    fn tenants(&self) -> Arc<Tenants> {
        Arc::new(Tenants {
            store: Arc::clone(&self.opened.store),
            wallet: Arc::clone(&self.wallet),
            hub: Arc::clone(&self.hub),
        })
    }

    /// Returns when every wallet's state is known.
    async fn balances(&self) {
        let mut progress = self.hub.progress();
        loop {
            progress.mark_unchanged();
            if self.hub.accounts().iter().all(|view| view.wallet.is_some()) {
                return;
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    fn spawn_drivers(&self, running: &Running) {
        let Opened {
            store,
            items,
            broker,
            outboxes,
            ..
        } = &self.opened;
        let (tasks, stop) = (&running.tasks, &running.stop);
        let charged = Arc::new(Notify::new());
        for outbox in outboxes {
            let relay = Relay {
                outbox: Arc::clone(outbox),
                broker: Arc::clone(broker),
                meters: Arc::clone(&self.meters),
            };
            tasks.spawn(relay.run(stop.clone()));
        }
        let rater = Rater {
            broker: Arc::clone(broker),
            store: Arc::clone(store),
            hub: Arc::clone(&self.hub),
            meters: Arc::clone(&self.meters),
            charged: Arc::clone(&charged),
            now,
        };
        tasks.spawn(rater.run(stop.clone()));
        let settler = Settler {
            store: Arc::clone(store),
            wallet: Arc::clone(&self.wallet),
            items: Arc::clone(items),
            hub: Arc::clone(&self.hub),
            meters: Arc::clone(&self.meters),
            charged,
        };
        tasks.spawn(settler.run(stop.clone()));
        tasks.spawn(wallet_watch::run(
            Arc::clone(&self.wallet),
            Arc::clone(&self.hub),
            Arc::clone(&self.meters),
            stop.clone(),
        ));
        let live = Arc::clone(&self.live);
        tasks.spawn(live::run(live, Arc::clone(store), outboxes.clone(), stop.clone()));
    }

    fn spawn_servers(&self, running: &Running, tenants: Arc<Tenants>, rest: TcpListener, grpc: TcpListener) {
        let (tasks, stop) = (&running.tasks, &running.stop);
        let gate = self.gate(running, Arc::clone(&tenants));
        let guard = BearerGuard(self.config.token.clone());
        let until = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            let served = tonic::transport::Server::builder()
                .tcp_nodelay(true)
                .http2_keepalive_interval(Some(PING_EVERY))
                .http2_keepalive_timeout(Some(PING_EVERY))
                .add_service(gate_server::GateServer::with_interceptor(gate, guard))
                .serve_with_incoming_shutdown(TcpListenerStream::new(grpc), until)
                .await;
            if let Err(e) = served {
                tracing::error!("the gate's gRPC ended: {e}");
            }
        });
        let routes = router(self.api(tenants));
        let until = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            if let Err(e) = axum::serve(rest, routes).with_graceful_shutdown(until).await {
                tracing::error!("REST ended: {e}");
            }
        });
    }

    fn gate(&self, running: &Running, tenants: Arc<Tenants>) -> GateServer {
        let desk = Desk {
            store: Arc::clone(&self.opened.store),
            wallet: Arc::clone(&self.wallet),
            hub: Arc::clone(&self.hub),
            meters: Arc::clone(&self.meters),
            config: self.config.lease.clone(),
        };
        GateServer {
            desk: Arc::new(desk),
            hub: Arc::clone(&self.hub),
            tenants,
            store: Arc::clone(&self.opened.store),
            stop: running.stop.clone(),
            tasks: running.tasks.clone(),
        }
    }

    fn api(&self, tenants: Arc<Tenants>) -> Arc<Api> {
        let read_model = self.config.wallet_rest_url.as_ref().map(|url| {
            let rest: Arc<dyn ReadModel> = Arc::new(WalletRest::new(url, self.config.token.clone()));
            rest
        });
        let reconciler = Reconciler {
            store: Arc::clone(&self.opened.store),
            wallet: Arc::clone(&self.wallet),
            read_model,
            items: Arc::clone(&self.opened.items),
            broker: Arc::clone(&self.opened.broker),
            hub: Arc::clone(&self.hub),
            meters: Arc::clone(&self.meters),
        };
        Arc::new(Api {
            token: self.config.token.clone(),
            store: Arc::clone(&self.opened.store),
            wallet: Arc::clone(&self.wallet),
            broker: Arc::clone(&self.opened.broker),
            scratch_items: Arc::clone(&self.opened.scratch_items),
            selftest: tokio::sync::Mutex::new(()),
            tenants,
            hub: Arc::clone(&self.hub),
            reconciler,
            live: Arc::clone(&self.live),
            meters: Arc::clone(&self.meters),
            settle_wait: Duration::from_millis(u64::from(self.config.settle_wait_ms)),
            now,
        })
    }
}
