//! TLS configurations of both legs, from PEM files, for handshakes wrapped in PRELOGIN packets.
//!
//! TLS 1.2 only: the wrapped handshake of TDS 7.x has no room for the messages that 1.3 sends after it (facts 2.2).

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::TLS12,
};

use crate::config::{Config, ConfigError, UpstreamEncryption};

fn unusable(key: &'static str, path: &Path, what: impl std::fmt::Display) -> ConfigError {
    ConfigError::Value {
        key,
        what: format!("{}: {what}", path.display()),
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(unusable(key, path, "there is no certificate in it"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(key, path, error)),
    }
}

/// The clients' leg; `None` without a certificate.
///
/// # Errors
/// A file that cannot be read or used; the key is named.
pub fn for_clients(config: &Config) -> Result<Option<Arc<ServerConfig>>, ConfigError> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(None);
    };
    let chain = certificates("tls_cert", cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable("tls_key", key, e))?;
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .map_err(|e| unusable("tls_cert", cert, e))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| unusable("tls_cert", cert, e))?;
    Ok(Some(Arc::new(server)))
}

/// A client configuration and the name that the server's certificate must carry.
pub type UpstreamTls = (Arc<ClientConfig>, ServerName<'static>);

/// The server's leg; `None` if it is not encrypted.
///
/// # Errors
/// A file that cannot be read or used, or no way to verify the server; the key is named.
pub fn for_upstream(config: &Config) -> Result<Option<UpstreamTls>, ConfigError> {
    if config.upstream_encryption == UpstreamEncryption::None {
        return Ok(None);
    }
    let host = config
        .upstream_host_name
        .as_deref()
        .unwrap_or_else(|| config.upstream_host())
        .to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| ConfigError::Value {
        key: "upstream_host_name",
        what: format!("'{host}' is not a host name or an address"),
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12])
        .map_err(|e| ConfigError::Value {
            key: "upstream_encryption",
            what: e.to_string(),
        })?;
    let client = if config.upstream_trust {
        let trusting = Arc::new(TrustAny { provider });
        builder
            .dangerous()
            .with_custom_certificate_verifier(trusting)
            .with_no_client_auth()
    } else {
        let Some(ca) = &config.upstream_ca else {
            let what = "name the PEM file of the authority (or of the self-signed certificate itself) that the \
                        server's certificate chains to; or set upstream_trust, which lets whoever stands between \
                        read logins and data";
            return Err(ConfigError::Value {
                key: "upstream_ca",
                what: what.to_owned(),
            });
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("upstream_ca", ca)? {
            roots
                .add(certificate)
                .map_err(|e| unusable("upstream_ca", ca, e))?;
        }
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    Ok(Some((Arc::new(client), name)))
}

/// Accepts any certificate, but not a forged signature: what `upstream_trust` asks for.
#[derive(Debug)]
struct TrustAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
