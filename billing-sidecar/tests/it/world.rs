//! A billing service on a temporary directory, with a fake wallet, an outbox to append to, and clients of both its sides.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tonic::{Request, transport::Channel};
use weir_billing::{Config, Running};
use weir_contracts::{
    entry::{Entry, EntryBody, LeaseClosed, Outcome, RequestKind, UsageRecord},
    ids::{EntryId, LeaseId, ProxyId},
    proto::billing::{self as proto, gate_client::GateClient},
};
use weir_embedded::{Appended, Log, Position};
use weir_servers::ServerUrl;

use crate::fake_wallet::{FakeWallet, Served};

pub(crate) const TOKEN: &str = "test-token";
/// Any wait in these tests; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy id made of a number.
pub(crate) fn proxy(n: u128) -> ProxyId {
    ProxyId(uuid::Uuid::from_u128(n))
}

/// A usage record of account `demo` with this many rows, priced at 10 000 nano-units a row.
pub(crate) fn record(lease: Option<LeaseId>, request: u64, rows: u64) -> UsageRecord {
    UsageRecord {
        account: "demo".parse().unwrap(),
        principal: "demo".into(),
        session: 1,
        request,
        kind: RequestKind::Batch,
        requests: 1,
        rows,
        rows_affected: 0,
        result_sets: 1,
        bytes_out: rows * 100,
        bytes_in: 50,
        bulk_rows: 0,
        bulk_bytes: 0,
        server_nanos: 1_000,
        started_unix_nanos: 1_790_000_000_000_000_000,
        ended_unix_nanos: 1_790_000_001_000_000_000,
        outcome: Outcome::Completed,
        drift: false,
        unparsed: false,
        tariff: "t@1".into(),
        lease,
        cost_nanos: i64::try_from(rows).unwrap() * 10_000,
    }
}

/// A journal: entries get their places here.
pub(crate) struct Journal {
    pub(crate) proxy: ProxyId,
    pub(crate) epoch: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Journal {
    pub(crate) fn new(n: u128) -> Self {
        Self {
            proxy: proxy(n),
            epoch: 1,
            entries: Vec::new(),
        }
    }

    pub(crate) fn lease(&self, number: u32) -> LeaseId {
        LeaseId {
            proxy: self.proxy,
            epoch: self.epoch,
            number,
        }
    }

    pub(crate) fn append(&mut self, body: EntryBody) -> Entry {
        let last = self.entries.last().filter(|e| e.id.epoch == self.epoch);
        let id = EntryId {
            proxy: self.proxy,
            epoch: self.epoch,
            sequence: last.map_or(0, |e| e.id.sequence) + 1,
        };
        let entry = Entry { id, body };
        self.entries.push(entry.clone());
        entry
    }

    pub(crate) fn usage(&mut self, record: UsageRecord) -> Entry {
        self.append(EntryBody::Usage(record))
    }

    /// The closing record that agrees with what was appended.
    pub(crate) fn close(&mut self, lease: LeaseId) -> Entry {
        let mut closed = LeaseClosed {
            lease,
            account: "demo".parse().unwrap(),
            records: 0,
            cost_nanos: 0,
            last_sequence: 0,
        };
        for entry in &self.entries {
            if let EntryBody::Usage(u) = &entry.body
                && u.lease == Some(lease)
            {
                closed.records += 1;
                closed.cost_nanos += u.cost_nanos;
                closed.last_sequence = entry.id.sequence;
            }
        }
        self.append(EntryBody::LeaseClosed(closed))
    }

    /// Appends everything from an index on to an outbox, as a proxy's shipper does.
    pub(crate) async fn ship(&self, outbox: &Log, from: usize) {
        let place = |e: &Entry| Position {
            epoch: e.id.epoch,
            sequence: e.id.sequence,
        };
        let after = from.checked_sub(1).and_then(|i| self.entries.get(i)).map(place);
        let entries: Vec<_> = self.entries[from..]
            .iter()
            .map(|e| (place(e), serde_json::to_vec(e).unwrap()))
            .collect();
        let stream = format!("usage:{}", self.proxy);
        let appended = outbox.append_after(&stream, after, entries).await.unwrap();
        assert_eq!(appended, Appended::Done);
    }
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) wallet: Served,
    pub(crate) wallet_rest: std::net::SocketAddr,
    pub(crate) billing: Option<Running>,
    pub(crate) outbox: Log,
    /// PostgreSQL's address and schema, when the billing store is there.
    database: Option<(ServerUrl, String)>,
}

