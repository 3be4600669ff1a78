//! Where a login goes: routing followed inside, the failover, and that a client never learns another address.

use weir_proxy::{
    auth::{AuthSettings, Routing, Target},
    gate::Cause,
    ports::billing::Mode,
    session::{Action, Settings, routing::HOPS_MAX},
};
use weir_tds::{
    build::TokenBuf,
    login7::{Feature, Login7},
    packet::{PacketStatus, PacketType},
    prelogin::{Encryption, EncryptionPolicy},
};

use super::{
    bench::{Bench, V, batch, login7, message, prelogin, refused, settings},
    login::error_in,
    opening::{routed, with_auth},
    tls_peer::{Identity, Peer, flight, take_in, unwrapped, whole, wrapped},
};

const OTHER: &str = "node2.secret-domain.example";

fn following(patterns: &[&str]) -> Settings {
    with_auth(AuthSettings {
        routing: Routing::Follow(patterns.iter().map(|p| p.parse().unwrap()).collect()),
        ..AuthSettings::default()
    })
}

pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Searches every byte that the client was ever sent, as UTF-16 and as ASCII, whole and its first label.
pub(crate) fn assert_not_told(bench: &Bench, address: &str) {
    for name in [address, address.split('.').next().unwrap()] {
        for form in [utf16(name), name.as_bytes().to_vec()] {
            let told = bench
                .told
                .windows(form.len())
                .any(|w| w.eq_ignore_ascii_case(&form));
            assert!(!told, "the client learned of {name}");
        }
    }
}

fn next_target(bench: &mut Bench) -> Option<Target> {
    match bench.actions.pop_front() {
        Some(Action::Connect(target)) => Some(target),
        _ => None,
    }
}

fn reconnect(bench: &mut Bench) {
    bench.event(weir_proxy::session::Event::Connected);
}

#[test]
fn a_routing_answer_is_followed_with_the_same_login_and_the_client_gets_the_last_response_only() {
    let mut bench = Bench::with(following(&["*.secret-domain.example"]), 0);
    bench.client_reaches_server(&login7("acme"));
    let first = bench.server_reads_login();
    assert_eq!(first.server_name, "db");
    bench.server_says(&routed(&format!("{OTHER}\\INST"), 11_000));
    let target = next_target(&mut bench).expect("the proxy goes there");
    assert_eq!((target.host.as_str(), target.port), (OTHER, 11_000));
    assert!(
        bench.to_client.is_empty(),
        "the first server's response is nobody's"
    );
    reconnect(&mut bench);
    let second = bench.server_reads_login();
    assert_eq!(second.server_name, format!("{OTHER}\\INST"));
    let same = |l: &Login7| {
        (
            l.user_name.clone(),
            l.password.clone(),
            l.database.clone(),
            l.packet_size,
        )
    };
    assert_eq!(same(&second), same(&first));
    let mut tokens = TokenBuf::new(V);
    tokens.login_ack("second", [16, 0, 0, 0]).done(0, 0, 0);
    bench.server_says(tokens.as_bytes());
    assert_eq!(bench.client_message(), tokens.as_bytes());
    bench.client_says(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch("SET NOCOUNT ON"),
    );
    assert_eq!(bench.server_message(), batch("SET NOCOUNT ON"));
    assert_not_told(&bench, OTHER);
    assert_not_told(&bench, "mirror.secret-domain.example");
}

#[test]
fn enhanced_routing_brings_its_database() {
    let mut bench = Bench::with(following(&["*.secret-domain.example"]), 0);
    bench.client_reaches_server(&Login7 {
        database: "front".into(),
        ..login7("acme")
    });
    bench.server_reads_login();
    let mut tokens = TokenBuf::new(V);
    tokens
        .login_ack("first", [16, 0, 0, 0])
        .env_enhanced_routing(1433, OTHER, "shard7")
        .done(0, 0, 0);
    bench.server_says(tokens.as_bytes());
    assert!(next_target(&mut bench).is_some());
    reconnect(&mut bench);
    assert_eq!(bench.server_reads_login().database, "shard7");
    assert_not_told(&bench, OTHER);
}

#[test]
fn logins_go_nowhere_that_the_operator_does_not_name() {
    for (settings, host) in [
        (settings(), OTHER),
        (following(&["*.other.example"]), OTHER),
        (following(&["*.secret-domain.example:1433"]), OTHER),
        (following(&["*"]), "bad host"),
        (following(&["*"]), ""),
    ] {
        let mut bench = Bench::with(settings, 0);
        bench.client_reaches_server(&login7("acme"));
        bench.server_reads_login();
        bench.server_says(&routed(host, 11_000));
        assert_eq!(next_target(&mut bench), None);
        assert_eq!(error_in(&bench.client_message()), Some((50400, 16)));
        assert!(bench.end.is_some());
        assert_not_told(&bench, OTHER);
    }
}

