//! Requests of the client [MS-TDS 2.2.6]: read where the gate must know what is asked, written where it asks itself.
//!
//! Parsers take a whole message body, or its head where the rest is not wanted: an error of the kind
//! [`Truncated`](crate::error::WireErrorKind::Truncated) then only says that the head ended.

pub mod all_headers;
pub mod bulk_load;
pub mod fed_auth;
pub mod parameter;
pub mod rpc;
pub mod rpc_walk;
pub mod sql_batch;
pub mod transaction;

use crate::version::TdsVersion;

/// What of the login decides how requests are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestOptions {
    /// The version of LOGINACK.
    pub version: TdsVersion,
    /// COLUMNENCRYPTION was acknowledged with version 2 or more: every batch and every RPC then carries a u16-counted
    /// enclave package, though mostly an empty one. So SqlClient and JDBC write it; [MS-TDS 2.2.6.6, 2.2.6.7] count it
    /// by a u32.
    pub enclave: bool,
}

impl RequestOptions {
    /// Options without enclaves.
    #[must_use]
    pub const fn new(version: TdsVersion) -> Self {
        Self {
            version,
            enclave: false,
        }
    }
}
