//! The rules that say whose login this is: ordered, first match wins; what they find is the login that billing resolves.

use weir_contracts::login::{LoginError, canonical_login};

use super::pattern;
use crate::ports::billing::Login;

/// Most rules: they are compared one by one, per login.
pub const RULES_MAX: usize = 1000;

/// How a client shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Login name and password in LOGIN7.
    Sql,
    /// Windows: NTLM or Kerberos tokens.
    Integrated,
    /// A security token of an identity provider.
    Federated,
}

/// One rule. Patterns are canonical; `*` stands for any run of characters, an absent one matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantRule {
    /// Login name.
    pub login: Option<String>,
    /// Database asked for.
    pub database: Option<String>,
    /// Application name.
    pub application: Option<String>,
    /// Server name as the client wrote it.
    pub server: Option<String>,
    /// How the client shows who it is.
    pub authentication: Option<Authentication>,
    /// Whose account pays: the login that billing resolves. `None`: nobody's; the login is refused.
    pub principal: Option<String>,
}

impl TenantRule {
    fn matches(&self, facts: &Facts, authentication: Authentication) -> bool {
        let is = |pattern: &Option<String>, text: &str| {
            pattern.as_deref().is_none_or(|p| pattern::matches(p, text))
        };
        self.authentication.is_none_or(|a| a == authentication)
            && is(&self.login, &facts.login)
            && is(&self.database, &facts.database)
            && is(&self.application, &facts.application)
            && is(&self.server, &facts.server)
    }
}

/// Why nobody is behind a login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTenant {
    /// Not even its name can be read in one way.
    #[error("{0}")]
    Login(#[from] LoginError),
    /// A rule says so.
    #[error("a rule of this gateway refuses this login")]
    Refused,
    /// Integrated and federated logins have no name in LOGIN7: only a rule can tell whose they are.
    #[error(
        "no rule of this gateway says whose integrated or federated login this is: the operator names it by database, \
         application or server name"
    )]
    NoRule,
}

/// What rules compare, canonical.
struct Facts {
    login: String,
    database: String,
    application: String,
    server: String,
}

/// Canonical, or empty: absent is a value that a rule may ask for, by `""`. A NUL in a name would make it two names.
fn canonical(text: &str) -> Result<String, LoginError> {
    match canonical_login(text) {
        Err(LoginError::Empty) => Ok(String::new()),
        other => other,
    }
}

/// The rules, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantRules(pub Vec<TenantRule>);

impl TenantRules {
    /// The login that billing resolves, canonical. Without a rule that matches it is the client's own.
    ///
    /// # Errors
    /// Nobody is behind this login.
    pub fn principal(&self, login: &Login, authentication: Authentication) -> Result<String, NoTenant> {
        let facts = Facts {
            login: match authentication {
                Authentication::Sql => canonical_login(&login.login)?,
                _ => canonical(&login.login)?,
            },
            database: canonical(&login.database)?,
            application: canonical(&login.application)?,
            server: canonical(&login.server)?,
        };
        let rule = self.0.iter().find(|rule| rule.matches(&facts, authentication));
        match (rule, authentication) {
            (Some(rule), _) => rule.principal.clone().ok_or(NoTenant::Refused),
            (None, Authentication::Sql) => Ok(facts.login),
            (None, _) => Err(NoTenant::NoRule),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(login: &str, database: &str, application: &str, server: &str) -> Login {
        Login {
            login: login.into(),
            database: database.into(),
            application: application.into(),
            server: server.into(),
        }
    }

    fn rule(field: &str, pattern: &str, principal: &str) -> TenantRule {
        let mut rule = TenantRule {
            principal: Some(principal.into()),
            ..TenantRule::default()
        };
        let pattern = Some(pattern.to_owned());
        match field {
            "login" => rule.login = pattern,
            "database" => rule.database = pattern,
            "application" => rule.application = pattern,
            _ => rule.server = pattern,
        }
        rule
    }

    #[test]
    fn the_first_rule_that_matches_wins_whatever_it_looks_at() {
        let all = [
            rule("login", "shared*", "by-login"),
            rule("database", "crm", "by-database"),
            rule("application", "*report*", "by-application"),
            rule("server", "acme.*", "by-server"),
        ];
        let login = facts("Shared1", "CRM", "Report Server", "ACME.gate.example,1433");
        for first in 0..all.len() {
            let mut rules = all.to_vec();
            rules.rotate_left(first);
            let expected = rules[0].principal.clone();
            let rules = TenantRules(rules);
            assert_eq!(rules.principal(&login, Authentication::Sql).ok(), expected);
        }
        let other = facts("own", "x", "y", "z");
        assert_eq!(
            TenantRules(all.to_vec())
                .principal(&other, Authentication::Sql)
                .unwrap(),
            "own"
        );
    }

    #[test]
    fn every_field_of_a_rule_must_match() {
        let both = TenantRule {
            database: Some("crm".into()),
            ..rule("login", "shared", "acme")
        };
        let rules = TenantRules(vec![both]);
        let principal = |database| {
            rules
                .principal(&facts("shared", database, "", ""), Authentication::Sql)
                .unwrap()
        };
        assert_eq!(
            (principal("crm"), principal("hr")),
            ("acme".to_owned(), "shared".to_owned())
        );
    }

    #[test]
    fn names_are_compared_as_the_server_compares_them() {
        let rules = TenantRules(vec![rule("database", "crm", "acme")]);
        for database in ["CRM  ", "ｃｒｍ", "Crm"] {
            let found = rules.principal(&facts("x", database, "", ""), Authentication::Sql);
            assert_eq!(found.unwrap(), "acme", "{database}");
        }
        let nul = rules.principal(&facts("x", "crm\0", "", ""), Authentication::Sql);
        assert_eq!(nul, Err(NoTenant::Login(LoginError::Nul)));
    }

    #[test]
    fn a_login_without_a_name_is_somebodys_only_by_a_rule() {
        let login = facts("", "crm", "", "");
        let none = TenantRules::default();
        assert_eq!(
            none.principal(&login, Authentication::Integrated),
            Err(NoTenant::NoRule)
        );
        assert_eq!(
            none.principal(&login, Authentication::Sql),
            Err(NoTenant::Login(LoginError::Empty))
        );
        let rules = TenantRules(vec![
            TenantRule {
                authentication: Some(Authentication::Federated),
                principal: None,
                ..TenantRule::default()
            },
            rule("database", "crm", "acme"),
        ]);
        assert_eq!(
            rules.principal(&login, Authentication::Integrated).unwrap(),
            "acme"
        );
        assert_eq!(
            rules.principal(&login, Authentication::Federated),
            Err(NoTenant::Refused)
        );
    }
}
