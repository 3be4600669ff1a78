//! Every encryption of a client with every encryption of a server, through every policy of the gate: docs/encryption.md.

use weir_proxy::{ports::billing::Mode, session::Action};
use weir_tds::{
    build::TokenBuf,
    login7::Login7,
    packet::{PacketStatus, PacketType},
    prelogin::{Encryption, EncryptionPolicy, TlsScope, negotiate},
    token::{LoginAck, TokenKind},
    version::TdsVersion,
};

use super::{
    bench::{Bench, ROW, V, batch, login7, message, prelogin},
    login::{error_in, tokens_of},
    tls_peer::{Cut, Identity, Peer, connect, log_in, whole},
};

/// What a client or a server is set to, in the words of docs/encryption.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    None,
    LoginOnly,
    On,
    Required,
    Strict,
}

const SETS: [Set; 5] = [Set::None, Set::LoginOnly, Set::On, Set::Required, Set::Strict];

impl Set {
    /// ENCRYPTION as a client of this set says it.
    fn asks(self) -> Encryption {
        match self {
            Self::None => Encryption::NotSup,
            Self::LoginOnly => Encryption::Off,
            Self::On => Encryption::On,
            Self::Required => Encryption::Req,
            Self::Strict => Encryption::Strict,
        }
    }
}

/// What of a leg is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    Clear,
    Login,
    All,
    /// TDS 8.0.
    First,
}

/// What becomes of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// Closed before LOGIN7: an ERROR could not be read.
    Closed,
    /// A login ERROR: number and state.
    Error(u32, u8),
    /// Rows came, with this on the client's leg and on the server's.
    Rows(Leg, Leg),
}

/// docs/encryption.md, the client's leg: rows are clients, columns the gate's client_encryption.
fn client_leg(client: Set, gate: EncryptionPolicy) -> Result<Leg, Cell> {
    use EncryptionPolicy as P;
    const TOLD: Cell = Cell::Error(50403, 3);
    match (client, gate) {
        (Set::None, P::NotSup | P::Off) | (Set::LoginOnly, P::NotSup) => Ok(Leg::Clear),
        (Set::None, P::On | P::Strict) | (Set::On | Set::Required | Set::Strict, P::NotSup) => {
            Err(Cell::Closed)
        }
        (Set::LoginOnly, P::Off) => Ok(Leg::Login),
        (Set::LoginOnly, P::On) | (Set::On | Set::Required, P::Off | P::On) => Ok(Leg::All),
        (Set::LoginOnly | Set::On | Set::Required, P::Strict) => Err(TOLD),
        (Set::Strict, P::Off | P::On | P::Strict) => Ok(Leg::First),
    }
}

/// docs/encryption.md, the server's leg: rows are the gate's upstream_encryption, columns servers.
fn server_leg(gate: Encryption, server: Set) -> Result<Leg, Cell> {
    const DISAGREE: Cell = Cell::Error(50504, 2);
    use Encryption as E;
    match (gate, server) {
        (E::NotSup, Set::None | Set::LoginOnly) => Ok(Leg::Clear),
        (E::Off, Set::LoginOnly) => Ok(Leg::Login),
        (E::Off, Set::On | Set::Required) | (E::On, Set::LoginOnly | Set::On | Set::Required) => Ok(Leg::All),
        (E::Strict, Set::LoginOnly | Set::On | Set::Required | Set::Strict) => Ok(Leg::First),
        _ => Err(DISAGREE),
    }
}

/// A server of one set, up to LOGIN7. `None`: it closed, or the gate did.
fn serve(
    bench: &mut Bench,
    peer: &mut Peer,
    identity: &Identity,
    set: Set,
    cut: &mut Cut<'_>,
) -> Option<Leg> {
    if peer.first_byte(bench)? == 0x16 {
        if set == Set::None {
            bench.core.server_closed(bench.now);
            bench.pump();
            return None;
        }
        let tls = peer.connection(identity, true);
        peer.shake(bench, tls, true, cut);
        let (kind, _) = peer.message(bench)?;
        assert_eq!(kind, PacketType::Prelogin);
        answer_prelogin(bench, peer, Encryption::NotSup, cut);
        return Some(Leg::First);
    }
    let (_, asked) = peer.message(bench)?;
    let asked = weir_tds::prelogin::Prelogin::parse(&asked).unwrap();
    let policy = match set {
        Set::None => EncryptionPolicy::NotSup,
        Set::LoginOnly => EncryptionPolicy::Off,
        Set::On | Set::Required => EncryptionPolicy::On,
        Set::Strict => {
            bench.core.server_closed(bench.now);
            bench.pump();
            return None;
        }
    };
    let agreed = negotiate(asked.encryption, policy);
    let answer = if set == Set::Required {
        Encryption::Req
    } else {
        agreed.answer
    };
    answer_prelogin(bench, peer, answer, cut);
    if bench.end.is_some() {
        return None;
    }
    match agreed.scope? {
        TlsScope::None => Some(Leg::Clear),
        scope => {
            let tls = peer.connection(identity, false);
            peer.shake(bench, tls, false, cut);
            Some(if scope == TlsScope::LoginOnly {
                Leg::Login
            } else {
                Leg::All
            })
        }
    }
}

