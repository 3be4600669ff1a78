//! TLS towards PostgreSQL: rustls on ring, the system's roots, the certificate and its name always verified.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresError;

/// Said nothing in the address, TLS is tried with servers on other machines, and not used within this one.
pub(super) fn choose_mode(config: &mut Config, said: bool) {
    if said {
        return;
    }
    let local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    if config.get_hosts().iter().all(local) {
        config.ssl_mode(SslMode::Disable);
    }
}

/// The connector. Reads the system's roots (or those of `SSL_CERT_FILE`) once.
pub(super) fn connector(mode: SslMode) -> Result<MakeRustlsConnect, PostgresError> {
    let mut roots = RootCertStore::empty();
    if mode != SslMode::Disable {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(
                "no certificate authority is known here: TLS with PostgreSQL will fail (SSL_CERT_FILE names a file of them)"
            );
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| PostgresError::Settings(format!("TLS cannot be used: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
