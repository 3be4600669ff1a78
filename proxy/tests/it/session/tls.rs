//! TLS on both legs, each by itself: wrapped handshakes, login-only and full encryption, and what must not get through.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName},
    version::TLS12,
};
use weir_proxy::{
    ports::billing::Mode,
    session::{
        Settings,
        encryption::{ClientTls, Renewable, UpstreamTls},
    },
};
use weir_tds::{
    build::TokenBuf,
    login7::Login7,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    prelogin::{Encryption, EncryptionPolicy, Prelogin},
};

use super::bench::{Bench, ROW, V, batch, login7, message, prelogin, settings, take_message};

/// A key pair for `localhost`: a server's configuration and that of a client which trusts it alone.
fn key_pair() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let chain = vec![made.cert.der().clone()];
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// The far end of a leg, with its own TLS.
struct Peer {
    tls: Connection,
}

impl Peer {
    fn client(config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        Self {
            tls: Connection::Client(ClientConnection::new(Arc::clone(config), name).unwrap()),
        }
    }

    fn server(config: &Arc<ServerConfig>) -> Self {
        Self {
            tls: Connection::Server(ServerConnection::new(Arc::clone(config)).unwrap()),
        }
    }

    fn flight(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn take_in(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            self.tls.process_new_packets().unwrap();
        }
    }

    fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plain).unwrap();
        self.flight()
    }

    fn opened(&mut self, records: &[u8]) -> Vec<u8> {
        self.take_in(records);
        let mut plain = Vec::new();
        // WouldBlock at the end of what came is no fault.
        let _ = self.tls.reader().read_to_end(&mut plain);
        plain
    }
}

/// Takes wrapped handshake messages off the front.
fn unwrapped(bytes: &mut Vec<u8>) -> Vec<u8> {
    let mut flight = Vec::new();
    while bytes.first() == Some(&0x12) {
        let length = usize::from(PacketHeader::parse(bytes).unwrap().unwrap().length);
        flight.extend_from_slice(&bytes[HEADER_LEN..length]);
        bytes.drain(..length);
    }
    flight
}

fn wrapped(flight: &[u8]) -> Vec<u8> {
    message(PacketType::Prelogin, PacketStatus::NORMAL, flight)
}

/// A client's side of the handshake, its bytes fed in pieces of `piece`.
fn shake_client(bench: &mut Bench, peer: &mut Peer, piece: usize) {
    // A resumed session is done at the client before its last flight is written.
    while peer.tls.is_handshaking() || peer.tls.wants_write() {
        for part in wrapped(&peer.flight()).chunks(piece) {
            bench.feed_client(part);
        }
        let answer = unwrapped(&mut bench.to_client);
        peer.take_in(&answer);
    }
    assert!(bench.end.is_none());
}

fn shake_server(bench: &mut Bench, peer: &mut Peer, piece: usize) {
    while peer.tls.is_handshaking() || peer.tls.wants_write() {
        let hello = unwrapped(&mut bench.to_server);
        peer.take_in(&hello);
        let flight = peer.flight();
        if !flight.is_empty() {
            for part in wrapped(&flight).chunks(piece) {
                bench.feed_server(part);
            }
        }
    }
    assert!(bench.end.is_none());
}

fn offering(server: &Arc<ServerConfig>) -> Settings {
    Settings {
        client_policy: EncryptionPolicy::Off,
        client_tls: Some(Arc::new(Renewable::new(ClientTls {
            tds7: Arc::clone(server),
            tds8: Arc::clone(server),
        }))),
        ..settings()
    }
}

fn towards(client: &Arc<ClientConfig>) -> Arc<Renewable<UpstreamTls>> {
    Arc::new(Renewable::new(UpstreamTls {
        tds7: Arc::clone(client),
        tds8: Arc::clone(client),
        name: ServerName::try_from("localhost").unwrap(),
    }))
}

fn logged_in_tokens() -> Vec<u8> {
    let mut tokens = TokenBuf::new(V);
    tokens.login_ack("test", [16, 0, 0, 0]).done(0, 0, 0);
    tokens.as_bytes().to_vec()
}

/// Until the client's PRELOGIN is answered; what the gate chose.
fn greet(bench: &mut Bench, asked: Encryption) -> Encryption {
    bench.client_says(
        PacketType::Prelogin,
        PacketStatus::NORMAL,
        &prelogin(asked).encode(),
    );
    let answer = Prelogin::parse(&bench.client_message()).unwrap();
    answer.encryption.unwrap().mode
}

#[test]
fn a_login_only_client_is_clear_after_its_login_packet() {
    let (server, client) = key_pair();
    for piece in [1, 7, 4096] {
        let mut bench = Bench::with(offering(&server), ROW);
        assert_eq!(greet(&mut bench, Encryption::Off), Encryption::Off);
        let mut peer = Peer::client(&client);
        shake_client(&mut bench, &mut peer, piece);
        let login = message(
            PacketType::Login7,
            PacketStatus::NORMAL,
            &login7("acme").encode().unwrap(),
        );
        for part in peer.sealed(&login).chunks(piece) {
            bench.feed_client(part);
        }
        assert!(bench.end.is_none(), "piece {piece}: {:?}", bench.end);
        bench.actions.pop_front().expect("the login was read");
        bench.admit(Mode::Enforce);
        bench.server_message();
        bench.server_says(&prelogin(Encryption::NotSup).encode());
        assert_eq!(Login7::parse(&bench.server_message()).unwrap().user_name, "acme");
        bench.server_says(&logged_in_tokens());
        assert_eq!(bench.client_message(), logged_in_tokens(), "the answer is clear");
        bench.client_says(
            PacketType::SqlBatch,
            PacketStatus::NORMAL,
            &batch("SET NOCOUNT ON"),
        );
        assert_eq!(bench.server_message(), batch("SET NOCOUNT ON"));
    }
}

