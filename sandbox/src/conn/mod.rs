//! One client connection: PRELOGIN, TLS, LOGIN7, then requests in order until it closes.

pub(crate) mod cancel;
mod lane;
mod login;
mod mars;
pub(crate) mod reply;
mod session;
mod tls;
mod transport;

pub(crate) use login::LoginInfo;
pub(crate) use session::{Shared, serve};
pub(crate) use tls::{TlsError, TlsSetup};

use bytes::Bytes;
use weir_tds::packet::{PacketStatus, PacketType};

/// A whole request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Its packet type.
    pub(crate) kind: PacketType,
    /// Status of its first packet: the reset bits.
    pub(crate) status: PacketStatus,
    /// The client threw it away with its last packet.
    pub(crate) ignored: bool,
    /// Its body, ALL_HEADERS included.
    pub(crate) body: Bytes,
}

/// Why a connection ends. Only the first three are anybody's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConnError {
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Wire(#[from] weir_tds::error::WireError),
    /// The client broke the protocol of its sessions.
    #[error("the client broke the protocol: {0}")]
    Smp(#[from] weir_tds::smp::SmpError),
    /// TLS failed: no common version, an alert, a bad record.
    #[error("TLS with the client failed: {0}")]
    Tls(#[from] rustls::Error),
    /// The socket failed.
    #[error("the client's socket failed: {0}")]
    Io(#[from] std::io::Error),
    /// The client took too long to log in.
    #[error("no login within the deadline")]
    LoginDeadline,
    /// The client closed.
    #[error("closed by the client")]
    Closed,
    /// The login was refused, and told so.
    #[error("login refused")]
    Refused,
}
