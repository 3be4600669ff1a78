//! What the drivers need from the world. Each port has an embedded adapter; the real servers come behind the same traits.

pub mod billing_store;
pub mod broker;
pub mod items;
pub mod outbox_source;
pub mod wallet_client;

/// Why a store, a broker or an outbox did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PortError {
    /// It may work later: away, busy, disk full. What was asked may or may not have been done.
    #[error("{0} is not usable now: {1}")]
    Unavailable(&'static str, String),
    /// It holds something that this program cannot read: broken, or newer.
    #[error("{0} holds what cannot be read: {1}")]
    Corrupt(&'static str, String),
    /// The same id is there with other content.
    #[error("{0} already has {1} with other content")]
    OtherContent(&'static str, String),
    /// The server is set up in a way that breaks a promise, or lets us not in: its operator must act, waiting does not help. The
    /// text names the setting and the remedy.
    #[error("{0} cannot be used as it is set up: {1}")]
    Settings(&'static str, String),
}
