//! The outbox on Redis streams: ordered logs with conditional appends, and the cursor up to which the broker has confirmed.
//!
//! What Redis may do to it, and what becomes of that: a flush, a restart without its data or a fail-over to a replica that lacks a
//! tail only move a stream's end back, or away; the next append is then answered with the end that is there, and the writer goes back
//! to it. Nothing is remembered on this side but the connection.
//!
//! Keys, all under one prefix: `<prefix>:<stream>` the stream, with entry ids `<epoch>-<sequence>`; `<prefix>:<stream>:confirmed`
//! the cursor; `<prefix>:streams` the set of names; `<prefix>:changes` a counter that wakes readers.

mod connection;
mod log;
mod script;
mod settings;

pub use connection::CALL_LIMIT;
pub use log::{Appended, ENTRIES_MAX, Log, Position};

use crate::UrlError;

/// Schemes that an address may have.
pub const SCHEMES: &[&str] = &["redis://", "rediss://"];

/// Why Redis did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// Away, busy, full, or it answered too late: what was asked may or may not have been done. The same call may be made again.
    #[error("Redis at {server} is not usable now: {cause}")]
    Unavailable {
        /// The address, without its password.
        server: String,
        /// What happened.
        cause: String,
    },
    /// This user may not call that, or the server has no such command.
    #[error("Redis at {server} does not allow it: {cause}; give this user the right (ACL)")]
    NotAllowed {
        /// The address, without its password.
        server: String,
        /// Its own words.
        cause: String,
    },
    /// It answers, and will give the same answer until somebody changes something: a wrong password, a key of another kind.
    #[error("Redis at {server} refuses: {cause}")]
    Refused {
        /// The address, without its password.
        server: String,
        /// Its own words, and what to do.
        cause: String,
    },
    /// A setting that the outbox's promises need is otherwise.
    #[error("Redis at {server}: {setting} is {value}: {remedy}")]
    Setting {
        /// The address, without its password.
        server: String,
        /// As Redis names it.
        setting: &'static str,
        /// As it is.
        value: String,
        /// What breaks, and what to do.
        remedy: String,
    },
    /// The same id is there with other content: two writers claim to be one.
    #[error("the stream already holds {0} with other content")]
    Conflict(String),
    /// The call itself is wrong: a batch out of order, or a cursor beyond the stream's end.
    #[error("{0}")]
    Order(String),
    /// The address cannot be used.
    #[error("{0}")]
    Address(String),
}

impl RedisError {
    /// True when only waiting can help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl From<UrlError> for RedisError {
    fn from(error: UrlError) -> Self {
        Self::Address(error.to_string())
    }
}
