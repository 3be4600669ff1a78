//! What a sandbox server is told: where to listen, which backend answers, who may log in, how the leg is encrypted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// Connections at once when the config does not say otherwise; each running one costs a thread.
pub const CONNECTIONS_MAX_DEFAULT: usize = 4096;

/// Everything a sandbox server is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Directory of the `sqlite` backend's database file; made if absent. None: a private one, removed at the stop.
    pub data_dir: Option<PathBuf>,
    /// Who answers.
    pub backend: Backend,
    /// Certificate and key; without them only unencrypted logins are possible.
    pub tls: Option<TlsFiles>,
    /// What PRELOGIN answers about encryption [MS-TDS 2.2.6.5].
    pub encryption: EncryptionPolicy,
    /// Sessions of SMP inside one connection are offered to clients that ask for them [MS-TDS 2.2.6.5, MARS].
    pub mars: bool,
    /// Largest packet that a login is answered, and what a login that asks for 0 is given; 512 to 32 767.
    pub packet_size: Option<u16>,
    /// SQL logins.
    pub logins: Vec<Login>,
    /// What the server calls itself in LOGINACK, errors and @@SERVERNAME.
    pub server_name: String,
    /// Most connections at once; more are closed at accept.
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: None,
            backend: Backend::default(),
            tls: None,
            encryption: EncryptionPolicy::default(),
            mars: true,
            packet_size: None,
            logins: vec![Login::default()],
            server_name: "WEIR-SANDBOX".to_owned(),
            connections_max: CONNECTIONS_MAX_DEFAULT,
        }
    }
}

/// Who answers the requests.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "there is one per server")]
pub enum Backend {
    /// T-SQL on SQLite, with the generated tables `orders` and `events`.
    #[default]
    Sqlite,
    /// Scripted token streams.
    Scenario(Scenario),
}

/// PEM files of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// The server's side of the encryption negotiation [MS-TDS 2.2.6.5]. With a certificate TDS 8.0 (a ClientHello as the
/// first bytes) is taken under every policy but [`None`](Self::None).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionPolicy {
    /// The server has no TLS at all, TDS 8.0 neither.
    None,
    /// Forces nobody: as much as the client asks for, the login only at least if both can.
    #[default]
    LoginOnly,
    /// Every connection is encrypted; a client that cannot is closed. Answers REQ to OFF and ON to ON and REQ.
    On,
    /// As [`On`](Self::On), and answers REQ to every client.
    Required,
    /// TDS 8.0 or nothing: a connection that does not begin with TLS is closed without a word.
    Strict,
}

/// One SQL login.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Login name, compared without case.
    pub name: String,
    /// Password, compared exactly.
    pub password: String,
    /// Database if LOGIN7 names none.
    #[serde(default = "default_database")]
    pub database: String,
}

fn default_database() -> String {
    "demo".to_owned()
}

impl Default for Login {
    fn default() -> Self {
        Self {
            name: "demo".to_owned(),
            password: "demo".to_owned(),
            database: default_database(),
        }
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("name", &self.name)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}
