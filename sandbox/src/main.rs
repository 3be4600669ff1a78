//! `weir-sandbox`: the sandbox server on its own, to try drivers against it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use weir_sandbox::{Backend, Config, EncryptionPolicy, TlsFiles};

/// An embedded SQL-Server-speaking server for trials; never for data that matters.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// May be given for symmetry with the services; running is all that this program does.
    #[arg(value_parser = ["run"])]
    command: Option<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:14330")]
    listen: SocketAddr,
    /// Directory of the database file; a private one if absent.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Certificate chain (PEM).
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Encrypt every connection.
    #[arg(long, requires = "tls_cert")]
    encrypt: bool,
    /// A script (TOML, or JSON by its file name) to play instead of SQLite.
    #[arg(long)]
    scenario: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let backend = match &args.scenario {
        None => Backend::Sqlite,
        Some(path) => {
            let text = std::fs::read_to_string(path)?;
            let json = path.extension().is_some_and(|e| e == "json");
            Backend::Scenario(if json {
                serde_json::from_str(&text)?
            } else {
                toml::from_str(&text)?
            })
        }
    };
    let config = Config {
        listen: args.listen,
        data_dir: args.data_dir,
        backend,
        tls: args
            .tls_cert
            .zip(args.tls_key)
            .map(|(cert, key)| TlsFiles { cert, key }),
        encryption: if args.encrypt {
            EncryptionPolicy::On
        } else {
            EncryptionPolicy::Off
        },
        ..Config::default()
    };
    let running = weir_sandbox::start(config).await?;
    println!("weir-sandbox ready on {}", running.addr);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    running.stop().await;
    Ok(())
}
