//! How legs are encrypted in a measurement, and the certificate of every server in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Trying};

/// ALPN of TDS 8.0.
const ALPN: &[u8] = b"tds/8.0";
/// TDS 8.0 takes both.
const FIRST: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// TDS 7.x has no room for what 1.3 sends behind the handshake.
const WRAPPED: &[&SupportedProtocolVersion] = &[&TLS12];

/// Encryption of both legs of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// None.
    Plain,
    /// Of LOGIN7 alone.
    LoginOnly,
    /// TDS 8.0: TLS first.
    Strict,
}

impl Encryption {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::LoginOnly, Self::Strict];

    /// A name for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::LoginOnly => "login-only",
            Self::Strict => "TLS on both legs",
        }
    }

    /// As the handshake's place allows.
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Strict => FIRST,
            _ => WRAPPED,
        }
    }
}

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFiles {
    /// Directory of all three.
    directory: PathBuf,
}

impl CertificateFiles {
    /// Makes a self-signed one (ECDSA P-256) for loopback.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn make(directory: &Path) -> Result<Self, Failure> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let parameters = rcgen::CertificateParams::new(names).trying("certificate")?;
        let key = rcgen::KeyPair::generate().trying("certificate")?;
        let certificate = parameters.self_signed(&key).trying("certificate")?;
        let files = Self {
            directory: directory.to_owned(),
        };
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        for (path, text) in [
            (files.certificate(), certificate.clone()),
            (files.key(), key.clone()),
            (files.both(), certificate + &key),
        ] {
            std::fs::write(&path, text).trying(path.display())?;
        }
        Ok(files)
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("cert.pem")
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.directory.join("key.pem")
    }

    /// Both in one file, as HAProxy takes them.
    #[must_use]
    pub fn both(&self) -> PathBuf {
        self.directory.join("both.pem")
    }

    /// For who accepts.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn server(&self, encryption: Encryption) -> Result<Arc<ServerConfig>, Failure> {
        let chain = CertificateDer::from_pem_file(self.certificate()).trying("certificate")?;
        let key = PrivateKeyDer::from_pem_file(self.key()).trying("key")?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(encryption.versions())
            .trying("TLS")?
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .trying("certificate")?;
        if encryption == Encryption::Strict {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(Arc::new(config))
    }

    /// For who connects; trusts this certificate alone.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn client(&self, encryption: Encryption) -> Result<Arc<ClientConfig>, Failure> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.certificate()).trying("certificate")?;
        roots.add(certificate).trying("certificate")?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(encryption.versions())
            .trying("TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if encryption == Encryption::Strict {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(Arc::new(config))
    }
}
