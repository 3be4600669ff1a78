//! The keys about logins, as the configuration file writes them, and what they are checked into. Reads the files of secrets.

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};
use weir_contracts::login::{LoginError, canonical_login};
use weir_tds::{browser::Instance, password::Password};
use zeroize::Zeroizing;

use super::{Config, ConfigError};
use crate::auth::{
    AuthSettings, Routing, Target,
    credentials::{CREDENTIALS_MAX, Credentials, Mapped, PasswordHash},
    target::{PATTERNS_MAX, TargetError},
    tenants::{Authentication, RULES_MAX, TenantRule, TenantRules},
};

/// Most instances in SQL Server Browser answers: 1 KiB holds them, at the longest names.
const INSTANCES_MAX: usize = 7;
/// Longest instance name, characters: SQL Server's limit.
const INSTANCE_NAME_MAX: usize = 16;
/// Longest server name in an answer, characters: a NetBIOS name has 15.
const SERVER_NAME_MAX: usize = 15;
/// Product version in an answer: 16.0.1000, SQL Server 2022, as in PRELOGIN.
const PRODUCT_VERSION_TEXT: &str = "16.0.1000.6";

/// Most bytes of a file that holds a password or its hash.
const SECRET_MAX: u64 = 4096;

/// Whether something is done at all, for keys that are off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Relaying {
    /// Refused with its reason.
    #[default]
    Refuse,
    /// Passed on to the server.
    Relay,
}

/// What becomes of routing answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingPolicy {
    /// The login ends.
    #[default]
    Refuse,
    /// Followed inside, to `routing_targets`.
    Follow,
}

/// Whether a client may change its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum PasswordChange {
    /// No: several tenants may share a login.
    #[default]
    Refuse,
    /// Yes; logins of `[[credentials]]` never.
    Allow,
}

/// Where the server is told the client's address, which the gate's own hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum TellClient {
    /// Nowhere.
    #[default]
    None,
    /// Behind the host name: `host_name` in `sys.dm_exec_sessions`.
    HostName,
    /// Behind the application name: `program_name` there.
    ApplicationName,
}

/// A password or its hash, or where it is: `credential:NAME` (below $CREDENTIALS_DIRECTORY, as systemd's LoadCredential= makes
/// it) or `file:PATH`. Shown without what it holds.
#[derive(Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(transparent)]
pub struct SecretSource(String);

impl SecretSource {
    fn path(&self) -> Result<Option<PathBuf>, String> {
        if let Some(name) = self.0.strip_prefix("credential:") {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err("a credential's name is a file name without a path".to_owned());
            }
            let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
                return Err(format!(
                    "credential:{name} needs $CREDENTIALS_DIRECTORY, which systemd sets with LoadCredential={name}:PATH"
                ));
            };
            return Ok(Some(PathBuf::from(directory).join(name)));
        }
        Ok(self.0.strip_prefix("file:").map(PathBuf::from))
    }

    /// What it names; `None` if it is the text itself. One line end behind it is not part of it.
    fn read(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(path) = self.path()? else {
            return Ok(None);
        };
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        if std::fs::metadata(&path).map_err(failed)?.len() > SECRET_MAX {
            return Err(format!("{} is larger than {SECRET_MAX} bytes", path.display()));
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(failed)?);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Some(Zeroizing::new(
            line.strip_suffix('\r').unwrap_or(line).to_owned(),
        )))
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.0.starts_with("credential:") || self.0.starts_with("file:");
        f.write_str(if named { &self.0 } else { "(hidden)" })
    }
}

impl Serialize for SecretSource {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{self:?}"))
    }
}

/// An entry of `[[credentials]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Login at the gate.
    pub login: String,
    /// Hash of the password at the gate, or where it is.
    pub password_hash: SecretSource,
    /// Login at the server.
    pub server_login: String,
    /// Where its password is.
    pub server_password: SecretSource,
}

/// An entry of `[[tenants]]`: every key but `principal` and `refuse` is a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Tenant {
    /// Login name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Database asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Application name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Server name as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How the client shows who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationKey>,
    /// The login whose account pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The login is refused.
    pub refuse: bool,
}

/// How a client shows who it is, as a rule writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationKey {
    /// Login name and password.
    Sql,
    /// Windows.
    Integrated,
    /// A security token.
    Federated,
}

