//! What stands between client and origin: nothing, HAProxy, or Weir.

pub mod haproxy;
pub mod house;
pub mod weir;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What is measured side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// No proxy.
    Direct,
    /// HAProxy in TCP mode, which copies.
    Haproxy,
    /// HAProxy with splice and pipes of 1 MiB, which sees no byte.
    HaproxySplice,
    /// Weir that meters and never refuses.
    Observing,
    /// Weir with gate, lease and journal.
    Enforcing,
}

impl Peer {
    /// All of them, in the order of a round.
    pub const ALL: [Self; 5] = [
        Self::Direct,
        Self::Haproxy,
        Self::HaproxySplice,
        Self::Observing,
        Self::Enforcing,
    ];

    /// A name for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "HAProxy",
            Self::HaproxySplice => "HAProxy with splice",
            Self::Observing => "Weir observing",
            Self::Enforcing => "Weir enforcing",
        }
    }

    /// True for both ways of Weir.
    #[must_use]
    pub const fn is_weir(self) -> bool {
        matches!(self, Self::Observing | Self::Enforcing)
    }

    /// Who logs in: the account behind the login decides between observing and enforcing.
    #[must_use]
    pub const fn login(self) -> &'static str {
        match self {
            Self::Observing => "observed",
            _ => "enforced",
        }
    }
}

/// A peer that stands: where clients connect, and the process that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Where.
    pub address: SocketAddr,
    /// The proxy's process, if there is a proxy.
    pub process: Option<u32>,
}
