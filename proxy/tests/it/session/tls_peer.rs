//! The far ends of both legs: a driver and a server with TLS of their own, which say what came over the wire and how.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use weir_proxy::session::{
    Settings,
    encryption::{ALPN_TDS8, ClientTls, Renewable, UpstreamTls},
};
use weir_tds::{
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    prelogin::{Encryption, EncryptionPolicy, Prelogin, TlsScope},
};

use super::bench::{Bench, message, prelogin, settings, take_message};

/// A key pair for `localhost`: a server's configurations and those of a client that trusts it alone.
pub(crate) struct Identity {
    pub(crate) server: ClientTls,
    pub(crate) client: UpstreamTls,
}

impl Identity {
    pub(crate) fn new() -> Self {
        Self::of("localhost", &[&TLS13, &TLS12])
    }

    /// With these versions of TLS under TDS 8.0.
    pub(crate) fn of(host: &str, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let chain = vec![made.cert.der().clone()];
        let provider = Arc::new(ring::default_provider());
        let server = |versions| {
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.clone_key())
                .unwrap()
        };
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let client = |versions| {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth()
        };
        let (mut server8, mut client8) = (server(versions), client(versions));
        server8.alpn_protocols = vec![ALPN_TDS8.to_vec()];
        client8.alpn_protocols = vec![ALPN_TDS8.to_vec()];
        let mut client7 = client(&[&TLS12]);
        // For forged records.
        client7.enable_secret_extraction = true;
        Self {
            server: ClientTls {
                tds7: Arc::new(server(&[&TLS12])),
                tds8: Arc::new(server8),
            },
            client: UpstreamTls {
                tds7: Arc::new(client7),
                tds8: Arc::new(client8),
                name: ServerName::try_from("localhost").unwrap(),
            },
        }
    }

    /// A gate with this certificate, which trusts servers with it.
    pub(crate) fn gate(&self, clients: EncryptionPolicy, upstream: Encryption) -> Settings {
        let certificate = (clients != EncryptionPolicy::NotSup).then(|| self.server.clone());
        let trust = (upstream != Encryption::NotSup).then(|| self.client.clone());
        Settings {
            client_policy: clients,
            client_tls: certificate.map(|tls| Arc::new(Renewable::new(tls))),
            upstream_encryption: upstream,
            upstream_tls: trust.map(|tls| Arc::new(Renewable::new(tls))),
            ..settings()
        }
    }
}

/// Which leg a peer is at the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// How bytes are cut on their way to the gate.
pub(crate) type Cut<'a> = dyn FnMut(usize) -> Vec<usize> + 'a;

