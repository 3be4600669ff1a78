//! A schema of our own in the real PostgreSQL, dropped at the end, and stores opened in it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::runtime::Runtime;
use weir_servers::{
    ServerUrl,
    postgres::{Pool, PoolOptions},
};
use weir_wallet::{adapters::postgres::PostgresEventStore, ports::event_store::EventStore};

/// Far above what a loaded machine needs. Also bounds how long a transaction may stay open, at twice that.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Database {
    pub(crate) runtime: Runtime,
    pub(crate) schema: String,
    /// For statements that no store sends.
    pub(crate) raw: Pool,
}

impl Database {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("t_{now}_{}_{next}", std::process::id());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let raw = runtime.block_on(connect(&url(), &schema, PATIENCE, 4));
        Self { runtime, schema, raw }
    }

    /// Another opener, with connections of its own.
    pub(crate) fn open(&self) -> Arc<PostgresEventStore> {
        self.open_at(&url(), PATIENCE, 4)
    }

    pub(crate) fn open_boxed(&self) -> Box<dyn EventStore> {
        let pool = self.runtime.block_on(connect(&url(), &self.schema, PATIENCE, 3));
        Box::new(self.runtime.block_on(PostgresEventStore::open(pool)).unwrap())
    }

    pub(crate) fn open_at(
        &self,
        url: &ServerUrl,
        deadline: Duration,
        size: usize,
    ) -> Arc<PostgresEventStore> {
        let pool = self.runtime.block_on(connect(url, &self.schema, deadline, size));
        Arc::new(self.runtime.block_on(PostgresEventStore::open(pool)).unwrap())
    }

    pub(crate) fn sql(&self, sql: &str) {
        let done = async { self.raw.get().await?.batch(sql).await };
        self.runtime.block_on(done).unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop_all = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema);
        let done = async { self.raw.get().await?.batch(&drop_all).await };
        if let Err(e) = self.runtime.block_on(done) {
            eprintln!("{} is left behind: {e}", self.schema);
        }
    }
}

async fn connect(url: &ServerUrl, schema: &str, deadline: Duration, size: usize) -> Pool {
    let options = PoolOptions {
        size,
        deadline,
        ..PoolOptions::new(schema, schema)
    };
    Pool::connect(url, options, PATIENCE).await.unwrap()
}

pub(crate) fn url() -> ServerUrl {
    super::address("DATABASE_URL").into()
}

/// Where the server listens.
pub(crate) fn server() -> SocketAddr {
    let url = super::address("DATABASE_URL");
    let (_, host) = url.rsplit_once('@').unwrap();
    host.split('/').next().unwrap().parse().unwrap()
}

/// The server's address by way of a proxy.
pub(crate) fn through(proxy: SocketAddr) -> ServerUrl {
    let url = super::address("DATABASE_URL");
    url.replace(&server().to_string(), &proxy.to_string()).into()
}