fn answer_prelogin(bench: &mut Bench, peer: &mut Peer, answer: Encryption, cut: &mut Cut<'_>) {
    let body = prelogin(answer).encode();
    let packets = message(PacketType::TabularResult, PacketStatus::NORMAL, &body);
    peer.send(bench, &packets, cut);
}

/// From the login's answer to rows on both legs.
fn use_it(
    bench: &mut Bench,
    (client, server): (&mut Peer, &mut Peer),
    asked: &Login7,
    (up, down): (Leg, Leg),
    cut: &mut Cut<'_>,
) {
    let (_, login) = match down {
        Leg::Login => server.message_behind_first_packet(bench).expect("LOGIN7"),
        _ => server.message(bench).expect("LOGIN7"),
    };
    let login = Login7::parse(&login).unwrap();
    let spoken = if down == Leg::First {
        TdsVersion::V8_0
    } else {
        TdsVersion::V7_4
    };
    assert_eq!(
        login.version(),
        Some(spoken),
        "the version that this server knows"
    );
    let granted = u16::try_from(login.packet_size).unwrap();
    assert_eq!(
        granted > 16_383,
        matches!(down, Leg::Clear | Leg::Login),
        "a record holds a packet"
    );
    let mut tokens = TokenBuf::new(spoken);
    tokens
        .login_ack("test", [16, 0, 3, 232])
        .env_packet_size(granted, 4096)
        .done(0, 0, 0);
    let answer = message(PacketType::TabularResult, PacketStatus::NORMAL, tokens.as_bytes());
    server.send(bench, &answer, cut);
    let (_, told) = client.message(bench).expect("a login response");
    let ack = tokens_of(&told)
        .into_iter()
        .find(|(kind, _)| *kind == TokenKind::LoginAck);
    let ack = ack.expect("LOGINACK").1;
    assert_eq!(
        LoginAck::parse(&ack).unwrap().version,
        asked.version(),
        "the version that it asked for"
    );
    if matches!(up, Leg::All | Leg::First) {
        assert!(bench.core.client().packet_size <= 16_383);
    }

    let text = batch(&format!("select '{}'", "x".repeat(40_000)));
    let request = message(PacketType::SqlBatch, PacketStatus::NORMAL, &text);
    client.send(bench, &request, cut);
    let (kind, came) = server.message(bench).expect("the batch");
    assert_eq!((kind, came.len()), (PacketType::SqlBatch, text.len()));
    let mut rows = TokenBuf::new(V);
    rows.done(0x10, 0xC1, 1);
    let answer = message(PacketType::TabularResult, PacketStatus::NORMAL, rows.as_bytes());
    server.send(bench, &answer, cut);
    assert_eq!(client.message(bench).expect("an answer").1, rows.as_bytes());
}

fn play(
    identity: &Identity,
    (client_set, clients): (Set, EncryptionPolicy),
    (upstream, server_set): (Encryption, Set),
    cut: &mut Cut<'_>,
) -> Cell {
    let mut bench = Bench::with(identity.gate(clients, upstream), 100 * ROW);
    let (mut client, mut server) = (Peer::client(), Peer::server());
    if server_set == Set::Required {
        // As some servers do (go-mssqldb's issue 174 has one).
        server.wraps_in = PacketType::TabularResult;
    }
    let asked = client_set.asks();
    if asked == Encryption::Strict && clients == EncryptionPolicy::NotSup {
        client.feed(&mut bench, &[0x16, 3, 1, 0, 0], cut);
        assert!(bench.to_client.is_empty() && bench.end.is_some());
        return Cell::Closed;
    }
    let Some(scope) = connect(&mut bench, &mut client, identity, asked, cut) else {
        assert!(bench.to_server.is_empty());
        return Cell::Closed;
    };
    let up = match scope {
        _ if asked == Encryption::Strict => Leg::First,
        TlsScope::None => Leg::Clear,
        TlsScope::LoginOnly => Leg::Login,
        TlsScope::All => Leg::All,
    };
    let version = if asked == Encryption::Strict {
        TdsVersion::V8_0
    } else {
        V
    };
    let login = Login7 {
        tds_version: version.to_login7(),
        packet_size: 32_767,
        ..login7("acme")
    };
    log_in(&mut bench, &mut client, scope, &login, cut);
    let told = |client: &mut Peer, bench: &mut Bench| {
        let (_, tokens) = client
            .message(bench)
            .expect("an ERROR in the client's own encryption");
        let (number, state) = error_in_state(&tokens);
        assert!(bench.end.is_some());
        Cell::Error(number, state)
    };
    if bench.actions.is_empty() {
        assert!(bench.to_server.is_empty());
        return told(&mut client, &mut bench);
    }
    assert!(matches!(bench.actions.pop_front(), Some(Action::Admit(f)) if f.login == "acme"));
    assert!(bench.to_server.is_empty(), "nothing before the tenant is known");
    bench.admit(Mode::Enforce);
    let Some(down) = serve(&mut bench, &mut server, identity, server_set, cut) else {
        return told(&mut client, &mut bench);
    };
    use_it(&mut bench, (&mut client, &mut server), &login, (up, down), cut);
    Cell::Rows(up, down)
}

