//! Configuration: typed, with defaults, checked once; every key is also a flag and a `WEIR_…` variable (main.rs).

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

pub mod logins;

use serde::{Deserialize, Serialize, Serializer};
use weir_servers::ServerUrl;

use logins::{Credential, InstanceKey, PasswordChange, Relaying, RoutingPolicy, TellClient, Tenant};

/// What `upstream_packet_size` may be [MS-TDS 2.2.3.1.3].
const PACKET_SIZES: std::ops::RangeInclusive<u16> =
    weir_tds::packet::PACKET_SIZE_MIN..=weir_tds::packet::PACKET_SIZE_MAX;
/// Bounds of `chunk_bytes`: below, system calls dominate; above, a crash could charge for more than a client sees.
pub const CHUNK_BYTES: std::ops::RangeInclusive<usize> = 4 * 1024..=1024 * 1024;
/// Bounds of every deadline.
pub const DEADLINE_MS: std::ops::RangeInclusive<u64> = 10..=600_000;
/// Longest wait for servers at the start, milliseconds: an hour.
const START_WAIT_MAX_MS: u64 = 3_600_000;
/// Longest prefix of keys, characters.
const PREFIX_MAX: usize = 63;

/// A bearer token: sent, and never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Token(String);

impl Token {
    /// The text, for an `authorization` header only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text.trim().to_owned())
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

/// What clients may or must use on their leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum ClientEncryption {
    /// No certificate: logins come in clear. For loopback only.
    None,
    /// The client chooses: login-only, full or none.
    #[default]
    Offered,
    /// Everything is encrypted; a client that cannot is refused.
    Required,
    /// TDS 8.0 only: TLS comes first. With a certificate a client may come by it in any case.
    Strict,
}

/// What the server's leg uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamEncryption {
    /// Nothing is encrypted. For loopback only.
    None,
    /// At least the login; everything if the server asks for it.
    #[default]
    LoginOnly,
    /// Everything.
    Full,
    /// TDS 8.0: TLS comes first. SQL Server 2022 and later.
    Strict,
}

/// Whether clients may have several sessions on one connection (MARS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum MarsPolicy {
    /// Whoever asks for it gets it, as long as the server speaks it.
    #[default]
    Offered,
    /// Nobody: for a server that does not speak it.
    Off,
}

/// What the proxy needs to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect. Port 0: any free one.
    pub listen: SocketAddr,
    /// The SQL Server behind, `host:port`.
    pub upstream: String,
    /// The journal's directory: this proxy's identity and its unsettled usage. Never share it, never copy it.
    pub data_dir: PathBuf,
    /// The embedded outbox's file, which billing reads; left alone when `redis_url` is given.
    pub outbox_path: PathBuf,
    /// Redis for the outbox, `redis://…` or `rediss://…`, or `file:PATH` of a file that holds the address. Billing's must be the same.
    pub redis_url: Option<ServerUrl>,
    /// What the keys in Redis begin with; billing's must be the same.
    pub redis_prefix: String,
    /// How long `run` waits for a server that is away at the start, milliseconds.
    pub start_wait_ms: u64,
    /// Billing's gRPC address, `http://host:port`.
    pub billing_url: String,
    /// Sent to billing.
    pub token: Token,
    /// Read into `token` when that is empty.
    pub token_file: Option<PathBuf>,
    /// Encryption on the clients' side.
    pub client_encryption: ClientEncryption,
    /// PEM certificate chain for clients.
    pub tls_cert: Option<PathBuf>,
    /// PEM private key for clients.
    pub tls_key: Option<PathBuf>,
    /// Whether clients are offered MARS.
    pub mars: MarsPolicy,
    /// Encryption on the server's side.
    pub upstream_encryption: UpstreamEncryption,
    /// PEM certificates that the server's certificate must chain to, or be. Without it: the system's roots.
    pub upstream_ca: Option<PathBuf>,
    /// Name in the server's certificate, if it is not the upstream's host.
    pub upstream_host_name: Option<String>,
    /// Accept any certificate of the server. Whoever stands between can then read logins and data.
    pub upstream_trust: bool,
    /// Packet size that the server is asked for, 512 to 32767; 0 for what the client asks for. Clients keep their own.
    pub upstream_packet_size: u16,
    /// Token-stream bytes that are paid and journaled together before the first of them is written.
    pub chunk_bytes: usize,
    /// Sessions at a time; more are closed at accept.
    pub sessions_max: usize,
    /// From accept to the end of the login, milliseconds.
    pub login_deadline_ms: u64,
    /// For connecting to the server, milliseconds.
    pub connect_deadline_ms: u64,
    /// From the gate's ATTENTION to the server's acknowledgement, milliseconds.
    pub cut_deadline_ms: u64,
    /// Longest rest of a client inside a request, from the last byte that came, milliseconds.
    pub upload_idle_ms: u64,
    /// For billing's answers, milliseconds.
    pub billing_deadline_ms: u64,
    /// An unused credit lease is closed after this time, milliseconds.
    pub lease_idle_ms: u64,
    /// Name of the gate in its errors, and of the server in SQL Server Browser answers.
    pub gate_name: String,
    /// Tried when `upstream` takes no connection, `host:port`; clients are never told of it.
    pub upstream_failover: Option<String>,
    /// What becomes of a server's routing answers: refuse or follow. Clients are never led elsewhere.
    pub routing: RoutingPolicy,
    /// Hosts that a routing answer may name, `HOST` or `HOST:PORT`, where `*` in HOST stands for any run of characters.
    pub routing_targets: Vec<String>,
    /// Integrated (NTLM, Kerberos) logins: refuse or relay.
    pub integrated_login: Relaying,
    /// Federated (Entra) logins: refuse or relay.
    pub federated_login: Relaying,
    /// Whether a client may change its password at login: refuse or allow.
    pub password_change: PasswordChange,
    /// Where the server is told the client's address: none, host-name or application-name.
    pub tell_client: TellClient,
    /// Where SQL Server Browser requests are answered (UDP, usually port 1434); nowhere by default.
    pub browser_listen: Option<SocketAddr>,
    /// Instances that those answers name; without any: `MSSQLSERVER` at the port of `listen`.
    pub instances: Vec<InstanceKey>,
    /// Whose login it is: ordered rules, the first that matches wins.
    pub tenants: Vec<Tenant>,
    /// Logins that are others at the server.
    pub credentials: Vec<Credential>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1433)),
            upstream: String::new(),
            data_dir: PathBuf::from("/var/lib/weir/proxy"),
            outbox_path: PathBuf::from("/var/lib/weir/outbox.db"),
            redis_url: None,
            redis_prefix: "weir".to_owned(),
            start_wait_ms: 30_000,
            billing_url: "http://127.0.0.1:3006".to_owned(),
            token: Token::default(),
            token_file: None,
            client_encryption: ClientEncryption::default(),
            tls_cert: None,
            tls_key: None,
            mars: MarsPolicy::default(),
            upstream_encryption: UpstreamEncryption::default(),
            upstream_ca: None,
            upstream_host_name: None,
            upstream_trust: false,
            upstream_packet_size: 0,
            chunk_bytes: 240 * 1024,
            sessions_max: 10_000,
            login_deadline_ms: 15_000,
            connect_deadline_ms: 5_000,
            cut_deadline_ms: 5_000,
            upload_idle_ms: 60_000,
            billing_deadline_ms: 2_000,
            lease_idle_ms: 10_000,
            gate_name: "weir".to_owned(),
            upstream_failover: None,
            routing: RoutingPolicy::default(),
            routing_targets: Vec::new(),
            integrated_login: Relaying::default(),
            federated_login: Relaying::default(),
            password_change: PasswordChange::default(),
            tell_client: TellClient::default(),
            browser_listen: None,
            instances: Vec::new(),
            tenants: Vec::new(),
            credentials: Vec::new(),
        }
    }
}

