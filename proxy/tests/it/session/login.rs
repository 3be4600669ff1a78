//! Logins: what is refused, what is rewritten, what is not offered.

use weir_proxy::{
    gate::Cause,
    ports::billing::Mode,
    session::{Action, engine::SessionEnd},
};
use weir_tds::{
    build::{ServerText, TokenBuf},
    login7::{Feature, Login7, feature},
    packet::{PacketStatus, PacketType},
    prelogin::Encryption,
    token::{EnvChange, ServerMessage, TokenKind, env},
    walker::{Budget, Step, Walker, WalkerOptions},
};

use super::bench::{Bench, V, login7, message, prelogin, refused};

/// Number and class of the ERROR in a token stream.
pub(crate) fn error_in(tokens: &[u8]) -> Option<(i32, u8)> {
    tokens_of(tokens).into_iter().find_map(|(kind, bytes)| {
        (kind == TokenKind::Error).then(|| {
            let error = ServerMessage::parse(&bytes, V).unwrap();
            (error.number, error.class)
        })
    })
}

/// The tokens of a stream, rows left out.
pub(crate) fn tokens_of(stream: &[u8]) -> Vec<(TokenKind, Vec<u8>)> {
    let mut walker = Walker::new(WalkerOptions::new(V));
    let (mut rest, mut tokens) = (stream, Vec::new());
    while !rest.is_empty() {
        let walk = walker.walk(rest, &mut Budget { ..Budget::UNLIMITED }).unwrap();
        let consumed = walk.consumed;
        if let Step::Token(token) = walk.step {
            tokens.push((token.kind, token.bytes.to_vec()));
        } else if consumed == 0 {
            break;
        }
        rest = &rest[consumed..];
    }
    tokens
}

#[test]
fn a_login_split_at_every_byte_is_the_same_login() {
    let mut stream = message(
        PacketType::Prelogin,
        PacketStatus::NORMAL,
        &prelogin(Encryption::NotSup).encode(),
    );
    stream.extend(message(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login7("acme").encode().unwrap(),
    ));
    for at in 0..=stream.len() {
        let mut bench = Bench::new(0);
        bench.feed_client(&stream[..at]);
        bench.feed_client(&stream[at..]);
        assert!(
            matches!(bench.actions.pop_front(), Some(Action::Admit(f)) if f.login == "acme"),
            "split at {at}"
        );
    }
}

#[test]
fn what_is_not_tds_7_is_closed_without_a_word() {
    for first in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x02, 1, 0, 8, 0, 0, 0, 0],
        &[0x16, 3, 1, 0, 5],
        &[0x12, 1, 0, 3, 0, 0, 0, 0],
    ] {
        let mut bench = Bench::new(0);
        bench.feed_client(first);
        assert!(bench.end.is_some(), "{first:?}");
        assert!(bench.to_client.is_empty());
    }
}

#[test]
fn a_prelogin_that_promises_more_than_it_has_is_closed() {
    let mut body = prelogin(Encryption::NotSup).encode();
    body[3] = 0xFF;
    let mut bench = Bench::new(0);
    bench.client_says(PacketType::Prelogin, PacketStatus::NORMAL, &body);
    assert!(bench.end.is_some());
    assert!(bench.to_client.is_empty());
}

#[test]
fn an_unknown_tenant_gets_50403_and_nothing_reaches_the_server() {
    let mut bench = Bench::new(0);
    bench.client_opens(&login7("nobody"));
    bench.actions.clear();
    bench.event(refused(Cause::UnknownTenant));
    assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
    assert!(bench.end.is_some());
    assert!(bench.to_server.is_empty());
}

#[test]
fn an_upstream_that_cannot_be_reached_is_50504() {
    let mut bench = Bench::new(0);
    bench.client_opens(&login7("acme"));
    bench.actions.clear();
    bench.event(refused(Cause::Upstream("connection refused".into())));
    assert_eq!(error_in(&bench.client_message()), Some((50504, 16)));
}

#[test]
fn an_upstream_that_breaks_the_protocol_at_login_is_50504() {
    for garbage in [&[0x00, 0x00, 0x09, 0x00][..], &[0x42; 40]] {
        let mut bench = Bench::new(0);
        bench.client_opens(&login7("acme"));
        bench.actions.clear();
        bench.admit(Mode::Enforce);
        bench.server_message();
        bench.server_says(garbage);
        assert_eq!(error_in(&bench.client_message()), Some((50504, 16)));
        assert!(matches!(bench.end, Some(SessionEnd::Server(_))));
    }
}

#[test]
fn what_the_gate_cannot_do_is_said_with_its_reason() {
    let sspi = Login7 {
        option_flags2: 0x80,
        sspi: vec![1, 2, 3],
        ..login7("acme")
    };
    let change = Login7 {
        option_flags3: 0x01,
        ..login7("acme")
    };
    let fed_auth = Login7 {
        features: vec![Feature {
            id: feature::FED_AUTH,
            data: vec![2 << 1, 1],
        }],
        ..login7("acme")
    };
    let old = Login7 {
        tds_version: 0x7000_0000,
        ..login7("acme")
    };
    for login in [sspi, change, fed_auth, old] {
        let mut bench = Bench::new(0);
        bench.client_opens(&login);
        assert!(bench.end.is_some());
        assert!(!bench.to_client.is_empty(), "{login:?}");
        assert!(bench.to_server.is_empty());
    }
}