#[test]
fn a_client_that_asks_for_full_encryption_gets_it_to_the_end() {
    let (server, client) = key_pair();
    let mut bench = Bench::with(offering(&server), ROW);
    assert_eq!(greet(&mut bench, Encryption::Req), Encryption::On);
    let mut peer = Peer::client(&client);
    shake_client(&mut bench, &mut peer, 4096);
    let login = message(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login7("acme").encode().unwrap(),
    );
    bench.feed_client(&peer.sealed(&login));
    bench.actions.pop_front().expect("the login was read");
    bench.admit(Mode::Enforce);
    bench.server_says(&prelogin(Encryption::NotSup).encode());
    bench.server_says(&logged_in_tokens());
    let mut answer = peer.opened(&std::mem::take(&mut bench.to_client));
    assert_eq!(take_message(&mut answer).unwrap().1, logged_in_tokens());
    let request = message(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("EXEC weir.balance"),
    );
    bench.feed_client(&peer.sealed(&request));
    assert!(!bench.to_client.starts_with(&[0x04]), "nothing is clear");
    let mut answer = peer.opened(&std::mem::take(&mut bench.to_client));
    assert!(take_message(&mut answer).is_some());
}

#[test]
fn bytes_behind_the_login_packet_in_its_record_are_refused() {
    let (server, client) = key_pair();
    let mut bench = Bench::with(offering(&server), ROW);
    greet(&mut bench, Encryption::Off);
    let mut peer = Peer::client(&client);
    shake_client(&mut bench, &mut peer, 4096);
    let mut smuggled = message(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login7("acme").encode().unwrap(),
    );
    smuggled.extend(message(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("select 1"),
    ));
    bench.feed_client(&peer.sealed(&smuggled));
    assert!(bench.end.is_some());
    assert!(bench.to_server.is_empty());
}

#[test]
fn a_clear_packet_in_place_of_the_handshake_is_refused() {
    let (server, _) = key_pair();
    let mut bench = Bench::with(offering(&server), ROW);
    greet(&mut bench, Encryption::Off);
    bench.client_says(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login7("acme").encode().unwrap(),
    );
    assert!(bench.end.is_some(), "a downgrade to a clear login");
    assert!(bench.actions.is_empty());
}

#[test]
fn the_servers_leg_is_encrypted_by_its_own_rule() {
    let (server, client) = key_pair();
    for (asked, full) in [(Encryption::Off, false), (Encryption::On, true)] {
        for piece in [3, 4096] {
            let settings = Settings {
                upstream_encryption: asked,
                upstream_tls: Some(towards(&client)),
                ..settings()
            };
            let mut bench = Bench::with(settings, ROW);
            greet(&mut bench, Encryption::NotSup);
            bench.client_says(
                PacketType::Login7,
                PacketStatus::NORMAL,
                &login7("acme").encode().unwrap(),
            );
            bench.actions.pop_front().expect("the login was read");
            bench.admit(Mode::Enforce);
            assert_eq!(
                Prelogin::parse(&bench.server_message())
                    .unwrap()
                    .encryption
                    .unwrap()
                    .mode,
                asked
            );
            bench.server_says(&prelogin(asked).encode());
            let mut peer = Peer::server(&server);
            shake_server(&mut bench, &mut peer, piece);
            let sent = std::mem::take(&mut bench.to_server);
            let mut login = peer.opened(&sent);
            assert!(
                !sent.windows(4).any(|w| w == b"a\0c\0"),
                "the login is not clear on the wire"
            );
            assert_eq!(
                Login7::parse(&take_message(&mut login).unwrap().1)
                    .unwrap()
                    .user_name,
                "acme"
            );
            let answer = message(
                PacketType::TabularResult,
                PacketStatus::NORMAL,
                &logged_in_tokens(),
            );
            let answer = if full { peer.sealed(&answer) } else { answer };
            for part in answer.chunks(piece) {
                bench.feed_server(part);
            }
            assert_eq!(bench.client_message(), logged_in_tokens());
            bench.client_says(
                PacketType::SqlBatch,
                PacketStatus::NORMAL,
                &batch("SET NOCOUNT ON"),
            );
            let sent = std::mem::take(&mut bench.to_server);
            let mut request = if full { peer.opened(&sent) } else { sent };
            assert_eq!(take_message(&mut request).unwrap().1, batch("SET NOCOUNT ON"));
        }
    }
}

#[test]
fn a_server_that_offers_less_than_is_asked_for_gets_no_login() {
    let (_, client) = key_pair();
    let settings = Settings {
        upstream_encryption: Encryption::Off,
        upstream_tls: Some(towards(&client)),
        ..settings()
    };
    let mut bench = Bench::with(settings, ROW);
    greet(&mut bench, Encryption::NotSup);
    bench.client_says(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login7("acme").encode().unwrap(),
    );
    bench.actions.clear();
    bench.admit(Mode::Enforce);
    bench.server_message();
    bench.server_says(&prelogin(Encryption::NotSup).encode());
    assert!(bench.to_server.is_empty(), "no login in clear");
    assert_eq!(super::login::error_in(&bench.client_message()), Some((50504, 16)));
}
