//! Which adapter stands behind which port: the embedded one, or the real server's when its address is configured. A server that
//! is away at the start is waited for, so that the order in which services start does not matter.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};
use weir_servers::ServerUrl;
#[cfg(feature = "servers")]
use weir_servers::{
    postgres::{Pool, PoolOptions, PostgresError},
    rabbitmq::{self, RabbitError},
};

use crate::{
    adapters::{
        embedded_broker::EmbeddedBroker,
        sqlite::{SqliteEventStore, SqliteReadModel},
    },
    app::StartError,
    config::{Config, ConfigError},
    ports::{
        broker::{EventsIn, EventsOut},
        event_store::{EventStore, StoreError},
        read_model::ReadModel,
    },
};
#[cfg(feature = "servers")]
use crate::{
    adapters::{mongo::MongoReadModel, postgres::PostgresEventStore, rabbit_broker::RabbitBroker},
    projections::PROJECTION_QUEUE,
};

/// The first pause between two attempts to reach a server; each next one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause between two attempts: a server that came up is used this much later at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Even with no time left one attempt is made, and it has this long.
const ATTEMPT_MIN: Duration = Duration::from_secs(10);
/// Mode of a directory with balances: they are nobody else's business.
const OURS_ALONE: u32 = 0o700;
/// Mode of a directory that services share: as the system makes directories.
const SHARED: u32 = 0o777;
/// While waiting, a line is logged this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The opened stores.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) events_out: Arc<dyn EventsOut>,
    pub(crate) events_in: Arc<dyn EventsIn>,
}

impl Opened {
    /// Opens files and connects to servers; waits for servers up to `start_wait_ms` in all.
    pub(crate) async fn open(config: &Config) -> Result<Self, StartError> {
        let wait = Wait::new(config);
        let (events_out, events_in) = broker(config, &wait).await?;
        Ok(Self {
            store: store(config, &wait).await?,
            read_model: read_model(config, &wait).await?,
            events_out,
            events_in,
        })
    }
}

/// Connects to every server that is configured, once, and checks its settings; changes nothing there. Answers per server its key
/// and the verdict.
pub async fn check_servers(config: &Config) -> Vec<(&'static str, Result<(), StartError>)> {
    let servers = [
        ("database_url", &config.database_url),
        ("amqp_url", &config.amqp_url),
        ("mongodb_url", &config.mongodb_url),
    ];
    let mut verdicts = Vec::new();
    for (key, url) in servers {
        if let Some(url) = url {
            let once = Wait::none();
            let verdict = once.reach(key, url, || check_server(config, key, url)).await;
            verdicts.push((key, verdict));
        }
    }
    verdicts
}

#[cfg(feature = "servers")]
async fn check_server(config: &Config, key: &'static str, url: &ServerUrl) -> Result<(), StoreError> {
    match key {
        "mongodb_url" => MongoReadModel::check_server(url).await,
        "database_url" => pool(config, url).await.map(drop).map_err(of_postgres),
        "amqp_url" => rabbit(url).await.map(drop),
        _ => Err(StoreError::Settings(ConfigError::NotBuiltIn(key).to_string())),
    }
}

#[cfg(not(feature = "servers"))]
async fn check_server(_config: &Config, key: &'static str, _url: &ServerUrl) -> Result<(), StoreError> {
    Err(StoreError::Settings(ConfigError::NotBuiltIn(key).to_string()))
}

async fn store(config: &Config, wait: &Wait) -> Result<Arc<dyn EventStore>, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.database_url {
        let open = || async {
            let pool = pool(config, url).await.map_err(of_postgres)?;
            PostgresEventStore::open(pool).await.map_err(of_postgres)
        };
        return Ok(Arc::new(wait.reach("database_url", url, open).await?));
    }
    let _ = wait;
    not_built_in("database_url", config.database_url.as_ref())?;
    let path = config.data_dir.join("events.db");
    Ok(Arc::new(in_file(path, OURS_ALONE, SqliteEventStore::open).await?))
}

/// Connections to a database whose settings keep the promises.
#[cfg(feature = "servers")]
async fn pool(config: &Config, url: &ServerUrl) -> Result<Pool, PostgresError> {
    let options = PoolOptions::new(&config.database_schema, "weir-wallet");
    let pool = Pool::connect(url, options, Duration::ZERO).await?;
    pool.check_settings().await?;
    Ok(pool)
}

#[cfg(feature = "servers")]
fn of_postgres(error: PostgresError) -> StoreError {
    match error {
        PostgresError::Settings(said) => StoreError::Settings(said),
        other => other.into(),
    }
}

async fn read_model(config: &Config, wait: &Wait) -> Result<Arc<dyn ReadModel>, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.mongodb_url {
        let opened = wait.reach("mongodb_url", url, || MongoReadModel::open(url));
        return Ok(Arc::new(opened.await?));
    }
    let _ = wait;
    not_built_in("mongodb_url", config.mongodb_url.as_ref())?;
    let path = config.data_dir.join("read-model.db");
    Ok(Arc::new(in_file(path, OURS_ALONE, SqliteReadModel::open).await?))
}

type BothWays = (Arc<dyn EventsOut>, Arc<dyn EventsIn>);

async fn broker(config: &Config, wait: &Wait) -> Result<BothWays, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.amqp_url {
        let broker = wait.reach("amqp_url", url, || rabbit(url)).await?;
        return Ok((Arc::new(broker.clone()), Arc::new(broker)));
    }
    let _ = wait;
    not_built_in("amqp_url", config.amqp_url.as_ref())?;
    let path = config.broker_path.clone();
    let broker = in_file(path, SHARED, EmbeddedBroker::open).await?;
    Ok((Arc::new(broker.clone()), Arc::new(broker)))
}

