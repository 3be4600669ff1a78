//! The demo's directory: made once and continued after, held by one process, with the token that guards every API in it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::running;

/// Shortest token that is accepted from an existing file; made ones have 64 hexadecimal digits.
const TOKEN_MIN: usize = 16;

/// What is wrong with the directory; each is the caller's to put right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// No home and no flag.
    #[error(
        "no place for the demo's data: neither XDG_DATA_HOME nor HOME is set; name one with --data-dir DIR"
    )]
    NoHome,
    /// Cannot be made, read or written.
    #[error("cannot use {} as --data-dir: {error}", path.display())]
    Unusable {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another demo runs on it.
    #[error("another demo is running on {}{addresses}; stop it, or give this one its own --data-dir and ports", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its console, when it says so.
        addresses: String,
    },
    /// The token's file was emptied or cut.
    #[error("{} holds no token: restore it, or remove the directory to start anew", .0.display())]
    Token(PathBuf),
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A demo's directory, locked for the life of this value.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    token: String,
    /// Held, never read: the lock goes with the process, also by SIGKILL.
    _lock: File,
}

impl Directory {
    /// Makes or continues the directory, takes its lock, and makes or reads its token.
    pub(crate) fn open(named: Option<PathBuf>) -> Result<Self, DirectoryError> {
        let path = named
            .or_else(running::default_data_dir)
            .ok_or(DirectoryError::NoHome)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(unusable(&path))?;
        // Absolute from here on, so that running.json holds for readers elsewhere.
        let path = path.canonicalize().map_err(unusable(&path))?;
        let lock = lock(&path)?;
        let token = token(&path.join("token"))?;
        Ok(Self {
            path,
            token,
            _lock: lock,
        })
    }

    /// The directory, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A part of it, made when missing.
    pub(crate) fn part(&self, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(unusable(&path))?;
        Ok(path)
    }

    /// The token that guards REST and gRPC.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

/// Turns what the file system said into what the caller can put right.
pub(super) fn unusable(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |error| DirectoryError::Unusable { path, error }
}

fn lock(dir: &Path) -> Result<File, DirectoryError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse {
            path: dir.to_owned(),
            addresses: running::Running::read(dir)
                .map(|other| format!(" (process {}, console {})", other.pid, other.server()))
                .unwrap_or_default(),
        }),
        Err(TryLockError::Error(error)) => Err(DirectoryError::Unusable { path, error }),
    }
}

/// The token of the file, made (0600, 244 random bits) when there is none.
fn token(path: &Path) -> Result<String, DirectoryError> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= TOKEN_MIN => Ok(text.trim().to_owned()),
        Ok(_) => Err(DirectoryError::Token(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            write_private(path, format!("{token}\n").as_bytes()).map_err(unusable(path))?;
            Ok(token)
        }
        Err(error) => Err(unusable(path)(error)),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_made_once_held_once_and_keeps_its_token() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let first = Directory::open(Some(path.clone())).unwrap();
        let token = first.token().to_owned();
        assert_eq!(token.len(), 64);
        let mode = fs::metadata(path.join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            Directory::open(Some(path.clone())),
            Err(DirectoryError::InUse { .. })
        ));
        drop(first);
        assert_eq!(Directory::open(Some(path)).unwrap().token(), token);
    }

    #[test]
    fn what_is_no_directory_is_refused_by_name() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Directory::open(Some(file.clone())).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
        let dir = home.path().join("cut");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("token"), "\n").unwrap();
        assert!(matches!(
            Directory::open(Some(dir)),
            Err(DirectoryError::Token(_))
        ));
    }
}