#[test]
fn a_circle_of_servers_ends() {
    let mut bench = Bench::with(following(&["*"]), 0);
    bench.client_reaches_server(&login7("acme"));
    for _ in 0..HOPS_MAX {
        bench.server_reads_login();
        bench.server_says(&routed(OTHER, 1433));
        assert!(next_target(&mut bench).is_some());
        reconnect(&mut bench);
    }
    bench.server_reads_login();
    bench.server_says(&routed(OTHER, 1433));
    assert_eq!(next_target(&mut bench), None);
    assert_eq!(error_in(&bench.client_message()), Some((50400, 16)));
    assert_not_told(&bench, OTHER);
}

#[test]
fn a_failed_login_of_a_routed_server_is_the_clients_but_its_address_is_not() {
    let mut bench = Bench::with(following(&["*"]), 0);
    bench.client_reaches_server(&login7("acme"));
    bench.server_reads_login();
    bench.server_says(&routed(OTHER, 1433));
    next_target(&mut bench);
    bench.event(refused(Cause::Upstream(format!("connection to {OTHER} refused"))));
    assert_eq!(error_in(&bench.client_message()), Some((50504, 16)));
    assert_not_told(&bench, OTHER);
}

#[test]
fn the_failover_is_tried_once_and_never_told() {
    let with_failover = || {
        with_auth(AuthSettings {
            failover: Some("mirror.secret-domain.example:1444".parse().unwrap()),
            ..AuthSettings::default()
        })
    };
    for answers in [true, false] {
        let mut bench = Bench::with(with_failover(), 0);
        bench.client_opens(&login7("acme"));
        bench.actions.clear();
        // `admit` answers the first connection itself: the upstream's refusal must come instead.
        bench.admit_only(Mode::Enforce);
        assert_eq!(next_target(&mut bench).unwrap().to_string(), "db:1433");
        bench.event(refused(Cause::Upstream("connection refused".into())));
        assert_eq!(
            next_target(&mut bench).unwrap().to_string(),
            "mirror.secret-domain.example:1444"
        );
        if answers {
            reconnect(&mut bench);
            assert_eq!(
                bench.server_reads_login().server_name,
                "mirror.secret-domain.example"
            );
        } else {
            bench.event(refused(Cause::Upstream(
                "mirror.secret-domain.example: refused".into(),
            )));
            assert_eq!(error_in(&bench.client_message()), Some((50504, 16)));
        }
        assert_not_told(&bench, "mirror.secret-domain.example");
    }
}

#[test]
fn a_server_that_was_left_is_not_listened_to() {
    let mut bench = Bench::with(following(&["*"]), 0);
    bench.client_reaches_server(&login7("acme"));
    bench.server_reads_login();
    bench.server_says(&routed(OTHER, 1433));
    let now = bench.now;
    assert!(next_target(&mut bench).is_some());
    reconnect(&mut bench);
    bench.pump();
    assert!(bench.end.is_none());
    bench.core.server_closed(now);
    bench.pump();
    assert!(bench.end.is_some(), "the second server is");
}

/// 13, 20 and 21.
const LEADS: [fn(&mut TokenBuf); 3] = [
    |t| {
        t.env_mirror_partner(OTHER);
    },
    |t| {
        t.env_routing(1433, OTHER);
    },
    |t| {
        t.env_enhanced_routing(1433, OTHER, "db");
    },
];

/// A session that was told where to go, behind `first`: the token whole in a packet, and cut at every byte by a packet's
/// border.
fn led_away_behind(mode: Mode, first: &[u8]) -> Vec<Bench> {
    let mut sessions = Vec::new();
    for lead in LEADS {
        let mut tokens = TokenBuf::new(V);
        lead(&mut tokens);
        let length = tokens.as_bytes().len();
        tokens.done(0, 0, 0);
        let stream = [first, tokens.as_bytes()].concat();
        for at in first.len()..=first.len() + length {
            let mut bench = Bench::ready_in(1 << 30, mode);
            bench.client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("SELECT 1"));
            let mut packets = message(PacketType::TabularResult, PacketStatus::NORMAL, &stream[..at]);
            packets[1] = 0;
            packets.extend(message(
                PacketType::TabularResult,
                PacketStatus::NORMAL,
                &stream[at..],
            ));
            bench.feed_server(&packets);
            sessions.push(bench);
        }
    }
    sessions
}