/// What is wrong with a configuration, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key's value cannot be used.
    #[error("{key}: {what}")]
    Value {
        /// As in the file; the flag is the same with dashes.
        key: &'static str,
        /// What is wrong and what to do.
        what: String,
    },
    /// A file that a key names cannot be read.
    #[error("{key}: cannot read {path}: {error}")]
    File {
        /// As above.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// The configuration file is not TOML of the known keys.
    #[error("{path}: {error}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads a TOML file of the known keys.
    ///
    /// # Errors
    /// It cannot be read, or has a key that is not known.
    pub fn from_file(path: PathBuf) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                return Err(ConfigError::File {
                    key: "config",
                    path,
                    error,
                });
            }
        };
        toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path,
            error: Box::new(error),
        })
    }

    /// This configuration, with every key that `keys` has in place of its own.
    ///
    /// # Errors
    /// A key of the wrong type.
    pub fn with<K: Serialize>(self, keys: &K) -> Result<Self, ConfigError> {
        let wrong = |what: String| ConfigError::Value { key: "flags", what };
        let mut table = toml::Table::try_from(&self).map_err(|e| wrong(e.to_string()))?;
        // Secrets are hidden when they are written; they are carried over by hand.
        table.insert("token".to_owned(), self.token.reveal().into());
        if let Some(url) = &self.redis_url {
            table.insert("redis_url".to_owned(), url.reveal().into());
        }
        let credentials = self.credentials;
        table.remove("credentials");
        table.extend(toml::Table::try_from(keys).map_err(|e| wrong(e.to_string()))?);
        let config = table.try_into::<Self>();
        let config = config.map_err(|e| wrong(e.message().to_owned()))?;
        Ok(Self {
            credentials,
            ..config
        })
    }

    /// Host of `upstream`.
    #[must_use]
    pub fn upstream_host(&self) -> &str {
        self.upstream
            .rsplit_once(':')
            .map_or(self.upstream.as_str(), |(host, _)| host.trim_matches(['[', ']']))
    }

    /// Checks every key, and reads the files that hold secrets.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        let value = |key, what: String| Err(ConfigError::Value { key, what });
        self.auth()?;
        self.named_instances(self.listen.port())?;
        if self.upstream_packet_size > 0 && !PACKET_SIZES.contains(&self.upstream_packet_size) {
            return value(
                "upstream_packet_size",
                "must be 512 to 32767, or 0 for what the client asks for".into(),
            );
        }
        if !CHUNK_BYTES.contains(&self.chunk_bytes) {
            return value(
                "chunk_bytes",
                format!("must be {} to {}", CHUNK_BYTES.start(), CHUNK_BYTES.end()),
            );
        }
        for (key, ms) in [
            ("login_deadline_ms", self.login_deadline_ms),
            ("connect_deadline_ms", self.connect_deadline_ms),
            ("cut_deadline_ms", self.cut_deadline_ms),
            ("upload_idle_ms", self.upload_idle_ms),
            ("billing_deadline_ms", self.billing_deadline_ms),
            ("lease_idle_ms", self.lease_idle_ms),
        ] {
            if !DEADLINE_MS.contains(&ms) {
                return value(
                    key,
                    format!("must be {} to {} ms", DEADLINE_MS.start(), DEADLINE_MS.end()),
                );
            }
        }
        if self.client_encryption != ClientEncryption::None
            && (self.tls_cert.is_none() || self.tls_key.is_none())
        {
            let what = "needs tls_cert and tls_key (PEM files); or set client_encryption to none on loopback";
            return value("client_encryption", what.into());
        }
        if self.sessions_max == 0 {
            return value("sessions_max", "must be at least 1".into());
        }
        self.check_outbox()?;
        if self.token.reveal().is_empty()
            && let Some(path) = self.token_file.clone()
        {
            match std::fs::read_to_string(&path) {
                Ok(text) => self.token = text.into(),
                Err(error) => {
                    return Err(ConfigError::File {
                        key: "token_file",
                        path,
                        error,
                    });
                }
            }
        }
        Ok(self)
    }

    fn check_outbox(&mut self) -> Result<(), ConfigError> {
        let value = |key, what: String| Err(ConfigError::Value { key, what });
        if let Some(url) = self.redis_url.take() {
            if !cfg!(feature = "servers") {
                let what =
                    "this build has no adapter for Redis: use the `weir-proxy` program, or leave the key out";
                return value("redis_url", what.into());
            }
            match url.resolve(&["redis://", "rediss://"]) {
                Ok(url) => self.redis_url = Some(url),
                Err(error) => return value("redis_url", error.to_string()),
            }
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = self.redis_prefix.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || self.redis_prefix.len() > PREFIX_MAX || !self.redis_prefix.chars().all(plain) {
            return value(
                "redis_prefix",
                format!("must be 1 to {PREFIX_MAX} of a-z 0-9 _ and begin with a letter"),
            );
        }
        if self.start_wait_ms > START_WAIT_MAX_MS {
            return value("start_wait_ms", format!("must be at most {START_WAIT_MAX_MS} ms"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Config {
        Config {
            upstream: "db:1433".into(),
            client_encryption: ClientEncryption::None,
            ..Config::default()
        }
    }

    #[test]
    fn a_wrong_key_is_named_with_its_remedy() {
        let no_upstream = Config {
            upstream: "db".into(),
            ..plain()
        };
        assert!(
            no_upstream
                .checked()
                .unwrap_err()
                .to_string()
                .starts_with("upstream: write")
        );
        let no_cert = Config {
            client_encryption: ClientEncryption::Offered,
            ..plain()
        };
        assert!(no_cert.checked().unwrap_err().to_string().contains("tls_cert"));
        let tiny = Config {
            chunk_bytes: 1,
            ..plain()
        };
        assert!(tiny.checked().unwrap_err().to_string().starts_with("chunk_bytes"));
        assert_eq!(plain().checked().unwrap().upstream_host(), "db");
    }

    #[test]
    fn secrets_are_never_shown_and_survive_the_flags() {
        let config = Config {
            token: "secret-word".to_owned().into(),
            redis_url: Some("redis://:secret-word@cache".into()),
            ..plain()
        };
        assert!(!format!("{config:?}").contains("secret-word"));
        assert!(!toml::to_string(&config).unwrap().contains("secret-word"));
        let config = config.with(&toml::Table::new()).unwrap();
        assert_eq!(config.token.reveal(), "secret-word");
        assert_eq!(config.redis_url.unwrap().reveal(), "redis://:secret-word@cache");
    }

    #[test]
    fn a_wrong_address_or_prefix_is_named_without_its_secret() {
        let wrong = |config: Config| config.checked().unwrap_err().to_string();
        let scheme = wrong(Config {
            redis_url: Some("http://u:secret-word@cache".into()),
            ..plain()
        });
        assert!(
            scheme.starts_with("redis_url: ") && !scheme.contains("secret-word"),
            "{scheme}"
        );
        for prefix in ["", "Weir", "1", "a:b"] {
            let redis_prefix = prefix.to_owned();
            assert!(
                wrong(Config {
                    redis_prefix,
                    ..plain()
                })
                .starts_with("redis_prefix: ")
            );
        }
        let start_wait_ms = START_WAIT_MAX_MS + 1;
        assert!(
            wrong(Config {
                start_wait_ms,
                ..plain()
            })
            .starts_with("start_wait_ms: ")
        );
    }
}