fn config(
    dir: &Path,
    wallet: &Served,
    wallet_rest: std::net::SocketAddr,
    database: Option<&(ServerUrl, String)>,
) -> Config {
    let mut config = Config {
        data_dir: dir.join("billing"),
        rest_listen: "127.0.0.1:0".parse().unwrap(),
        grpc_listen: "127.0.0.1:0".parse().unwrap(),
        token: TOKEN.into(),
        wallet_url: format!("http://{}", wallet.addr),
        wallet_rest_url: Some(format!("http://{wallet_rest}")),
        outbox_paths: vec![dir.join("outbox.db")],
        broker_path: dir.join("broker.db"),
        lease: weir_billing::LeaseConfig {
            recall_wait_ms: 3_000,
            ..Default::default()
        },
        ..Config::default()
    };
    if let Some((url, schema)) = database {
        config.database_url = Some(url.clone());
        config.database_schema.clone_from(schema);
    }
    config
}

impl World {
    /// Started, without accounts.
    pub(crate) async fn empty() -> Self {
        Self::configured(|_| {}).await
    }

    /// Started on a PostgreSQL schema, without accounts.
    #[cfg(feature = "servers")]
    pub(crate) async fn on_database(url: ServerUrl, schema: String) -> Self {
        Self::made(Some((url, schema)), |_| {}).await
    }

    /// As `empty`, with a change to the configuration (until the first restart).
    pub(crate) async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::made(None, change).await
    }

    async fn made(database: Option<(ServerUrl, String)>, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wallet = FakeWallet::new().serve(None).await;
        let wallet_rest = wallet.wallet.serve_rest().await;
        let mut config = config(dir.path(), &wallet, wallet_rest, database.as_ref());
        change(&mut config);
        let billing = weir_billing::start(config).await.unwrap();
        let outbox = Log::open(&dir.path().join("outbox.db")).unwrap();
        Self {
            dir,
            wallet,
            wallet_rest,
            billing: Some(billing),
            outbox,
            database,
        }
    }

    /// With tariff `t@1` (10 000 nano-units a row) and account `demo` with 5.00 USD.
    pub(crate) async fn demo() -> Self {
        Self::empty().await.with_demo().await
    }

    /// With the tariff and the account that `demo` says.
    pub(crate) async fn with_demo(self) -> Self {
        let world = self;
        world
            .put(
                "/api/tariffs/t@1",
                json!({"currency": "USD", "per_row": "0.00001"}),
            )
            .await;
        world
            .post(
                "/api/accounts",
                json!({"account": "demo", "login": "demo", "currency": "USD", "initial_credit": "5.00",
                       "tariff": "t@1", "mode": "enforce"}),
            )
            .await;
        world
    }

    pub(crate) fn running(&self) -> &Running {
        self.billing.as_ref().unwrap()
    }

    /// Stops billing, if it runs.
    pub(crate) async fn stop(&mut self) {
        if let Some(billing) = self.billing.take() {
            billing.stop().await;
        }
    }

    /// Stops billing and starts it again on the same directory.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let config = config(
            self.dir.path(),
            &self.wallet,
            self.wallet_rest,
            self.database.as_ref(),
        );
        self.billing = Some(weir_billing::start(config).await.unwrap());
    }

    /// A REST call: status and JSON body.
    pub(crate) async fn call(&self, method: &'static str, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.running().rest_addr);
        tokio::task::spawn_blocking(move || call(method, &url, Some(TOKEN), body))
            .await
            .unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.call("POST", path, Some(body)).await;
        assert!(status < 300, "{path}: {status} {body}");
        body
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.call("PUT", path, Some(body)).await;
        assert!(status < 300, "{path}: {status} {body}");
        body
    }

    /// A client of the gate's gRPC, with the token.
    pub(crate) async fn gate(&self) -> Gate {
        let url = format!("http://{}", self.running().grpc_addr);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Gate(GateClient::new(channel))
    }

    /// Waits until a condition on a REST answer holds, waking by asking again.
    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let body = self.get(path).await;
            if holds(&body) {
                return body;
            }
            if tokio::time::Instant::now() >= deadline {
                panic!("{path} stays {body}; live: {}", self.get("/api/live").await);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// One REST call, blocking.
pub(crate) fn call(method: &str, url: &str, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(35)))
        .build()
        .into();
    let bearer = format!("Bearer {}", token.unwrap_or_default());
    let sent = match (method, body) {
        ("GET", _) => agent.get(url).header("authorization", bearer).call(),
        ("PUT", Some(body)) => agent.put(url).header("authorization", bearer).send_json(body),
        ("POST", Some(body)) => agent.post(url).header("authorization", bearer).send_json(body),
        other => panic!("{other:?}"),
    };
    let mut response = sent.unwrap();
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap();
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

