//! The session core under scripted peers: rows, credit, cuts, cancellations, logins.

pub(crate) mod bench;
mod cut;
mod edges;
pub(crate) mod login;
mod mars;
mod mars_abuse;
pub(crate) mod mars_peers;
mod opening;
mod packet_size;
mod races;
pub(crate) mod relay;
mod routing;
mod tenants;
mod tls_matrix;
mod tls_peer;
mod tls_refused;
mod tokens_relayed;
mod upload;

pub(crate) use login::tokens_of;