/// The far end of one leg.
pub(crate) struct Peer {
    end: End,
    pub(crate) tls: Option<Connection>,
    /// Type of the packets that its handshake travels in: 0x12, from some servers 0x04.
    pub(crate) wraps_in: PacketType,
    /// Bytes that came and were not taken, as they were on the wire, and decrypted.
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl Peer {
    pub(crate) fn client() -> Self {
        Self::at(End::Client)
    }

    pub(crate) fn server() -> Self {
        Self::at(End::Server)
    }

    fn at(end: End) -> Self {
        Self {
            end,
            tls: None,
            wraps_in: PacketType::Prelogin,
            raw: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// A connection of this end's own.
    pub(crate) fn connection(&self, identity: &Identity, strict: bool) -> Connection {
        match self.end {
            End::Client => identity
                .client
                .connect(strict, identity.client.name.clone())
                .unwrap(),
            End::Server => identity.server.accept(strict).unwrap(),
        }
    }

    /// Bytes on the wire, cut as told.
    pub(crate) fn feed(&self, bench: &mut Bench, bytes: &[u8], cut: &mut Cut<'_>) {
        let mut from = 0;
        for at in cut(bytes.len()).into_iter().chain([bytes.len()]) {
            let part = &bytes[from.min(at)..at];
            from = at;
            match self.end {
                End::Client => bench.feed_client(part),
                End::Server => bench.feed_server(part),
            }
        }
    }

    fn come(&mut self, bench: &mut Bench) {
        let from = match self.end {
            End::Client => &mut bench.to_client,
            End::Server => &mut bench.to_server,
        };
        self.raw.append(from);
    }

    /// The handshake to its end: in PRELOGIN packets, or on the bare socket.
    pub(crate) fn shake(&mut self, bench: &mut Bench, tls: Connection, strict: bool, cut: &mut Cut<'_>) {
        let mut tls = tls;
        loop {
            let flight = flight(&mut tls);
            if !flight.is_empty() {
                let bytes = if strict {
                    flight
                } else {
                    message(self.wraps_in, PacketStatus::NORMAL, &flight)
                };
                self.feed(bench, &bytes, cut);
            }
            if !tls.is_handshaking() && !tls.wants_write() {
                break;
            }
            self.come(bench);
            let answer = if strict {
                // Record by record: what follows the handshake is not the handshake's.
                take_record(&mut self.raw).unwrap_or_default()
            } else {
                unwrapped(&mut self.raw)
            };
            assert!(!answer.is_empty(), "the gate says nothing: {:?}", bench.end);
            take_in(&mut tls, &answer).unwrap();
        }
        assert!(bench.end.is_none(), "{:?}", bench.end);
        self.tls = Some(tls);
    }

    /// Sends packets, each in a record of its own where TLS is on.
    pub(crate) fn send(&mut self, bench: &mut Bench, packets: &[u8], cut: &mut Cut<'_>) {
        let bytes = match &mut self.tls {
            Some(tls) => sealed(tls, packets),
            None => packets.to_vec(),
        };
        self.feed(bench, &bytes, cut);
    }

    /// LOGIN7 under login-only encryption: its first packet in TLS, the others clear, and no TLS after it.
    pub(crate) fn send_first_packet_sealed(&mut self, bench: &mut Bench, packets: &[u8], cut: &mut Cut<'_>) {
        let first = usize::from(PacketHeader::parse(packets).unwrap().unwrap().length);
        let mut tls = self.tls.take().expect("a handshake");
        let mut bytes = sealed(&mut tls, &packets[..first]);
        bytes.extend_from_slice(&packets[first..]);
        self.feed(bench, &bytes, cut);
    }

    /// Opens what came. At the server's end every record must be one whole packet.
    fn open(&mut self, bench: &mut Bench) {
        self.come(bench);
        let Some(tls) = &mut self.tls else {
            self.plain.append(&mut self.raw);
            return;
        };
        while let Some(record) = take_record(&mut self.raw) {
            take_in(tls, &record).unwrap();
            let mut plain = Vec::new();
            // WouldBlock at the end of what came is no fault.
            let _ = tls.reader().read_to_end(&mut plain);
            if self.end == End::Server && !plain.is_empty() {
                let header = PacketHeader::parse(&plain)
                    .unwrap()
                    .expect("a header in the record");
                assert_eq!(usize::from(header.length), plain.len(), "one packet, one record");
            }
            self.plain.append(&mut plain);
        }
    }

    /// The next whole message from the gate.
    pub(crate) fn message(&mut self, bench: &mut Bench) -> Option<(PacketType, Vec<u8>)> {
        self.open(bench);
        take_message(&mut self.plain)
    }

    /// Login-only encryption at the server's end: takes LOGIN7, whose first packet alone is in TLS.
    pub(crate) fn message_behind_first_packet(&mut self, bench: &mut Bench) -> Option<(PacketType, Vec<u8>)> {
        self.come(bench);
        let record = take_record(&mut self.raw)?;
        let mut tls = self.tls.take().expect("a handshake");
        take_in(&mut tls, &record).unwrap();
        let _ = tls.reader().read_to_end(&mut self.plain);
        self.message(bench)
    }

    /// First byte that waits, as it was on the wire.
    pub(crate) fn first_byte(&mut self, bench: &mut Bench) -> Option<u8> {
        self.come(bench);
        self.raw.first().copied()
    }

    /// True once TLS has said that nothing follows.
    pub(crate) fn is_told_the_end(&mut self, bench: &mut Bench) -> bool {
        self.open(bench);
        let tls = self.tls.as_mut().expect("TLS");
        tls.process_new_packets().unwrap().peer_has_closed()
    }
}

/// In one piece.
pub(crate) fn whole(_length: usize) -> Vec<usize> {
    Vec::new()
}

/// Byte by byte.
pub(crate) fn dribbled(length: usize) -> Vec<usize> {
    (1..length).collect()
}

pub(crate) fn flight(tls: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    bytes
}

pub(crate) fn take_in(tls: &mut Connection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes).unwrap();
        tls.process_new_packets()?;
    }
    Ok(())
}

pub(crate) fn sealed(tls: &mut Connection, packets: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), packets);
    while !rest.is_empty() {
        // What is no packet goes in one record as it is.
        let length = PacketHeader::parse(rest)
            .ok()
            .flatten()
            .map_or(rest.len(), |h| usize::from(h.length).min(rest.len()));
        tls.writer().write_all(&rest[..length]).unwrap();
        bytes.extend(flight(tls));
        rest = &rest[length..];
    }
    bytes
}

