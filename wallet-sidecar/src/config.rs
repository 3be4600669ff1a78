//! Settings of the wallet service: defaults, file, what is wrong with them, and a form that shows no secret.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Port of the REST interface (seed 003 §1).
pub const REST_PORT: u16 = 3003;
/// Port of the gRPC interface.
pub const GRPC_PORT: u16 = 3004;
/// Fewest characters of a bearer token: 16 hexadecimal digits are 64 bits.
pub const TOKEN_CHARS_MIN: usize = 16;

/// All that the service can be told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the event store and the read model; made when it is missing.
    pub data_dir: PathBuf,
    /// Where REST listens; port 0 takes a free one.
    pub rest_listen: SocketAddr,
    /// Where gRPC listens; port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// Bearer token that REST and gRPC ask for; at least [`TOKEN_CHARS_MIN`] characters.
    pub token: String,
    /// File of the embedded broker, shared with the other services.
    pub broker_path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/weir/wallet"),
            rest_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, REST_PORT)),
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, GRPC_PORT)),
            token: String::new(),
            broker_path: PathBuf::from("/var/lib/weir/broker.db"),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// What is wrong with the settings; the operator's to mend (exit code 2).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the config file {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML of known keys.
    #[error("the config file {path} is not valid: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value cannot work.
    #[error("{key}: {problem}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What to do.
        problem: String,
    },
}

impl Config {
    /// Reads a TOML file; keys it does not name keep their defaults, unknown ones are errors.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|e| ConfigError::Syntax {
            path: path.to_owned(),
            message: e.to_string(),
        })
    }

    /// Finds what cannot work before anything is opened.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.token.len() < TOKEN_CHARS_MIN || !self.token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::Value {
                key: "token",
                problem: format!("give at least {TOKEN_CHARS_MIN} printable characters without spaces"),
            });
        }
        if self.data_dir.as_os_str().is_empty() || self.broker_path.as_os_str().is_empty() {
            return Err(ConfigError::Value {
                key: "data_dir, broker_path",
                problem: "give a path".to_owned(),
            });
        }
        if self.rest_listen == self.grpc_listen && self.rest_listen.port() != 0 {
            return Err(ConfigError::Value {
                key: "grpc_listen",
                problem: "REST listens there already".to_owned(),
            });
        }
        Ok(())
    }

    /// The settings as TOML, the token left out.
    #[must_use]
    pub fn shown(&self) -> String {
        let token = if self.token.is_empty() { "" } else { "(hidden)" };
        let shown = Self {
            token: token.to_owned(),
            ..self.clone()
        };
        toml::to_string(&shown).unwrap_or_else(|e| format!("# cannot be shown: {e}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_never_shown() {
        let config = Config {
            token: "0123456789abcdef".to_owned(),
            ..Config::default()
        };
        assert!(config.check().is_ok());
        assert!(!config.shown().contains("0123456789abcdef"));
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let short = Config {
            token: "short".to_owned(),
            ..Config::default()
        };
        assert!(short.check().unwrap_err().to_string().starts_with("token:"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wallet.toml");
        std::fs::write(&file, "tokn = \"x\"\n").unwrap();
        assert!(Config::from_file(&file).unwrap_err().to_string().contains("tokn"));
        std::fs::write(&file, "rest_listen = \"127.0.0.1:0\"\n").unwrap();
        assert_eq!(Config::from_file(&file).unwrap().rest_listen.port(), 0);
    }
}
