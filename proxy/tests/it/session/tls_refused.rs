//! What must not get through TLS: smuggled and early bytes, downgrades, renegotiation, endless handshakes, false servers.

use rustls::{
    ContentType, ProtocolVersion, SupportedCipherSuite,
    crypto::cipher::{OutboundChunks, OutboundPlainMessage},
    version::{TLS12, TLS13},
};
use weir_proxy::{ports::billing::Mode, session::leg::HANDSHAKE_MAX};
use weir_tds::{
    build::TokenBuf,
    login7::Login7,
    packet::{PacketStatus, PacketType},
    prelogin::{Encryption, EncryptionOption, EncryptionPolicy, Prelogin, TlsScope},
    token::{LoginAck, ServerMessage, TokenKind},
    version::TdsVersion,
};

use super::{
    bench::{Bench, ROW, V, batch, login7, message, prelogin},
    login::{error_in, tokens_of},
    tls_peer::{
        Identity, Peer, connect, dribbled, flight, greet, log_in, sealed, serving_alpn, take_in, unwrapped,
        whole, with_alpn, wrapped,
    },
};

/// A gate that offers encryption and asks a clear server for nothing.
fn offering(identity: &Identity) -> Bench {
    Bench::with(identity.gate(EncryptionPolicy::Off, Encryption::NotSup), 9 * ROW)
}

fn packets(kind: PacketType, body: &[u8]) -> Vec<u8> {
    message(kind, PacketStatus::NORMAL, body)
}

fn login_packets() -> Vec<u8> {
    packets(PacketType::Login7, &login7("acme").encode().unwrap())
}

/// The client is gone, nobody was asked about it, and the server never heard of it.
fn refused_unheard(bench: &Bench) {
    assert!(bench.end.is_some(), "the session goes on");
    assert!(bench.actions.is_empty() && bench.to_server.is_empty());
}

/// A client with everything encrypted, logged in at a clear server.
fn encrypted_session(identity: &Identity, asked: Encryption) -> (Bench, Peer) {
    let (mut bench, mut peer) = (offering(identity), Peer::client());
    connect(&mut bench, &mut peer, identity, asked, &mut whole).unwrap();
    log_in(&mut bench, &mut peer, TlsScope::All, &login7("acme"), &mut whole);
    bench.actions.pop_front().expect("the login was read");
    bench.admit(Mode::Enforce);
    bench.server_message();
    bench.server_says(&prelogin(Encryption::NotSup).encode());
    bench.server_message();
    let mut tokens = TokenBuf::new(V);
    tokens.login_ack("test", [16, 0, 0, 0]).done(0, 0, 0);
    bench.server_says(tokens.as_bytes());
    peer.message(&mut bench).expect("logged in");
    (bench, peer)
}

/// A client's login at a gate that is set to `upstream`; the server's end.
fn at_the_server(identity: &Identity, upstream: Encryption) -> (Bench, Peer) {
    let mut bench = Bench::with(identity.gate(EncryptionPolicy::NotSup, upstream), 9 * ROW);
    let mut client = Peer::client();
    greet(&mut bench, &mut client, Encryption::NotSup, &mut whole);
    bench.feed_client(&login_packets());
    bench.actions.pop_front().expect("the login was read");
    bench.admit(Mode::Enforce);
    (bench, Peer::server())
}

/// The ERROR that a client in clear was told, which must be of number 50504 and this state.
fn told(bench: &mut Bench, state: u8) -> String {
    let tokens = bench.client_message();
    let error = tokens_of(&tokens)
        .into_iter()
        .find(|(kind, _)| *kind == TokenKind::Error);
    let error = ServerMessage::parse(&error.expect("an ERROR").1, V).unwrap();
    assert_eq!((error.number, error.state), (50504, state), "{}", error.message);
    error.message
}

#[test]
fn bytes_behind_the_login_packet_in_its_record_are_refused() {
    let identity = Identity::new();
    let (mut bench, mut peer) = (offering(&identity), Peer::client());
    connect(&mut bench, &mut peer, &identity, Encryption::Off, &mut whole).unwrap();
    let mut smuggled = login_packets();
    smuggled.extend(packets(PacketType::SqlBatch, &batch("select 1")));
    let mut tls = peer.tls.take().unwrap();
    // Both in one record.
    std::io::Write::write_all(&mut tls.writer(), &smuggled).unwrap();
    bench.feed_client(&flight(&mut tls));
    refused_unheard(&bench);
}

