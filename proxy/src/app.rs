//! The composition root: configuration in, a running proxy out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, UdpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_tds::prelogin::{Encryption, EncryptionPolicy};

use crate::{
    adapters::{billing_grpc::BillingGrpc, system_clock::SystemClock},
    browser::{self, Browser},
    config::{ClientEncryption, Config, ConfigError, MarsPolicy, UpstreamEncryption},
    credit::{Credit, CreditOptions},
    driver::World,
    journal::{Journal, JournalError, JournalOptions},
    listener, outboxes,
    renewal::{Renewal, Renewals},
    session::{Blocks, MarsOffer, Settings, tally::Tally},
    ship::Shipper,
    tls,
    verifier::Verifier,
};
use weir_tds::browser::Instance;

/// Product version that clients are told in PRELOGIN: 16.0.1000, SQL Server 2022. Drivers read only the major.
const PRODUCT_VERSION: [u8; 6] = [16, 0, 0x03, 0xE8, 0, 0];
/// How long a stop waits for sessions, then for leases, then for the shipper.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Wrong configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The journal cannot be used.
    #[error("data_dir: {0}")]
    Journal(#[from] JournalError),
    /// The outbox cannot be used.
    #[error("outbox_path: {0}")]
    Outbox(String),
    /// A server did not come up in time.
    #[error("{key}: {cause}; waited {waited:?}, start it or correct the address")]
    Away {
        /// Which key names it.
        key: &'static str,
        /// The last attempt's failure, with the address.
        cause: String,
        /// How long (`start_wait_ms`).
        waited: Duration,
    },
    /// A server is set up in a way that breaks a promise, or does not let the proxy in.
    #[error("{key}: {cause}")]
    Server {
        /// Which key names it.
        key: &'static str,
        /// The setting, its value and the remedy.
        cause: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// Billing's address is not one.
    #[error("billing_url: {0}")]
    Billing(String),
    /// The address is taken or not ours.
    #[error("listen: cannot listen on {address}: {error}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
    /// The same for SQL Server Browser requests.
    #[error("browser_listen: cannot listen on {address} (UDP): {error}")]
    Browser {
        /// As configured.
        address: SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
}

impl StartError {
    /// True when the operator must change something; false for what may pass.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Server { .. })
    }
}

/// A running proxy.
pub struct Running {
    /// Where clients connect.
    pub addr: SocketAddr,
    /// Where SQL Server Browser requests are answered.
    pub browser: Option<SocketAddr>,
    stop: CancellationToken,
    abort: CancellationToken,
    sessions: TaskTracker,
    credit: Credit,
    shipper: Shipper,
    journal: Journal,
    tally: Arc<Tally>,
    renewal: Arc<Renewal>,
}

/// Starts the proxy: the journal is recovered, the listener is bound.
///
/// # Errors
/// What keeps it from starting, naming the key to change.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let config = config.checked()?;
    let renewal = Renewal::load(&config)?;
    let settings = settings(&config, &renewal)?;
    tls::warn_of_risks(&config);
    for note in config.login_notes() {
        tracing::warn!("{note}");
    }
    let tally = Arc::clone(&settings.tally);
    // Before the journal, whose opening begins an epoch.
    let outbox = outboxes::open(&config).await?;
    let (dir, options) = (config.data_dir.clone(), JournalOptions::default());
    let opened = tokio::task::spawn_blocking(move || Journal::open(&dir, options)).await;
    let journal = opened.map_err(|e| StartError::Outbox(e.to_string()))??;
    let shipper = Shipper::start(journal.clone(), outbox.of(journal.proxy()));
    let credit = start_credit(&config, &journal).await?;
    let (listener, addr) = listen(config.listen).await?;
    let browser = browser_socket(&config, addr.port()).await?;
    let ready = journal.clone();
    let world = Arc::new(World {
        settings: Arc::new(Settings {
            journal_ready: Box::new(move || ready.healthy()),
            ..settings
        }),
        credit: credit.clone(),
        verifier: Verifier::new().map_err(|_| StartError::Random)?,
        journal: journal.clone(),
        connect_deadline: Duration::from_millis(config.connect_deadline_ms),
        clock: Arc::new(SystemClock),
        tune: listener::tune_server,
    });
    let (stop, abort, sessions) = (
        CancellationToken::new(),
        CancellationToken::new(),
        TaskTracker::new(),
    );
    let accepting = listener::accept(
        listener,
        world,
        config.sessions_max,
        sessions.clone(),
        stop.clone(),
        abort.clone(),
    );
    sessions.spawn(accepting);
    sessions.spawn(Arc::clone(&renewal).watch(stop.clone()));
    let browser = match browser {
        Some((socket, instances)) => {
            let at = socket.local_addr().ok();
            sessions.spawn(browser::serve(socket, Browser::new(instances), stop.clone()));
            at
        }
        None => None,
    };
    sessions.close();
    tracing::info!(%addr, upstream = %config.upstream, "proxy is listening");
    Ok(Running {
        addr,
        browser,
        stop,
        abort,
        sessions,
        credit,
        shipper,
        journal,
        tally,
        renewal,
    })
}