pub(crate) fn wrapped(flight: &[u8]) -> Vec<u8> {
    message(PacketType::Prelogin, PacketStatus::NORMAL, flight)
}

/// Takes wrapped handshake messages off the front.
pub(crate) fn unwrapped(bytes: &mut Vec<u8>) -> Vec<u8> {
    let mut flight = Vec::new();
    while bytes.first() == Some(&0x12) {
        let length = usize::from(PacketHeader::parse(bytes).unwrap().unwrap().length);
        flight.extend_from_slice(&bytes[HEADER_LEN..length]);
        bytes.drain(..length);
    }
    flight
}

fn take_record(raw: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = 5 + usize::from(u16::from_be_bytes([*raw.get(3)?, *raw.get(4)?]));
    (raw.len() >= length).then(|| raw.drain(..length).collect())
}

/// Says PRELOGIN as a client; what the gate chose.
pub(crate) fn greet(bench: &mut Bench, peer: &mut Peer, asked: Encryption, cut: &mut Cut<'_>) -> Encryption {
    let hello = message(
        PacketType::Prelogin,
        PacketStatus::NORMAL,
        &prelogin(asked).encode(),
    );
    peer.send(bench, &hello, cut);
    let (_, answer) = peer.message(bench).expect("PRELOGIN is answered");
    Prelogin::parse(&answer).unwrap().encryption.unwrap().mode
}

/// A client up to where LOGIN7 is due: what of it is encrypted. `None`: it cannot go on.
pub(crate) fn connect(
    bench: &mut Bench,
    peer: &mut Peer,
    identity: &Identity,
    asked: Encryption,
    cut: &mut Cut<'_>,
) -> Option<TlsScope> {
    if asked == Encryption::Strict {
        let tls = peer.connection(identity, true);
        peer.shake(bench, tls, true, cut);
        greet(bench, peer, asked, cut);
        return Some(TlsScope::All);
    }
    let answer = greet(bench, peer, asked, cut);
    let answer = weir_tds::prelogin::EncryptionOption::plain(answer);
    let scope = weir_tds::prelogin::accept(asked, Some(answer))?;
    if scope != TlsScope::None {
        let tls = peer.connection(identity, false);
        peer.shake(bench, tls, false, cut);
    }
    Some(scope)
}

/// Sends LOGIN7 as the agreed encryption has it.
pub(crate) fn log_in(
    bench: &mut Bench,
    peer: &mut Peer,
    scope: TlsScope,
    login: &weir_tds::login7::Login7,
    cut: &mut Cut<'_>,
) {
    let packets = message(PacketType::Login7, PacketStatus::NORMAL, &login.encode().unwrap());
    if scope == TlsScope::LoginOnly {
        peer.send_first_packet_sealed(bench, &packets, cut);
    } else {
        peer.send(bench, &packets, cut);
    }
}

/// A connection that asks for one application protocol, or none.
pub(crate) fn with_alpn(identity: &Identity, protocols: &[&[u8]]) -> Connection {
    let mut config = (*identity.client.tds8).clone();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let tls = ClientConnection::new(Arc::new(config), identity.client.name.clone());
    Connection::Client(tls.unwrap())
}

/// A server's connection that offers one application protocol, or none.
pub(crate) fn serving_alpn(identity: &Identity, protocols: &[&[u8]]) -> Connection {
    let mut config = (*identity.server.tds8).clone();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Connection::Server(ServerConnection::new(Arc::new(config)).unwrap())
}
