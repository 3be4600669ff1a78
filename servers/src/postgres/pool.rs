//! The pool: connections that are all set up alike, taken and used within deadlines, thrown away when in doubt.

use std::{fmt, future::Future, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, PoolError, RecyclingMethod};
use tokio::{runtime::Handle, time::Instant};
use tokio_postgres::config::{Config, TargetSessionAttrs};

use super::{Client, PostgresError, tls};
use crate::ServerUrl;

/// Schemes of addresses.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// Longest schema name that PostgreSQL keeps.
const SCHEMA_BYTES_MAX: usize = 63;
/// Connections of one pool: each is a process on the server.
const SIZE_DEFAULT: usize = 8;
/// Longest wait for a connection, and for each answer. A stopped server is noticed after this long.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// Longest wait for a TCP connection, per address of the host.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// A peer that vanished is noticed while nothing is sent: after this plus three probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer.
const KEEPALIVE_RETRIES: u32 = 3;
/// First wait between attempts while the server is away at the start; doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest wait between these attempts.
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// Set on every new connection: never weaker than durable, whatever the role's or the server's default becomes later.
const PIN_DURABILITY: &str = "SELECT set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

/// How a pool works.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Where the tables are: lower-case letters, digits and `_`, at most 63, no digit first.
    pub schema: String,
    /// How the server shows our connections (`pg_stat_activity`).
    pub application: String,
    /// Most connections at a time.
    pub size: usize,
    /// Longest wait for a connection, and for the answer to each call. The server ends a statement itself a little earlier.
    pub deadline: Duration,
}

impl PoolOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(schema: &str, application: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            application: application.to_owned(),
            size: SIZE_DEFAULT,
            deadline: DEADLINE_DEFAULT,
        }
    }
}

