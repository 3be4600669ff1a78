//! Settings of the wallet service: defaults, file, what is wrong with them, and a form that shows no secret.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weir_servers::ServerUrl;

/// Port of the REST interface.
pub const REST_PORT: u16 = 3003;
/// Port of the gRPC interface.
pub const GRPC_PORT: u16 = 3004;
/// Fewest characters of a bearer token: 16 hexadecimal digits are 64 bits.
pub const TOKEN_CHARS_MIN: usize = 16;
/// Longest `start_wait_ms`: ten minutes.
pub const START_WAIT_MS_MAX: u64 = 600_000;
/// Longest name of a PostgreSQL schema, in bytes (the server cuts longer ones off).
const SCHEMA_BYTES_MAX: usize = 63;
/// Longest name of a MongoDB database, in bytes (the server's own limit).
const MONGODB_DATABASE_BYTES_MAX: usize = 63;

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
    /// Its first line is read into `token` when that is empty.
    pub token_file: Option<PathBuf>,
    /// File of the embedded broker, shared with the other services; not used when `amqp_url` is given.
    pub broker_path: PathBuf,
    /// RabbitMQ, `amqp://user:password@host:port/virtual-host`, or `file:PATH` of a file that holds the address.
    pub amqp_url: Option<ServerUrl>,
    /// PostgreSQL for the event store, `postgres://user:password@host:port/database`, or `file:PATH`. Absent: SQLite in `data_dir`.
    pub database_url: Option<ServerUrl>,
    /// PostgreSQL schema of the event store, made when it is missing.
    pub database_schema: String,
    /// MongoDB for the read model, `mongodb://user:password@host:port/database?tls=true`, or `file:PATH`. Absent: SQLite in `data_dir`.
    pub mongodb_url: Option<ServerUrl>,
    /// How long a start waits for servers that are away, milliseconds; at most [`START_WAIT_MS_MAX`].
    pub start_wait_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/weir/wallet"),
            rest_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, REST_PORT)),
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, GRPC_PORT)),
            token: String::new(),
            token_file: None,
            broker_path: PathBuf::from("/var/lib/weir/broker.db"),
            amqp_url: None,
            database_url: None,
            database_schema: "wallet".to_owned(),
            mongodb_url: None,
            start_wait_ms: 30_000,
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
    /// This program has no client for that server.
    #[error(
        "{0}: this build has no such adapter: leave it out, or use the `weir-wallet` program, which has them all"
    )]
    NotBuiltIn(&'static str),
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

    /// Reads the files that keys name (token, addresses) and checks every value.
    pub fn resolve(mut self) -> Result<Self, ConfigError> {
        if let (true, Some(path)) = (self.token.is_empty(), &self.token_file) {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.clone(),
                source,
            })?;
            text.lines()
                .next()
                .unwrap_or("")
                .trim()
                .clone_into(&mut self.token);
        }
        self.amqp_url = server("amqp_url", self.amqp_url, &["amqp://", "amqps://"])?;
        self.database_url = server(
            "database_url",
            self.database_url,
            &["postgres://", "postgresql://"],
        )?;
        self.mongodb_url = server("mongodb_url", self.mongodb_url, &["mongodb://"])?;
        self.check()?;
        Ok(self)
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
        self.check_servers()
    }

    fn check_servers(&self) -> Result<(), ConfigError> {
        let wrong = |key, problem: String| Err(ConfigError::Value { key, problem });
        let schema = &self.database_schema;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let named = (1..=SCHEMA_BYTES_MAX).contains(&schema.len())
            && schema.bytes().all(plain)
            && !schema.starts_with(|c: char| c.is_ascii_digit())
            && !schema.starts_with("pg_");
        if !named {
            let rule = format!("give at most {SCHEMA_BYTES_MAX} of a-z, 0-9 and _, not a digit or pg_ first");
            return wrong("database_schema", rule);
        }
        if self.start_wait_ms > START_WAIT_MS_MAX {
            return wrong("start_wait_ms", format!("give at most {START_WAIT_MS_MAX}"));
        }
        if self.mongodb_url.as_ref().is_some_and(|url| !names_database(url)) {
            return wrong(
                "mongodb_url",
                "name the database in the path: mongodb://host:27017/weir".to_owned(),
            );
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

/// A server's address, read from its file when it is kept in one. A build without the adapters can use none.
fn server(
    key: &'static str,
    url: Option<ServerUrl>,
    schemes: &[&str],
) -> Result<Option<ServerUrl>, ConfigError> {
    match url.map(|url| url.resolve(schemes)) {
        None => Ok(None),
        Some(Ok(url)) if cfg!(feature = "servers") => Ok(Some(url)),
        Some(Ok(_)) => Err(ConfigError::NotBuiltIn(key)),
        Some(Err(e)) => Err(ConfigError::Value {
            key,
            problem: e.to_string(),
        }),
    }
}

/// Whether the address's path is a name that MongoDB takes for a database. One that is still in its file is not looked at.
fn names_database(url: &ServerUrl) -> bool {
    let Some((_, rest)) = url.reveal().split_once("://") else {
        return true;
    };
    let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
    // After the last `@`: an unescaped slash may stand in a password.
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let name = host.split_once('/').map_or("", |(_, name)| name);
    (1..=MONGODB_DATABASE_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
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
    fn no_password_of_a_server_is_ever_shown() {
        let config = Config {
            amqp_url: Some("amqp://weir:s3cret@host/v".into()),
            database_url: Some("postgres://weir:s3cret@host/db".into()),
            mongodb_url: Some("mongodb://weir:s3cret@host/weir?tlsCAFile=x".into()),
            ..Config::default()
        };
        let shown = config.shown();
        assert!(
            !shown.contains("s3cret") && shown.contains("weir:***@host/v"),
            "{shown}"
        );
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[cfg(feature = "servers")]
    #[test]
    fn servers_are_checked_and_read_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mongodb");
        std::fs::write(&file, "mongodb://u:p/w@host:1,host:2/weir?w=1\n").unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "0123456789abcdef\n").unwrap();
        let good = Config {
            token_file: Some(token),
            mongodb_url: Some(format!("file:{}", file.display()).into()),
            ..Config::default()
        };
        let resolved = good.clone().resolve().unwrap();
        assert_eq!(resolved.token, "0123456789abcdef");
        assert!(resolved.mongodb_url.unwrap().reveal().starts_with("mongodb://"));
        let of = |url: &str| Some(ServerUrl::from(url));
        let wrong = [
            (
                "amqp_url",
                Config {
                    amqp_url: of("http://h"),
                    ..good.clone()
                },
            ),
            (
                "database_url",
                Config {
                    database_url: of("file:/nowhere"),
                    ..good.clone()
                },
            ),
            (
                "database_schema",
                Config {
                    database_schema: "a; drop".to_owned(),
                    ..good.clone()
                },
            ),
            (
                "mongodb_url",
                Config {
                    mongodb_url: of("mongodb://u:p@host:1/?x=/y"),
                    ..good.clone()
                },
            ),
            (
                "start_wait_ms",
                Config {
                    start_wait_ms: START_WAIT_MS_MAX + 1,
                    ..good
                },
            ),
        ];
        for (key, config) in wrong {
            let error = config.resolve().unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
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
