//! TLS for both ends of the `tls` target, as `proxy/src/tls.rs` sets it up, but with one key for all, a random source that
//! repeats, and TLS 1.2 sessions that may be taken up again: a whole handshake costs ten times what follows it.
//!
//! Keys and signatures are Ed25519 and X25519, so that every handshake has the same lengths.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, NamedGroup, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use weir_proxy::session::encryption::ALPN_TDS8;

/// Which TLS a connection may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.2, as in PRELOGIN packets always.
    Tls12,
    /// 1.3, in TDS 8.0.
    Tls13,
}

struct Configurations {
    servers: [Arc<ServerConfig>; 2],
    /// By version; the last one takes a TLS 1.2 session up again.
    clients: [Arc<ClientConfig>; 3],
}

thread_local! {
    static DICE: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(0)) };
}

/// Random bytes of this thread repeat from here on.
pub(super) fn reseed() {
    DICE.with_borrow_mut(|rng| *rng = fastrand::Rng::with_seed(0));
}

/// The server's end.
pub(super) fn server(version: Version) -> Connection {
    let config = &configurations().servers[usize::from(version == Version::Tls13)];
    let connection = ServerConnection::new(Arc::clone(config)).expect("a server's configuration");
    Connection::Server(connection)
}

/// The client's end; `resumed` takes up the session that the first handshake of this process left.
pub(super) fn client(version: Version, resumed: bool) -> Connection {
    let which = match version {
        Version::Tls13 => 1,
        Version::Tls12 if resumed => 2,
        Version::Tls12 => 0,
    };
    let config = Arc::clone(&configurations().clients[which]);
    let name = ServerName::try_from("db.example").expect("a name");
    let connection = ClientConnection::new(config, name).expect("a client's configuration");
    Connection::Client(connection)
}

fn configurations() -> &'static Configurations {
    static MADE: OnceLock<Configurations> = OnceLock::new();
    MADE.get_or_init(make)
}

fn make() -> Configurations {
    let provider = Arc::new(CryptoProvider {
        secure_random: &Dice,
        ..ring::default_provider()
    });
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let asked = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).expect("a name");
    let chain = vec![asked.self_signed(&key).expect("a certificate").der().clone()];
    let private = || PrivateKeyDer::try_from(key.serialize_der()).expect("the same key");
    // Tickets, because a store of sessions at the server would keep something of each input.
    let tickets = ring::Ticketer::new().expect("a ticket's key");
    let server = |version: &'static SupportedProtocolVersion, alpn: bool| {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .expect("a version of the provider's")
            .with_no_client_auth()
            .with_single_cert(chain.clone(), private())
            .expect("a certificate with its key");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::clone(&tickets);
        if alpn {
            config.alpn_protocols = vec![ALPN_TDS8.to_vec()];
        }
        Arc::new(config)
    };
    let client = |version: &'static SupportedProtocolVersion, alpn: bool, resumption: Resumption| {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .expect("a version of the provider's")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any))
            .with_no_client_auth();
        config.resumption = resumption;
        if alpn {
            config.alpn_protocols = vec![ALPN_TDS8.to_vec()];
        }
        Arc::new(config)
    };
    Configurations {
        servers: [server(&TLS12, false), server(&TLS13, true)],
        clients: [
            client(&TLS12, false, Resumption::disabled()),
            client(&TLS13, true, Resumption::disabled()),
            client(&TLS12, false, Resumption::store(Arc::new(First::default()))),
        ],
    }
}

/// Random bytes that a find repeats with. What keys are made of does not come from here.
#[derive(Debug)]
struct Dice;

impl SecureRandom for Dice {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        DICE.with_borrow_mut(|rng| rng.fill(buf));
        Ok(())
    }
}

/// Keeps the first TLS 1.2 session for ever, and nothing else.
#[derive(Debug, Default)]
struct First(Mutex<Option<Tls12ClientSessionValue>>);

impl ClientSessionStore for First {
    fn set_kx_hint(&self, _name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, value: Tls12ClientSessionValue) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(value);
    }

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _name: ServerName<'static>, _value: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

/// Any certificate passes: verification is rustls', and costs.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
