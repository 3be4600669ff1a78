//! The composition: wallet, billing, sandbox, proxy, started in the order in which they need each other and stopped the other way.
//!
//! They speak gRPC over loopback here as they do apart: one code path, no short cut in the process.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use weir_proxy::config::UpstreamEncryption;

use super::{DemoError, directory::Directory, tls};
use crate::{cli::DemoArgs, running::Running};

/// A free port of this machine, not to be reached from others.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What runs so far; a start that fails half-way is stopped like a whole one.
#[derive(Default)]
pub(crate) struct Services {
    wallet: Option<weir_wallet::Running>,
    billing: Option<weir_billing::Running>,
    sandbox: Option<weir_sandbox::Running>,
    proxy: Option<weir_proxy::Running>,
}

/// The server that the proxy stands in front of.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    /// `host:port`.
    pub(crate) address: String,
    /// Encryption on its leg.
    pub(crate) encryption: UpstreamEncryption,
    /// Whose certificates are believed; the system's authorities without it.
    pub(crate) ca: Option<PathBuf>,
    /// Any certificate is believed.
    pub(crate) trust: bool,
    /// Name in its certificate, if it is not the host's.
    pub(crate) host_name: Option<String>,
}

impl Services {
    /// Starts wallet and billing on free ports, for a proxy that [`Services::put_proxy`] starts; answers billing's REST and
    /// gRPC addresses.
    pub(crate) async fn start_books(
        &mut self,
        directory: &Directory,
    ) -> Result<(SocketAddr, SocketAddr), DemoError> {
        let (wallet, wallet_grpc) = self.start_wallet(ANY, directory).await?;
        self.start_billing(ANY, directory, wallet, wallet_grpc).await
    }

    /// Starts the proxy in front of a server, in place of the one that runs.
    pub(crate) async fn put_proxy(
        &mut self,
        listen: SocketAddr,
        directory: &Directory,
        tls: &tls::Files,
        upstream: &Upstream,
        billing_grpc: SocketAddr,
    ) -> Result<SocketAddr, DemoError> {
        if let Some(before) = self.proxy.take() {
            before.stop().await;
        }
        let config = weir_proxy::Config {
            listen,
            upstream: upstream.address.clone(),
            upstream_encryption: upstream.encryption,
            upstream_ca: upstream.ca.clone(),
            upstream_trust: upstream.trust,
            upstream_host_name: upstream.host_name.clone(),
            data_dir: directory.part("journal")?,
            outbox_path: directory.path().join("outbox.db"),
            billing_url: format!("http://{billing_grpc}"),
            token: directory.token().to_owned().into(),
            tls_cert: Some(tls.cert.clone()),
            tls_key: Some(tls.key.clone()),
            ..weir_proxy::Config::default()
        };
        let running = weir_proxy::start(config).await.map_err(not_started("proxy"))?;
        let address = reachable(running.addr);
        self.proxy = Some(running);
        Ok(address)
    }

    /// Starts all; returns when each listens.
    pub(super) async fn start(
        &mut self,
        args: &DemoArgs,
        directory: &Directory,
        tls: &tls::Files,
    ) -> Result<Running, DemoError> {
        let (wallet, wallet_grpc) = self.start_wallet(args.wallet, directory).await?;
        let (console, billing_grpc) = self
            .start_billing(args.console, directory, wallet, wallet_grpc)
            .await?;
        let sandbox = self.start_sandbox(directory, tls).await?;
        let upstream = Upstream {
            address: sandbox.to_string(),
            encryption: UpstreamEncryption::default(),
            ca: Some(tls.cert.clone()),
            trust: false,
            host_name: None,
        };
        let listen = self
            .put_proxy(args.listen, directory, tls, &upstream, billing_grpc)
            .await?;
        Ok(Running {
            pid: std::process::id(),
            data_dir: directory.path().to_owned(),
            listen,
            console,
            wallet,
            billing_grpc,
            wallet_grpc,
            sandbox,
        })
    }

    async fn start_wallet(
        &mut self,
        listen: SocketAddr,
        directory: &Directory,
    ) -> Result<(SocketAddr, SocketAddr), DemoError> {
        let config = weir_wallet::Config {
            data_dir: directory.part("wallet")?,
            rest_listen: listen,
            grpc_listen: ANY,
            token: directory.token().to_owned(),
            broker_path: directory.path().join("broker.db"),
            ..weir_wallet::Config::default()
        };
        let running = weir_wallet::start(config).await.map_err(not_started("wallet"))?;
        let addresses = (reachable(running.rest_addr), running.grpc_addr);
        self.wallet = Some(running);
        Ok(addresses)
    }

    async fn start_billing(
        &mut self,
        listen: SocketAddr,
        directory: &Directory,
        wallet: SocketAddr,
        wallet_grpc: SocketAddr,
    ) -> Result<(SocketAddr, SocketAddr), DemoError> {
        let config = weir_billing::Config {
            data_dir: directory.part("billing")?,
            rest_listen: listen,
            grpc_listen: ANY,
            token: directory.token().into(),
            wallet_url: format!("http://{wallet_grpc}"),
            wallet_rest_url: Some(format!("http://{wallet}")),
            outbox_paths: vec![directory.path().join("outbox.db")],
            broker_path: directory.path().join("broker.db"),
            ..weir_billing::Config::default()
        };
        let running = weir_billing::start(config)
            .await
            .map_err(not_started("billing"))?;
        let addresses = (reachable(running.rest_addr), running.grpc_addr);
        self.billing = Some(running);
        Ok(addresses)
    }

    async fn start_sandbox(
        &mut self,
        directory: &Directory,
        tls: &tls::Files,
    ) -> Result<SocketAddr, DemoError> {
        let config = weir_sandbox::Config {
            listen: ANY,
            data_dir: Some(directory.part("sandbox")?),
            tls: Some(weir_sandbox::TlsFiles {
                cert: tls.cert.clone(),
                key: tls.key.clone(),
            }),
            ..weir_sandbox::Config::default()
        };
        let running = weir_sandbox::start(config)
            .await
            .map_err(not_started("sandbox"))?;
        let address = running.addr;
        self.sandbox = Some(running);
        Ok(address)
    }

    /// Waits until a service that all need has ended by itself, and names it.
    pub(super) async fn ended(&mut self) -> &'static str {
        match &mut self.wallet {
            Some(wallet) => {
                wallet.failed().await;
                "wallet"
            }
            None => std::future::pending().await,
        }
    }

    /// Stops what runs, each within its own deadline: first what makes usage, last what books it.
    pub(crate) async fn stop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop().await;
        }
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.stop().await;
        }
        if let Some(billing) = self.billing.take() {
            billing.stop().await;
        }
        if let Some(wallet) = self.wallet.take() {
            wallet.stop().await;
        }
    }
}

fn not_started<E: std::fmt::Display>(service: &'static str) -> impl FnOnce(E) -> DemoError {
    move |cause| DemoError::Start {
        service,
        cause: cause.to_string(),
    }
}

/// The address that others on this machine reach a listener by: "any address" is no address to connect to.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, bound.port())
}