#[test]
fn bytes_behind_prelogin_before_its_answer_are_refused() {
    let identity = Identity::new();
    for asked in [Encryption::Off, Encryption::On, Encryption::Req] {
        let mut early = packets(PacketType::Prelogin, &prelogin(asked).encode());
        let hello = flight(&mut Peer::client().connection(&identity, false));
        early.extend(wrapped(&hello));
        let mut bench = offering(&identity);
        bench.feed_client(&early);
        refused_unheard(&bench);
    }
}

#[test]
fn a_clear_login_in_place_of_the_handshake_is_refused() {
    let identity = Identity::new();
    for asked in [Encryption::Off, Encryption::On, Encryption::Req] {
        let (mut bench, mut peer) = (offering(&identity), Peer::client());
        greet(&mut bench, &mut peer, asked, &mut whole);
        bench.feed_client(&login_packets());
        refused_unheard(&bench);
    }
}

#[test]
fn a_login_without_prelogin_passes_only_where_nobody_must_encrypt() {
    let identity = Identity::new();
    for (policy, passes) in [
        (EncryptionPolicy::NotSup, true),
        (EncryptionPolicy::Off, true),
        (EncryptionPolicy::On, false),
        (EncryptionPolicy::Strict, false),
    ] {
        let mut bench = Bench::with(identity.gate(policy, Encryption::NotSup), 0);
        bench.feed_client(&login_packets());
        assert_eq!(!bench.actions.is_empty(), passes, "{policy:?}");
        if !passes {
            assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
            refused_unheard(&bench);
        }
    }
}

#[test]
fn clear_bytes_in_the_middle_of_a_handshake_are_refused() {
    let identity = Identity::new();
    for clear in [
        login_packets(),
        wrapped(&login_packets()),
        packets(PacketType::SqlBatch, &batch("select 1")),
    ] {
        let (mut bench, mut peer) = (offering(&identity), Peer::client());
        greet(&mut bench, &mut peer, Encryption::On, &mut whole);
        let hello = flight(&mut peer.connection(&identity, false));
        bench.feed_client(&wrapped(&hello));
        bench.feed_client(&clear);
        refused_unheard(&bench);
    }
    // TDS 8.0: the same on the bare socket, seen at the first byte.
    for clear in [&[0x12, 1][..], &[0x10], &[0x16, 9]] {
        let (mut bench, peer) = (offering(&identity), Peer::client());
        let hello = flight(&mut peer.connection(&identity, true));
        bench.feed_client(&hello);
        bench.feed_client(clear);
        refused_unheard(&bench);
    }
}

#[test]
fn clear_bytes_where_everything_is_encrypted_end_the_session_at_the_first() {
    let identity = Identity::new();
    for asked in [Encryption::On, Encryption::Strict] {
        let (mut bench, _peer) = encrypted_session(&identity, asked);
        bench.feed_client(&[0x01]);
        assert!(bench.end.is_some() && bench.to_server.is_empty());
    }
}

#[test]
fn what_follows_the_handshake_in_its_packet_is_refused() {
    let identity = Identity::new();
    for smuggle in [false, true] {
        // The second handshake is a resumed one, in which the client speaks last and might go on in the same packet.
        let (mut first, mut peer) = (offering(&identity), Peer::client());
        connect(&mut first, &mut peer, &identity, Encryption::On, &mut whole).unwrap();
        let (mut bench, mut peer) = (offering(&identity), Peer::client());
        greet(&mut bench, &mut peer, Encryption::On, &mut whole);
        let mut tls = peer.connection(&identity, false);
        bench.feed_client(&wrapped(&flight(&mut tls)));
        take_in(&mut tls, &unwrapped(&mut bench.to_client)).unwrap();
        assert!(!tls.is_handshaking(), "resumed");
        let mut last = flight(&mut tls);
        let login = sealed(&mut tls, &login_packets());
        if smuggle {
            last.extend(login);
            bench.feed_client(&wrapped(&last));
            refused_unheard(&bench);
        } else {
            bench.feed_client(&wrapped(&last));
            bench.feed_client(&login);
            assert!(bench.end.is_none() && !bench.actions.is_empty());
        }
    }
}

