//! Which adapter stands behind which port: the embedded one, or the real server's when its address is configured. A server that
//! is away at the start is waited for, so that the order in which services start does not matter.

#![cfg_attr(
    not(feature = "servers"),
    allow(unused_variables, reason = "nobody is waited for in a build without servers")
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};
use weir_servers::ServerUrl;

use crate::{
    adapters::{EmbeddedBroker, EmbeddedOutbox, SqliteItems, SqliteScratch, SqliteStore},
    app::StartError,
    config::{Config, ConfigError},
    ports::{
        PortError,
        billing_store::BillingStore,
        broker::Broker,
        items::{Items, ScratchItems},
        outbox_source::OutboxSource,
    },
};
#[cfg(feature = "servers")]
use crate::{
    adapters::{PostgresStore, RabbitBroker, RedisOutbox, SqlServerItems},
    flow::rater::RATING_QUEUE,
};

/// The first pause between two attempts to reach a server; each next one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause between two attempts: a server that came up is used this much later at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Even with no time left one attempt is made, and it has this long.
const ATTEMPT_MIN: Duration = Duration::from_secs(15);
/// While waiting, a line is logged this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What exchanges and queues of RabbitMQ are named after.
#[cfg(feature = "servers")]
const BROKER_NAME: &str = "weir";

/// The opened stores.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn BillingStore>,
    pub(crate) items: Arc<dyn Items>,
    pub(crate) scratch_items: Arc<dyn ScratchItems>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) outboxes: Vec<Arc<dyn OutboxSource>>,
}

impl Opened {
    /// Opens files and connects to servers; waits for servers up to `start_wait_ms` in all.
    pub(crate) async fn open(config: &Config) -> Result<Self, StartError> {
        let wait = Wait::new(config);
        let store = store(config, &wait).await?;
        let broker = broker(config, &wait).await?;
        let outboxes = outboxes(config, &wait).await?;
        let (items, scratch_items) = items(config, &wait).await?;
        Ok(Self {
            store,
            items,
            scratch_items,
            broker,
            outboxes,
        })
    }
}

/// Connects to every server that is configured, once, and checks its settings; changes nothing there. Answers per server its key
/// and the verdict.
pub async fn check_servers(config: &Config) -> Vec<(&'static str, Result<(), StartError>)> {
    let servers = [
        ("database_url", &config.database_url),
        ("amqp_url", &config.amqp_url),
        ("redis_url", &config.redis_url),
        ("items_url", &config.items_url),
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
async fn check_server(config: &Config, key: &'static str, url: &ServerUrl) -> Result<(), PortError> {
    match key {
        "database_url" => PostgresStore::check(url, &config.database_schema).await,
        "amqp_url" => {
            let broker = RabbitBroker::connect(url, BROKER_NAME).await?;
            broker.check(&[RATING_QUEUE]).await
        }
        "redis_url" => RedisOutbox::open(url, &config.redis_prefix).await.map(|_| ()),
        "items_url" => SqlServerItems::check(url).await,
        _ => Err(PortError::Settings(
            "this build",
            ConfigError::NotBuiltIn(key).to_string(),
        )),
    }
}

#[cfg(not(feature = "servers"))]
async fn check_server(_: &Config, key: &'static str, _: &ServerUrl) -> Result<(), PortError> {
    Err(PortError::Settings(
        "this build",
        ConfigError::NotBuiltIn(key).to_string(),
    ))
}

async fn store(config: &Config, wait: &Wait) -> Result<Arc<dyn BillingStore>, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.database_url {
        let connect = || PostgresStore::connect(url, &config.database_schema);
        return Ok(Arc::new(wait.reach("database_url", url, connect).await?));
    }
    let path = config.data_dir.join("billing.db");
    Ok(Arc::new(in_file(path, SqliteStore::open).await?))
}

async fn broker(config: &Config, wait: &Wait) -> Result<Arc<dyn Broker>, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.amqp_url {
        let connect = || RabbitBroker::connect(url, BROKER_NAME);
        return Ok(Arc::new(wait.reach("amqp_url", url, connect).await?));
    }
    let path = config.broker_path.clone();
    Ok(Arc::new(in_file(path, EmbeddedBroker::open).await?))
}

