//! A leg's encryption: an honest peer behind a wire that the input tampers with, or nobody but the input.
//!
//! What comes out is what the peer said inside TLS, from its beginning and without a gap; nothing comes out of a handshake;
//! memory is that before login; and all is the same however the bytes are cut.

mod configurations;
mod rig;

use super::source::Source;
use configurations::Version;
use rig::Rig;
use weir_tds::prelogin::TlsScope;

/// Steps of one script at most.
const STEPS_MAX: usize = 24;

/// Bytes of a packet's body at most: more than a TLS record takes.
const BODY_MAX: usize = 20_000;
/// Bytes of a seed's injected piece.
const INJECTED: usize = 200;
/// TLS records that one packet is said in, about.
const RECORDS_MAX: usize = 16;

/// Bits of the first byte: the leg is the one towards the server; the handshake is whole; it is done before the steps begin.
const TOWARDS_SERVER: u8 = 1;
const WHOLE: u8 = 2;
const SHAKEN: u8 = 4;
/// The peer is silent: all that arrives is the input's.
const ALONE: u8 = 0x20;

/// What an input means: a leg, and what happens to it.
struct Script<'a> {
    towards_server: bool,
    resumed: bool,
    /// Login-only, all behind PRELOGIN; `None` is TDS 8.0.
    scope: Option<TlsScope>,
    version: Version,
    shaken: bool,
    alone: bool,
    steps: Vec<Step<'a>>,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// All that the peer wrote arrives, and the answers go back, until both rest.
    Converse,
    /// So many bytes arrive.
    Deliver(usize),
    /// The peer says this in one TLS record, if it has come so far.
    Say(&'a [u8]),
    /// The peer says one packet of so many bytes of body, in records of so many bytes.
    SayPacket(usize, usize),
    /// Bytes that the peer did not send, behind what it did.
    Inject(&'a [u8]),
    /// Another byte at a place of what is on its way.
    Change(usize, u8),
    /// So many bytes on their way are lost, from a place on.
    Lose(usize, usize),
    /// So many bytes on their way come twice.
    Repeat(usize, usize),
    /// The leg sends a packet with so many bytes of body.
    Send(usize),
    /// The peer changes its key, or says that nothing follows.
    Rekey,
    Close,
    /// The leg says that nothing follows; or it rests.
    Goodbye,
    Rest,
}

/// First byte: what the leg is; then steps.
pub(super) fn target(input: &[u8]) {
    let script = Script::read(input);
    let whole = Rig::play(&script, None);
    let pieced = Rig::play(&script, Some(super::oracle::fingerprint(input)));
    // No two handshakes have the same bytes, so where some are moved about the two runs are not alike.
    if !whole.is_blind() {
        assert_eq!(pieced.told(), whole.told(), "otherwise in pieces");
    }
}

impl<'a> Script<'a> {
    fn read(input: &'a [u8]) -> Self {
        let mut source = Source::new(input);
        let first = source.byte();
        let way = first >> 3 & 3;
        let scope = match way {
            0 => Some(TlsScope::LoginOnly),
            1 => Some(TlsScope::All),
            _ => None,
        };
        let mut script = Self {
            towards_server: first & TOWARDS_SERVER != 0,
            resumed: first & WHOLE == 0,
            scope,
            version: if way == 3 { Version::Tls13 } else { Version::Tls12 },
            shaken: first & SHAKEN != 0 && first & ALONE == 0,
            alone: first & ALONE != 0,
            steps: Vec::new(),
        };
        while !source.is_empty() && script.steps.len() < STEPS_MAX {
            script.steps.push(step(&mut source));
        }
        script
    }
}

fn step<'a>(source: &mut Source<'a>) -> Step<'a> {
    match source.byte() % 16 {
        0 | 1 => Step::Converse,
        2 => Step::Deliver(source.byte().into()),
        3 => {
            let n = source.byte().into();
            Step::Say(source.take(n))
        }
        4 | 5 => {
            let (body, record) = (source.short(), source.byte());
            let body = usize::from(body) % BODY_MAX;
            Step::SayPacket(body, (usize::from(record) * 64).max(body / RECORDS_MAX + 1))
        }
        6 | 7 => {
            let n = source.byte().into();
            Step::Inject(source.take(n))
        }
        8 | 9 => Step::Change(source.short().into(), source.byte()),
        10 => Step::Lose(source.short().into(), source.byte().into()),
        11 => Step::Repeat(source.short().into(), source.byte().into()),
        12 => Step::Send(usize::from(source.short()) % 4_000),
        13 => Step::Rekey,
        14 => Step::Close,
        _ => {
            if source.byte() & 1 == 0 {
                Step::Goodbye
            } else {
                Step::Rest
            }
        }
    }
}

/// Every kind of leg with every kind of step, and bytes of handshakes that nobody made.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let steps: [&[u8]; 13] = [
        &[0],
        &[4, 40, 0, 255, 0],
        &[4, 160, 15, 8, 0],
        &[0, 3, 9, 16, 1, 0, 9, 0, 0, 1, 0, 7, 0],
        &[0, 4, 40, 0, 255, 0, 12, 40, 0, 4, 90, 0, 255, 0, 12, 9, 1, 0],
        &[4, 40, 0, 255, 8, 9, 0, 1, 0],
        &[4, 40, 0, 255, 6, 9, 16, 1, 0, 9, 0, 0, 1, 0, 7, 0],
        &[13, 4, 40, 0, 255, 0, 14, 0],
        &[4, 40, 0, 255, 11, 0, 0, 200, 0],
        &[4, 40, 0, 255, 10, 3, 0, 1, 0],
        &[15, 0, 0, 15, 1, 4, 40, 0, 255, 0],
        &[8, 60, 0, 1, 2, 80, 0],
        &[0, 14, 6, 6, 23, 3, 3, 0, 1, 0, 0],
    ];
    let mut all = Vec::new();
    for first in 0..32u8 {
        all.extend(steps.iter().map(|steps| [&[first], *steps].concat()));
    }
    let hellos = [
        (Version::Tls12, false),
        (Version::Tls13, false),
        (Version::Tls12, true),
    ];
    let mut alone: Vec<Vec<u8>> = hellos.map(|(version, resumed)| hello(version, resumed)).into();
    alone.extend(
        [
            &[22u8, 3, 1, 0, 4, 1, 0, 0, 0][..],
            &[21, 3, 3, 0, 2, 2, 40],
            &[20, 3, 3, 0, 1, 1],
            &[23, 3, 3, 0x48, 0],
        ]
        .map(<[u8]>::to_vec),
    );
    for bytes in alone {
        let mut wrapped = vec![
            0x12,
            1,
            0,
            u8::try_from(bytes.len() + 8).unwrap_or(u8::MAX),
            0,
            0,
            0,
            0,
        ];
        wrapped.extend_from_slice(&bytes);
        for (first, bytes) in [
            (0, &wrapped),
            (8, &wrapped),
            (9, &wrapped),
            (16, &bytes),
            (24, &bytes),
            (25, &bytes),
        ] {
            let mut input = vec![ALONE | first];
            for piece in bytes.chunks(INJECTED) {
                input.extend([6, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
                input.extend_from_slice(piece);
            }
            input.extend([0, 6, 5, 21, 3, 3, 0, 2, 0]);
            all.push(input);
        }
    }
    all
}

/// What a client says first.
fn hello(version: Version, resumed: bool) -> Vec<u8> {
    let mut hello = Vec::new();
    let mut client = configurations::client(version, resumed);
    while client.wants_write() {
        client.write_tls(&mut hello).expect("memory takes all");
    }
    hello
}