/// RabbitMQ, whose queue of ours is as needed if it is there already.
#[cfg(feature = "servers")]
async fn rabbit(url: &ServerUrl) -> Result<RabbitBroker, StoreError> {
    let of_rabbit = |error: RabbitError| match error {
        RabbitError::Setting(said) => StoreError::Settings(said),
        other => StoreError::Unavailable(other.to_string()),
    };
    let broker = RabbitBroker::connect(url, rabbitmq::DEFAULT_NAME)
        .await
        .map_err(of_rabbit)?;
    broker.check(&[PROJECTION_QUEUE]).await.map_err(of_rabbit)?;
    Ok(broker)
}

fn not_built_in(key: &'static str, url: Option<&ServerUrl>) -> Result<(), ConfigError> {
    url.map_or(Ok(()), |_| Err(ConfigError::NotBuiltIn(key)))
}

/// Makes the file's directory when it is missing (one that exists keeps its mode) and opens the file, off the runtime.
async fn in_file<T: Send + 'static, E>(
    path: PathBuf,
    mode: u32,
    open: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
) -> Result<T, StartError>
where
    StartError: From<E>,
{
    let opening = tokio::task::spawn_blocking(move || {
        if let Some(directory) = path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode);
            let made = builder.create(directory);
            made.map_err(|source| not_made(directory, source))?;
        }
        Ok(open(&path)?)
    });
    opening.await.map_err(not_ended)?
}

fn not_made(path: &Path, source: std::io::Error) -> StartError {
    StartError::Io {
        what: format!("make the directory {}", path.display()),
        source,
    }
}

fn not_ended(error: tokio::task::JoinError) -> StartError {
    StartError::Io {
        what: "open the stores".to_owned(),
        source: error.into(),
    }
}

/// How long servers are waited for: one span for all of them, since they come up side by side.
struct Wait {
    since: Instant,
    until: Instant,
    /// The least that an attempt has.
    attempt: Duration,
}

impl Wait {
    fn new(config: &Config) -> Self {
        Self::of(Duration::from_millis(config.start_wait_ms), ATTEMPT_MIN)
    }

    fn none() -> Self {
        Self::of(Duration::ZERO, ATTEMPT_MIN)
    }

    fn of(wait: Duration, attempt: Duration) -> Self {
        let since = Instant::now();
        Self {
            since,
            until: since + wait,
            attempt,
        }
    }

    /// Attempts until the server is there, the wait is over, or the server says what no waiting mends.
    #[cfg_attr(
        not(feature = "servers"),
        allow(dead_code, reason = "there is no server to reach")
    )]
    async fn reach<T, F>(
        &self,
        key: &'static str,
        url: &ServerUrl,
        connect: impl Fn() -> F,
    ) -> Result<T, StartError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let (mut pause, mut told) = (PAUSE_MIN, None::<Instant>);
        loop {
            let by = self.until.max(Instant::now() + self.attempt);
            let cause = match timeout_at(by, connect()).await {
                Ok(Ok(there)) => {
                    if told.is_some() {
                        tracing::info!("{url} (`{key}`) is there now");
                    }
                    return Ok(there);
                }
                Ok(Err(cause @ StoreError::Unavailable(_))) => cause,
                Ok(Err(other)) => return Err(other.into()),
                Err(_) => StoreError::Unavailable("no answer".to_owned()),
            };
            let now = Instant::now();
            if now >= self.until {
                let (url, waited) = (url.to_string(), now - self.since);
                return Err(StartError::Away {
                    key,
                    url,
                    waited,
                    cause,
                });
            }
            if told.is_none_or(|at| now - at >= TELL_EVERY) {
                let left = (self.until - now).as_secs();
                tracing::warn!("waiting up to {left} s more for {url} (`{key}`): {cause}");
                told = Some(now);
            }
            sleep(pause.min(self.until - now)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn url() -> ServerUrl {
        "mongodb://weir:secret@nowhere/weir".into()
    }

    fn away() -> StoreError {
        StoreError::Unavailable("connection refused".to_owned())
    }

    #[tokio::test]
    async fn a_server_that_comes_up_within_the_wait_is_used() {
        let attempts = AtomicU32::new(0);
        let wait = Wait::of(Duration::from_secs(60), ATTEMPT_MIN);
        let connect = || async {
            match attempts.fetch_add(1, Ordering::SeqCst) {
                0..2 => Err(away()),
                n => Ok(n),
            }
        };
        assert_eq!(wait.reach("mongodb_url", &url(), connect).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_server_that_stays_away_or_hangs_is_named_without_its_password() {
        let wait = Wait::of(SHORT, SHORT);
        let refused = wait
            .reach("mongodb_url", &url(), || async { Err::<(), _>(away()) })
            .await;
        let hung = wait
            .reach::<(), _>("mongodb_url", &url(), std::future::pending)
            .await;
        for error in [refused.unwrap_err(), hung.unwrap_err()] {
            let text = error.to_string();
            assert!(!error.is_configuration() && !text.contains("secret"), "{text}");
            assert!(
                text.contains("mongodb://weir:***@nowhere/weir") && text.contains("mongodb_url"),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn one_that_is_set_up_wrongly_is_not_waited_for() {
        let wait = Wait::of(Duration::from_secs(60), SHORT);
        let attempts = AtomicU32::new(0);
        let wrong = || async {
            attempts.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(StoreError::Settings("journaling is off: …".to_owned()))
        };
        let error = wait.reach("mongodb_url", &url(), wrong).await.unwrap_err();
        assert!(error.is_configuration());
        assert_eq!(attempts.into_inner(), 1);
    }
}
