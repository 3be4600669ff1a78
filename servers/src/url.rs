//! Addresses of servers in configurations: may carry a password, so they are shown without one, and may be kept in a file.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};

/// What stands for a password that is not shown.
const HIDDEN: &str = "***";
/// A value that begins so names a file whose content is the address (a systemd credential, a mounted secret).
const FILE: &str = "file:";

/// A server's address, `scheme://user:password@host:port/…`; or `file:PATH`, read by [`ServerUrl::resolve`].
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(String);

/// What is wrong with an address. Never holds the address itself.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// The file that it is kept in cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// It is for another kind of server.
    #[error("the address must begin with {0}")]
    Scheme(String),
}

impl ServerUrl {
    /// The address with its password: for the client of the server only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads the file when the value names one, and checks the scheme (each as `redis://`).
    ///
    /// # Errors
    /// The file cannot be read, or the scheme is none of these.
    pub fn resolve(self, schemes: &[&str]) -> Result<Self, UrlError> {
        let text = match self.0.strip_prefix(FILE) {
            None => self.0,
            Some(path) => {
                let path = PathBuf::from(path);
                let text = std::fs::read_to_string(&path).map_err(|e| UrlError::File(path, e))?;
                text.trim().to_owned()
            }
        };
        if schemes.iter().any(|scheme| text.starts_with(scheme)) {
            Ok(Self(text))
        } else {
            Err(UrlError::Scheme(schemes.join(" or ")))
        }
    }

    /// As it may be shown: without the password, and without what follows a `?` (drivers take secrets there too).
    #[must_use]
    pub fn shown(&self) -> String {
        let Some((scheme, after)) = self.0.split_once("://") else {
            return if self.0.starts_with(FILE) {
                self.0.clone()
            } else {
                HIDDEN.to_owned()
            };
        };
        // The last `@`: an unescaped one may stand in a password, and so may a `?`.
        let (user, host) = match after.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, after),
        };
        let (host, tail) = match host.split_once('?') {
            Some((host, _)) => (host, "?…"),
            None => (host, ""),
        };
        match user.map(|user| user.split_once(':').ok_or(user)) {
            None => format!("{scheme}://{host}{tail}"),
            Some(Ok((name, _))) => format!("{scheme}://{name}:{HIDDEN}@{host}{tail}"),
            // That `@` stood behind the `?`.
            Some(Err(user)) if user.contains('?') => format!("{scheme}://{HIDDEN}"),
            Some(Err(user)) => format!("{scheme}://{user}@{host}{tail}"),
        }
    }
}

impl From<&str> for ServerUrl {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for ServerUrl {
    fn from(text: String) -> Self {
        Self(text.trim().to_owned())
    }
}

impl std::str::FromStr for ServerUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.into())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_ever_shown() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("amqp://weir:p@ss:w@host/v", "amqp://weir:***@host/v"),
            ("redis://:secret@host", "redis://:***@host"),
            (
                "postgres://weir@host/db?password=secret",
                "postgres://weir@host/db?…",
            ),
            (
                "postgres://weir:se?cret@host/db?x=y",
                "postgres://weir:***@host/db?…",
            ),
            ("postgres://host/db?password=se@cret", "postgres://***"),
            ("host=h password=secret", "***"),
            ("file:/run/credentials/redis", "file:/run/credentials/redis"),
        ] {
            let url = ServerUrl::from(url);
            assert_eq!(url.shown(), shown);
            assert_eq!(format!("{url:?} {url}"), format!("{shown} {shown}"));
        }
    }

    #[test]
    fn an_address_is_read_from_its_file_and_its_scheme_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("redis");
        std::fs::write(&path, "redis://:secret@host\n").unwrap();
        let url = ServerUrl::from(format!("file:{}", path.display()));
        assert_eq!(
            url.resolve(&["redis://"]).unwrap().reveal(),
            "redis://:secret@host"
        );
        let missing = ServerUrl::from("file:/nowhere/at/all").resolve(&["redis://"]);
        assert!(missing.unwrap_err().to_string().contains("/nowhere/at/all"));
        let wrong = ServerUrl::from("amqp://u:secret@h")
            .resolve(&["redis://", "rediss://"])
            .unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "the address must begin with redis:// or rediss://"
        );
    }
}
