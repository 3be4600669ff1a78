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
    trusting(roots)
}

fn trusting(roots: RootCertStore) -> Result<MakeRustlsConnect, PostgresError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| PostgresError::Settings(format!("TLS cannot be used: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpListener},
    };

    use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

    use super::*;

    /// Says yes to TLS and, once inside, to whoever comes. Serves so many connections.
    fn server(name: &str, connections: usize) -> (SocketAddr, RootCertStore) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().take(connections) {
                let mut client = client.unwrap();
                client.read_exact(&mut [0; 8]).unwrap();
                client.write_all(b"S").unwrap();
                let inside = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut inside = StreamOwned::new(inside, client);
                // The start-up message; then AuthenticationOk and ReadyForQuery. A client that mistrusts us leaves here.
                if matches!(inside.read(&mut [0; 1024]), Ok(1..)) {
                    inside.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
                    inside.flush().unwrap();
                }
            }
        });
        (address, roots)
    }

    async fn connect(host: &str, address: SocketAddr, roots: RootCertStore) -> Result<(), PostgresError> {
        let url = format!(
            "postgres://u:canary@{host}:{}/d?sslmode=require&hostaddr=127.0.0.1",
            address.port()
        );
        let config: Config = url.parse().unwrap();
        config
            .connect(trusting(roots).unwrap())
            .await
            .map(drop)
            .map_err(PostgresError::from)
    }

    #[tokio::test]
    async fn the_certificate_and_its_name_are_verified() {
        let (address, roots) = server("db.example", 3);
        connect("db.example", address, roots.clone()).await.unwrap();
        for refused in [
            connect("db.example", address, RootCertStore::empty()).await,
            connect("other.example", address, roots).await,
        ] {
            let PostgresError::Settings(told) = refused.unwrap_err() else {
                panic!("another error");
            };
            assert!(
                told.contains("SSL_CERT_FILE") && !told.contains("canary"),
                "{told}"
            );
        }
    }
}
