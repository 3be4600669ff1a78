//! Where the server's leg goes: the configured upstream, its failover, or an address that a routing answer named.

use std::{fmt, str::FromStr};

/// Most characters of a host name (RFC 1035); a routing answer could carry 32 767.
const HOST_MAX: usize = 255;
/// Most patterns of `routing_targets`: they are compared one by one, per routed login.
pub const PATTERNS_MAX: usize = 64;

/// A server's address. `Display` writes it as a configuration does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Target {
    /// Host name or address, without brackets; also the name that its certificate must carry.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Instance name of a routing answer (`host\instance`): LOGIN7 carries it on, the port alone decides where to.
    pub instance: Option<String>,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it as HOST:PORT, for example sql1:1433")]
pub struct TargetError;

impl Target {
    /// The address that a routing answer names: `server` may be `host\instance`. `None` for port 0 (illegal [MS-TDS 2.2.7.9])
    /// and for what can be no host name.
    #[must_use]
    pub fn routed(server: &str, port: u16) -> Option<Self> {
        let (host, instance) = match server.split_once('\\') {
            Some((host, instance)) => (host, Some(instance.to_owned())),
            None => (server, None),
        };
        let host = host.trim_end_matches('.');
        (port != 0 && is_host(host)).then(|| Self {
            host: host.to_owned(),
            port,
            instance,
        })
    }

    /// ServerName of LOGIN7 towards this server.
    #[must_use]
    pub fn server_name(&self) -> String {
        match &self.instance {
            Some(instance) => format!("{}\\{instance}", self.host),
            None => self.host.clone(),
        }
    }
}

fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    !host.is_empty() && host.len() <= HOST_MAX && host.chars().all(plain)
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = text.rsplit_once(':').ok_or(TargetError)?;
        let host = host.trim_matches(['[', ']']);
        let port = port.parse().map_err(|_| TargetError)?;
        if port == 0 || !is_host(host) {
            return Err(TargetError);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            instance: None,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What becomes of a routing answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Routing {
    /// The login ends with 50400: nobody's login goes to a server that the operator did not name.
    #[default]
    Refuse,
    /// Followed inside, to addresses that one of the patterns names.
    Follow(Vec<TargetPattern>),
}

impl Routing {
    /// True if logins may be sent to `target`.
    #[must_use]
    pub fn trusts(&self, target: &Target) -> bool {
        match self {
            Self::Refuse => false,
            Self::Follow(patterns) => patterns.iter().any(|p| p.matches(target)),
        }
    }
}

/// A pattern of addresses: `HOST` or `HOST:PORT`, where `*` in HOST stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPattern {
    host: String,
    port: Option<u16>,
}

impl TargetPattern {
    fn matches(&self, target: &Target) -> bool {
        self.port.is_none_or(|port| port == target.port)
            && super::pattern::matches(&self.host, &target.host.to_ascii_lowercase())
    }
}

impl FromStr for TargetPattern {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| TargetError)?)),
            None => (text, None),
        };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        if port == Some(0) || !is_host(&host.replace('*', "x")) {
            return Err(TargetError);
        }
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_there_and_back() {
        for text in ["sql1:1433", "10.0.0.7:11433", "[::1]:1433"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["sql1", "sql1:0", ":1433", "a b:1", "sql1:99999", "http://x:1"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_routed_server_keeps_its_instance_for_login7_only() {
        let target = Target::routed("node2.example.\\SQL", 5000).unwrap();
        assert_eq!(target.to_string(), "node2.example:5000");
        assert_eq!(target.server_name(), "node2.example\\SQL");
        assert_eq!(Target::routed("node2", 0), None);
        assert_eq!(Target::routed("node 2", 1433), None);
        assert_eq!(Target::routed(&"x".repeat(256), 1433), None);
    }

    #[test]
    fn only_named_addresses_are_trusted() {
        let follow =
            |patterns: &[&str]| Routing::Follow(patterns.iter().map(|p| p.parse().unwrap()).collect());
        let target = Target::routed("N1.db.example", 11000).unwrap();
        assert!(follow(&["*.db.example"]).trusts(&target));
        assert!(follow(&["other", "n1.DB.example:11000"]).trusts(&target));
        assert!(!follow(&["*.db.example:1433"]).trusts(&target));
        assert!(
            !follow(&["db.example"]).trusts(&target),
            "a suffix without a star is no match"
        );
        assert!(!follow(&["*.db.example"]).trusts(&Target::routed("n1.db.example.evil", 1433).unwrap()));
        assert!(!Routing::Refuse.trusts(&target));
    }
}
