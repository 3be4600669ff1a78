//! Where a login goes: the upstream, its failover, or where a server routes it. All inside; the client learns no address.

use std::time::Instant;

use rustls::pki_types::ServerName;
use weir_tds::token::Routing as Route;

use super::{
    engine::{Phase, Session},
    login::Login,
};
use crate::{
    auth::{AuthSettings, Target},
    gate::Cause,
};

/// Most routing answers that one login follows; drivers follow as many. The login's deadline bounds them in time.
pub const HOPS_MAX: u8 = 10;

/// The way that a login has gone so far.
#[derive(Debug, Default)]
pub(super) struct Way {
    target: Option<Target>,
    hops: u8,
    failed_over: bool,
    database: Option<String>,
}

impl Way {
    /// The server that the login is at, or goes to first.
    pub(super) fn target<'a>(&'a self, auth: &'a AuthSettings) -> &'a Target {
        self.target.as_ref().unwrap_or(&auth.upstream)
    }

    /// Database that an enhanced routing answer named.
    pub(super) fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// A server sent the login elsewhere.
    pub(super) fn is_routed(&self) -> bool {
        self.hops > 0
    }

    /// `why` without this way's addresses: what a TLS library or a resolver says may name the server.
    pub(super) fn without_addresses(&self, why: &str, auth: &AuthSettings) -> String {
        let hosts = [
            Some(self.target(auth)),
            Some(&auth.upstream),
            auth.failover.as_ref(),
        ];
        let hosts = hosts.into_iter().flatten();
        hosts.fold(why.to_owned(), |shown, target| without(&shown, &target.host))
    }

    /// The failover, once, if the upstream itself took no connection.
    fn fail_over(&mut self, auth: &AuthSettings) -> Option<Target> {
        let first = self.target.is_none() && !self.failed_over;
        let failover = auth.failover.clone().filter(|_| first)?;
        self.failed_over = true;
        self.target = Some(failover.clone());
        Some(failover)
    }

    /// The next server, if the operator trusts it with logins.
    fn next(&mut self, route: &Route, auth: &AuthSettings) -> Result<Target, &'static str> {
        if self.hops >= HOPS_MAX {
            return Err("more routing answers than a login follows");
        }
        if route.protocol != 0 {
            return Err("routing to something else than TCP");
        }
        let target = Target::routed(&route.server, route.port).ok_or("routing to no address")?;
        if !auth.routing.trusts(&target) {
            tracing::warn!(%target, "a routing answer is not followed: the keys routing and routing_targets do not trust this address");
            return Err("routing to an address that the gateway's routing_targets do not name");
        }
        self.hops += 1;
        self.database = route.database.clone().filter(|d| !d.is_empty());
        self.target = Some(target.clone());
        Ok(target)
    }
}

/// `text` with `host` taken out where it stands as a word: a host named `db` must not eat a part of another word.
fn without(text: &str, host: &str) -> String {
    let (lower, host) = (text.to_ascii_lowercase(), host.to_ascii_lowercase());
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for (found, _) in lower.match_indices(&host) {
        let end = found + host.len();
        let before = lower.get(..found).unwrap_or_default().ends_with(part_of_name);
        let mut behind = lower.get(end..).unwrap_or_default().chars();
        // A full stop behind a host ends a sentence, unless a label follows.
        let after = match behind.next() {
            Some('.') => behind.next().is_some_and(char::is_alphanumeric),
            Some(c) => part_of_name(c),
            None => false,
        };
        if !before && !after && !host.is_empty() {
            shown.push_str(text.get(at..found).unwrap_or_default());
            shown.push_str("(the server)");
            at = end;
        }
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

impl Session {
    /// The tenant is known: the server's leg goes to the upstream.
    pub(super) fn connect_first(&mut self) {
        let target = match self.login() {
            Some(login) => {
                login.await_connection();
                self.settings.auth.upstream.clone()
            }
            None => return,
        };
        self.leave_for(target);
    }

    /// Name that the certificate of a server must carry which is not the configured upstream.
    pub(super) fn other_host(&self) -> Option<ServerName<'static>> {
        let Phase::Login(login) = &self.phase else {
            return None;
        };
        let target = login.way.target.as_ref()?;
        ServerName::try_from(target.host.clone()).ok()
    }

    /// No connection could be made. True if another server is tried.
    pub(super) fn connect_elsewhere(&mut self, cause: &Cause) -> bool {
        let settings = std::sync::Arc::clone(&self.settings);
        let Some(login) = self.login() else {
            return false;
        };
        if !matches!(cause, Cause::Upstream(_)) || !login.is_connecting() {
            return false;
        }
        let Some(failover) = login.way.fail_over(&settings.auth) else {
            return false;
        };
        tracing::warn!(upstream = %settings.auth.upstream, %failover, "the upstream takes no connection: its failover is tried");
        self.leave_for(failover);
        true
    }

    /// The server sent the login elsewhere: the same login goes there, over a new connection.
    pub(super) fn follow(&mut self, route: &Route, now: Instant) {
        let settings = std::sync::Arc::clone(&self.settings);
        let Some(login) = self.login() else {
            return;
        };
        if let Err(why) = login.security.may_be_routed() {
            return self.refuse_login(&Cause::Routed(why), now);
        }
        match login.way.next(route, &settings.auth) {
            Ok(target) => {
                login.await_connection();
                self.leave_for(target);
            }
            Err(why) => self.refuse_login(&Cause::Routed(why), now),
        }
    }
}

impl Login {
    /// The server that the login is at.
    pub(super) fn target<'a>(&'a self, auth: &'a AuthSettings) -> &'a Target {
        self.way.target(auth)
    }
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn a_host_is_taken_out_where_it_stands_as_a_word() {
        assert_eq!(
            without("cannot reach DB1: db1.", "db1"),
            "cannot reach (the server): (the server)."
        );
        assert_eq!(
            without("db is not feedback of db.example", "db"),
            "(the server) is not feedback of db.example"
        );
        assert_eq!(
            without("name \"n2.x.example\"", "n2.x.example"),
            "name \"(the server)\""
        );
        assert_eq!(without("text", ""), "text");
    }
}
