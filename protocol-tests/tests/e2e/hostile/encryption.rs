//! TLS that is none, that never ends, or that something is hidden behind.

use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use weir_protocol_tests::raw::prelogin;
use weir_proxy::config::{Config, UpstreamEncryption};
use weir_proxy::session::leg::{Leg, Message};
use weir_proxy::session::out::PIECES_PER_WRITE;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::prelogin::{Encryption, TlsScope};

use super::{
    AT_ONCE, GRACE, LOGIN_ACK, LOGIN_DEADLINE, LOGIN_TOO_SLOW, Siege, flood, good_login, packet, unfinished,
};

/// A client whose TLS is right, and which may do wrong behind it.
struct Tls {
    socket: TcpStream,
    leg: Leg,
}

impl Tls {
    /// Agreed on in PRELOGIN, and shaken hands.
    fn agreed(siege: &Siege, asked: Encryption, scope: TlsScope) -> Self {
        let mut tls = Self {
            socket: siege.greeted(asked),
            leg: Leg::new(),
        };
        let config = Config {
            upstream: format!("localhost:{}", siege.gate.address().port()),
            upstream_encryption: UpstreamEncryption::Full,
            upstream_ca: Some(siege.demo.directory().join("tls").join("cert.pem")),
            ..Config::default()
        };
        let client = weir_proxy::tls::for_upstream(&config)
            .expect("a certificate")
            .expect("TLS");
        let connection = client.connect(false, client.name.clone()).expect("TLS");
        tls.leg
            .start_tls(connection, Some(scope))
            .expect("a first flight");
        tls.flush();
        let mut piece = [0; 4096];
        while tls.leg.is_handshaking() {
            let count = tls.socket.read(&mut piece).expect("the handshake");
            assert!(count > 0, "closed in the handshake");
            tls.leg.read_buf().extend_from_slice(&piece[..count]);
            tls.leg.ingest().expect("the handshake");
            tls.flush();
        }
        tls
    }

    fn flush(&mut self) {
        while !self.leg.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let used = self.leg.out.slices(&mut slices);
            let written = self.socket.write_vectored(&slices[..used]).expect("a socket");
            self.leg.out.advance(written);
        }
    }

    /// What waits to be sent, taken away unsent.
    fn unsent(&mut self) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let used = self.leg.out.slices(&mut slices);
        let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        self.leg.out.advance(bytes.len());
        bytes
    }

    /// True if what the gate said has a login's answer in it, inside TLS or behind its records in the clear. The records
    /// themselves are any bytes.
    fn is_let_in(&mut self, said: &[u8]) -> bool {
        let mut clear = said;
        while let [0x14..=0x17, _, _, high, low, rest @ ..] = clear {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            clear = rest.get(length..).unwrap_or_default();
        }
        let records = &said[..said.len() - clear.len()];
        self.leg.read_buf().extend_from_slice(records);
        // An alert ends it, and what came before the alert stays.
        let _alert = self.leg.ingest();
        self.leg.plain().contains(&LOGIN_ACK) || clear.contains(&LOGIN_ACK)
    }

    fn say(&mut self, kind: PacketType, body: &[u8]) {
        let message = Message {
            kind,
            first_status: PacketStatus::NORMAL,
            spid: 0,
            first_packet_id: 1,
            body,
        };
        self.leg.send_message(&message).expect("a message");
    }
}

#[test]
fn a_handshake_of_noise_is_closed() {
    let siege = Siege::lay();
    let mut socket = siege.greeted(Encryption::On);
    socket
        .write_all(&packet(PacketType::Prelogin, &[0x5A; 900]))
        .expect("noise");
    siege.closes(&socket, AT_ONCE, "client: expected a TLS record");
    siege.stays_unshaken();
}

#[test]
fn a_handshake_that_never_ends_is_closed_at_its_bound() {
    let siege = Siege::lay();
    let socket = siege.greeted(Encryption::On);
    // Records of the handshake that hold the beginning of a ClientHello of 16 MiB.
    let mut record = vec![0x16, 3, 3, 0x0F, 0xF0];
    record.extend_from_slice(&[1, 0xFF, 0xFF, 0xFF]);
    record.resize(5 + 0x0FF0, 0);
    flood(&socket, &unfinished(PacketType::Prelogin, &record), 10_000);
    siege.closes(&socket, AT_ONCE, "client: TLS");
    siege.stays_unshaken();
}

