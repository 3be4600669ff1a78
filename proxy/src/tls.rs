//! TLS configurations of both legs, from PEM files and the system's roots.
//!
//! Handshakes wrapped in PRELOGIN packets are TLS 1.2 only: TDS 7.x has no room for what 1.3 sends after the handshake
//! (RFC 8446, 4.6), and drivers pin 1.2 for it. TDS 8.0 takes 1.2 and 1.3, with ALPN [MS-TDS 1.7].

use std::{net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::{TLS12, TLS13},
};

use crate::{
    config::{ClientEncryption, Config, ConfigError, UpstreamEncryption},
    session::encryption::{ALPN_TDS8, ClientTls, UpstreamTls},
};

const TDS7_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS12];
const TDS8_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

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

/// Says at the start what each weakness that is configured costs.
pub(crate) fn warn_of_risks(config: &Config) {
    if config.client_encryption == ClientEncryption::None && !config.listen.ip().is_loopback() {
        tracing::warn!(
            "client_encryption is none: logins and data of all clients can be read on the way; set tls_cert and tls_key"
        );
    }
    let upstream = config.upstream_host();
    let near = upstream == "localhost" || upstream.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match config.upstream_encryption {
        UpstreamEncryption::None if !near => tracing::warn!(
            "upstream_encryption is none: every login and all data can be read between the gate and {upstream}"
        ),
        UpstreamEncryption::LoginOnly if !near => tracing::warn!(
            "upstream_encryption is login-only: all data but the login can be read and changed between the gate and {upstream}"
        ),
        _ => {}
    }
    if config.upstream_trust && config.upstream_encryption != UpstreamEncryption::None {
        tracing::warn!(
            "upstream_trust is on: any certificate passes for {upstream}'s, so whoever stands between can take its place, \
             read every login and all data, and change them; name the certificate or its authority by upstream_ca instead"
        );
    }
}

/// The clients' leg; `None` without a certificate.
///
/// # Errors
/// A file that cannot be read or used; the key is named.
pub fn for_clients(config: &Config) -> Result<Option<ClientTls>, ConfigError> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(None);
    };
    let chain = certificates("tls_cert", cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable("tls_key", key, e))?;
    let server = |versions: &[&'static SupportedProtocolVersion]| {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .and_then(|b| {
                b.with_no_client_auth()
                    .with_single_cert(chain.clone(), private.clone_key())
            })
            .map_err(|e| unusable("tls_cert", cert, format!("{e} (the key is {})", key.display())))
    };
    let mut tds8 = server(TDS8_VERSIONS)?;
    // A client that offers no ALPN is taken as TDS 8.0 too; one that offers another is refused [MS-TDS 1.7].
    tds8.alpn_protocols = vec![ALPN_TDS8.to_vec()];
    Ok(Some(ClientTls {
        tds7: Arc::new(server(TDS7_VERSIONS)?),
        tds8: Arc::new(tds8),
    }))
}

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
    let judge = Arc::new(Judge {
        trust: trust(config, &provider)?,
        provider: Arc::clone(&provider),
    });
    let client = |versions: &[&'static SupportedProtocolVersion]| {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        let builder = builder.map_err(|e| ConfigError::Value {
            key: "upstream_encryption",
            what: e.to_string(),
        })?;
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Judge>::clone(&judge))
            .with_no_client_auth())
    };
    let mut tds8 = client(TDS8_VERSIONS)?;
    tds8.alpn_protocols = vec![ALPN_TDS8.to_vec()];
    Ok(Some(UpstreamTls {
        tds7: Arc::new(client(TDS7_VERSIONS)?),
        tds8: Arc::new(tds8),
        name,
    }))
}

/// How the server's certificate is judged: any, pinned or of a given authority, or of one that the system trusts.
///
/// # Errors
/// No certificate that could be an authority's; the key is named.
fn trust(config: &Config, provider: &Arc<CryptoProvider>) -> Result<Trust, ConfigError> {
    if config.upstream_trust {
        return Ok(Trust::Any);
    }
    let (key, given) = match &config.upstream_ca {
        Some(ca) => (ca.display().to_string(), certificates("upstream_ca", ca)?),
        None => ("the system's roots".to_owned(), system_roots()?),
    };
    let mut roots = RootCertStore::empty();
    let (anchors, refused) = roots.add_parsable_certificates(given.iter().cloned());
    if anchors == 0 {
        return Err(ConfigError::Value {
            key: "upstream_ca",
            what: format!("{key}: none of its {refused} certificates can be used"),
        });
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    let chain = chain.map_err(|e| ConfigError::Value {
        key: "upstream_ca",
        what: format!("{key}: {e}"),
    })?;
    // An authority of the system's signs; it is no server's own certificate.
    let pinned = if config.upstream_ca.is_some() {
        given
    } else {
        Vec::new()
    };
    Ok(Trust::Roots { pinned, chain })
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(String::new, |e| format!(" ({e})"));
        let what = format!(
            "this system has no certificate authorities{why}: name the PEM file of the authority, or of the certificate \
             itself, that the server shows; or install the system's authorities (ca-certificates); or set upstream_trust, \
             which lets whoever stands between read logins and data"
        );
        return Err(ConfigError::Value {
            key: "upstream_ca",
            what,
        });
    }
    Ok(found.certs)
}

/// Judges what the server shows. A forged signature passes under no kind of trust.
#[derive(Debug)]
struct Judge {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

/// Whose certificate passes.
#[derive(Debug)]
enum Trust {
    /// Anybody's: what `upstream_trust` asks for.
    Any,
    /// The very certificates that `upstream_ca` holds, whatever name and use stand in them (SQL Server signs its own
    /// without a host name), and what chains to the roots under the right name.
    Roots {
        pinned: Vec<CertificateDer<'static>>,
        chain: Arc<WebPkiServerVerifier>,
    },
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Any => Ok(ServerCertVerified::assertion()),
            Trust::Roots { pinned, .. } if pinned.iter().any(|known| known == end_entity) => {
                Ok(ServerCertVerified::assertion())
            }
            Trust::Roots { chain, .. } => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
