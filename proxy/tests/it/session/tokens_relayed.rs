//! Integrated and federated logins through the gate: rounds, bounds, and the reasons where it cannot be.

use weir_proxy::{
    auth::{AuthSettings, Routing, TenantRules, tenants::TenantRule},
    ports::billing::Mode,
    session::{Action, Event, Settings},
};
use weir_tds::{
    build::{ServerText, TokenBuf},
    login7::{Feature, Login7, feature},
    packet::{PacketStatus, PacketType},
    prelogin::{Encryption, EncryptionPolicy, Prelogin},
};

use super::{
    bench::{Bench, V, login7, message, prelogin, take_message},
    login::{error_in, tokens_of},
    opening::{routed, with_auth},
    tls_peer::{Identity, Peer, flight, take_in, unwrapped, whole, wrapped},
};

/// Everything is relayed, and every login is `acme`'s.
fn relaying() -> AuthSettings {
    AuthSettings {
        integrated: true,
        federated: true,
        tenants: TenantRules(vec![TenantRule {
            principal: Some("acme".into()),
            ..TenantRule::default()
        }]),
        ..AuthSettings::default()
    }
}

fn integrated() -> Login7 {
    Login7 {
        option_flags2: 0x80,
        sspi: b"NTLMSSP-negotiate".to_vec(),
        user_name: String::new(),
        ..login7("")
    }
}

fn challenge(token: &[u8]) -> Vec<u8> {
    let mut tokens = TokenBuf::new(V);
    tokens.sspi(token).unwrap();
    tokens.as_bytes().to_vec()
}

#[test]
fn an_integrated_login_is_relayed_round_by_round() {
    let mut bench = Bench::with(with_auth(relaying()), 0);
    bench.client_reaches_server(&integrated());
    let sent = bench.server_reads_login();
    assert!(sent.is_integrated() && sent.sspi == b"NTLMSSP-negotiate");
    for round in 0..2u8 {
        let asked = challenge(&[round; 300]);
        bench.server_says(&asked);
        assert_eq!(bench.client_message(), asked);
        bench.client_says(PacketType::Sspi, PacketStatus::NORMAL, &[0x60 + round; 5_000]);
        let (kind, body) = take_message(&mut bench.to_server).unwrap();
        assert_eq!((kind, body), (PacketType::Sspi, vec![0x60 + round; 5_000]));
    }
    let mut tokens = TokenBuf::new(V);
    tokens.sspi(b"last word").unwrap();
    tokens.login_ack("test", [16, 0, 0, 0]).done(0, 0, 0);
    bench.server_says(tokens.as_bytes());
    assert_eq!(bench.client_message(), tokens.as_bytes());
    assert_eq!(bench.begun, ["acme"]);
}

#[test]
fn a_server_that_never_stops_asking_is_left() {
    let mut bench = Bench::with(with_auth(relaying()), 0);
    bench.client_reaches_server(&integrated());
    bench.server_reads_login();
    let mut rounds = 0;
    while bench.end.is_none() {
        bench.server_says(&challenge(b"again"));
        let answer = bench.client_message();
        if error_in(&answer).is_some() {
            assert_eq!(error_in(&answer), Some((50403, 16)));
            break;
        }
        bench.client_says(PacketType::Sspi, PacketStatus::NORMAL, b"answer");
        rounds += 1;
        assert!(rounds < 20, "no end");
    }
    assert!(bench.end.is_some());
}

#[test]
fn a_client_answers_with_what_it_was_asked_for_and_within_bounds() {
    for (kind, length) in [
        (PacketType::SqlBatch, 10),
        (PacketType::FedAuthToken, 10),
        (PacketType::Attention, 0),
        (PacketType::Sspi, 200_000),
    ] {
        let mut bench = Bench::with(with_auth(relaying()), 0);
        bench.client_reaches_server(&integrated());
        bench.server_reads_login();
        bench.server_says(&challenge(b"who"));
        bench.client_message();
        bench.client_says(kind, PacketStatus::NORMAL, &vec![1; length]);
        assert!(bench.end.is_some(), "{kind:?}");
        assert!(bench.to_server.is_empty());
    }
}

#[test]
fn an_integrated_login_that_the_server_cannot_verify_is_explained() {
    let failed = |number| {
        let mut bench = Bench::with(with_auth(relaying()), 0);
        bench.client_reaches_server(&integrated());
        bench.server_reads_login();
        let mut tokens = TokenBuf::new(V);
        tokens
            .error(&ServerText {
                number,
                class: 14,
                text: "no",
                ..ServerText::default()
            })
            .done(2, 0, 0);
        bench.server_says(tokens.as_bytes());
        let answer = bench.client_message();
        let numbers: Vec<i32> = tokens_of(&answer)
            .iter()
            .filter(|(kind, _)| *kind == weir_tds::token::TokenKind::Error)
            .map(|(_, bytes)| weir_tds::token::ServerMessage::parse(bytes, V).unwrap().number)
            .collect();
        assert!(tokens_of(&answer).last().unwrap().0.is_done());
        numbers
    };
    assert_eq!(failed(18452), [18452, 50403]);
    assert_eq!(failed(18456), [18456]);
}

