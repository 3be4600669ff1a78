//! A Weir of its own in front of the server under test: wallet, billing and proxy in this process, in a directory that goes
//! with it.

use std::{net::SocketAddr, path::PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;
use weir_contracts::money::Amount;

use crate::{
    client::{Client, ClientError},
    demo::{
        BLOCKING_DEADLINE, DemoError,
        directory::{Directory, DirectoryError},
        services::{Services, Upstream},
        tls,
    },
};

/// The account under test.
const ACCOUNT: &str = "selftest";
/// Its tariff: rows alone cost.
const TARIFF: &str = "selftest@1";
/// Price of a row, USD.
const ROW_PRICE: &str = "0.000010";
/// The same in nano-units.
const ROW_NANOS: i128 = 10_000;
/// A port of this machine that nobody else uses.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Weir, as long as this value lives.
pub(super) struct Gate {
    runtime: Option<tokio::runtime::Runtime>,
    services: Services,
    directory: Directory,
    files: tls::Files,
    billing_grpc: SocketAddr,
    client: Client,
    folder: PathBuf,
}

/// What a request came to in Weir's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Booked {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) outcome: String,
}

impl Gate {
    /// Starts wallet and billing; the proxy is put in front of the server by [`Gate::listen`].
    pub(super) fn start() -> Result<Self, DemoError> {
        let folder = std::env::temp_dir().join(format!("weir-selftest-{}", Uuid::new_v4().simple()));
        let directory = Directory::open(Some(folder.clone()))?;
        let files = tls::certificate(directory.path())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let mut services = Services::default();
        let (console, billing_grpc) = runtime.block_on(services.start_books(&directory))?;
        let client = Client::new(&format!("http://{console}"), directory.token());
        Ok(Self {
            runtime: Some(runtime),
            services,
            directory,
            files,
            billing_grpc,
            client,
            folder,
        })
    }

    /// Makes the account with credit for this many rows.
    pub(super) fn open_account(&self, login: &str, rows: u64) -> Result<(), ClientError> {
        let prices = json!({ "currency": "USD", "per_row": ROW_PRICE });
        let _: Value = self.client.put(&format!("/api/tariffs/{TARIFF}"), &prices)?;
        let account = json!({
            "account": ACCOUNT,
            "login": login,
            "currency": "USD",
            "initial_credit": price_of(rows),
            "tariff": TARIFF,
            "mode": "enforce",
        });
        let _: Value = self.client.post("/api/accounts", &account)?;
        Ok(())
    }

    /// Puts a proxy in front of the server, in place of the last one.
    pub(super) fn listen(&mut self, upstream: &Upstream) -> Result<SocketAddr, DemoError> {
        let Self {
            runtime: Some(runtime),
            services,
            directory,
            files,
            billing_grpc,
            ..
        } = self
        else {
            return Err(DemoError::Ended("the self-test's gate"));
        };
        runtime.block_on(services.put_proxy(ANY, directory, files, upstream, *billing_grpc))
    }

    /// The certificate that this gate shows its clients.
    pub(super) fn certificate(&self) -> &std::path::Path {
        &self.files.cert
    }

    /// Credit for this many rows more.
    pub(super) fn top_up(&self, rows: u64) -> Result<(), ClientError> {
        let body = json!({ "amount": price_of(rows), "key": Uuid::new_v4().to_string() });
        let _: Value = self
            .client
            .post(&format!("/api/accounts/{ACCOUNT}/top-up"), &body)?;
        Ok(())
    }

    /// Rows that the account's credit still covers, once all that had ended is booked.
    pub(super) fn rows_left(&self) -> Result<u64, ClientError> {
        let path = format!("/api/accounts/{ACCOUNT}?wait_settled=1");
        let account: Value = self.client.get_waiting(&path)?;
        let available = account.get("available").and_then(Value::as_str).unwrap_or("0");
        let nanos = available.parse::<Amount>().map_or(0, Amount::nanos);
        Ok(u64::try_from(nanos / ROW_NANOS).unwrap_or(0))
    }

    /// Waits until all that had ended is booked; what each request came to, oldest first.
    pub(super) fn booked(&self) -> Result<Vec<Booked>, ClientError> {
        let _: Value = self
            .client
            .get_waiting(&format!("/api/accounts/{ACCOUNT}?wait_settled=1"))?;
        let usage = crate::commands::usage_of(&self.client, ACCOUNT)?;
        let number = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_u64).unwrap_or(0);
        Ok(usage
            .iter()
            .map(|entry| Booked {
                rows: number(entry, "rows"),
                bytes: number(entry, "bytes"),
                outcome: entry
                    .get("outcome")
                    .and_then(Value::as_str)
                    .unwrap_or("-")
                    .to_owned(),
            })
            .collect())
    }

    /// True if Weir's own books add up; else the first difference.
    pub(super) fn reconcile(&self) -> Result<Option<String>, ClientError> {
        let books: Value = self.client.get_waiting("/api/reconcile")?;
        let ok = books.get("ok").and_then(Value::as_bool).unwrap_or(false);
        Ok((!ok).then(|| {
            books
                .get("first_difference")
                .map_or_else(String::new, Value::to_string)
        }))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(self.services.stop());
            runtime.shutdown_timeout(BLOCKING_DEADLINE);
        }
        // A directory that cannot be removed is left for the system's own cleaning of temporary files.
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

fn price_of(rows: u64) -> String {
    Amount::from_nanos(i128::from(rows) * ROW_NANOS).to_string()
}

impl From<DirectoryError> for super::SelftestError {
    fn from(error: DirectoryError) -> Self {
        Self::Gate(error.into())
    }
}