#[test]
fn renegotiation_is_refused() {
    let identity = Identity::new();
    let (mut bench, mut peer) = encrypted_session(&identity, Encryption::On);
    let hello = flight(&mut peer.connection(&identity, false));
    let tls = peer.tls.take().unwrap();
    let Some(SupportedCipherSuite::Tls12(suite)) = tls.negotiated_cipher_suite() else {
        panic!("TLS 1.2")
    };
    let (sequence, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
    let (rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets
    else {
        panic!("AES-GCM")
    };
    let (salt, nonce) = iv.as_ref().split_at(4);
    let mut encrypter = suite.aead_alg.encrypter(key, salt, nonce);
    let mut forged = |number: u64| {
        let again = OutboundPlainMessage {
            typ: ContentType::Handshake,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(&hello[5..]),
        };
        encrypter.encrypt(again, sequence + number).unwrap().encode()
    };
    bench.feed_client(&forged(0));
    let alert = std::mem::take(&mut bench.to_client);
    assert_eq!(alert.first(), Some(&21), "an alert, and no handshake");
    assert_eq!(
        alert.len(),
        5 + usize::from(u16::from_be_bytes([alert[3], alert[4]]))
    );
    bench.feed_client(&forged(1));
    assert!(bench.end.is_some(), "it is not asked for twice");
    assert!(bench.to_server.is_empty());
}

#[test]
fn a_record_larger_than_tls_allows_is_refused_before_it_has_come() {
    let identity = Identity::new();
    let (mut bench, _peer) = encrypted_session(&identity, Encryption::On);
    bench.feed_client(&[23, 3, 3, 0xFF, 0xFF]);
    assert!(bench.end.is_some());
    let mut bench = offering(&identity);
    bench.feed_client(&[22, 3, 1, 0x48, 0x01]);
    refused_unheard(&bench);
    let (mut bench, mut peer) = (offering(&identity), Peer::client());
    greet(&mut bench, &mut peer, Encryption::On, &mut whole);
    bench.feed_client(&wrapped(&[22, 3, 1, 0x48, 0x01]));
    refused_unheard(&bench);
}

/// A handshake message in pieces that never ends.
fn endless() -> impl Iterator<Item = Vec<u8>> {
    let piece = |first: bool| {
        let mut body = vec![0; 16_000];
        if first {
            body[..4].copy_from_slice(&[1, 0, 0xFF, 0xF0]);
        }
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        record.extend(body);
        record
    };
    std::iter::once(piece(true)).chain(std::iter::repeat_with(move || piece(false)))
}

#[test]
fn a_handshake_that_never_ends_is_refused_at_its_bound() {
    let identity = Identity::new();
    for strict in [false, true] {
        let (mut bench, mut peer) = (offering(&identity), Peer::client());
        if !strict {
            greet(&mut bench, &mut peer, Encryption::On, &mut whole);
        }
        let mut sent = 0;
        for record in endless() {
            sent += record.len();
            bench.feed_client(&if strict { record } else { wrapped(&record) });
            if bench.end.is_some() {
                break;
            }
            assert!(sent <= HANDSHAKE_MAX, "{sent} bytes were taken");
        }
        refused_unheard(&bench);
    }
}

#[test]
fn tls_dribbled_byte_by_byte_is_the_same_tls() {
    let identity = Identity::new();
    for asked in [Encryption::Off, Encryption::On, Encryption::Strict] {
        let (mut bench, mut peer) = (offering(&identity), Peer::client());
        let scope = connect(&mut bench, &mut peer, &identity, asked, &mut dribbled).unwrap();
        log_in(&mut bench, &mut peer, scope, &login7("acme"), &mut dribbled);
        assert!(bench.end.is_none() && !bench.actions.is_empty(), "{asked:?}");
    }
}

#[test]
fn tds_8_takes_its_own_protocol_or_none_and_either_version_of_tls() {
    let identity = Identity::new();
    for protocols in [&[&b"tds/8.0"[..]][..], &[], &[b"h2", b"tds/8.0"]] {
        let (mut bench, mut peer) = (offering(&identity), Peer::client());
        peer.shake(&mut bench, with_alpn(&identity, protocols), true, &mut whole);
        greet(&mut bench, &mut peer, Encryption::NotSup, &mut whole);
        assert!(bench.end.is_none());
    }
    let (mut bench, mut tls) = (offering(&identity), with_alpn(&identity, &[b"http/1.1"]));
    bench.feed_client(&flight(&mut tls));
    refused_unheard(&bench);
    let alert = take_in(&mut tls, &bench.to_client).unwrap_err();
    assert_eq!(
        alert,
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)
    );
    for version in [&TLS12, &TLS13] {
        let identity = Identity::of("localhost", &[version]);
        let (mut bench, mut peer) = (offering(&identity), Peer::client());
        connect(&mut bench, &mut peer, &identity, Encryption::Strict, &mut whole).unwrap();
    }
}

#[test]
fn tls_1_3_is_not_taken_inside_prelogin_packets() {
    let identity = Identity::of("localhost", &[&TLS13]);
    let (mut bench, mut peer) = (offering(&identity), Peer::client());
    greet(&mut bench, &mut peer, Encryption::On, &mut whole);
    bench.feed_client(&wrapped(&flight(&mut with_alpn(&identity, &[]))));
    refused_unheard(&bench);
    assert_eq!(
        unwrapped(&mut bench.to_client).first(),
        Some(&21),
        "an alert, wrapped"
    );
}

#[test]
fn the_certificate_bit_is_answered_by_the_table() {
    let identity = Identity::new();
    for (mode, answer, goes_on) in [
        (Encryption::Off, Encryption::Off, true),
        (Encryption::On, Encryption::On, true),
        (Encryption::NotSup, Encryption::Req, false),
        (Encryption::Req, Encryption::On, true),
    ] {
        let mut bench = offering(&identity);
        let asked = Prelogin {
            encryption: Some(EncryptionOption {
                mode,
                client_cert: true,
            }),
            ..prelogin(mode)
        };
        bench.feed_client(&packets(PacketType::Prelogin, &asked.encode()));
        let said = Prelogin::parse(&bench.client_message()).unwrap().encryption;
        assert_eq!(said, Some(EncryptionOption::plain(answer)), "{mode:?}");
        assert_eq!(bench.end.is_none(), goes_on, "{mode:?}");
    }
}

#[test]
fn both_sides_hear_the_end_inside_tls() {
    let identity = Identity::new();
    let (mut bench, mut peer) = encrypted_session(&identity, Encryption::Strict);
    bench.core.server_closed(bench.now);
    bench.pump();
    assert!(bench.end.is_some() && peer.is_told_the_end(&mut bench));
    let (mut bench, mut peer) = encrypted_session(&identity, Encryption::On);
    let tls = peer.tls.as_mut().unwrap();
    tls.send_close_notify();
    bench.feed_client(&flight(tls));
    assert!(bench.end.is_some(), "the socket may stay open for hours");
}

#[test]
fn a_server_with_a_strangers_certificate_gets_no_login() {
    let (identity, stranger) = (Identity::new(), Identity::new());
    let elsewhere = Identity::of("db.example", &[&TLS13, &TLS12]);
    for (shown, remedy) in [(&stranger, "upstream_ca"), (&elsewhere, "upstream_host_name")] {
        let mut gate = Identity::new();
        gate.client = shown.client.clone();
        if remedy == "upstream_ca" {
            gate.client = identity.client.clone();
        }
        let (mut bench, peer) = at_the_server(&gate, Encryption::Strict);
        let mut tls = peer.connection(shown, true);
        take_in(&mut tls, &std::mem::take(&mut bench.to_server)).unwrap();
        bench.feed_server(&flight(&mut tls));
        let text = told(&mut bench, 2);
        assert!(text.contains(remedy), "{text}");
        assert!(
            take_in(&mut tls, &bench.to_server).is_err(),
            "an alert tells the server"
        );
    }
}

#[test]
fn a_server_that_does_not_speak_tds_8_is_named() {
    let identity = Identity::new();
    let (mut bench, _) = at_the_server(&identity, Encryption::Strict);
    bench.server_says(&prelogin(Encryption::Off).encode());
    assert!(told(&mut bench, 2).contains("upstream_encryption"));
    let (mut bench, mut peer) = at_the_server(&identity, Encryption::Strict);
    let tls = serving_alpn(&identity, &[]);
    peer.shake(&mut bench, tls, true, &mut whole);
    assert!(bench.end.is_none(), "one that knows no ALPN is taken");
}

#[test]
fn a_server_that_speaks_inside_the_login_packets_tls_gets_no_login() {
    let identity = Identity::new();
    let (mut bench, peer) = at_the_server(&identity, Encryption::Off);
    bench.server_message();
    bench.server_says(&prelogin(Encryption::Off).encode());
    let mut tls = peer.connection(&identity, false);
    loop {
        take_in(&mut tls, &unwrapped(&mut bench.to_server)).unwrap();
        let mut bytes = wrapped(&flight(&mut tls));
        if tls.is_handshaking() {
            bench.feed_server(&bytes);
            continue;
        }
        let mut done = TokenBuf::new(V);
        done.login_ack("false", [16, 0, 0, 0]).done(0, 0, 0);
        bytes.extend(sealed(
            &mut tls,
            &packets(PacketType::TabularResult, done.as_bytes()),
        ));
        bench.feed_server(&bytes);
        break;
    }
    told(&mut bench, 1);
    assert!(bench.to_server.is_empty(), "no login, clear least of all");
}

#[test]
fn a_server_whose_packets_no_record_holds_is_refused() {
    let identity = Identity::new();
    let (mut bench, mut peer) = at_the_server(&identity, Encryption::Strict);
    let tls = peer.connection(&identity, true);
    peer.shake(&mut bench, tls, true, &mut whole);
    peer.message(&mut bench).expect("PRELOGIN");
    let hello = packets(PacketType::TabularResult, &prelogin(Encryption::NotSup).encode());
    peer.send(&mut bench, &hello, &mut whole);
    peer.message(&mut bench).expect("LOGIN7");
    let mut tokens = TokenBuf::new(V);
    tokens
        .login_ack("test", [16, 0, 0, 0])
        .env_packet_size(32_767, 4096)
        .done(0, 0, 0);
    peer.send(
        &mut bench,
        &packets(PacketType::TabularResult, tokens.as_bytes()),
        &mut whole,
    );
    assert!(told(&mut bench, 2).contains("16383"));
}

#[test]
fn a_driver_older_than_the_servers_only_version_is_told_so() {
    let identity = Identity::new();
    for (asked, told_version) in [
        (TdsVersion::V7_3B, Some(TdsVersion::V7_3B)),
        (TdsVersion::V7_2, None),
    ] {
        let mut bench = Bench::with(
            identity.gate(EncryptionPolicy::NotSup, Encryption::Strict),
            9 * ROW,
        );
        let mut client = Peer::client();
        greet(&mut bench, &mut client, Encryption::NotSup, &mut whole);
        let login = Login7 {
            tds_version: asked.to_login7(),
            ..login7("acme")
        };
        log_in(&mut bench, &mut client, TlsScope::None, &login, &mut whole);
        bench.actions.pop_front().expect("the login was read");
        bench.admit(Mode::Enforce);
        let mut peer = Peer::server();
        let tls = peer.connection(&identity, true);
        peer.shake(&mut bench, tls, true, &mut whole);
        peer.message(&mut bench).expect("PRELOGIN");
        let hello = packets(PacketType::TabularResult, &prelogin(Encryption::NotSup).encode());
        peer.send(&mut bench, &hello, &mut whole);
        let (_, sent) = peer.message(&mut bench).expect("LOGIN7");
        assert_eq!(Login7::parse(&sent).unwrap().version(), Some(asked));
        let mut tokens = TokenBuf::new(TdsVersion::V8_0);
        tokens.login_ack("test", [16, 0, 0, 0]).done(0, 0, 0);
        peer.send(
            &mut bench,
            &packets(PacketType::TabularResult, tokens.as_bytes()),
            &mut whole,
        );
        match told_version {
            None => assert!(told(&mut bench, 2).contains("7.2")),
            Some(version) => {
                let answer = bench.client_message();
                let ack = tokens_of(&answer)
                    .into_iter()
                    .find(|(kind, _)| *kind == TokenKind::LoginAck);
                let ack = ack.expect("LOGINACK").1;
                assert_eq!(LoginAck::parse(&ack).unwrap().version, Some(version));
            }
        }
    }
}
