//! Configuration: typed, with defaults, checked once; every key is also a flag and a `WEIR_…` variable (main.rs).

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, Serializer};
use weir_contracts::money::Amount;
use weir_servers::{ServerUrl, UrlError};

/// Longest name of a schema or prefix: PostgreSQL cuts longer identifiers.
const NAME_MAX: usize = 63;
/// Longest wait for servers at the start, milliseconds: an hour.
const START_WAIT_MAX_MS: u32 = 3_600_000;

/// A bearer token. It is compared, sent, and never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Token(String);

impl Token {
    /// The text, for an `authorization` header only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares without telling by the time it takes where the first difference is.
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), other.as_bytes());
        let differing = ours.iter().zip(theirs).fold(0_u8, |seen, (a, b)| seen | (a ^ b));
        !ours.is_empty() && ours.len() == theirs.len() && differing == 0
    }

    /// True when none was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text.trim().to_owned())
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(if self.0.is_empty() { "" } else { "(hidden)" })
    }
}

/// What the service needs to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the billing store and the financial items live; made when missing.
    pub data_dir: PathBuf,
    /// REST, console page, `/health /ready /metrics`. Port 0: any free one.
    pub rest_listen: SocketAddr,
    /// The gate's gRPC. Port 0: any free one.
    pub grpc_listen: SocketAddr,
    /// Guards REST and gRPC, and is sent to the wallet.
    pub token: Token,
    /// Read into `token` when that is empty.
    pub token_file: Option<PathBuf>,
    /// The wallet's gRPC address, `http://host:port`.
    pub wallet_url: String,
    /// The wallet's REST address; without it reconciliation leaves the read model out and says so.
    pub wallet_rest_url: Option<String>,
    /// The embedded outboxes to relay from, one per proxy host; left alone when `redis_url` is given.
    pub outbox_paths: Vec<PathBuf>,
    /// The embedded broker's file; left alone when `amqp_url` is given.
    pub broker_path: PathBuf,
    /// Redis with the proxies' outboxes, `redis://…` or `rediss://…`, or `file:PATH` of a file that holds it, as each of these.
    pub redis_url: Option<ServerUrl>,
    /// What the keys in Redis begin with; the proxies' own setting must be the same.
    pub redis_prefix: String,
    /// RabbitMQ with its virtual host, `amqp://…` or `amqps://…`; absent: `broker_path`.
    pub amqp_url: Option<ServerUrl>,
    /// PostgreSQL for the billing store, `postgres://…`; absent: a file in `data_dir`.
    pub database_url: Option<ServerUrl>,
    /// The schema in that database; made when missing.
    pub database_schema: String,
    /// SQL Server for the financial items, `mssql://user:password@host:port/database?encrypt=required|login|off&trust=true&ca=PATH`;
    /// absent: a file in `data_dir`.
    pub items_url: Option<ServerUrl>,
    /// How long `run` waits for a server that is away at the start, milliseconds.
    pub start_wait_ms: u32,
    /// How long `?wait_settled=1` waits for an account to settle, milliseconds.
    pub settle_wait_ms: u32,
    /// Credit leases.
    pub lease: LeaseConfig,
}

/// How credit is lent to proxies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// Most that one answer adds to a lease.
    pub max_grant: Amount,
    /// How long a grant may be spent, milliseconds, from before the proxy asked.
    pub valid_ms: u32,
    /// How long an ask that the wallet cannot cover waits for unused credit to come back, milliseconds.
    pub recall_wait_ms: u32,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            max_grant: Amount::from_nanos(100_000_000_000),
            valid_ms: 60_000,
            recall_wait_ms: 1_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/weir/billing"),
            rest_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3005)),
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3006)),
            token: Token::default(),
            token_file: None,
            wallet_url: "http://127.0.0.1:3004".to_owned(),
            wallet_rest_url: None,
            outbox_paths: Vec::new(),
            broker_path: PathBuf::from("/var/lib/weir/broker.db"),
            redis_url: None,
            redis_prefix: "weir".to_owned(),
            amqp_url: None,
            database_url: None,
            database_schema: "billing".to_owned(),
            items_url: None,
            start_wait_ms: 30_000,
            settle_wait_ms: 20_000,
            lease: LeaseConfig::default(),
        }
    }
}

