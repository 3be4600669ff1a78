//! Renews TLS while the proxy runs: on SIGHUP and when a certificate's file changes. Sessions that are open keep what they have.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError},
    session::encryption::{ClientTls, Renewable, UpstreamTls},
    tls,
};

/// How often the files are looked at. A certificate is renewed days before it ends.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What became of the renewals so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Renewals {
    /// The new files are in use.
    pub done: u64,
    /// The new files could not be used, the old ones still are.
    pub failed: u64,
}

/// Everything of TLS that can be renewed.
pub(crate) struct Renewal {
    config: Config,
    clients: Option<Arc<Renewable<ClientTls>>>,
    upstream: Option<Arc<Renewable<UpstreamTls>>>,
    counts: watch::Sender<Renewals>,
    /// What the files looked like when they were last read.
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// Tells a changed file from the same: when it was written, how long it is. Links are followed, since a secret that is
/// mounted is renewed by pointing a link elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    written: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            written: found.modified().ok(),
            len: found.len(),
            inode: found.ino(),
        })
    }
}

impl Renewal {
    /// Reads what `config` names for the first time.
    ///
    /// # Errors
    /// A file that cannot be read or used; the key is named.
    pub(crate) fn load(config: &Config) -> Result<Arc<Self>, ConfigError> {
        let seen = Mutex::new(stamps(config));
        Ok(Arc::new(Self {
            clients: tls::for_clients(config)?.map(|tls| Arc::new(Renewable::new(tls))),
            upstream: tls::for_upstream(config)?.map(|tls| Arc::new(Renewable::new(tls))),
            config: config.clone(),
            counts: watch::Sender::new(Renewals::default()),
            seen,
        }))
    }

    pub(crate) fn clients(&self) -> Option<Arc<Renewable<ClientTls>>> {
        self.clients.clone()
    }

    pub(crate) fn upstream(&self) -> Option<Arc<Renewable<UpstreamTls>>> {
        self.upstream.clone()
    }

    /// Follows the counts.
    pub(crate) fn counts(&self) -> watch::Receiver<Renewals> {
        self.counts.subscribe()
    }

    /// Reads the files again. Each leg by itself: what cannot be used leaves that leg as it was.
    pub(crate) fn renew(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamps(&self.config);
        let clients = tls::for_clients(&self.config).map(|new| put(self.clients.as_deref(), new));
        let upstream = tls::for_upstream(&self.config).map(|new| put(self.upstream.as_deref(), new));
        let failures: Vec<ConfigError> = [clients, upstream].into_iter().filter_map(Result::err).collect();
        for error in &failures {
            tracing::error!(%error, "TLS is not renewed: what was in use still is");
        }
        if failures.is_empty() {
            tracing::info!("TLS is renewed: new sessions use the files as they are");
        }
        self.counts.send_modify(|counts| {
            if failures.is_empty() {
                counts.done += 1;
            } else {
                counts.failed += 1;
            }
        });
    }

    fn has_changed(&self) -> bool {
        stamps(&self.config) != *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews whenever a file has changed, until `stop`. A pair of which only one file is new yet fails once, and is taken
    /// when the other is there.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = stop.cancelled() => return,
            }
            let this = Arc::clone(&self);
            let look = move || {
                if this.has_changed() {
                    this.renew();
                }
            };
            if let Err(error) = tokio::task::spawn_blocking(look).await {
                tracing::error!(%error, "certificates");
            }
        }
    }
}

fn put<T>(place: Option<&Renewable<T>>, new: Option<T>) {
    if let (Some(place), Some(new)) = (place, new) {
        place.replace(new);
    }
}

fn stamps(config: &Config) -> Vec<Option<Stamp>> {
    let files = [&config.tls_cert, &config.tls_key, &config.upstream_ca];
    files
        .into_iter()
        .map(|file| file.as_deref().and_then(Stamp::of))
        .collect()
}
