//! The `weir-wallet` program: reads the settings, starts the service, stops it on a signal.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use weir_servers::ServerUrl;
use weir_wallet::{
    StartError,
    config::{Config, ConfigError},
};

/// Exit code of a run that failed.
const EXIT_FAILURE: u8 = 1;
/// Exit code of settings that cannot work.
const EXIT_CONFIG: u8 = 2;
/// What is logged unless WEIR_LOG says otherwise. What the broker's client meets comes back as our errors; its own lines would tell each
/// a second time, and some of it is no error (a queue that is yet to be made).
const LOG_DEFAULT: &str = "info,lapin=off";

/// Weir's wallet service: an event-sourced double-entry ledger behind REST and gRPC.
#[derive(Parser)]
#[command(name = "weir-wallet", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run(Settings),
    /// Check the settings and exit (2 when they cannot work).
    Check {
        /// Also connect to every server that is configured and check its settings; changes nothing there.
        #[arg(long)]
        connect: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the settings as they resolve, without secrets.
    PrintConfig(Settings),
}

/// Every key of the config file; a flag wins over its variable, both win over the file.
#[derive(Args)]
struct Settings {
    /// TOML file of settings.
    #[arg(long, env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of the event store and the read model.
    #[arg(long, env = "WEIR_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the REST interface.
    #[arg(long, env = "WEIR_REST_LISTEN")]
    rest_listen: Option<SocketAddr>,
    /// Address of the gRPC interface.
    #[arg(long, env = "WEIR_GRPC_LISTEN")]
    grpc_listen: Option<SocketAddr>,
    /// Bearer token; prefer the variable or --token-file: other users can see a flag.
    #[arg(long, env = "WEIR_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File whose first line is the bearer token.
    #[arg(long, env = "WEIR_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// File of the embedded broker.
    #[arg(long, env = "WEIR_BROKER_PATH")]
    broker_path: Option<PathBuf>,
    /// RabbitMQ in place of the embedded broker; prefer `file:PATH`: other users can see a flag.
    #[arg(long, env = "WEIR_AMQP_URL", hide_env_values = true)]
    amqp_url: Option<ServerUrl>,
    /// PostgreSQL for the event store; prefer `file:PATH`.
    #[arg(long, env = "WEIR_DATABASE_URL", hide_env_values = true)]
    database_url: Option<ServerUrl>,
    /// PostgreSQL schema of the event store.
    #[arg(long, env = "WEIR_DATABASE_SCHEMA")]
    database_schema: Option<String>,
    /// MongoDB for the read model; prefer `file:PATH`.
    #[arg(long, env = "WEIR_MONGODB_URL", hide_env_values = true)]
    mongodb_url: Option<ServerUrl>,
    /// How long a start waits for servers that are away, milliseconds.
    #[arg(long, env = "WEIR_START_WAIT_MS")]
    start_wait_ms: Option<u64>,
}

impl Settings {
    /// The settings as they are told; the files that they name are not read yet.
    fn told(self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path)?,
            None => Config::default(),
        };
        if self.token_file.is_some() {
            config.token.clear();
            config.token_file = self.token_file;
        }
        config.data_dir = self.data_dir.unwrap_or(config.data_dir);
        config.rest_listen = self.rest_listen.unwrap_or(config.rest_listen);
        config.grpc_listen = self.grpc_listen.unwrap_or(config.grpc_listen);
        config.token = self.token.unwrap_or(config.token);
        config.broker_path = self.broker_path.unwrap_or(config.broker_path);
        config.amqp_url = self.amqp_url.or(config.amqp_url);
        config.database_url = self.database_url.or(config.database_url);
        config.database_schema = self.database_schema.unwrap_or(config.database_schema);
        config.mongodb_url = self.mongodb_url.or(config.mongodb_url);
        config.start_wait_ms = self.start_wait_ms.unwrap_or(config.start_wait_ms);
        Ok(config)
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(settings) => match checked(settings) {
            Ok(config) => on_runtime(run(config)),
            Err(e) => fail(EXIT_CONFIG, &e),
        },
        Command::Check { connect, settings } => match checked(settings) {
            Ok(config) if connect => on_runtime(check_servers(config)),
            Ok(_) => ExitCode::SUCCESS,
            Err(e) => fail(EXIT_CONFIG, &e),
        },
        Command::PrintConfig(settings) => match settings.told() {
            Ok(config) => {
                print!("{}", config.shown());
                ExitCode::SUCCESS
            }
            Err(e) => fail(EXIT_CONFIG, &e),
        },
    }
}

fn checked(settings: Settings) -> Result<Config, ConfigError> {
    settings.told()?.resolve()
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("weir-wallet: {error}");
    ExitCode::from(code)
}

/// The operator's fault ends with another code than a failure that may pass.
fn not_started(error: &StartError) -> ExitCode {
    let code = if error.is_configuration() {
        EXIT_CONFIG
    } else {
        EXIT_FAILURE
    };
    fail(code, error)
}

fn on_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| LOG_DEFAULT.into()),
        )
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A driver's thread that hangs must not keep a process that is done.
            runtime.shutdown_background();
            code
        }
        Err(e) => fail(EXIT_FAILURE, &e),
    }
}

/// One line per server; all are asked, whatever the first ones say.
async fn check_servers(config: Config) -> ExitCode {
    let mut worst = ExitCode::SUCCESS;
    for (server, verdict) in weir_wallet::check_servers(&config).await {
        match verdict {
            Ok(()) => println!("{server}: ok"),
            Err(e) => worst = not_started(&e),
        }
    }
    worst
}

async fn run(config: Config) -> ExitCode {
    let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(term), Ok(int)) => (term, int),
        (Err(e), _) | (_, Err(e)) => return fail(EXIT_FAILURE, &e),
    };
    let started = tokio::select! {
        started = weir_wallet::start(config) => started,
        // Told to stop while it waited for a server.
        _ = term.recv() => return ExitCode::SUCCESS,
        _ = int.recv() => return ExitCode::SUCCESS,
    };
    let mut running = match started {
        Ok(running) => running,
        Err(e) => return not_started(&e),
    };
    tracing::info!(rest = %running.rest_addr, grpc = %running.grpc_addr, "weir-wallet ready");
    let failed = tokio::select! {
        _ = term.recv() => false,
        _ = int.recv() => false,
        () = running.failed() => true,
    };
    running.stop().await;
    if failed {
        ExitCode::from(EXIT_FAILURE)
    } else {
        ExitCode::SUCCESS
    }
}
