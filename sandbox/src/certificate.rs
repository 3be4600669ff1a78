//! A self-signed certificate for a sandbox that was given none: made once per directory, the key beside it (0600).

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair};

use crate::config::TlsFiles;

/// Names in the certificate.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The key or the certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file or the directory cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// `cert.pem` and `key.pem` of a directory, made when there are none; SAN localhost and 127.0.0.1.
///
/// # Errors
/// The directory cannot be written.
pub fn self_signed(directory: &Path) -> Result<TlsFiles, CertificateError> {
    let files = TlsFiles {
        cert: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    };
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Write { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "weir sandbox");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let mut private = fs::OpenOptions::new();
    let private = private.write(true).create(true).truncate(true).mode(0o600);
    private
        .open(&files.key)
        .and_then(|mut file| file.write_all(key.serialize_pem().as_bytes()))
        .map_err(failed(&files.key))?;
    fs::write(&files.cert, certificate.pem()).map_err(failed(&files.cert))?;
    Ok(files)
}
