//! Which outbox the proxy ships to: the embedded one in a file, or Redis when its address is configured.

use std::sync::Arc;
#[cfg(feature = "servers")]
use std::time::Duration;

use weir_contracts::ids::ProxyId;

#[cfg(feature = "servers")]
use crate::adapters::redis_outbox::{self, RedisOutbox};
use crate::{
    adapters::embedded_outbox::EmbeddedOutbox, app::StartError, config::Config, ports::outbox::Outbox,
};

/// An opened outbox, before it is known which proxy ships to it.
pub(crate) enum Opened {
    Embedded(weir_embedded::Log),
    #[cfg(feature = "servers")]
    Redis(weir_servers::redis::Log),
}

impl Opened {
    /// The stream of one proxy.
    pub(crate) fn of(self, proxy: ProxyId) -> Arc<dyn Outbox> {
        match self {
            Self::Embedded(log) => Arc::new(EmbeddedOutbox::new(log, proxy)),
            #[cfg(feature = "servers")]
            Self::Redis(log) => Arc::new(RedisOutbox::new(log, proxy)),
        }
    }
}

/// Opens the file, or waits for the server up to `start_wait_ms` and checks its settings.
pub(crate) async fn open(config: &Config) -> Result<Opened, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.redis_url {
        let wait = Duration::from_millis(config.start_wait_ms);
        return Ok(Opened::Redis(redis(url, &config.redis_prefix, wait).await?));
    }
    let path = config.outbox_path.clone();
    let opened = tokio::task::spawn_blocking(move || weir_embedded::Log::open(&path)).await;
    let log = opened.map_err(|e| StartError::Outbox(e.to_string()))?;
    Ok(Opened::Embedded(
        log.map_err(|e| StartError::Outbox(e.to_string()))?,
    ))
}

/// Connects once to every server that is configured, and checks its settings; changes nothing there. Names the keys of those that are
/// right.
///
/// # Errors
/// The first that is away or set up wrong, and what to do.
pub async fn check_servers(config: &Config) -> Result<Vec<&'static str>, StartError> {
    #[cfg(feature = "servers")]
    if let Some(url) = &config.redis_url {
        redis(url, &config.redis_prefix, Duration::ZERO).await?;
        return Ok(vec!["redis_url"]);
    }
    let _ = config;
    Ok(Vec::new())
}

#[cfg(feature = "servers")]
async fn redis(
    url: &weir_servers::ServerUrl,
    prefix: &str,
    wait: Duration,
) -> Result<weir_servers::redis::Log, StartError> {
    const KEY: &str = "redis_url";
    match redis_outbox::ready(url, prefix, wait).await {
        Ok((log, warnings)) => {
            for warning in warnings {
                tracing::warn!("{KEY}: {warning}");
            }
            Ok(log)
        }
        Err(error) if error.is_unavailable() => Err(StartError::Away {
            key: KEY,
            cause: error.to_string(),
            waited: wait,
        }),
        Err(error) => Err(StartError::Server {
            key: KEY,
            cause: error.to_string(),
        }),
    }
}