/// What is wrong with a configuration; the operator's fault, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No token.
    #[error("no bearer token: set `token_file` (or WEIR_TOKEN_FILE) to a file that holds one")]
    NoToken,
    /// The token file cannot be read.
    #[error("token file {0}: {1}")]
    TokenFile(PathBuf, std::io::Error),
    /// An address is not a URL of the kind expected.
    #[error("`{key}` is `{value}`: write it like http://127.0.0.1:3004")]
    Url {
        /// Which key.
        key: &'static str,
        /// What it holds.
        value: String,
    },
    /// A server's address cannot be used. Never holds the address.
    #[error("`{key}`: {cause}")]
    Server {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        cause: UrlError,
    },
    /// This program has no client for that server.
    #[error(
        "`{0}` is set, but this build has no such adapter: use the `weir-billing` program, which has them all"
    )]
    NotBuiltIn(&'static str),
    /// A name has characters that it may not have.
    #[error("`{key}` must be 1 to {NAME_MAX} of a-z 0-9 _ and begin with a letter")]
    Name {
        /// Which key.
        key: &'static str,
    },
    /// A number is out of its range.
    #[error("`{key}` is out of range: {rule}")]
    Range {
        /// Which key.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The file is not readable or not TOML of this shape.
    #[error("config file {0}: {1}")]
    File(PathBuf, String),
}

impl Config {
    /// Reads the token file when needed and checks every value.
    pub fn resolve(mut self) -> Result<Self, ConfigError> {
        if let (true, Some(path)) = (self.token.is_empty(), &self.token_file) {
            let text = std::fs::read_to_string(path).map_err(|e| ConfigError::TokenFile(path.clone(), e))?;
            self.token = text.into();
        }
        let servers = [
            (
                "redis_url",
                &mut self.redis_url,
                ["redis://", "rediss://"].as_slice(),
            ),
            ("amqp_url", &mut self.amqp_url, &["amqp://", "amqps://"]),
            (
                "database_url",
                &mut self.database_url,
                &["postgres://", "postgresql://"],
            ),
            ("items_url", &mut self.items_url, &["mssql://"]),
        ];
        for (key, url, schemes) in servers {
            if let Some(given) = url.take() {
                let resolved = given.resolve(schemes);
                *url = Some(resolved.map_err(|cause| ConfigError::Server { key, cause })?);
            }
        }
        self.check()?;
        Ok(self)
    }

    /// Checks what can be checked without touching anything.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.token.is_empty() {
            return Err(ConfigError::NoToken);
        }
        let rest = self.wallet_rest_url.iter().map(|u| ("wallet_rest_url", u));
        for (key, value) in [("wallet_url", &self.wallet_url)].into_iter().chain(rest) {
            let known = value.starts_with("http://") || value.starts_with("https://");
            if !known {
                return Err(ConfigError::Url {
                    key,
                    value: value.clone(),
                });
            }
        }
        self.check_servers()?;
        self.check_numbers()
    }

    fn check_servers(&self) -> Result<(), ConfigError> {
        for (key, name) in [
            ("redis_prefix", &self.redis_prefix),
            ("database_schema", &self.database_schema),
        ] {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
            if !begins || name.len() > NAME_MAX || !name.chars().all(plain) {
                return Err(ConfigError::Name { key });
            }
        }
        #[cfg(not(feature = "servers"))]
        for (key, url) in [
            ("redis_url", &self.redis_url),
            ("amqp_url", &self.amqp_url),
            ("database_url", &self.database_url),
            ("items_url", &self.items_url),
        ] {
            if url.is_some() {
                return Err(ConfigError::NotBuiltIn(key));
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let grant = self.lease.max_grant.to_i64().unwrap_or(0);
        if !(1..=crate::domain::lease::LEASE_TOTAL_MAX_NANOS).contains(&grant) {
            return Err(ConfigError::Range {
                key: "lease.max_grant",
                rule: "above zero and at most 1000000000",
            });
        }
        if !(1_000..=3_600_000).contains(&self.lease.valid_ms) {
            return Err(ConfigError::Range {
                key: "lease.valid_ms",
                rule: "1000 to 3600000",
            });
        }
        if !(100..=25_000).contains(&self.settle_wait_ms) {
            return Err(ConfigError::Range {
                key: "settle_wait_ms",
                rule: "100 to 25000",
            });
        }
        if self.start_wait_ms > START_WAIT_MAX_MS {
            return Err(ConfigError::Range {
                key: "start_wait_ms",
                rule: "at most 3600000",
            });
        }
        if self.lease.recall_wait_ms > 10_000 {
            return Err(ConfigError::Range {
                key: "lease.recall_wait_ms",
                rule: "at most 10000",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_compared_whole_and_never_shown() {
        let token = Token::from("s3cret\n");
        assert!(token.matches("s3cret"));
        assert!(!token.matches("s3cre"));
        assert!(!token.matches(""));
        assert!(!Token::default().matches(""));
        assert_eq!(format!("{token:?}"), "(hidden)");
    }

    #[test]
    fn a_configuration_without_token_or_with_a_bad_address_is_refused() {
        assert!(matches!(Config::default().check(), Err(ConfigError::NoToken)));
        let config = Config {
            token: "t".into(),
            wallet_url: "localhost:3004".into(),
            ..Config::default()
        };
        assert!(matches!(
            config.check(),
            Err(ConfigError::Url {
                key: "wallet_url",
                ..
            })
        ));
    }
}
