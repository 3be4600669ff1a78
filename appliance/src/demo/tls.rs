//! The demo's self-signed certificate: made once, `DIR/tls/cert.pem` for clients to trust, the key beside it (0600).

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DnType, KeyPair};

use super::directory::{DirectoryError, unusable, write_private};

/// Files of a certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// For clients, too.
    pub(crate) cert: PathBuf,
    /// Never leaves the directory.
    pub(crate) key: PathBuf,
}

/// The directory's certificate, made when there is none; SAN localhost and 127.0.0.1.
pub(crate) fn certificate(dir: &Path) -> Result<Files, DirectoryError> {
    let folder = dir.join("tls");
    let files = Files {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    fs::create_dir_all(&folder).map_err(unusable(&folder))?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "weir demo");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    // The key first: a certificate without its key would be taken for complete by no one.
    write_private(&files.key, key.serialize_pem().as_bytes()).map_err(unusable(&files.key))?;
    fs::write(&files.cert, certificate.pem()).map_err(unusable(&files.cert))?;
    Ok(files)
}
