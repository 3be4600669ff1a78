//! The server's certificate and the two rustls configurations: TLS 1.2 for the wrapped handshake, 1.2 and 1.3 for TDS 8.0.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use crate::config::TlsFiles;

/// ALPN of TDS 8.0 [MS-TDS 1.9].
const ALPN: &[u8] = b"tds/8.0";

/// Ready configurations.
#[derive(Debug, Clone)]
pub(crate) struct TlsSetup {
    wrapped: Arc<ServerConfig>,
    strict: Arc<ServerConfig>,
}

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or has no PEM item of the kind.
    #[error("cannot read {path}: {source}")]
    File {
        /// As configured.
        path: String,
        /// The reader's reason.
        source: rustls::pki_types::pem::Error,
    },
    /// The key does not fit the certificate, or is of an unknown kind.
    #[error("cannot use the certificate and key: {0}")]
    Use(#[from] rustls::Error),
}

impl TlsSetup {
    /// Reads the PEM files. Blocking; done once at the start.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect);
        let chain = chain.map_err(|source| file_error(&files.cert, source))?;
        let key =
            PrivateKeyDer::from_pem_file(&files.key).map_err(|source| file_error(&files.key, source))?;
        let build = |versions: &[&'static SupportedProtocolVersion]| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
            builder
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.clone_key())
        };
        // What 1.3 sends after the handshake (RFC 8446, 4.6) has no room in the wrapped one.
        let wrapped = build(&[&rustls::version::TLS12])?;
        let mut strict = build(&[&rustls::version::TLS12, &rustls::version::TLS13])?;
        strict.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            wrapped: Arc::new(wrapped),
            strict: Arc::new(strict),
        })
    }

    pub(crate) fn wrapped(&self) -> Result<ServerConnection, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.wrapped))
    }

    pub(crate) fn strict(&self) -> Result<ServerConnection, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.strict))
    }
}

fn file_error(path: &Path, source: rustls::pki_types::pem::Error) -> TlsError {
    TlsError::File {
        path: path.display().to_string(),
        source,
    }
}
