//! The `weir-billing` program: flags, environment and file → [`Config`]; runtime, signals, exit codes; nothing else.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
#[cfg(feature = "servers")]
use weir_billing::adapters::sqlserver_items::{Statement, Table};
use weir_billing::{Config, ConfigError, StartError, Token};
use weir_servers::ServerUrl;

/// Exit code of a failure at run time.
const EXIT_FAILURE: u8 = 1;
/// Exit code of wrong usage or configuration.
const EXIT_CONFIG: u8 = 2;

/// What is logged unless WEIR_LOG says otherwise. What the drivers meet comes back as our errors, with the setting to mend; their
/// own lines would tell each a second time, and some of it is no error (a queue that is yet to be made).
const LOG_DEFAULT: &str = "info,lapin=off,tiberius=error";

#[derive(Parser)]
#[command(
    name = "weir-billing",
    version,
    about = "Credit leases, rating, financial items and the console of Weir"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run,
    /// Check the configuration and say what is wrong with it.
    Check {
        /// Also connect to every server that is configured and check its settings; changes nothing there.
        #[arg(long)]
        connect: bool,
    },
    /// Print the configuration that `run` would use, without secrets.
    PrintConfig,
    /// Print the T-SQL that is sent for the financial items: to review it, or to make the table under another login.
    #[cfg(feature = "servers")]
    ItemsSql,
}

/// Each overrides the file's key of the same name.
#[derive(Args)]
struct Options {
    /// TOML file with any of the keys that `print-config` shows.
    #[arg(long, global = true, env = "WEIR_BILLING_CONFIG")]
    config: Option<PathBuf>,
    #[arg(long, global = true, env = "WEIR_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[arg(long, global = true, env = "WEIR_REST_LISTEN")]
    rest_listen: Option<SocketAddr>,
    #[arg(long, global = true, env = "WEIR_GRPC_LISTEN")]
    grpc_listen: Option<SocketAddr>,
    /// Better given as a file: flags can be read by other users.
    #[arg(long, global = true, env = "WEIR_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[arg(long, global = true, env = "WEIR_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[arg(long, global = true, env = "WEIR_WALLET_URL")]
    wallet_url: Option<String>,
    #[arg(long, global = true, env = "WEIR_WALLET_REST_URL")]
    wallet_rest_url: Option<String>,
    /// May be given several times; in the variable separated by `:`.
    #[arg(
        long = "outbox-path",
        global = true,
        env = "WEIR_OUTBOX_PATHS",
        value_delimiter = ':'
    )]
    outbox_paths: Vec<PathBuf>,
    #[arg(long, global = true, env = "WEIR_BROKER_PATH")]
    broker_path: Option<PathBuf>,
    /// redis://… with the proxies' outboxes; this and the next three also as file:PATH of a file that holds the address.
    #[arg(long, global = true, env = "WEIR_REDIS_URL", hide_env_values = true)]
    redis_url: Option<ServerUrl>,
    /// What the keys in Redis begin with.
    #[arg(long, global = true, env = "WEIR_REDIS_PREFIX")]
    redis_prefix: Option<String>,
    /// amqp://… of RabbitMQ, with the virtual host.
    #[arg(long, global = true, env = "WEIR_AMQP_URL", hide_env_values = true)]
    amqp_url: Option<ServerUrl>,
    /// postgres://… for the billing store.
    #[arg(long, global = true, env = "WEIR_DATABASE_URL", hide_env_values = true)]
    database_url: Option<ServerUrl>,
    #[arg(long, global = true, env = "WEIR_DATABASE_SCHEMA")]
    database_schema: Option<String>,
    /// mssql://… for the financial items.
    #[arg(long, global = true, env = "WEIR_ITEMS_URL", hide_env_values = true)]
    items_url: Option<ServerUrl>,
    /// How long to wait for servers that are away at the start.
    #[arg(long, global = true, env = "WEIR_START_WAIT_MS")]
    start_wait_ms: Option<u32>,
    #[arg(long, global = true, env = "WEIR_SETTLE_WAIT_MS")]
    settle_wait_ms: Option<u32>,
    /// Most that one answer adds to a lease, for example 100.00.
    #[arg(long, global = true, env = "WEIR_LEASE_MAX_GRANT")]
    lease_max_grant: Option<String>,
    #[arg(long, global = true, env = "WEIR_LEASE_VALID_MS")]
    lease_valid_ms: Option<u32>,
    #[arg(long, global = true, env = "WEIR_LEASE_RECALL_WAIT_MS")]
    lease_recall_wait_ms: Option<u32>,
}