/// A proxy's side of the gate.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) GateClient<Channel>);

pub(crate) fn signed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {TOKEN}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

impl Gate {
    /// Registers a start, chained to the one before it.
    pub(crate) async fn register(&mut self, proxy: ProxyId, epoch: u64) -> Result<(), tonic::Status> {
        let message = proto::RegisterRequest {
            proxy: proxy.to_string(),
            epoch,
            boot_nonce: format!("start {epoch}"),
            previous_boot_nonce: format!("start {}", epoch - 1),
        };
        self.0.register(signed(message)).await.map(|_| ())
    }

    /// An ask for credit by a start that is registered.
    pub(crate) async fn lease(
        &mut self,
        lease: LeaseId,
        known: i64,
        want: i64,
    ) -> Result<proto::lease_reply::Outcome, tonic::Status> {
        self.register(lease.proxy, lease.epoch).await?;
        self.ask(lease, known, want).await
    }

    /// An ask for credit, registered or not.
    pub(crate) async fn ask(
        &mut self,
        lease: LeaseId,
        known: i64,
        want: i64,
    ) -> Result<proto::lease_reply::Outcome, tonic::Status> {
        let message = proto::LeaseRequest {
            proxy: lease.proxy.to_string(),
            epoch: lease.epoch,
            account: "demo".into(),
            lease_id: lease.to_string(),
            known_grant_nanos: known,
            want_nanos: want,
        };
        let reply = self.0.lease(signed(message)).await?.into_inner();
        Ok(reply.outcome.unwrap())
    }

    /// What was granted in all.
    pub(crate) async fn granted(&mut self, lease: LeaseId, known: i64, want: i64) -> i64 {
        match self.lease(lease, known, want).await.unwrap() {
            proto::lease_reply::Outcome::Grant(grant) => grant.granted_total_nanos,
            denied => panic!("{denied:?}"),
        }
    }

    pub(crate) async fn denied(&mut self, lease: LeaseId, known: i64, want: i64) -> proto::Denial {
        match self.lease(lease, known, want).await.unwrap() {
            proto::lease_reply::Outcome::Denial(denial) => denial,
            granted => panic!("{granted:?}"),
        }
    }

    pub(crate) async fn watch(&mut self, proxy: ProxyId, epoch: u64) -> tonic::Streaming<proto::Notice> {
        let message = proto::WatchRequest {
            proxy: proxy.to_string(),
            epoch,
        };
        self.0.watch(signed(message)).await.unwrap().into_inner()
    }

    /// Answers requests to close in the background, as a proxy whose journal ends at `last_sequence`.
    pub(crate) async fn answer_closes(
        &self,
        proxy: ProxyId,
        epoch: u64,
        last: Arc<std::sync::atomic::AtomicU64>,
        busy: bool,
    ) {
        let mut gate = self.clone();
        let mut notices = gate.watch(proxy, epoch).await;
        tokio::spawn(async move {
            while let Ok(Some(notice)) = notices.message().await {
                if let Some(proto::notice::What::CloseLeases(close)) = notice.what {
                    let report = proto::CloseReport {
                        request_id: close.request_id,
                        proxy: proxy.to_string(),
                        epoch,
                        account: close.account,
                        last_sequence: last.load(std::sync::atomic::Ordering::SeqCst),
                        busy,
                    };
                    let _ = gate.0.report_closed(signed(report)).await;
                }
            }
        });
    }
}
