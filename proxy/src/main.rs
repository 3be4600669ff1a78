//! The `weir-proxy` program: flags, environment and file → [`Config`]; runtime, signals, exit codes; nothing else.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use weir_proxy::{
    Config, Running, StartError,
    auth::{PasswordHash, TellClient},
    config::{
        ClientEncryption, ConfigError, MarsPolicy, UpstreamEncryption,
        logins::{PasswordChange, Relaying, RoutingPolicy},
    },
};
use zeroize::Zeroizing;

/// Exit code of a failure at run time.
const EXIT_FAILURE: u8 = 1;
/// Exit code of wrong usage or configuration.
const EXIT_CONFIG: u8 = 2;

#[derive(Parser)]
#[command(
    name = "weir-proxy",
    version,
    about = "The metering gate in front of SQL Server"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// TOML file with any of the keys that `print-config` shows.
    #[arg(long, global = true, env = "WEIR_PROXY_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run,
    /// Check the configuration and say what is wrong with it.
    Check {
        /// Also connect to the servers of the outbox, if any, and check their settings; changes nothing there.
        #[arg(long)]
        connect: bool,
    },
    /// Print the configuration that `run` would use, without secrets.
    PrintConfig,
    /// Read a password from standard input, one line, and print its hash for `[[credentials]]`.
    HashPassword,
}

/// Each overrides the file's key of the same name; what each means stands at [`Config`].
#[derive(Args, Serialize)]
struct Keys {
    #[arg(long, global = true, env = "WEIR_LISTEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    #[arg(long, global = true, env = "WEIR_UPSTREAM", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    #[arg(long, global = true, env = "WEIR_DATA_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    #[arg(long, global = true, env = "WEIR_OUTBOX_PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox_path: Option<PathBuf>,
    /// redis://… for the outbox, or file:PATH of a file that holds the address.
    #[arg(long, global = true, env = "WEIR_REDIS_URL", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_url: Option<String>,
    /// What the keys in Redis begin with.
    #[arg(long, global = true, env = "WEIR_REDIS_PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_prefix: Option<String>,
    /// How long to wait for servers that are away at the start.
    #[arg(long, global = true, env = "WEIR_START_WAIT_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    start_wait_ms: Option<u64>,
    #[arg(long, global = true, env = "WEIR_BILLING_URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    billing_url: Option<String>,
    /// Better given as a file: flags can be read by other users.
    #[arg(long, global = true, env = "WEIR_TOKEN", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[arg(long, global = true, env = "WEIR_TOKEN_FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    /// none, offered, required or strict.
    #[arg(long, global = true, env = "WEIR_CLIENT_ENCRYPTION", value_parser = parse_key::<ClientEncryption>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    client_encryption: Option<ClientEncryption>,
    #[arg(long, global = true, env = "WEIR_TLS_CERT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert: Option<PathBuf>,
    #[arg(long, global = true, env = "WEIR_TLS_KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    /// offered or off.
    #[arg(long, global = true, env = "WEIR_MARS", value_parser = parse_key::<MarsPolicy>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    mars: Option<MarsPolicy>,
    /// none, login-only, full or strict.
    #[arg(long, global = true, env = "WEIR_UPSTREAM_ENCRYPTION", value_parser = parse_key::<UpstreamEncryption>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_encryption: Option<UpstreamEncryption>,
    #[arg(long, global = true, env = "WEIR_UPSTREAM_CA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ca: Option<PathBuf>,
    #[arg(long, global = true, env = "WEIR_UPSTREAM_HOST_NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_host_name: Option<String>,
    /// Accept any certificate of the server: whoever stands between can then read logins and data.
    #[arg(long, global = true, env = "WEIR_UPSTREAM_TRUST", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_trust: Option<bool>,
    /// 512 to 32767; 0 for what the client asks for.
    #[arg(long, global = true, env = "WEIR_UPSTREAM_PACKET_SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_packet_size: Option<u16>,
    #[arg(long, global = true, env = "WEIR_CHUNK_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_bytes: Option<usize>,
    #[arg(long, global = true, env = "WEIR_SESSIONS_MAX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions_max: Option<usize>,
    #[arg(long, global = true, env = "WEIR_LOGIN_DEADLINE_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    login_deadline_ms: Option<u64>,
    #[arg(long, global = true, env = "WEIR_CONNECT_DEADLINE_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_deadline_ms: Option<u64>,
    #[arg(long, global = true, env = "WEIR_CUT_DEADLINE_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_deadline_ms: Option<u64>,
    #[arg(long, global = true, env = "WEIR_UPLOAD_IDLE_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_idle_ms: Option<u64>,
    #[arg(long, global = true, env = "WEIR_BILLING_DEADLINE_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    billing_deadline_ms: Option<u64>,
    #[arg(long, global = true, env = "WEIR_LEASE_IDLE_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_idle_ms: Option<u64>,
    #[arg(long, global = true, env = "WEIR_GATE_NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_name: Option<String>,
    #[arg(long, global = true, env = "WEIR_UPSTREAM_FAILOVER", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_failover: Option<String>,
    /// refuse or follow.
    #[arg(long, global = true, env = "WEIR_ROUTING", value_parser = parse_key::<RoutingPolicy>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<RoutingPolicy>,
    /// Hosts that a routing answer may name, with commas between them.
    #[arg(long, global = true, env = "WEIR_ROUTING_TARGETS", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    routing_targets: Option<Vec<String>>,
    /// refuse or relay.
    #[arg(long, global = true, env = "WEIR_INTEGRATED_LOGIN", value_parser = parse_key::<Relaying>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    integrated_login: Option<Relaying>,
    /// refuse or relay.
    #[arg(long, global = true, env = "WEIR_FEDERATED_LOGIN", value_parser = parse_key::<Relaying>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    federated_login: Option<Relaying>,
    /// refuse or allow.
    #[arg(long, global = true, env = "WEIR_PASSWORD_CHANGE", value_parser = parse_key::<PasswordChange>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    password_change: Option<PasswordChange>,
    /// none, host-name or application-name.
    #[arg(long, global = true, env = "WEIR_TELL_CLIENT", value_parser = parse_key::<TellClient>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tell_client: Option<TellClient>,
    /// Answer SQL Server Browser requests here, usually 0.0.0.0:1434.
    #[arg(long, global = true, env = "WEIR_BROWSER_LISTEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    browser_listen: Option<SocketAddr>,
}

