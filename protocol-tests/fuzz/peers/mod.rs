//! Fuzz target `peers`: rows as other clients see them. A response that the naive decoder reads whole goes to tiberius and to
//! mssql-tds, each logged in; who accepts it sees the rows that Weir counts, who breaks off has seen no more of them.
//!
//! They are development dependencies, so this stands beside the library: the tests and the engine take it in by its path.

mod by_mssql_tds;
mod by_tiberius;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, OnceLock};

use bytes::BytesMut;
use weir_protocol_tests::fuzz::source::Source;
use weir_protocol_tests::fuzz::{Target, built_response, corpus, named};
use weir_protocol_tests::naive_decoder::{NaiveToken, decode};
use weir_protocol_tests::trace::count;
use weir_tds::build::{Collation, TokenBuf};
use weir_tds::message::write_message;
use weir_tds::packet::{DEFAULT_PACKET_SIZE, PacketStatus, PacketType};
use weir_tds::prelogin::{Encryption, EncryptionOption, Prelogin};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

/// The target; its corpus lies beside the others'.
pub(crate) const TARGET: Target = Target {
    name: "peers",
    run: target,
    seeds,
    input_max: 600,
};

/// Both clients speak this, and ask for no feature that changes the stream.
const VERSION: TdsVersion = TdsVersion::V7_4;
/// Bit of the first byte: the rest builds a response; else it is one.
const BUILT: u8 = 1;
/// DONE, DONEPROC, DONEINPROC and their bits DONE_MORE and DONE_ATTN [MS-TDS 2.2.7.6].
const DONES: std::ops::RangeInclusive<u8> = 0xFD..=0xFF;
const DONE_MORE: u8 = 0x01;
const DONE_ATTN: u8 = 0x20;
/// What a client remembers behind a response: LOGINACK, FEATUREEXTACK, ENVCHANGE, SESSIONSTATE, SSPI, FEDAUTHINFO.
const ABOUT_CONNECTION: [u8; 6] = [0xAD, 0xAE, 0xE3, 0xE4, 0xED, 0xEE];
const RETURN_VALUE: u8 = 0xAC;
const ROW: u8 = 0xD1;
const NBC_ROW: u8 = 0xD2;

/// SQL_Latin1_General_CP1_CI_AS: without one mssql-tds does not take a login for done.
const COLLATION: Collation = Collation([0x09, 0x04, 0xD0, 0x00, 0x34]);

/// How far a client read a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// To its end, so many rows.
    Whole(u64),
    /// It refused it behind so many rows.
    Part(u64),
}

/// Which client reads a response.
#[derive(Debug, Clone, Copy)]
struct Login {
    /// One that has read others before, if there is one: a login costs more than the response. Else a new one.
    before: bool,
    /// It may read others after it, if it reads this one whole.
    stays: bool,
}

/// A client that is not ours.
struct Peer {
    name: &'static str,
    read: fn(&[u8], Login) -> Seen,
    /// Why it is not asked about these tokens: what the specification allows and this client takes for something else.
    excuse: fn(&[NaiveToken], &[u8]) -> Option<&'static str>,
    accepted: AtomicU64,
}

static PEERS: [Peer; 2] = [
    Peer {
        name: "tiberius",
        read: by_tiberius::read,
        excuse: by_tiberius::excuse,
        accepted: AtomicU64::new(0),
    },
    Peer {
        name: "mssql-tds",
        read: by_mssql_tds::read,
        excuse: by_mssql_tds::excuse,
        accepted: AtomicU64::new(0),
    },
];

/// Responses that the naive decoder has read whole.
static OFFERED: AtomicU64 = AtomicU64::new(0);

