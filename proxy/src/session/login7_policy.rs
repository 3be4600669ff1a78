//! LOGIN7 at the gate: what no tenant may ask for, and what stands in the LOGIN7 that the server gets [MS-TDS 2.2.6.4].

use std::{net::IpAddr, sync::Arc};

use weir_contracts::login::{LoginError, canonical_login};
use weir_tds::{
    login7::{Login7, NAME_UNITS_MAX, feature},
    version::TdsVersion,
};

use super::security;
use crate::{
    auth::{AuthSettings, Mapped, Target, TellClient, tenants::Authentication},
    gate::Cause,
};

/// Features that may pass: each keeps the stream walkable, and none tells the client another address [MS-TDS 2.2.6.4].
const FEATURES_PASSED: &[u8] = &[
    feature::FED_AUTH,
    feature::COLUMN_ENCRYPTION,
    feature::GLOBAL_TRANSACTIONS,
    feature::AZURE_SQL_SUPPORT,
    feature::DATA_CLASSIFICATION,
    feature::UTF8_SUPPORT,
    feature::JSON_SUPPORT,
    feature::VECTOR_SUPPORT,
    feature::USER_AGENT,
];
/// fUserType of OptionFlags2: replication and distributed queries are nobody's business here.
const USER_TYPE: u8 = 0x70;

/// How the client shows who it is.
pub(super) fn authentication(login: &Login7) -> Authentication {
    if login.feature(feature::FED_AUTH).is_some() {
        Authentication::Federated
    } else if login.is_integrated() || !login.sspi.is_empty() {
        Authentication::Integrated
    } else {
        Authentication::Sql
    }
}

/// The login's mapping to another one at the server; only a password can be mapped.
pub(super) fn mapped(login: &Login7, auth: &AuthSettings) -> Option<Arc<Mapped>> {
    let found = auth.credentials.of(&canonical(&login.user_name));
    found
        .filter(|_| authentication(login) == Authentication::Sql)
        .map(Arc::clone)
}

/// A login name as it is compared; empty for one that means nobody.
pub(super) fn canonical(login: &str) -> String {
    canonical_login(login).unwrap_or_default()
}

/// Why a name in LOGIN7 can mean nobody.
pub(super) const fn unreadable(error: LoginError) -> &'static str {
    match error {
        LoginError::Empty => "this login has no name",
        LoginError::Nul => "a name in this login contains a NUL character",
        LoginError::TooLong => "a name in this login is longer than 128 characters",
    }
}

/// What no tenant may ask for at login; `encrypted`: the client's leg is, to its end.
pub(super) fn refusal(login: &Login7, encrypted: bool, auth: &AuthSettings) -> Option<Cause> {
    let why = if login.version().is_none_or(|v| v < TdsVersion::V7_1) {
        "this TDS version cannot be metered: use a driver that speaks TDS 7.1 or later"
    } else if login.wants_password_change() && !auth.password_change {
        "the password cannot be changed through this gateway"
    } else if login.wants_user_instance() || !login.attach_db_file.is_empty() {
        "user instances and attached database files are not allowed"
    } else if login
        .feature(feature::SESSION_RECOVERY)
        .is_some_and(|data| !data.is_empty())
    {
        // It was never acknowledged here: the client had its session elsewhere. A login without that state would be
        // another session than the client believes it has [MS-TDS 2.2.6.4].
        "session recovery is not offered by this gateway: open a new connection"
    } else {
        return security::refusal(login, encrypted, auth);
    };
    Some(Cause::NotAllowed(why))
}

/// What the gate puts into a client's LOGIN7.
#[derive(Debug)]
pub(super) struct Rewrite<'a> {
    /// What the server is asked for.
    pub(super) packet_size: u32,
    /// The server that it goes to.
    pub(super) target: &'a Target,
    /// Database that an enhanced routing answer named.
    pub(super) database: Option<&'a str>,
    /// The tenant's login at the server.
    pub(super) mapped: Option<&'a Mapped>,
    /// Where the client's address is told.
    pub(super) tell: TellClient,
    /// The client's address.
    pub(super) client: Option<IpAddr>,
    /// The server answered FEDAUTHREQUIRED with 1.
    pub(super) fed_auth_required: bool,
}

impl Rewrite<'_> {
    /// Makes the client's LOGIN7 the gate's own.
    pub(super) fn apply(&self, login: &mut Login7) {
        login.packet_size = self.packet_size;
        login.server_name = self.target.server_name();
        login.option_flags2 &= !USER_TYPE;
        if let Some(mapped) = self.mapped {
            login.user_name.clone_from(&mapped.server_login);
            login.password = mapped.server_password.clone();
        }
        if let Some(database) = self.database {
            database.clone_into(&mut login.database);
        }
        match (self.tell, self.client) {
            (TellClient::HostName, Some(client)) => tag(&mut login.host_name, client),
            (TellClient::ApplicationName, Some(client)) => tag(&mut login.app_name, client),
            _ => {}
        }
        login.features.retain(|f| FEATURES_PASSED.contains(&f.id));
        for f in &mut login.features {
            match f.id {
                // Version 2 and 3 put an unmarked enclave package into every request [MS-TDS 2.2.6.6, 2.2.6.7].
                feature::COLUMN_ENCRYPTION => f.data = vec![1],
                feature::FED_AUTH => security::echo(&mut f.data, self.fed_auth_required),
                _ => {}
            }
        }
    }
}

/// Puts `[address]` behind a name; the name is clipped, the address never.
fn tag(name: &mut String, client: IpAddr) {
    let address = format!(" [{}]", client.to_canonical());
    let room = NAME_UNITS_MAX - address.len();
    let mut units = 0;
    let kept = name.chars().take_while(|c| {
        units += c.len_utf16();
        units <= room
    });
    let kept: String = kept.collect();
    *name = format!("{kept}{address}").trim_start().to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_never_makes_a_name_too_long() {
        for text in ["", "host", &"x".repeat(128), &"🦀".repeat(64)] {
            for client in [
                "10.0.0.1",
                "2001:db8:1111:2222:3333:4444:5555:6666",
                "::ffff:10.0.0.1",
            ] {
                let client: IpAddr = client.parse().unwrap();
                let mut name = text.to_owned();
                tag(&mut name, client);
                assert!(name.encode_utf16().count() <= NAME_UNITS_MAX, "{name}");
                assert!(name.ends_with(&format!("[{}]", client.to_canonical())), "{name}");
            }
        }
    }
}