/// Reads a flag's word as the configuration file would.
fn parse_key<T: serde::de::DeserializeOwned>(word: &str) -> Result<T, String> {
    let value = toml::Value::String(word.to_owned());
    T::deserialize(value).map_err(|error| error.message().to_owned())
}

fn config(file: Option<PathBuf>, keys: &Keys) -> Result<Config, ConfigError> {
    let base = file.map_or_else(|| Ok(Config::default()), Config::from_file)?;
    base.with(keys)?.checked()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = weir_proxy::core_dumps::forbid() {
        eprintln!("weir-proxy: core dumps cannot be switched off: {error}");
    }
    if matches!(cli.command, Command::HashPassword) {
        return hash_password();
    }
    let config = match config(cli.config, &cli.keys) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    match cli.command {
        Command::Check { connect: false } => {
            for note in config.login_notes() {
                println!("note: {note}");
            }
            println!("ok");
            ExitCode::SUCCESS
        }
        Command::Check { connect: true } => on_runtime(check(config)),
        Command::PrintConfig => match toml::to_string_pretty(&config) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(EXIT_FAILURE, &error),
        },
        Command::Run => on_runtime(run(config)),
        Command::HashPassword => hash_password(),
    }
}

fn hash_password() -> ExitCode {
    let mut line = Zeroizing::new(String::new());
    if let Err(error) = std::io::stdin().read_line(&mut line) {
        return fail(EXIT_FAILURE, &error);
    }
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        eprintln!("weir-proxy: write the password to standard input, as one line");
        return ExitCode::from(EXIT_CONFIG);
    }
    match PasswordHash::of(password) {
        Ok(hash) => {
            println!("{}", hash.to_text());
            ExitCode::SUCCESS
        }
        Err(error) => fail(EXIT_FAILURE, &error),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("weir-proxy: {error}");
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
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail(EXIT_FAILURE, &error),
    }
}

async fn check(config: Config) -> ExitCode {
    match weir_proxy::check_servers(&config).await {
        Ok(servers) => {
            for server in servers {
                println!("{server}: ok");
            }
            ExitCode::SUCCESS
        }
        Err(error) => not_started(&error),
    }
}

async fn run(config: Config) -> ExitCode {
    let running = match weir_proxy::start(config).await {
        Ok(running) => running,
        Err(error) => return not_started(&error),
    };
    // Before anybody is told that it is ready: a SIGHUP that nobody waits for ends the process.
    let signals = Signals::listen();
    tracing::info!(listen = %running.addr, "proxy is ready");
    match signals {
        Ok(signals) => signals.until_told_to_stop(&running).await,
        Err(error) => tracing::error!(%error, "cannot wait for signals"),
    }
    running.stop().await;
    ExitCode::SUCCESS
}

/// What an operator tells the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// SIGHUP renews TLS meanwhile.
    async fn until_told_to_stop(mut self, running: &Running) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => running.renew_tls().await,
            }
        }
    }
}
