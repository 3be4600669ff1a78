//! `weir-sandbox`: the sandbox server on its own, to try drivers against it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use weir_sandbox::{Backend, Config, EncryptionPolicy, Login, TlsFiles};

/// An embedded SQL-Server-speaking server for trials; never for data that matters.
///
/// Logs in `demo` with password `demo` (change by --user and --password). Prints `weir-sandbox ready on ADDRESS` when
/// it takes connections, and `certificate FILE` before that when it has one, for clients to trust.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// May be given for symmetry with the services; running is all that this program does.
    #[arg(value_parser = ["run"])]
    command: Option<String>,
    /// Address to listen on; port 0 takes a free one, the ready line says which.
    #[arg(long, default_value = "127.0.0.1:14330")]
    listen: SocketAddr,
    /// Directory of the database file, and of the certificate that is made if none is given; a private one if absent.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Who answers: `sqlite` runs T-SQL, `scenario FILE` plays a script (TOML, or JSON by its file name).
    #[arg(long, num_args = 1..=2, value_names = ["KIND", "FILE"], default_value = "sqlite")]
    backend: Vec<String>,
    /// How connections are encrypted; if absent, `login-only` with a certificate and `none` without. With a certificate
    /// TDS 8.0 is taken in every mode but `none`.
    #[arg(long, value_enum)]
    encryption: Option<Encryption>,
    /// Certificate chain (PEM). Without one a self-signed certificate for localhost and 127.0.0.1 is made and written
    /// to `tls/cert.pem` in the data directory, or to a private directory.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Several sessions in one connection (MARS), for clients that ask for it.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    mars: Switch,
    /// Largest packet that a login is answered, and what one that asks for 0 is given (512 to 32767).
    #[arg(long, value_parser = clap::value_parser!(u16).range(512..=32_767))]
    packet_size: Option<u16>,
    /// The one login's name.
    #[arg(long, default_value = "demo")]
    user: String,
    /// Its password. It is a trial's: visible to whoever lists processes.
    #[arg(long, default_value = "demo")]
    password: String,
}

impl Args {
    fn encryption(&self) -> Encryption {
        let or_else = if self.tls_cert.is_some() {
            Encryption::LoginOnly
        } else {
            Encryption::None
        };
        self.encryption.unwrap_or(or_else)
    }
}

/// Modes as they are named everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encryption {
    /// No TLS at all.
    None,
    /// The login at least, if the client can; all if it asks.
    LoginOnly,
    /// All, else closed.
    On,
    /// All, and REQ answered to every client.
    Required,
    /// TDS 8.0 only.
    Strict,
}

impl From<Encryption> for EncryptionPolicy {
    fn from(mode: Encryption) -> Self {
        match mode {
            Encryption::None => Self::None,
            Encryption::LoginOnly => Self::LoginOnly,
            Encryption::On => Self::On,
            Encryption::Required => Self::Required,
            Encryption::Strict => Self::Strict,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// Offered.
    On,
    /// Answered with 0.
    Off,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
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
    let backend = backend(&args.backend)?;
    let (files, made_in) = tls_files(&args)?;
    if let Some(files) = &files {
        println!("certificate {}", files.cert.display());
    }
    let encryption = args.encryption().into();
    let config = Config {
        listen: args.listen,
        data_dir: args.data_dir,
        backend,
        tls: files,
        encryption,
        mars: args.mars == Switch::On,
        packet_size: args.packet_size,
        logins: vec![Login {
            name: args.user,
            password: args.password,
            ..Login::default()
        }],
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
    if let Some(directory) = made_in {
        let _ = std::fs::remove_dir_all(directory);
    }
    Ok(())
}

fn backend(words: &[String]) -> Result<Backend, Box<dyn std::error::Error>> {
    match words {
        [kind] if kind == "sqlite" => Ok(Backend::Sqlite),
        [kind, file] if kind == "scenario" => Ok(Backend::Scenario(weir_sandbox::scenario::Scenario::load(
            Path::new(file),
        )?)),
        _ => Err("--backend takes `sqlite`, or `scenario FILE`".into()),
    }
}

/// The files given, or made; and the private directory they were made in, to be removed at the end.
fn tls_files(args: &Args) -> Result<(Option<TlsFiles>, Option<PathBuf>), Box<dyn std::error::Error>> {
    if let (Some(cert), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) {
        return Ok((Some(TlsFiles { cert, key }), None));
    }
    if args.encryption() == Encryption::None {
        return Ok((None, None));
    }
    if let Some(directory) = &args.data_dir {
        return Ok((
            Some(weir_sandbox::certificate::self_signed(&directory.join("tls"))?),
            None,
        ));
    }
    let private = std::env::temp_dir().join(format!("weir-sandbox-tls-{}", std::process::id()));
    Ok((
        Some(weir_sandbox::certificate::self_signed(&private)?),
        Some(private),
    ))
}
