//! What happens around a session, read off an input.

use weir_tds::packet::PacketType;
use weir_tds::version::TdsVersion;

use crate::fuzz::source::{Source, VERSIONS};

/// Steps of one script at most.
const STEPS_MAX: usize = 24;

/// Bit of the first byte: the connection has MARS, and the login is the rig's.
pub(in crate::fuzz) const MARS: u8 = 0x20;

/// How a script begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuzz) enum Opening {
    /// With the first byte of the client: the login is the input's, too.
    FromInput,
    /// Logged in.
    LoggedIn,
}

/// A script: five bytes of setting, then steps. Of the first byte: bit 0 the opening, 1 to 3 the version,
/// 4 small chunks, 5 MARS.
pub(in crate::fuzz) struct Script<'a> {
    pub(super) opening: Opening,
    pub(super) version: TdsVersion,
    pub(super) policy: u8,
    pub(super) prices: u8,
    pub(super) credit_nanos: i64,
    pub(super) small_chunks: bool,
    pub(super) mars: bool,
    pub(super) steps: Vec<Step<'a>>,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuzz) enum Step<'a> {
    /// The client sends bytes as they are.
    Client(&'a [u8]),
    /// The client sends one packet with this body: type, status. Under MARS the two high bits of the status name the session.
    ClientPacket(u8, u8, &'a [u8]),
    /// The server sends bytes as they are.
    Server(&'a [u8]),
    /// The server sends one packet of a response with this body: status.
    ServerPacket(u8, &'a [u8]),
    /// Billing gives more, so many thousand nano-units.
    Grant(u8),
    /// Billing gives no more.
    Deny,
    /// The client reads nothing from here on, or reads again.
    ClientReads(bool),
    /// The deadline in force passes.
    Deadline,
    /// A socket closes.
    ClientCloses,
    /// As above.
    ServerCloses,
    /// The gateway stops.
    Stop,
    /// Time passes, so many milliseconds.
    Wait(u8),
    /// The client closes one session; only under MARS.
    Fin(u8),
}

/// Packet types of a client, by what an input chooses.
const CLIENT_TYPES: [PacketType; 8] = [
    PacketType::SqlBatch,
    PacketType::Rpc,
    PacketType::Attention,
    PacketType::BulkLoad,
    PacketType::TransactionManager,
    PacketType::Login7,
    PacketType::Prelogin,
    PacketType::Sspi,
];

impl<'a> Script<'a> {
    pub(in crate::fuzz) fn read(input: &'a [u8]) -> Self {
        let mut source = Source::new(input);
        let first = source.byte();
        let mars = first & MARS != 0;
        let mut script = Self {
            opening: if mars || first & 1 == 0 {
                Opening::LoggedIn
            } else {
                Opening::FromInput
            },
            // A gate meters nothing older than 7.1, and 8.0 begins with TLS.
            version: VERSIONS[usize::from(first >> 1 & 7)].clamp(TdsVersion::V7_1, TdsVersion::V7_4),
            small_chunks: first & 0x10 != 0,
            policy: source.byte(),
            prices: source.byte(),
            credit_nanos: i64::from(source.short()) * 50,
            mars,
            steps: Vec::new(),
        };
        while !source.is_empty() && script.steps.len() < STEPS_MAX {
            let step = read_step(&mut source);
            script.steps.push(step);
        }
        script
    }

    /// The input of which [`Script::read`] makes a script of these settings and steps.
    pub(in crate::fuzz) fn write(
        first: u8,
        policy: u8,
        prices: u8,
        credit: u16,
        steps: &[Step<'_>],
    ) -> Vec<u8> {
        let mut out = vec![first, policy, prices];
        out.extend(credit.to_le_bytes());
        let sized = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        for step in steps {
            match step {
                Step::ClientPacket(kind, status, body) => {
                    let kind = CLIENT_TYPES.iter().position(|k| k.byte() == *kind).unwrap_or(0);
                    out.extend([0, u8::try_from(kind).unwrap_or(0), *status]);
                    sized(&mut out, body);
                }
                Step::ServerPacket(status, body) => {
                    out.extend([2, *status]);
                    sized(&mut out, body);
                }
                Step::Client(bytes) => {
                    out.push(4);
                    sized(&mut out, bytes);
                }
                Step::Server(bytes) => {
                    out.push(5);
                    sized(&mut out, bytes);
                }
                Step::Grant(n) => out.extend([6, *n]),
                Step::Deny => out.push(7),
                Step::ClientReads(reads) => out.extend([8, u8::from(*reads)]),
                Step::Deadline => out.push(9),
                Step::ClientCloses => out.push(10),
                Step::ServerCloses => out.push(11),
                Step::Stop => out.push(12),
                Step::Wait(n) => out.extend([13, *n]),
                Step::Fin(sid) => out.extend([14, *sid]),
            }
        }
        out
    }

    /// True if the client may ask for one of the gate's own answers.
    pub(super) fn asks_the_gate(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Client(bytes) | Step::ClientPacket(_, _, bytes) => {
                let letters: Vec<u8> = bytes
                    .iter()
                    .filter(|b| **b != 0)
                    .map(u8::to_ascii_lowercase)
                    .collect();
                letters.windows(4).any(|w| w == b"weir")
            }
            _ => false,
        })
    }
}

fn read_step<'a>(source: &mut Source<'a>) -> Step<'a> {
    let sized = |source: &mut Source<'a>| {
        let n = usize::from(source.short());
        source.take(n)
    };
    match source.byte() % 15 {
        0 | 1 => {
            let kind = CLIENT_TYPES[source.below(CLIENT_TYPES.len())].byte();
            let status = source.byte();
            Step::ClientPacket(kind, status, sized(source))
        }
        2 | 3 => {
            let status = source.byte();
            Step::ServerPacket(status, sized(source))
        }
        4 => Step::Client(sized(source)),
        5 => Step::Server(sized(source)),
        6 => Step::Grant(source.byte()),
        7 => Step::Deny,
        8 => Step::ClientReads(source.byte() & 1 == 1),
        9 => Step::Deadline,
        10 => Step::ClientCloses,
        11 => Step::ServerCloses,
        12 => Step::Stop,
        13 => Step::Wait(source.byte()),
        _ => Step::Fin(source.byte()),
    }
}