#[test]
fn routing_is_refused_and_the_mirroring_partner_is_not_told() {
    for (routed, expect) in [(true, Some((50400, 16))), (false, None)] {
        let mut bench = Bench::new(0);
        bench.client_opens(&login7("acme"));
        bench.actions.clear();
        bench.admit(Mode::Enforce);
        bench.server_says(&prelogin(Encryption::NotSup).encode());
        let mut tokens = TokenBuf::new(V);
        tokens
            .login_ack("test", [16, 0, 0, 0])
            .env_mirror_partner("other-host");
        if routed {
            tokens.env_routing(1433, "other-host");
        }
        tokens.done(0, 0, 0);
        bench.server_says(tokens.as_bytes());
        let answer = bench.client_message();
        assert_eq!(error_in(&answer), expect);
        let other: Vec<u8> = "other-host".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(
            !answer.windows(other.len()).any(|w| w == other),
            "the client learned another address"
        );
    }
}

#[test]
fn features_that_lead_around_the_gate_are_not_asked_for_and_their_acks_not_passed() {
    let asked = [(0x01, vec![]), (0x0A, vec![1]), (0x0B, vec![]), (0x0F, vec![])]
        .map(|(id, data)| Feature { id, data });
    let mut bench = Bench::new(0);
    bench.client_opens(&Login7 {
        option_flags3: 0x10,
        features: asked.to_vec(),
        ..login7("acme")
    });
    bench.actions.clear();
    bench.admit(Mode::Enforce);
    bench.server_message();
    bench.server_says(&prelogin(Encryption::NotSup).encode());
    let login = Login7::parse(&bench.server_message()).unwrap();
    assert_eq!(login.features.iter().map(|f| f.id).collect::<Vec<_>>(), [0x0A]);
    let mut tokens = TokenBuf::new(V);
    tokens
        .login_ack("test", [16, 0, 0, 0])
        .feature_ext_ack(&[(0x0A, [1]), (0x0B, [1])])
        .done(0, 0, 0);
    bench.server_says(tokens.as_bytes());
    let answer = tokens_of(&bench.client_message());
    let (_, ack) = answer
        .iter()
        .find(|(kind, _)| *kind == TokenKind::FeatureExtAck)
        .unwrap();
    assert_eq!(ack.as_slice(), [0xAE, 0x0A, 1, 0, 0, 0, 1, 0xFF]);
}

#[test]
fn a_packet_larger_than_agreed_ends_the_session() {
    let mut bench = Bench::ready(0);
    bench.feed_client(&[0x01, 1, 0x20, 0, 0, 0, 1, 0]);
    assert!(bench.end.is_some());
}

#[test]
fn a_login_that_takes_too_long_is_ended() {
    let mut bench = Bench::new(0);
    bench.feed_client(&[0x12]);
    bench.now = bench.core.deadline().unwrap();
    bench.core.on_deadline(bench.now);
    bench.pump();
    assert!(
        matches!(bench.end, Some(SessionEnd::Deadline("login"))),
        "the log must say why: {:?}",
        bench.end
    );
}

#[test]
fn the_kept_env_changes_of_a_login_arrive_in_order() {
    let mut bench = Bench::new(0);
    bench.client_opens(&login7("acme"));
    bench.actions.clear();
    bench.admit(Mode::Enforce);
    bench.server_says(&prelogin(Encryption::NotSup).encode());
    let mut tokens = TokenBuf::new(V);
    tokens
        .env_database("demo", "master")
        .login_ack("test", [16, 0, 0, 0])
        .env_packet_size(8192, 4096)
        .done(0, 0, 0);
    bench.server_says(tokens.as_bytes());
    let kinds: Vec<u8> = tokens_of(&bench.client_message())
        .into_iter()
        .filter(|(kind, _)| *kind == TokenKind::EnvChange)
        .map(|(_, bytes)| EnvChange::parse(&bytes).unwrap().kind)
        .collect();
    assert_eq!(kinds, [env::DATABASE, env::PACKET_SIZE]);
    assert_eq!(bench.core.client().packet_size, 4096);
}

#[test]
fn the_journal_learns_of_a_session_only_when_the_server_has_let_it_in() {
    for lets_in in [false, true] {
        let mut bench = Bench::new(0);
        bench.client_opens(&login7("acme"));
        bench.actions.clear();
        bench.admit(Mode::Enforce);
        bench.server_says(&prelogin(Encryption::NotSup).encode());
        assert!(bench.begun.is_empty());
        let mut tokens = TokenBuf::new(V);
        if lets_in {
            tokens.login_ack("test", [16, 0, 0, 0]).done(0, 0, 0);
        } else {
            tokens
                .error(&ServerText {
                    number: 18456,
                    class: 14,
                    text: "Login failed",
                    ..ServerText::default()
                })
                .done(2, 0, 0);
        }
        bench.server_says(tokens.as_bytes());
        assert_eq!(bench.client_message(), tokens.as_bytes());
        assert_eq!(
            (bench.begun.len(), bench.end.is_none()),
            (usize::from(lets_in), lets_in)
        );
    }
}