#[test]
fn an_integrated_login_cannot_be_routed() {
    let auth = AuthSettings {
        routing: Routing::Follow(vec!["*".parse().unwrap()]),
        ..relaying()
    };
    let mut bench = Bench::with(with_auth(auth), 0);
    bench.client_reaches_server(&integrated());
    bench.server_reads_login();
    bench.server_says(&routed("other", 1433));
    assert_eq!(error_in(&bench.client_message()), Some((50400, 16)));
}

#[test]
fn a_sql_login_is_not_asked_for_other_tokens() {
    let mut bench = Bench::with(with_auth(relaying()), 0);
    bench.client_reaches_server(&login7("acme"));
    bench.server_reads_login();
    bench.server_says(&challenge(b"who"));
    assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
}

#[test]
fn without_the_operators_word_or_a_rule_nothing_is_relayed() {
    let unruled = AuthSettings {
        tenants: TenantRules::default(),
        ..relaying()
    };
    for auth in [AuthSettings::default(), unruled] {
        let mut bench = Bench::with(with_auth(auth), 0);
        bench.client_opens(&integrated());
        assert!(bench.actions.is_empty());
        assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
    }
}

fn federated(options: u8) -> Login7 {
    let token = vec![0x41; 20_000];
    let mut data = vec![options];
    data.extend(u32::try_from(token.len()).unwrap().to_le_bytes());
    data.extend(token);
    Login7 {
        option_flags3: 0x10,
        features: vec![Feature {
            id: feature::FED_AUTH,
            data,
        }],
        ..login7("")
    }
}

/// A client and a server, both encrypted to the end.
struct Federated {
    bench: Bench,
    identity: Identity,
    client: Peer,
    server: Peer,
}

impl Federated {
    fn begin(auth: AuthSettings, login: &Login7) -> (Self, Option<u8>) {
        Self::towards(Encryption::On, auth, login)
    }

    fn towards(upstream: Encryption, auth: AuthSettings, login: &Login7) -> (Self, Option<u8>) {
        let identity = Identity::new();
        let both = Settings {
            auth: with_auth(auth).auth,
            ..identity.gate(EncryptionPolicy::Off, upstream)
        };
        let mut bench = Bench::with(both, 0);
        let hello = Prelogin {
            fed_auth_required: Some(1),
            nonce: Some([7; 32]),
            ..prelogin(Encryption::On)
        };
        bench.client_says(PacketType::Prelogin, PacketStatus::NORMAL, &hello.encode());
        let answer = Prelogin::parse(&bench.client_message()).unwrap();
        assert_eq!(answer.nonce, None, "a nonce would have to be the server's");
        let mut client = Peer::client();
        let tls = client.connection(&identity, false);
        client.shake(&mut bench, tls, false, &mut whole);
        let login = message(PacketType::Login7, PacketStatus::NORMAL, &login.encode().unwrap());
        client.send(&mut bench, &login, &mut whole);
        let both = Self {
            bench,
            identity,
            client,
            server: Peer::server(),
        };
        (both, answer.fed_auth_required)
    }

    /// The upstream side up to its LOGIN7; it says this to FEDAUTHREQUIRED.
    fn server_reads_login(&mut self, required: Option<u8>) -> Login7 {
        let asked = Prelogin::parse(&self.bench.server_message()).unwrap();
        assert_eq!((asked.fed_auth_required, asked.nonce), (Some(1), None));
        let answer = Prelogin {
            fed_auth_required: required,
            ..prelogin(Encryption::On)
        };
        self.bench.server_says(&answer.encode());
        let tls = self.server.connection(&self.identity, false);
        self.server.shake(&mut self.bench, tls, false, &mut whole);
        Login7::parse(&self.server_reads().1).unwrap()
    }

    fn server_reads(&mut self) -> (PacketType, Vec<u8>) {
        self.server
            .message(&mut self.bench)
            .expect("the server waits for a message")
    }

    fn server_says(&mut self, tokens: &[u8]) {
        let packets = message(PacketType::TabularResult, PacketStatus::NORMAL, tokens);
        self.server.send(&mut self.bench, &packets, &mut whole);
    }

    fn client_reads(&mut self) -> Vec<u8> {
        self.client
            .message(&mut self.bench)
            .expect("the client waits for a message")
            .1
    }

    /// The server asks its question, the client answers it with the token that it fetched meanwhile.
    fn client_fetches_token(&mut self) -> Vec<u8> {
        self.server_reads_login(Some(1));
        let asked = question("https://login.example/");
        self.server_says(&asked);
        assert_eq!(self.client_reads(), asked);
        let token = [&8u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"j\0w\0"].concat();
        let packets = message(PacketType::FedAuthToken, PacketStatus::NORMAL, &token);
        self.client.send(&mut self.bench, &packets, &mut whole);
        assert_eq!(self.server_reads(), (PacketType::FedAuthToken, token.clone()));
        token
    }
}