impl Options {
    fn config(self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            None => Config::default(),
            Some(path) => {
                let bad = |cause: String| ConfigError::File(path.clone(), cause);
                let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
                toml::from_str(&text).map_err(|e| bad(e.to_string()))?
            }
        };
        self.overlay(&mut config)?;
        config.resolve()
    }

    fn overlay(self, config: &mut Config) -> Result<(), ConfigError> {
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut config.data_dir, self.data_dir);
        set(&mut config.rest_listen, self.rest_listen);
        set(&mut config.grpc_listen, self.grpc_listen);
        set(&mut config.token, self.token.map(Token::from));
        set(&mut config.wallet_url, self.wallet_url);
        set(&mut config.broker_path, self.broker_path);
        set(&mut config.redis_prefix, self.redis_prefix);
        set(&mut config.database_schema, self.database_schema);
        set(&mut config.start_wait_ms, self.start_wait_ms);
        set(&mut config.settle_wait_ms, self.settle_wait_ms);
        set(&mut config.lease.valid_ms, self.lease_valid_ms);
        set(&mut config.lease.recall_wait_ms, self.lease_recall_wait_ms);
        config.token_file = self.token_file.or(config.token_file.take());
        config.redis_url = self.redis_url.or(config.redis_url.take());
        config.amqp_url = self.amqp_url.or(config.amqp_url.take());
        config.database_url = self.database_url.or(config.database_url.take());
        config.items_url = self.items_url.or(config.items_url.take());
        config.wallet_rest_url = self.wallet_rest_url.or(config.wallet_rest_url.take());
        if !self.outbox_paths.is_empty() {
            config.outbox_paths = self.outbox_paths;
        }
        if let Some(text) = self.lease_max_grant {
            config.lease.max_grant = text.parse().map_err(|_| ConfigError::Range {
                key: "lease.max_grant",
                rule: "a decimal amount like 100.00",
            })?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "servers")]
    if let Command::ItemsSql = cli.command {
        print!("{}", items_sql());
        return ExitCode::SUCCESS;
    }
    let config = match cli.options.config() {
        Ok(config) => config,
        Err(e) => return fail(EXIT_CONFIG, &e),
    };
    match cli.command {
        Command::Check { connect: false } => {
            println!("ok");
            ExitCode::SUCCESS
        }
        Command::Check { connect: true } => on_runtime(check(config)),
        Command::PrintConfig => match toml::to_string_pretty(&config) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(e) => fail(EXIT_FAILURE, &e),
        },
        Command::Run => on_runtime(run(config)),
        #[cfg(feature = "servers")]
        Command::ItemsSql => ExitCode::SUCCESS,
    }
}

#[cfg(feature = "servers")]
/// Every statement, each in a batch of its own.
fn items_sql() -> String {
    let table = Table::items();
    let batch = |statement: &Statement| format!("-- {statement:?}\n{}\nGO\n", statement.text(&table));
    Statement::ALL.iter().map(batch).collect()
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("weir-billing: {error}");
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
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| LOG_DEFAULT.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
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
async fn check(config: Config) -> ExitCode {
    let mut worst = ExitCode::SUCCESS;
    for (server, verdict) in weir_billing::check_servers(&config).await {
        match verdict {
            Ok(()) => println!("{server}: ok"),
            Err(e) => worst = not_started(&e),
        }
    }
    worst
}

async fn run(config: Config) -> ExitCode {
    let running = match weir_billing::start(config).await {
        Ok(running) => running,
        Err(e) => return not_started(&e),
    };
    tracing::info!(rest = %running.rest_addr, grpc = %running.grpc_addr, "billing is ready");
    if let Err(e) = until_told_to_stop().await {
        tracing::error!("cannot wait for signals: {e}");
    }
    running.stop().await;
    ExitCode::SUCCESS
}

async fn until_told_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
