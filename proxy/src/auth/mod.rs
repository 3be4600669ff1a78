//! Who is let in, as whom, and where to: what an operator decides about logins. Pure; `docs/authentication.md` is for people.
//!
//! | file | what |
//! |---|---|
//! | `target.rs` | the server's address, and the addresses that a routing answer may name |

mod pattern;
pub mod target;

pub use target::{Routing, Target};

/// What an operator decides about logins; part of the sessions' [`crate::session::Settings`].
#[derive(Debug, Clone, Default)]
pub struct AuthSettings {
    /// The SQL Server behind.
    pub upstream: Target,
    /// Tried when `upstream` takes no connection: the mirror that clients are not told of.
    pub failover: Option<Target>,
    /// Whether a server may send logins elsewhere, and where to.
    pub routing: Routing,
}