/// Connections to one database; clones share them.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    handle: Handle,
    options: PoolOptions,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// Makes a pool and its first connection. A server that is away is tried again until `wait` has passed (zero: tried once).
    /// The connections live on the runtime that this is called on.
    ///
    /// # Errors
    /// `Settings` for an address, a schema's name or a login that cannot work, at once; `Unavailable` when the server stays away.
    pub async fn connect(
        url: &ServerUrl,
        options: PoolOptions,
        wait: Duration,
    ) -> Result<Self, PostgresError> {
        check_schema(&options.schema)?;
        let config = session_config(url, &options)?;
        let tls = tls::connector(config.get_ssl_mode())?;
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method });
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(options.size.max(1))
            .post_create(Hook::async_fn(|connection, _| {
                Box::pin(async move {
                    let set = connection.batch_execute(PIN_DURABILITY).await;
                    set.map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(|e| PostgresError::Settings(format!("the pool cannot be made: {e}")))?;
        let pool = Self {
            connections,
            handle: Handle::current(),
            options,
        };
        pool.first_connection(wait).await?;
        Ok(pool)
    }

    async fn first_connection(&self, wait: Duration) -> Result<(), PostgresError> {
        let until = Instant::now() + wait;
        let mut pause = RETRY_FIRST;
        loop {
            let error = match self.get().await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if !error.is_passing() || Instant::now() + pause > until {
                return Err(error);
            }
            tracing::info!(cause = %error, "waiting for PostgreSQL");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// A connection, made when none is idle.
    ///
    /// # Errors
    /// `Unavailable` when there is none within the deadline; `Settings` when the server refuses the login.
    pub async fn get(&self) -> Result<Client, PostgresError> {
        let taken = tokio::time::timeout(self.options.deadline, self.connections.get()).await;
        match taken {
            Ok(Ok(connection)) => Ok(Client::new(connection, self.options.deadline)),
            Ok(Err(PoolError::Backend(e) | PoolError::PostCreateHook(HookError::Backend(e)))) => {
                Err(e.into())
            }
            Ok(Err(e)) => Err(PostgresError::Unavailable(e.to_string())),
            Err(_) => Err(PostgresError::Unavailable(format!(
                "no connection within {:?}: the server does not answer, or all {} are in use",
                self.options.deadline, self.options.size
            ))),
        }
    }

    /// Waits for `work` on a thread that may block. Panics on a runtime's worker; needs a multi-threaded runtime that still runs.
    pub fn block<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }

    /// How the pool works.
    #[must_use]
    pub const fn options(&self) -> &PoolOptions {
        &self.options
    }
}

fn check_schema(name: &str) -> Result<(), PostgresError> {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=SCHEMA_BYTES_MAX).contains(&name.len())
        && name.bytes().all(valid)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.starts_with("pg_")
    {
        return Ok(());
    }
    Err(PostgresError::Settings(
        "the database schema's name must be 1 to 63 of a-z 0-9 _, not begin with a digit or pg_".to_owned(),
    ))
}

/// The address, and what every session of ours is set to from its first moment.
fn session_config(url: &ServerUrl, options: &PoolOptions) -> Result<Config, PostgresError> {
    let url = url
        .clone()
        .resolve(&SCHEMES)
        .map_err(|e| PostgresError::Settings(format!("the database URL: {e}")))?;
    // The driver's own words may quote the part after an unescaped `?` or `@`, which may be a password.
    let unreadable = || {
        PostgresError::Settings(
            "the database URL cannot be read: postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require; write %3F %23 %2F %40 for ? # / @ in a password; \
             certificate authorities are named by SSL_CERT_FILE, not in the URL"
                .to_owned(),
        )
    };
    // libpq's names for what we do whenever we do TLS.
    let text = url
        .reveal()
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require");
    let said = text.contains("sslmode=");
    let mut config: Config = text.parse().map_err(|_| unreadable())?;
    if config.get_hosts().is_empty() {
        return Err(unreadable());
    }
    tls::choose_mode(&mut config, said);
    let ms = |share: u32| (options.deadline * share / 5).as_millis();
    let theirs = config.get_options().unwrap_or_default().to_owned();
    // The last one counts. Idle in a transaction: a stopped process of ours must not hold locks for ever.
    let ours = format!(
        "{theirs} -c search_path={} -c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} \
         -c default_transaction_isolation=read\\ committed -c timezone=UTC -c client_min_messages=warning",
        options.schema,
        ms(4),
        ms(3),
        ms(10),
    );
    config
        .options(ours.trim())
        .application_name(&options.application)
        .connect_timeout(CONNECT_WAIT)
        .tcp_user_timeout(options.deadline * 2)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES);
    if config.get_hosts().len() > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    fn config(url: &str) -> Result<Config, PostgresError> {
        session_config(&url.into(), &PoolOptions::new("wallet", "weir-wallet"))
    }

    #[test]
    fn tls_is_used_when_the_address_or_the_distance_asks_for_it() {
        for (url, mode) in [
            ("postgres://u@127.0.0.1/d", SslMode::Disable),
            ("postgres://u@localhost/d", SslMode::Disable),
            ("postgres://u@[::1]/d", SslMode::Disable),
            ("postgres://u@127.0.0.1/d?sslmode=require", SslMode::Require),
            ("postgresql://u@db.example/d", SslMode::Prefer),
            ("postgres://u@db.example/d?sslmode=disable", SslMode::Disable),
            ("postgres://u@db.example/d?sslmode=verify-full", SslMode::Require),
        ] {
            assert_eq!(config(url).unwrap().get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn a_wrong_address_is_refused_without_quoting_it() {
        for url in [
            "mysql://u:secret@h/d",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@h/d?sslrootcert=secret",
            "postgres://",
        ] {
            let error = config(url).unwrap_err();
            assert!(matches!(error, PostgresError::Settings(_)), "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn what_the_address_sets_stays_and_ours_comes_last() {
        let config = config("postgres://u@h/d?options=-c%20work_mem%3D8MB").unwrap();
        let options = config.get_options().unwrap();
        assert!(
            options.starts_with("-c work_mem=8MB -c search_path=wallet "),
            "{options}"
        );
        assert!(options.contains("statement_timeout=4000 "), "{options}");
    }

    #[test]
    fn a_schema_needs_no_quoting() {
        assert!(check_schema("wallet_2").is_ok());
        for bad in [
            "",
            "Wallet",
            "2wallet",
            "wal let",
            "w\"",
            "pg_wallet",
            &"w".repeat(64),
        ] {
            assert!(check_schema(bad).is_err(), "{bad}");
        }
    }
}