async fn outboxes(config: &Config, wait: &Wait) -> Result<Vec<Arc<dyn OutboxSource>>, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.redis_url {
        let connect = || RedisOutbox::open(url, &config.redis_prefix);
        return Ok(vec![Arc::new(wait.reach("redis_url", url, connect).await?)]);
    }
    let mut outboxes: Vec<Arc<dyn OutboxSource>> = Vec::new();
    for path in &config.outbox_paths {
        outboxes.push(Arc::new(in_file(path.clone(), EmbeddedOutbox::open).await?));
    }
    Ok(outboxes)
}

type ItemStores = (Arc<dyn Items>, Arc<dyn ScratchItems>);

async fn items(config: &Config, wait: &Wait) -> Result<ItemStores, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.items_url {
        let connect = || SqlServerItems::connect(url);
        let items = Arc::new(wait.reach("items_url", url, connect).await?);
        return Ok((Arc::clone(&items) as Arc<dyn Items>, items));
    }
    let path = config.data_dir.join("items.db");
    let items = in_file(path, SqliteItems::open).await?;
    let scratch = SqliteScratch::new(config.data_dir.clone());
    Ok((Arc::new(items), Arc::new(scratch)))
}

/// Makes the file's directory and opens the file, off the runtime.
async fn in_file<T: Send + 'static>(
    path: PathBuf,
    open: fn(&Path) -> Result<T, PortError>,
) -> Result<T, StartError> {
    let opening = tokio::task::spawn_blocking(move || {
        if let Some(directory) = path.parent() {
            let made = std::fs::create_dir_all(directory);
            made.map_err(|e| StartError::Directory(directory.to_owned(), e))?;
        }
        Ok(open(&path)?)
    });
    opening.await.map_err(|e| StartError::Opening(e.to_string()))?
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
        Self::of(
            Duration::from_millis(u64::from(config.start_wait_ms)),
            ATTEMPT_MIN,
        )
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
    async fn reach<T, F>(
        &self,
        key: &'static str,
        url: &ServerUrl,
        connect: impl Fn() -> F,
    ) -> Result<T, StartError>
    where
        F: Future<Output = Result<T, PortError>>,
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
                Ok(Err(cause @ PortError::Unavailable(..))) => cause,
                Ok(Err(other)) => return Err(other.into()),
                Err(_) => PortError::Unavailable("the server", "no answer".to_owned()),
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

    fn url() -> ServerUrl {
        "redis://:secret@nowhere".into()
    }

    const SHORT: Duration = Duration::from_millis(50);

    fn away() -> PortError {
        PortError::Unavailable("Redis", "connection refused".to_owned())
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
        assert_eq!(wait.reach("redis_url", &url(), connect).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_server_that_stays_away_is_named_without_its_password() {
        let wait = Wait::of(SHORT, SHORT);
        let began = Instant::now();
        let result = wait
            .reach("redis_url", &url(), || async { Err::<(), _>(away()) })
            .await;
        assert!(began.elapsed() >= SHORT);
        let error = result.unwrap_err();
        let text = error.to_string();
        assert!(!error.is_configuration() && !text.contains("secret"), "{text}");
        assert!(
            text.contains("redis://:***@nowhere") && text.contains("redis_url"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn one_that_hangs_is_left_when_the_wait_is_over() {
        let wait = Wait::of(SHORT, SHORT);
        let result = wait
            .reach::<(), _>("redis_url", &url(), std::future::pending)
            .await;
        assert!(matches!(result, Err(StartError::Away { .. })));
    }

    #[tokio::test]
    async fn one_that_is_set_up_wrongly_is_not_waited_for() {
        let wait = Wait::of(SHORT, SHORT);
        let attempts = AtomicU32::new(0);
        let wrong = || async {
            attempts.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(PortError::Settings("Redis", "appendonly is no: …".to_owned()))
        };
        let error = wait.reach("redis_url", &url(), wrong).await.unwrap_err();
        assert!(error.is_configuration());
        assert_eq!(attempts.into_inner(), 1);
    }
}