/// What a server asks a client for that fetches its token at `issuer`.
fn question(issuer: &str) -> Vec<u8> {
    let mut tokens = TokenBuf::new(V);
    tokens.fed_auth_info(&[(1, issuer), (2, "https://database.example/")]);
    tokens.as_bytes().to_vec()
}

#[test]
fn a_token_in_login7_passes_with_the_servers_own_echo() {
    for required in [Some(1), Some(0), None] {
        let (mut both, answered) = Federated::begin(relaying(), &federated(0x03));
        assert_eq!(answered, Some(1));
        assert!(matches!(both.bench.actions.pop_front(), Some(Action::Admit(f)) if f.login == "acme"));
        both.bench.admit(Mode::Enforce);
        let sent = both.server_reads_login(required);
        let request = sent.feature(feature::FED_AUTH).unwrap();
        assert_eq!(request[0], 0x02 | u8::from(required == Some(1)));
        assert_eq!(request.len(), 1 + 4 + 20_000);
        let mut tokens = TokenBuf::new(V);
        tokens
            .login_ack("test", [16, 0, 0, 0])
            .feature_ext_ack(&[(feature::FED_AUTH, [0u8; 0])])
            .done(0, 0, 0);
        both.server_says(tokens.as_bytes());
        assert_eq!(both.client_reads(), tokens.as_bytes());
    }
}

#[test]
fn a_token_that_the_client_fetches_is_relayed() {
    let (mut both, _) = Federated::begin(relaying(), &federated(0x05));
    both.bench.actions.clear();
    both.bench.admit(Mode::Enforce);
    both.client_fetches_token();
}

#[test]
fn what_a_federated_login_cannot_do_through_a_gate_is_said() {
    let sentence = |auth: AuthSettings, login: &Login7| {
        let (mut both, _) = Federated::begin(auth, login);
        assert!(both.bench.actions.is_empty());
        error_in(&both.client_reads())
    };
    assert_eq!(
        sentence(AuthSettings::default(), &federated(0x03)),
        Some((50403, 16))
    );
    assert_eq!(
        sentence(relaying(), &federated(0x01)),
        Some((50403, 16)),
        "library 0 signs a nonce"
    );
    let both = Login7 {
        sspi: vec![1],
        ..federated(0x03)
    };
    assert_eq!(sentence(relaying(), &both), Some((50403, 16)));
    // In clear, nothing of it goes on.
    let mut bench = Bench::with(with_auth(relaying()), 0);
    bench.client_opens(&federated(0x03));
    assert!(bench.actions.is_empty());
    assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
}

#[test]
fn a_token_does_not_go_to_a_server_that_encrypts_the_login_only() {
    let (mut both, _) = Federated::towards(Encryption::Off, relaying(), &federated(0x03));
    both.bench.actions.clear();
    both.bench.admit(Mode::Enforce);
    both.bench.server_message();
    both.bench.server_says(&prelogin(Encryption::Off).encode());
    let mut tls = both.server.connection(&both.identity, false);
    while both.bench.end.is_none() {
        let hello = unwrapped(&mut both.bench.to_server);
        assert!(!hello.is_empty(), "the gate waits for nothing");
        take_in(&mut tls, &hello).unwrap();
        both.bench.feed_server(&wrapped(&flight(&mut tls)));
    }
    // The end of the handshake, and the goodbye of TLS.
    let sent = both.bench.to_server.len();
    assert!(sent < 1_000, "the token of 20 000 bytes stays here: {sent}");
    assert_eq!(error_in(&both.client_reads()), Some((50403, 16)));
}

/// The client's answer to FEDAUTHINFO goes to the server that the login is routed to, if that one asks the same.
#[test]
fn a_fetched_token_follows_a_routed_login_to_a_server_that_asks_the_same() {
    for (asks, follows) in [
        ("https://login.example/", true),
        ("https://other.example/", false),
    ] {
        let auth = AuthSettings {
            routing: Routing::Follow(vec!["localhost".parse().unwrap()]),
            ..relaying()
        };
        let (mut both, _) = Federated::begin(auth, &federated(0x05));
        both.bench.actions.clear();
        both.bench.admit(Mode::Enforce);
        let token = both.client_fetches_token();
        both.server_says(&routed("localhost", 1433));
        assert!(matches!(both.bench.actions.pop_front(), Some(Action::Connect(_))));
        both.bench.event(Event::Connected);
        both.server = Peer::server();
        both.server_reads_login(Some(1));
        both.server_says(&question(asks));
        if follows {
            assert_eq!(both.server_reads(), (PacketType::FedAuthToken, token));
            assert!(both.bench.to_client.is_empty(), "the client is not asked again");
        } else {
            assert_eq!(error_in(&both.client_reads()), Some((50400, 16)));
        }
    }
}
