//! What sessions are told of TLS: the configurations of both legs, which may be renewed while sessions go on.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName,
};

/// The one protocol of TDS 8.0 in ALPN [MS-TDS 1.9].
pub const ALPN_TDS8: &[u8] = b"tds/8.0";

/// The clients' leg.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// For handshakes inside PRELOGIN packets: TLS 1.2 only (`tls.rs` says why).
    pub tds7: Arc<ServerConfig>,
    /// For TDS 8.0: TLS 1.2 or 1.3, [`ALPN_TDS8`].
    pub tds8: Arc<ServerConfig>,
}

impl ClientTls {
    /// A connection for one client of TDS 7 or 8.0.
    ///
    /// # Errors
    /// Only a configuration that rustls cannot use.
    pub fn accept(&self, strict: bool) -> Result<Connection, rustls::Error> {
        let config = if strict { &self.tds8 } else { &self.tds7 };
        ServerConnection::new(Arc::clone(config)).map(Connection::Server)
    }
}

/// The server's leg.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// As [`ClientTls::tds7`].
    pub tds7: Arc<ClientConfig>,
    /// As [`ClientTls::tds8`].
    pub tds8: Arc<ClientConfig>,
    /// The name that the configured server's certificate must carry.
    pub name: ServerName<'static>,
}

impl UpstreamTls {
    /// A connection to the server of that name, over TDS 7 or 8.0.
    ///
    /// # Errors
    /// Only a configuration that rustls cannot use.
    pub fn connect(&self, strict: bool, name: ServerName<'static>) -> Result<Connection, rustls::Error> {
        let config = if strict { &self.tds8 } else { &self.tds7 };
        ClientConnection::new(Arc::clone(config), name).map(Connection::Client)
    }
}

/// Something that may be replaced while others use it: new sessions take the new one, open ones keep what they have.
#[derive(Debug)]
pub struct Renewable<T>(RwLock<Arc<T>>);

impl<T> Renewable<T> {
    /// Holds `value` until it is replaced.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// The newest.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `value` in place of what was there.
    pub fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_old_one_keeps_it() {
        let renewable = Renewable::new(1);
        let old = renewable.get();
        renewable.replace(2);
        assert_eq!((*old, *renewable.get()), (1, 2));
    }
}