/// Credit leases, from billing.
async fn start_credit(config: &Config, journal: &Journal) -> Result<Credit, StartError> {
    let deadline = Duration::from_millis(config.billing_deadline_ms);
    let billing = BillingGrpc::new(&config.billing_url, config.token.reveal(), deadline)
        .map_err(|e| StartError::Billing(e.to_string()))?;
    let options = CreditOptions {
        deadline,
        idle: Duration::from_millis(config.lease_idle_ms),
        ..CreditOptions::default()
    };
    let credit = Credit::start(options, journal.clone(), Arc::new(billing));
    if let Err(error) = credit.registered().await {
        // Logins are answered by 50503 until billing is there; it is asked again in the background.
        tracing::warn!(%error, "not registered with billing yet");
    }
    Ok(credit)
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let taken = |error| StartError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(taken)?;
    let addr = listener.local_addr().map_err(taken)?;
    Ok((listener, addr))
}

/// The socket for SQL Server Browser requests, and the instances that they are answered with.
async fn browser_socket(
    config: &Config,
    port: u16,
) -> Result<Option<(UdpSocket, Vec<Instance>)>, StartError> {
    let Some(address) = config.browser_listen else {
        return Ok(None);
    };
    let socket = UdpSocket::bind(address).await;
    let socket = socket.map_err(|error| StartError::Browser { address, error })?;
    Ok(Some((socket, config.named_instances(port)?)))
}

fn settings(config: &Config, renewal: &Renewal) -> Result<Settings, ConfigError> {
    Ok(Settings {
        client_policy: match config.client_encryption {
            ClientEncryption::None => EncryptionPolicy::NotSup,
            ClientEncryption::Offered => EncryptionPolicy::Off,
            ClientEncryption::Required => EncryptionPolicy::On,
            ClientEncryption::Strict => EncryptionPolicy::Strict,
        },
        client_tls: renewal.clients(),
        upstream_encryption: match config.upstream_encryption {
            UpstreamEncryption::None => Encryption::NotSup,
            UpstreamEncryption::LoginOnly => Encryption::Off,
            UpstreamEncryption::Full => Encryption::On,
            UpstreamEncryption::Strict => Encryption::Strict,
        },
        upstream_tls: renewal.upstream(),
        auth: config.auth()?,
        upstream_packet_size: Some(config.upstream_packet_size).filter(|size| *size > 0),
        mars: MarsOffer::new(config.mars == MarsPolicy::Offered),
        chunk_bytes: config.chunk_bytes,
        login_deadline: Duration::from_millis(config.login_deadline_ms),
        cut_deadline: Duration::from_millis(config.cut_deadline_ms),
        upload_idle: Duration::from_millis(config.upload_idle_ms),
        gate_name: config.gate_name.clone(),
        blocks: Blocks::default(),
        tally: Arc::default(),
        product_version: PRODUCT_VERSION,
        journal_ready: Box::new(|| true),
    })
}

impl Running {
    /// What sessions could not read since the start.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Reads certificates, keys and authorities again, as SIGHUP asks for; files that have changed are read without being
    /// asked. New sessions use what is read; if it cannot be used, that is logged and counted, and what was there stays.
    pub async fn renew_tls(&self) {
        let renewal = Arc::clone(&self.renewal);
        if let Err(error) = tokio::task::spawn_blocking(move || renewal.renew()).await {
            tracing::error!(%error, "certificates");
        }
    }

    /// How often TLS was renewed, or could not be.
    #[must_use]
    pub fn renewals(&self) -> tokio::sync::watch::Receiver<Renewals> {
        self.renewal.counts()
    }

    /// Stops in order: no new clients, sessions end, leases are closed, the journal is shipped as far as it goes.
    pub async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(STOP_DEADLINE, self.sessions.wait()).await;
        if ended.is_err() {
            tracing::warn!("sessions were still open at the deadline; dropped, and booked as interrupted");
            self.abort.cancel();
            let _ = tokio::time::timeout(STOP_DEADLINE, self.sessions.wait()).await;
        }
        self.credit.stop(STOP_DEADLINE).await;
        if let Err(error) = self.journal.flush().await {
            tracing::error!(%error, "journal");
        }
        self.shipper.stop(STOP_DEADLINE).await;
    }
}