/// Responses offered so far; each client's name, and how many it accepted.
pub(crate) fn accepted() -> (u64, [(&'static str, u64); 2]) {
    let told = |peer: &Peer| (peer.name, peer.accepted.load(Ordering::Relaxed));
    (
        OFFERED.load(Ordering::Relaxed),
        [told(&PEERS[0]), told(&PEERS[1])],
    )
}

fn target(input: &[u8]) {
    let Some(stream) = response(input) else {
        return;
    };
    let options = WalkerOptions::new(VERSION);
    let (tokens, error) = decode(&stream, options);
    assert_eq!(error, None, "it was read before its DONE was mended");
    let (rows, _, _) = count(&stream, &[], options).unwrap_or_else(|e| panic!("the walker refuses it: {e}"));
    let plain = tokens.iter().filter(|t| matches!(t.token, ROW | NBC_ROW)).count() as u64;
    OFFERED.fetch_add(1, Ordering::Relaxed);
    for peer in &PEERS {
        if (peer.excuse)(&tokens, &stream).is_some() {
            continue;
        }
        let login = Login {
            before: true,
            stays: !tokens.iter().any(|t| ABOUT_CONNECTION.contains(&t.token)),
        };
        // Neither client shows the rows of COMPUTE, but each must get past them to see the others.
        let agrees = |seen| match seen {
            Seen::Whole(seen) => seen == plain && seen <= rows,
            Seen::Part(seen) => seen <= plain,
        };
        let mut seen = quietly(|| (peer.read)(&stream, login));
        if seen.is_some_and(|seen| !agrees(seen)) {
            // So that a find is of this input alone: only a client that is new can differ.
            let new = Login {
                before: false,
                ..login
            };
            seen = quietly(|| (peer.read)(&stream, new));
        }
        let name = peer.name;
        if let Some(seen) = seen {
            assert!(
                agrees(seen),
                "{name} sees {seen:?} rows of {plain}: {stream:02x?}"
            );
            peer.accepted
                .fetch_add(u64::from(matches!(seen, Seen::Whole(_))), Ordering::Relaxed);
        }
    }
}

/// What neither client reads as [MS-TDS 2.2.7.19] has it, and no server sends: these types cannot be returned.
const TEXT_RETURNED: &str = "a RETURNVALUE of the TEXT family has no text pointer; both clients read one";

/// True if there is such a RETURNVALUE.
fn returns_text(tokens: &[NaiveToken], stream: &[u8]) -> bool {
    // Token, ordinal, name; status, user type, flags; type.
    const NAME_AT: usize = 3;
    const TYPE_BEHIND_NAME: usize = 1 + 4 + 2;
    tokens.iter().filter(|t| t.token == RETURN_VALUE).any(|t| {
        let name_at = t.offset + NAME_AT;
        let name_len = usize::from(stream[name_at]) * 2;
        [0x22, 0x23, 0x63].contains(&stream[name_at + 1 + name_len + TYPE_BEHIND_NAME])
    })
}

/// A response that a server could end with: the input's, or one that the input builds and then changes in up to three
/// bytes. `None` where the naive decoder refuses it.
fn response(input: &[u8]) -> Option<Vec<u8>> {
    let mut source = Source::new(input);
    let first = source.byte();
    let mut stream = if first & BUILT == 0 {
        source.rest().to_vec()
    } else {
        let changes: Vec<[u8; 3]> = (0..first >> 1 & 3)
            .map(|_| std::array::from_fn(|_| source.byte()))
            .collect();
        let mut stream = built_response(source.rest());
        for [low, high, value] in changes {
            let at = usize::from(u16::from_le_bytes([low, high])) % stream.len().max(1);
            if let Some(byte) = stream.get_mut(at) {
                *byte = value;
            }
        }
        stream
    };
    let (tokens, error) = decode(&stream, WalkerOptions::new(VERSION));
    if error.is_some() {
        return None;
    }
    // A client stops at the first DONE that says nothing follows, and waits for one: all but the last say that more follows.
    for token in tokens.iter().filter(|t| DONES.contains(&t.token)) {
        let status = &mut stream[token.offset + 1];
        *status = *status & !DONE_ATTN | DONE_MORE;
    }
    let mut end = TokenBuf::new(VERSION);
    stream.extend_from_slice(end.done(0, 0, 0).as_bytes());
    Some(stream)
}

/// What the clients' own panics are is not asked here: `None`.
fn quietly(read: impl FnOnce() -> Seen) -> Option<Seen> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                told(info);
            }
        }));
    });
    QUIET.set(true);
    let seen = catch_unwind(AssertUnwindSafe(read));
    QUIET.set(false);
    seen.ok()
}

/// The messages of a server without TLS up to a login: the answers to PRELOGIN and LOGIN7.
fn welcome() -> &'static [BytesMut; 2] {
    static WELCOME: OnceLock<[BytesMut; 2]> = OnceLock::new();
    WELCOME.get_or_init(|| {
        let hello = Prelogin {
            version: [16, 0, 3, 232, 0, 0],
            encryption: Some(EncryptionOption::plain(Encryption::NotSup)),
            ..Prelogin::default()
        };
        let mut tokens = TokenBuf::new(VERSION);
        tokens
            .env_database("master", "")
            .env_collation(COLLATION, None)
            .env_language("us_english", "")
            .login_ack("test", [16, 0, 3, 232])
            .env_packet_size(DEFAULT_PACKET_SIZE, DEFAULT_PACKET_SIZE)
            .done(0, 0, 0);
        [&hello.encode(), tokens.as_bytes()].map(message)
    })
}

/// A server's message in packets.
fn message(body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    write_message(
        &mut out,
        PacketType::TabularResult,
        PacketStatus::NORMAL,
        DEFAULT_PACKET_SIZE,
        51,
        1,
        body,
    );
    out
}

/// Inputs of the walker as they are, those of the builder to be built; both of the version that the clients speak.
fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (name, first) in [("walker", 0), ("builder", BUILT)] {
        let Some(target) = named(name) else {
            continue;
        };
        for input in (target.seeds)().into_iter().chain(corpus(&target)) {
            let options = Source::new(&input).options();
            if name == "builder" || options == WalkerOptions::new(VERSION) {
                let behind = input.get(2..).unwrap_or_default();
                all.push([&[first], behind].concat());
            }
        }
    }
    all
}
