//! `weir demo`: all of Weir in one process on embedded defaults, until SIGINT or SIGTERM.

mod banner;
pub(crate) mod directory;
mod ports;
pub(crate) mod services;
mod tenant;
pub(crate) mod tls;

use std::{io::Write, path::PathBuf, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use self::{directory::Directory, services::Services};
use crate::cli::DemoArgs;

/// Longest the whole stop may take; each service has a deadline of its own, this one bounds their sum.
const STOP_DEADLINE: Duration = Duration::from_secs(25);
/// How long the runtime's blocking threads may end what they do (a SQLite commit).
pub(crate) const BLOCKING_DEADLINE: Duration = Duration::from_secs(3);

/// Why the demo did not start or did not stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// Something of the directory.
    #[error(transparent)]
    Directory(#[from] directory::DirectoryError),
    /// An address that a flag names cannot be listened on.
    #[error(transparent)]
    Port(#[from] ports::PortError),
    /// A service did not start.
    #[error("{service} did not start: {cause}")]
    Start {
        /// Which service.
        service: &'static str,
        /// What it said.
        cause: String,
    },
    /// The demo tenant could not be made.
    #[error("the demo tenant could not be made: {0}")]
    Tenant(#[from] crate::client::ClientError),
    /// A service ended while it was needed.
    #[error("{0} ended by itself; start the demo again, it continues where it was")]
    Ended(&'static str),
    /// Signals, threads or standard output cannot be had.
    #[error("cannot run the demo: {0}")]
    System(#[from] std::io::Error),
    /// The stop took longer than its deadline.
    #[error(
        "the stop took longer than {STOP_DEADLINE:?}; nothing is lost, the journal is read at the next start"
    )]
    SlowStop,
}

impl DemoError {
    /// True when the caller can put it right by other flags.
    pub(crate) fn is_config(&self) -> bool {
        matches!(self, Self::Directory(_) | Self::Port(_))
    }
}

/// Starts everything, prints how to connect, and runs until SIGINT or SIGTERM.
pub(crate) fn run(args: &DemoArgs, data_dir: Option<PathBuf>) -> Result<(), DemoError> {
    log_to_stderr();
    let directory = Directory::open(data_dir)?;
    let tls = tls::certificate(directory.path())?;
    ports::check(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(args, &directory, &tls));
    runtime.shutdown_timeout(BLOCKING_DEADLINE);
    outcome
}

/// Signals are listened for before anything starts, so that a stop in mid-start is a clean one, too.
async fn serve(args: &DemoArgs, directory: &Directory, tls: &tls::Files) -> Result<(), DemoError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut services = Services::default();
    let started = tokio::select! {
        started = start(&mut services, args, directory, tls) => Some(started),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    let outcome = match started {
        Some(Ok(running)) => {
            let outcome = tokio::select! {
                ended = services.ended() => Err(DemoError::Ended(ended)),
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
            };
            running.remove();
            outcome
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    let stopped = tokio::time::timeout(STOP_DEADLINE, services.stop()).await;
    outcome.and(stopped.map_err(|_| DemoError::SlowStop))
}

/// Starts the services, makes the tenant, says where everything is, and that it is ready.
async fn start(
    services: &mut Services,
    args: &DemoArgs,
    directory: &Directory,
    tls: &tls::Files,
) -> Result<crate::running::Running, DemoError> {
    let running = services.start(args, directory, tls).await?;
    let credit = (args.credit, running.server(), directory.token().to_owned());
    let tenant = tokio::task::spawn_blocking(move || {
        let (credit, server, token) = credit;
        tenant::ensure(&crate::client::Client::new(&server, &token), credit)
    });
    let account = tenant.await.map_err(std::io::Error::other)??;
    running.write().map_err(directory::unusable(directory.path()))?;
    let text = banner::text(&running, directory.token(), &account);
    let mut out = std::io::stdout().lock();
    // Who started us may have closed the pipe: the demo runs on.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(running)
}

/// Warnings and errors by default; `WEIR_LOG=info` or a filter such as `weir_proxy=debug` shows more.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init();
}