#[test]
fn clear_bytes_where_tls_was_agreed_are_closed() {
    let siege = Siege::lay();
    let mut socket = siege.greeted(Encryption::On);
    socket
        .write_all(&packet(PacketType::Login7, &good_login()))
        .expect("a login");
    let said = siege.closes(&socket, AT_ONCE, "expected the TLS handshake in PRELOGIN packets");
    assert!(!said.contains(&LOGIN_ACK), "a clear login was let in");
    siege.stays_unshaken();
}

#[test]
fn a_login_sent_ahead_of_the_handshake_is_closed() {
    let siege = Siege::lay();
    let ahead = [
        packet(PacketType::Prelogin, &prelogin(Encryption::On).encode()),
        packet(PacketType::Login7, &good_login()),
    ];
    let said = siege.refuses(&ahead.concat(), "bytes behind PRELOGIN, before its answer");
    assert!(!said.contains(&LOGIN_ACK), "a clear login was let in");
    siege.stays_unshaken();
}

#[test]
fn a_clear_login_behind_a_handshake_is_closed() {
    let siege = Siege::lay();
    let mut tls = Tls::agreed(&siege, Encryption::On, TlsScope::All);
    tls.socket
        .write_all(&packet(PacketType::Login7, &good_login()))
        .expect("a login");
    let said = siege.closes(&tls.socket, AT_ONCE, "expected a TLS record");
    assert!(!tls.is_let_in(&said), "a clear login was let in");
    siege.stays_unshaken();
}

#[test]
fn bytes_behind_the_login_in_its_record_are_closed() {
    let siege = Siege::lay();
    // Everything stays in TLS at this end, so that a second packet can be put into the record of the login.
    let mut tls = Tls::agreed(&siege, Encryption::Off, TlsScope::All);
    let smuggled = [
        packet(PacketType::Login7, &good_login()),
        packet(PacketType::SqlBatch, &[0; 64]),
    ];
    tls.leg.send(smuggled.concat().into()).expect("a record");
    tls.flush();
    let said = siege.closes(&tls.socket, AT_ONCE, "smuggled behind the login packet");
    assert!(!tls.is_let_in(&said), "what was smuggled was let in");
    siege.stays_unshaken();
}

#[test]
fn a_record_larger_than_tls_allows_is_closed() {
    let siege = Siege::lay();
    let mut tls = Tls::agreed(&siege, Encryption::On, TlsScope::All);
    let mut bomb = vec![0x17, 3, 3, 0xFF, 0xFF];
    bomb.resize(64, 0);
    tls.socket.write_all(&bomb).expect("a record");
    siege.closes(&tls.socket, AT_ONCE, "a TLS record larger than");
    siege.stays_unshaken();
}

#[test]
fn a_record_that_does_not_decrypt_is_closed() {
    let siege = Siege::lay();
    let mut tls = Tls::agreed(&siege, Encryption::On, TlsScope::All);
    let mut forged = vec![0x17, 3, 3, 0, 64];
    forged.resize(5 + 64, 0x11);
    tls.socket.write_all(&forged).expect("a record");
    siege.closes(&tls.socket, AT_ONCE, "client: TLS");
    siege.stays_unshaken();
}

#[test]
fn tls_byte_by_byte_is_taken_while_the_deadline_lasts() {
    let siege = Siege::lay();
    let mut tls = Tls::agreed(&siege, Encryption::On, TlsScope::All);
    let began = Instant::now();
    tls.say(PacketType::Login7, &good_login());
    for byte in tls.unsent() {
        tls.socket.write_all(&[byte]).expect("a byte");
    }
    let mut piece = [0; 4096];
    while tls.leg.plain().is_empty() {
        let count = tls.socket.read(&mut piece).expect("an answer");
        assert!(count > 0, "closed {:?} after its first byte", began.elapsed());
        tls.leg.read_buf().extend_from_slice(&piece[..count]);
        tls.leg.ingest().expect("records");
    }
    assert!(tls.leg.plain().contains(&LOGIN_ACK), "no login");
    siege.stays_unshaken();
}

#[test]
fn tls_first_with_a_hello_of_noise_is_closed() {
    let siege = Siege::lay();
    let mut noise = vec![0x16, 3, 1, 2, 0];
    noise.resize(5 + 512, 0x77);
    let said = siege.refuses(&noise, "client: TLS");
    assert!(said.len() < 64, "{} bytes", said.len());
    siege.stays_unshaken();
}

#[test]
fn tls_first_that_says_no_more_is_closed_at_the_deadline() {
    let siege = Siege::lay();
    let mut socket = siege.connect();
    socket.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("a beginning");
    siege.closes(&socket, LOGIN_DEADLINE + GRACE, LOGIN_TOO_SLOW);
    siege.stays_unshaken();
}