impl From<AuthenticationKey> for Authentication {
    fn from(key: AuthenticationKey) -> Self {
        match key {
            AuthenticationKey::Sql => Self::Sql,
            AuthenticationKey::Integrated => Self::Integrated,
            AuthenticationKey::Federated => Self::Federated,
        }
    }
}

/// An entry of `[[instances]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceKey {
    /// As in `host\instance`.
    pub name: String,
    /// TCP port of the proxy that stands for it.
    pub port: u16,
}

fn wrong(key: &'static str, what: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        key,
        what: what.into(),
    }
}

impl Config {
    /// What sessions need of the keys about logins; reads the files of secrets.
    ///
    /// # Errors
    /// The first of them that cannot be used.
    pub fn auth(&self) -> Result<AuthSettings, ConfigError> {
        let target = |key: &'static str, text: &str| {
            text.parse::<Target>()
                .map_err(|e: TargetError| wrong(key, e.to_string()))
        };
        let failover = self.upstream_failover.as_deref();
        Ok(AuthSettings {
            upstream: target("upstream", &self.upstream)?,
            failover: failover.map(|f| target("upstream_failover", f)).transpose()?,
            routing: self.routing_targets()?,
            integrated: self.integrated_login == Relaying::Relay,
            federated: self.federated_login == Relaying::Relay,
            password_change: self.password_change == PasswordChange::Allow,
            tell_client: self.tell_client,
            tenants: tenants(&self.tenants)?,
            credentials: credentials(&self.credentials)?,
        })
    }

    /// What is allowed and should be meant: for `check` and the log.
    #[must_use]
    pub fn login_notes(&self) -> Vec<String> {
        let trusting = self.tenants.iter().enumerate();
        let trusting = trusting.filter(|(_, rule)| rule.login.is_none() && !rule.refuse);
        trusting
            .map(|(at, _)| {
                format!(
                    "tenants: rule {} names no login: whoever says this database, application or server name is billed as its \
                     principal (docs/authentication.md)",
                    at + 1
                )
            })
            .collect()
    }

    /// The instances that SQL Server Browser requests are answered with; `port` is that of `listen`.
    ///
    /// # Errors
    /// A name that is none, or one twice.
    pub fn named_instances(&self, port: u16) -> Result<Vec<Instance>, ConfigError> {
        const KEY: &str = "instances";
        let version = PRODUCT_VERSION_TEXT.to_owned();
        let server = browser_name(&self.gate_name);
        let of = |name: &str, port| Instance {
            server: server.clone(),
            name: name.to_owned(),
            version: version.clone(),
            port,
        };
        if self.instances.is_empty() {
            return Ok(vec![of("MSSQLSERVER", port)]);
        }
        if self.instances.len() > INSTANCES_MAX {
            return Err(wrong(
                KEY,
                format!("at most {INSTANCES_MAX}: an answer holds no more"),
            ));
        }
        let mut found: Vec<Instance> = Vec::with_capacity(self.instances.len());
        for InstanceKey { name, port } in &self.instances {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '#');
            if *port == 0 || name.is_empty() || name.len() > INSTANCE_NAME_MAX || !name.chars().all(plain) {
                return Err(wrong(
                    KEY,
                    format!(
                        "'{name}' at port {port}: a name is 1 to {INSTANCE_NAME_MAX} of a-z 0-9 _ $ #, a port not 0"
                    ),
                ));
            }
            if found.iter().any(|i| i.name.eq_ignore_ascii_case(name)) {
                return Err(wrong(KEY, format!("'{name}' stands there twice")));
            }
            found.push(of(name, *port));
        }
        Ok(found)
    }

    fn routing_targets(&self) -> Result<Routing, ConfigError> {
        let key = "routing_targets";
        if self.routing_targets.len() > PATTERNS_MAX {
            return Err(wrong(key, format!("at most {PATTERNS_MAX}")));
        }
        let mut patterns = Vec::new();
        for text in &self.routing_targets {
            let pattern = text.parse().map_err(|_| {
                wrong(
                    key,
                    format!(
                        "'{text}' is not HOST or HOST:PORT, where * in HOST stands for any run of characters"
                    ),
                )
            })?;
            patterns.push(pattern);
        }
        match self.routing {
            RoutingPolicy::Refuse => Ok(Routing::Refuse),
            RoutingPolicy::Follow if patterns.is_empty() => Err(wrong(
                key,
                "routing = \"follow\" sends logins, passwords included, where the server says: name the hosts that you trust with \
                 them, for example [\"*.database.windows.net\"]",
            )),
            RoutingPolicy::Follow => Ok(Routing::Follow(patterns)),
        }
    }
}

