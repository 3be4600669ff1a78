//! Who is let in, as whom, and where to: what an operator decides about logins. Pure; `docs/authentication.md` is for people.
//!
//! | file | what |
//! |---|---|
//! | `target.rs` | the server's address, and the addresses that a routing answer may name |
//! | `tenants.rs` | whose login it is, by ordered rules |
//! | `credentials.rs` | a tenant's login at the gate, another at the server |
//! | `pattern.rs` | `*` in rules and addresses |

pub mod credentials;
mod pattern;
pub mod target;
pub mod tenants;

pub use crate::config::logins::TellClient;
pub use credentials::{Credentials, Mapped, PasswordHash};
pub use target::{Routing, Target};
pub use tenants::TenantRules;

/// What an operator decides about logins; part of the sessions' [`crate::session::Settings`].
#[derive(Debug, Clone, Default)]
pub struct AuthSettings {
    /// The SQL Server behind.
    pub upstream: Target,
    /// Tried when `upstream` takes no connection: the mirror that clients are not told of.
    pub failover: Option<Target>,
    /// Whether a server may send logins elsewhere, and where to.
    pub routing: Routing,
    /// NTLM and Kerberos tokens are relayed.
    pub integrated: bool,
    /// Security tokens of an identity provider are relayed.
    pub federated: bool,
    /// A client may change its own password at the server.
    pub password_change: bool,
    /// Where the server is told the client's address.
    pub tell_client: TellClient,
    /// Whose login it is.
    pub tenants: TenantRules,
    /// Logins that are others at the server.
    pub credentials: Credentials,
}