/// The token never leaves whole, and no part of the address leaves.
#[test]
fn what_leads_elsewhere_in_mid_session_never_reaches_the_client() {
    let mut before = TokenBuf::new(V);
    before.env_database("demo", "master");
    for mode in [Mode::Enforce, Mode::Observe] {
        for bench in led_away_behind(mode, before.as_bytes()) {
            assert!(bench.end.is_some(), "{mode:?}");
            assert_not_told(&bench, OTHER);
        }
    }
}

/// Observe mode passes on what the gate cannot read: the bytes behind a token that nobody knows pass, and an address among
/// them does not.
#[test]
fn nor_does_it_behind_what_observe_mode_passes_on_unread() {
    let unknown = [0x42, 1, 2, 3, 0xE3, 0xE3, 0x1B, 0x00];
    for bench in led_away_behind(Mode::Observe, &unknown) {
        assert!(bench.end.is_some(), "the session ends");
        assert!(
            bench.records.iter().all(|record| record.unparsed),
            "what passed before is on record"
        );
        assert_not_told(&bench, OTHER);
    }
}

/// The login response is read in every mode: one that cannot be is refused, and what stands in it stays here.
#[test]
fn a_login_response_that_cannot_be_read_tells_nothing_in_observe_mode_either() {
    for lead in LEADS {
        let mut bench = Bench::with(settings(), 0);
        bench.client_opens(&login7("acme"));
        bench.actions.clear();
        bench.admit(Mode::Observe);
        bench.server_reads_login();
        let mut tokens = TokenBuf::new(V);
        tokens.login_ack("test", [16, 0, 0, 0]);
        let mut stream = tokens.as_bytes().to_vec();
        stream.extend([0x42, 1, 2, 3]);
        let mut rest = TokenBuf::new(V);
        lead(&mut rest);
        rest.done(0, 0, 0);
        stream.extend(rest.as_bytes());
        bench.server_says(&stream);
        assert_eq!(error_in(&bench.client_message()), Some((50504, 16)));
        assert!(bench.end.is_some());
        assert_not_told(&bench, OTHER);
    }
}

#[test]
fn non_empty_recovery_data_gets_a_clean_answer() {
    for (data, refused) in [(vec![], false), (vec![0; 12], true)] {
        let mut bench = Bench::new(0);
        let login = Login7 {
            option_flags3: 0x10,
            features: vec![Feature { id: 0x01, data }],
            ..login7("acme")
        };
        bench.client_opens(&login);
        assert_eq!(bench.actions.is_empty(), refused);
        if refused {
            assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
            assert!(bench.end.is_some());
        }
    }
}

/// Over TLS to the first server, which routes to `host`; the second server shows a certificate for `localhost`.
fn routed_over_tls(host: &str) -> Bench {
    let identity = Identity::new();
    let settings = Settings {
        auth: following(&["*"]).auth,
        ..identity.gate(EncryptionPolicy::NotSup, Encryption::On)
    };
    let mut bench = Bench::with(settings, 0);
    bench.client_reaches_server(&login7("acme"));
    let mut first = Peer::server();
    bench.server_message();
    bench.server_says(&prelogin(Encryption::On).encode());
    let tls = first.connection(&identity, false);
    first.shake(&mut bench, tls, false, &mut whole);
    first.message(&mut bench).expect("LOGIN7");
    let packets = message(
        PacketType::TabularResult,
        PacketStatus::NORMAL,
        &routed(host, 1433),
    );
    first.send(&mut bench, &packets, &mut whole);
    assert!(next_target(&mut bench).is_some());
    reconnect(&mut bench);
    bench.server_message();
    bench.server_says(&prelogin(Encryption::On).encode());
    let second = Peer::server();
    let mut tls = second.connection(&identity, false);
    take_in(&mut tls, &unwrapped(&mut bench.to_server)).unwrap();
    bench.feed_server(&wrapped(&flight(&mut tls)));
    bench
}

#[test]
fn a_routed_server_must_show_a_certificate_for_its_own_name() {
    let bench = routed_over_tls("localhost");
    assert!(
        bench.end.is_none() && !bench.to_server.is_empty(),
        "the handshake goes on"
    );
    let mut bench = routed_over_tls(OTHER);
    assert_eq!(error_in(&bench.client_message()), Some((50504, 16)));
    assert!(bench.end.is_some());
    assert_not_told(&bench, OTHER);
}