/// What may stand between the semicolons of an answer.
fn browser_name(gate_name: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = gate_name.chars().filter(plain).take(SERVER_NAME_MAX).collect();
    if name.is_empty() { "weir".to_owned() } else { name }
}

fn tenants(rules: &[Tenant]) -> Result<TenantRules, ConfigError> {
    const KEY: &str = "tenants";
    if rules.len() > RULES_MAX {
        return Err(wrong(KEY, format!("at most {RULES_MAX} rules")));
    }
    let mut checked = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        let nth = at + 1;
        let canonical = |what: &str, text: &Option<String>| match text.as_deref().map(canonical_login) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(LoginError::Empty)) if what != "principal" => Ok(Some(String::new())),
            Some(Err(e)) => Err(wrong(KEY, format!("rule {nth}: {what}: {e}"))),
        };
        let found = TenantRule {
            login: canonical("login", &rule.login)?,
            database: canonical("database", &rule.database)?,
            application: canonical("application", &rule.application)?,
            server: canonical("server", &rule.server)?,
            authentication: rule.authentication.map(Into::into),
            principal: canonical("principal", &rule.principal)?,
        };
        if found.principal.is_some() == rule.refuse {
            return Err(wrong(
                KEY,
                format!("rule {nth}: say either whose account pays (principal = \"LOGIN\") or refuse = true"),
            ));
        }
        let matches_all = TenantRule {
            principal: found.principal.clone(),
            ..TenantRule::default()
        };
        if found == matches_all && nth < rules.len() {
            return Err(wrong(
                KEY,
                format!("rule {nth} matches every login: the rules behind it are never reached"),
            ));
        }
        checked.push(found);
    }
    Ok(TenantRules(checked))
}