fn error_in_state(tokens: &[u8]) -> (u32, u8) {
    assert!(error_in(tokens).is_some());
    let error = tokens_of(tokens)
        .into_iter()
        .find(|(kind, _)| *kind == TokenKind::Error);
    let error = error.unwrap().1;
    let error = weir_tds::token::ServerMessage::parse(&error, V).unwrap();
    (u32::try_from(error.number).unwrap(), error.state)
}

const CLIENT_POLICIES: [EncryptionPolicy; 4] = [
    EncryptionPolicy::NotSup,
    EncryptionPolicy::Off,
    EncryptionPolicy::On,
    EncryptionPolicy::Strict,
];
const UPSTREAM: [Encryption; 4] = [
    Encryption::NotSup,
    Encryption::Off,
    Encryption::On,
    Encryption::Strict,
];

#[test]
fn every_client_meets_every_server_through_every_policy() {
    let identity = Identity::new();
    for client in SETS {
        for clients in CLIENT_POLICIES {
            for upstream in UPSTREAM {
                for server in SETS {
                    let want = match (client_leg(client, clients), server_leg(upstream, server)) {
                        (Err(cell), _) | (Ok(_), Err(cell)) => cell,
                        (Ok(up), Ok(down)) => Cell::Rows(up, down),
                    };
                    let got = play(&identity, (client, clients), (upstream, server), &mut whole);
                    assert_eq!(got, want, "{client:?} {clients:?} | {upstream:?} {server:?}");
                }
            }
        }
    }
}

/// The policies under which each set of a client or a server gets through.
fn open_policies(client: Set, server: Set) -> (EncryptionPolicy, Encryption) {
    let clients = match client {
        Set::Strict => EncryptionPolicy::Strict,
        Set::Required => EncryptionPolicy::On,
        _ => EncryptionPolicy::Off,
    };
    let upstream = match server {
        Set::None => Encryption::NotSup,
        Set::LoginOnly | Set::Required => Encryption::Off,
        Set::On => Encryption::On,
        Set::Strict => Encryption::Strict,
    };
    (clients, upstream)
}

#[test]
fn each_of_the_25_bridges_carries_rows_however_its_bytes_are_cut() {
    let identity = Identity::new();
    let mut random = fastrand::Rng::with_seed(0x5EED);
    for client in SETS {
        for server in SETS {
            let (clients, upstream) = open_policies(client, server);
            for _ in 0..8 {
                let mut cut = |length: usize| {
                    let mut at: Vec<usize> = (0..random.usize(0..12))
                        .map(|_| random.usize(0..=length))
                        .collect();
                    at.sort_unstable();
                    at
                };
                let cell = play(&identity, (client, clients), (upstream, server), &mut cut);
                assert!(matches!(cell, Cell::Rows(..)), "{client:?} {server:?}: {cell:?}");
            }
        }
    }
}

#[test]
fn each_clients_first_message_may_be_split_at_every_byte() {
    let identity = Identity::new();
    for client in SETS {
        let (clients, upstream) = open_policies(client, Set::None);
        let mut length = 1;
        let mut at = 0;
        while at < length {
            let mut first = true;
            let mut cut = |bytes: usize| {
                if std::mem::take(&mut first) {
                    length = bytes;
                    vec![at]
                } else {
                    Vec::new()
                }
            };
            let cell = play(&identity, (client, clients), (upstream, Set::None), &mut cut);
            assert!(
                matches!(cell, Cell::Rows(..)),
                "{client:?} split at {at}: {cell:?}"
            );
            at += 1;
        }
        assert!(length > 30, "the first message was cut");
    }
}