fn credentials(entries: &[Credential]) -> Result<Credentials, ConfigError> {
    const KEY: &str = "credentials";
    if entries.len() > CREDENTIALS_MAX {
        return Err(wrong(KEY, format!("at most {CREDENTIALS_MAX} logins")));
    }
    let mut checked = HashMap::with_capacity(entries.len());
    for entry in entries {
        let of = |what: String| wrong(KEY, format!("login '{}': {what}", entry.login));
        let login = canonical_login(&entry.login).map_err(|e| of(e.to_string()))?;
        canonical_login(&entry.server_login).map_err(|e| of(format!("server_login: {e}")))?;
        let hash = match entry.password_hash.read().map_err(of)? {
            Some(text) => PasswordHash::parse(&text),
            None => PasswordHash::parse(&entry.password_hash.0),
        };
        let Some(server_password) = entry.server_password.read().map_err(of)? else {
            return Err(of(
                "server_password must not stand in the configuration: write credential:NAME or file:PATH"
                    .to_owned(),
            ));
        };
        let mapped = Mapped {
            hash: hash.map_err(|e| of(e.to_string()))?,
            server_login: entry.server_login.clone(),
            server_password: Password::from_text(&server_password),
        };
        if checked.insert(login, Arc::new(mapped)).is_some() {
            return Err(of(
                "stands there twice; logins are compared without case, width and trailing spaces".to_owned(),
            ));
        }
    }
    Ok(Credentials(checked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<AuthSettings, ConfigError> {
        let config: Config = toml::from_str(&format!("upstream = \"db:1433\"\n{text}")).unwrap();
        config.auth()
    }

    fn error(text: &str) -> String {
        config(text).unwrap_err().to_string()
    }

    #[test]
    fn routing_is_followed_only_to_named_hosts() {
        assert_eq!(config("").unwrap().routing, Routing::Refuse);
        assert!(error("routing = \"follow\"").contains("passwords included"));
        assert!(error("routing = \"follow\"\nrouting_targets = [\"a b\"]").contains("'a b'"));
        let follow = config("routing = \"follow\"\nrouting_targets = [\"*.example:1433\"]").unwrap();
        assert!(
            follow
                .routing
                .trusts(&Target::routed("n1.example", 1433).unwrap())
        );
    }

    #[test]
    fn a_rule_says_who_pays_or_refuses() {
        let rules = config(
            "[[tenants]]\nlogin = \"Shared*\"\ndatabase = \"ＣＲＭ \"\nprincipal = \"Acme\"\n[[tenants]]\napplication = \"\"\nrefuse = true",
        );
        let rules = rules.unwrap().tenants.0;
        let noted = |text: &str| {
            let config: Config = toml::from_str(text).unwrap();
            config.login_notes().join(" ")
        };
        assert!(
            noted("[[tenants]]\ndatabase = \"x\"\nprincipal = \"a\"")
                .starts_with("tenants: rule 1 names no login")
        );
        assert_eq!(
            noted("[[tenants]]\nlogin = \"x\"\nprincipal = \"a\"\n[[tenants]]\nrefuse = true"),
            ""
        );
        assert_eq!(
            (
                rules[0].login.as_deref(),
                rules[0].database.as_deref(),
                rules[0].principal.as_deref()
            ),
            (Some("shared*"), Some("crm"), Some("acme"))
        );
        assert_eq!(
            (rules[1].application.as_deref(), &rules[1].principal),
            (Some(""), &None)
        );
        assert!(error("[[tenants]]\nlogin = \"a\"").contains("rule 1: say either"));
        assert!(
            error("[[tenants]]\nlogin = \"a\"\nprincipal = \"b\"\nrefuse = true")
                .contains("rule 1: say either")
        );
        assert!(
            error("[[tenants]]\nlogin = \"a\\u0000b\"\nrefuse = true")
                .contains("rule 1: login: the login contains a NUL")
        );
        assert!(
            error("[[tenants]]\nprincipal = \"a\"\n[[tenants]]\nlogin = \"b\"\nprincipal = \"c\"")
                .contains("never reached")
        );
    }

    #[test]
    fn credentials_come_from_files_and_are_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server");
        std::fs::write(&path, "server-word\r\n").unwrap();
        let hash = format!("pbkdf2-sha256:100000:{}:{}", "07".repeat(16), "ab".repeat(32));
        let entry = |login: &str, password: &str| {
            format!(
                "[[credentials]]\nlogin = \"{login}\"\npassword_hash = \"{hash}\"\nserver_login = \"app\"\nserver_password = \"{password}\"\n"
            )
        };
        let file = format!("file:{}", path.display());
        let read = config(&entry("Acme", &file)).unwrap();
        let mapped = read.credentials.of("acme").unwrap();
        assert_eq!(
            (
                mapped.server_login.as_str(),
                mapped.server_password.to_text().as_str()
            ),
            ("app", "server-word")
        );
        assert!(!format!("{read:?}").contains("server-word"));
        let inline = error(&entry("acme", "hush"));
        assert!(
            inline.contains("file:PATH") && !inline.contains("hush"),
            "{inline}"
        );
        assert!(error(&entry("acme", "file:/nowhere")).contains("/nowhere"));
        assert!(error(&entry("acme", "credential:../x")).contains("without a path"));
        assert!(error(&(entry("acme", &file) + &entry("ACME ", &file))).contains("twice"));
        let shown: Config =
            toml::from_str(&format!("upstream = \"db:1433\"\n{}", entry("acme", &file))).unwrap();
        let shown = toml::to_string(&shown).unwrap();
        assert!(shown.contains(&file) && !shown.contains("0707"), "{shown}");
    }

    #[test]
    fn instances_are_named_once_and_fit_an_answer() {
        let config =
            |text: &str| -> Config { toml::from_str(&format!("upstream = \"db:1433\"\n{text}")).unwrap() };
        let default = config("gate_name = \"my; gate\"").named_instances(11433).unwrap();
        assert_eq!(
            (
                default[0].name.as_str(),
                default[0].server.as_str(),
                default[0].port
            ),
            ("MSSQLSERVER", "mygate", 11433)
        );
        let named = |name: &str| format!("[[instances]]\nname = \"{name}\"\nport = 65535\n");
        let full: String = (0..INSTANCES_MAX)
            .map(|n| named(&format!("{n}{}", "x".repeat(INSTANCE_NAME_MAX - 1))))
            .collect();
        let full = format!("gate_name = \"{}\"\n{full}", "g".repeat(40));
        let instances = config(&full).named_instances(1).unwrap();
        let answer = weir_tds::browser::response(&instances).unwrap();
        assert_eq!(
            answer.windows(3).filter(|w| w == b"tcp").count(),
            INSTANCES_MAX,
            "all of them are in the answer"
        );
        for wrong in [
            named("a;b"),
            named(""),
            named(&"x".repeat(17)),
            named("a") + &named("A"),
        ] {
            let error = config(&wrong).named_instances(1).unwrap_err().to_string();
            assert!(error.starts_with("instances: "), "{error}");
        }
    }
}
