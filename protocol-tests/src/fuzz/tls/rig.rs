//! Plays a script: a leg, the wire, and the peer at its other end.

use std::io::{IoSlice, Read, Write};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use rustls::Connection;
use weir_proxy::session::leg::{Leg, LegError};
use weir_proxy::session::out::{Out, PIECES_PER_WRITE};
use weir_tds::message::write_message;
use weir_tds::packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PACKET_SIZE_MAX, PacketStatus, PacketType};
use weir_tds::prelogin::TlsScope;

use super::configurations::{client, reseed, server};
use super::{Script, Step};
use crate::allocation::{live, peak};
use crate::fuzz::oracle;

/// Turns of one conversation at most: a handshake takes four.
const TURNS_MAX: usize = 32;
/// Pieces that come: up to this part of what is there, but up to so many bytes where that is less.
const PIECE_PART: usize = 4;
/// As above.
const PIECE_LEAST: usize = 9;
/// TLS record types, with which nothing else on the wire begins.
const RECORDS: std::ops::RangeInclusive<u8> = 20..=23;

/// A leg with a peer, and what both have seen.
pub(super) struct Rig {
    leg: Leg,
    scope: Option<TlsScope>,
    towards_server: bool,
    alone: bool,
    /// Bytes of the peer's were moved about.
    blind: bool,
    peer: Connection,
    /// The peer's handshake is done, and so is the wrapping of what it writes.
    peer_is_done: bool,
    /// On its way to the leg, and bytes that have come.
    wire: Vec<u8>,
    received: usize,
    /// Bytes that the leg was given to send.
    sent: Vec<u8>,
    /// Bytes that the peer said inside TLS, and whether the wire is as it wrote it.
    said: Vec<u8>,
    tampered: bool,
    peer_closed: bool,
    /// What the peer made of the leg's bytes: the rest that is no whole unit yet, those inside TLS, those in the clear.
    answers: Vec<u8>,
    heard: Vec<u8>,
    clear: Vec<u8>,
    peer_refuses: bool,
    error: Option<String>,
    /// The leg has said that nothing follows: it reads no more, as in a session. (rustls built for debugging asserts that it
    /// then meets no broken record.)
    gone: bool,
    /// Bytes that the leg keeps allocated.
    kept: isize,
    cuts: Option<Rng>,
}

impl Rig {
    /// Plays a whole script; with a seed, what arrives is cut.
    pub(super) fn play(script: &Script<'_>, cuts: Option<u64>) -> Self {
        reseed();
        let before = live();
        let ours = if script.towards_server {
            client(script.version, script.resumed)
        } else {
            server(script.version)
        };
        let kept = live() - before;
        let peer = if script.towards_server {
            server(script.version)
        } else {
            client(script.version, script.resumed)
        };
        let mut rig = Self {
            leg: Leg::new(),
            scope: script.scope,
            towards_server: script.towards_server,
            alone: script.alone,
            blind: false,
            peer,
            peer_is_done: false,
            wire: Vec::new(),
            received: 0,
            sent: Vec::new(),
            said: Vec::new(),
            tampered: false,
            peer_closed: false,
            answers: Vec::new(),
            heard: Vec::new(),
            clear: Vec::new(),
            peer_refuses: false,
            error: None,
            gone: false,
            kept,
            cuts: cuts.map(Rng::with_seed),
        };
        rig.with_leg(|leg| leg.start_tls(ours, script.scope));
        rig.hear();
        rig.write();
        if script.shaken {
            rig.converse();
            assert_eq!(rig.error, None, "an honest handshake");
            assert!(!rig.leg.is_handshaking() && rig.peer_is_done, "it does not end");
        }
        for step in &script.steps {
            if rig.error.is_some() || rig.gone {
                break;
            }
            rig.step(*step);
            rig.holds();
        }
        rig
    }

    /// True if how the leg ends depends on the bytes of keys and ciphers.
    pub(super) fn is_blind(&self) -> bool {
        self.blind && !self.alone
    }

    /// All that is there to compare: what came out, what went out, and how it ended. Where login-only encryption is over,
    /// records that came too late lie there as they are: only how many bytes is the same in another handshake.
    pub(super) fn told(&self) -> impl PartialEq + std::fmt::Debug {
        let state = (
            self.leg.is_handshaking(),
            self.leg.is_encrypted(),
            self.leg.is_strict(),
            self.leg.is_closed(),
        );
        let plain = self.leg.plain();
        let came_out = if self.is_login_only() && self.tampered {
            (plain.len(), self.inside().to_vec())
        } else {
            (plain.len(), plain.to_vec())
        };
        let bytes = (came_out, self.heard.clone(), self.clear.clone());
        (state, bytes, self.error.clone())
    }

    fn is_login_only(&self) -> bool {
        self.scope == Some(TlsScope::LoginOnly)
    }

    /// What came out of TLS. With login-only encryption that is a client's first packet, and nothing of a server's.
    fn inside(&self) -> &[u8] {
        let plain = &self.leg.plain()[..];
        match (self.is_login_only(), self.towards_server) {
            (false, _) => plain,
            (true, false) => &plain[..first_packet(plain).min(plain.len())],
            (true, true) => &[],
        }
    }

    /// True once login-only encryption is over for an honest peer.
    fn peer_speaks_clear(&self) -> bool {
        self.is_login_only()
            && if self.towards_server {
                !self.heard.is_empty()
            } else {
                self.said.len() >= first_packet(&self.said)
            }
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Converse => self.converse(),
            Step::Deliver(n) => {
                self.arrive(n);
                self.hear();
                self.write();
            }
            Step::Say(bytes) => self.say(bytes, bytes.len().max(1)),
            Step::SayPacket(body, record) => {
                let body = vec![7; body];
                let packet = packet(PacketType::Login7, &body);
                self.say(&packet, record);
            }
            Step::Inject(bytes) => {
                self.tampered |= !bytes.is_empty();
                self.blind |= self.leg.is_handshaking();
                self.wire.extend_from_slice(bytes);
            }
            Step::Change(at, value) => {
                if let Some(len) = self.wire.len().checked_sub(1) {
                    (self.tampered, self.blind) = (true, true);
                    self.wire[at % (len + 1)] = value;
                }
            }
            Step::Lose(at, n) => {
                let (from, to) = self.place(at, n);
                self.tampered |= from < to;
                self.blind |= from < to;
                self.wire.drain(from..to);
            }
            Step::Repeat(at, n) => {
                let (from, to) = self.place(at, n);
                self.tampered |= from < to;
                self.blind |= from < to;
                let again = self.wire[from..to].to_vec();
                self.wire.splice(to..to, again);
            }
            Step::Send(body) => self.send(&packet(PacketType::TabularResult, &vec![9; body])),
            Step::Rekey => {
                // TLS 1.2 cannot, and says so.
                let _rekeyed = self.peer_is_done && self.peer.refresh_traffic_keys().is_ok();
                self.write();
            }
            Step::Close => {
                if self.peer_is_done && !self.peer_speaks_clear() {
                    // Where the login is all that is encrypted, nobody says so.
                    self.tampered |= self.is_login_only();
                    self.peer.send_close_notify();
                    self.peer_closed = true;
                    self.write();
                }
            }
            Step::Goodbye => {
                self.leg.say_goodbye();
                self.gone = true;
                self.hear();
            }
            Step::Rest => self.with_leg(|leg| {
                leg.release_idle(&weir_proxy::session::Blocks::keeping(0));
                Ok(())
            }),
        }
    }

    fn place(&self, at: usize, n: usize) -> (usize, usize) {
        let from = at.min(self.wire.len());
        (from, (from + n).min(self.wire.len()))
    }

    /// Everything arrives and is answered, until nothing moves.
    fn converse(&mut self) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "they do not come to rest");
            self.arrive(usize::MAX);
            self.hear();
            self.write();
            if self.wire.is_empty() || self.error.is_some() {
                return;
            }
        }
    }

    /// The first bytes on their way arrive: at once, or in pieces.
    fn arrive(&mut self, n: usize) {
        let rest = self.wire.split_off(n.min(self.wire.len()));
        let come = std::mem::replace(&mut self.wire, rest);
        let mut come = &come[..];
        while !come.is_empty() && self.error.is_none() {
            let most = come.len();
            let n = match &mut self.cuts {
                Some(rng) => rng.usize(1..=(most / PIECE_PART).max(PIECE_LEAST).min(most)),
                None => most,
            };
            let (piece, later) = come.split_at(n);
            come = later;
            self.received += piece.len();
            self.with_leg(|leg| {
                leg.read_buf().extend_from_slice(piece);
                leg.ingest()
            });
        }
    }

    /// Whatever the leg does stays within what was received, its own memory included.
    fn with_leg(&mut self, work: impl FnOnce(&mut Leg) -> Result<(), LegError>) {
        let before = live();
        let (done, most) = peak(|| work(&mut self.leg));
        let most = isize::try_from(most).unwrap_or(isize::MAX) + self.kept;
        self.kept += live() - before;
        let limit = oracle::FREE_BYTES + oracle::BYTES_PER_BYTE * self.received;
        assert!(
            most <= isize::try_from(limit).unwrap_or(isize::MAX),
            "{most} bytes for {} received",
            self.received
        );
        if let Err(error) = done {
            // What exactly TLS found wrong hangs on bytes that are other ones in every handshake.
            self.error = Some(match error {
                LegError::Tls(_) => "TLS".to_owned(),
                other => other.to_string(),
            });
        }
    }

    /// The peer says this inside TLS, in records of so many bytes.
    fn say(&mut self, bytes: &[u8], record: usize) {
        if !self.peer_is_done || self.peer_closed {
            return;
        }
        self.tampered |= self.is_login_only() && self.towards_server && !self.peer_speaks_clear();
        for record in bytes.chunks(record) {
            // A login's first packet may end with a record in the midst of what is said.
            if self.peer_speaks_clear() {
                self.wire.extend_from_slice(record);
            } else {
                self.peer.writer().write_all(record).expect("memory takes all");
                self.write();
            }
            self.said.extend_from_slice(record);
        }
    }

    /// What the peer has to write goes on the wire, in PRELOGIN packets where its handshake is.
    fn write(&mut self) {
        let mut flight = Vec::new();
        while self.peer.wants_write() {
            self.peer.write_tls(&mut flight).expect("memory takes all");
        }
        if self.alone {
            return;
        }
        if self.scope.is_some() && !self.peer_is_done && !flight.is_empty() {
            flight = packet(PacketType::Prelogin, &flight).to_vec();
        }
        self.wire.extend_from_slice(&flight);
        self.peer_is_done |= !self.peer.is_handshaking();
    }

    /// The leg sends a packet, as one that is logged in or logs in would.
    fn send(&mut self, packet: &Bytes) {
        let too_early = self.is_login_only()
            && !self.towards_server
            && self.leg.plain().len() < first_packet(self.leg.plain());
        if self.leg.is_handshaking() || self.leg.is_closed() || too_early {
            return;
        }
        // What it takes for that is as much as the packet, which nobody sent it: it is not bounded here.
        let before = live();
        let sent = self.leg.send(packet.clone());
        self.kept += live() - before;
        assert!(sent.is_ok(), "{sent:?}");
        self.sent.extend_from_slice(packet);
        self.hear();
    }

    /// The peer takes what the leg wrote: packets of the handshake, records, and what is in the clear.
    fn hear(&mut self) {
        let (before, room) = (live(), self.answers.capacity());
        drain(&mut self.leg.out, &mut self.answers);
        // What the leg gave back; the rig's own is not the leg's.
        self.kept += live() - before - (self.answers.capacity() - room).cast_signed();
        while let Some(first) = self.answers.first() {
            let record = RECORDS.contains(first);
            let handshake = *first == PacketType::Prelogin.byte();
            if !record && !handshake {
                self.clear.append(&mut self.answers);
                return;
            }
            let length = |at: usize| {
                self.answers
                    .get(at..at + 2)
                    .map(|n| usize::from(n[0]) << 8 | usize::from(n[1]))
            };
            let whole = if record {
                length(3).map(|n| n + 5)
            } else {
                length(2)
            };
            let Some(whole) = whole.filter(|n| *n <= self.answers.len()) else {
                panic!("the leg wrote a part of a record or packet");
            };
            let unit: Vec<u8> = self.answers.drain(..whole).collect();
            let skipped = if handshake { HEADER_LEN } else { 0 };
            self.peer_takes(&unit[skipped..]);
        }
    }

    fn peer_takes(&mut self, mut records: &[u8]) {
        while !records.is_empty() && !self.peer_refuses {
            let read = self.peer.read_tls(&mut records).is_ok_and(|n| n > 0);
            match self.peer.process_new_packets() {
                Ok(state) if read => {
                    let start = self.heard.len();
                    self.heard.resize(start + state.plaintext_bytes_to_read(), 0);
                    self.peer
                        .reader()
                        .read_exact(&mut self.heard[start..])
                        .expect("it is there");
                }
                _ => self.peer_refuses = true,
            }
        }
    }

    /// What must hold behind each step.
    fn holds(&self) {
        let plain = &self.leg.plain()[..];
        if self.leg.is_handshaking() {
            assert!(plain.is_empty(), "bytes came out of a handshake");
        }
        assert!(self.said.starts_with(self.inside()), "what came out was not said");
        if !self.peer_refuses && self.error.is_none() {
            let told = [&self.heard[..], &self.clear[..]].concat();
            assert!(self.sent.starts_with(&told), "the peer was told something else");
            assert!(self.tampered || told == self.sent, "the peer was told less");
        }
        if self.tampered || !self.wire.is_empty() {
            return;
        }
        if self.error.is_none() {
            assert_eq!((plain, self.leg.is_closed()), (&self.said[..], self.peer_closed));
        }
        // A login packet and what follows it may be said at once, which is refused.
        assert!(
            self.is_login_only() || self.error.is_none(),
            "nobody tampered: {:?}",
            self.error
        );
    }
}

/// Bytes of the packet that `bytes` begin with, as its header says; more than there are while that has not come.
fn first_packet(bytes: &[u8]) -> usize {
    let length = bytes
        .get(2..4)
        .map(|n| usize::from(n[0]) << 8 | usize::from(n[1]));
    length.map_or(usize::MAX, |length| length.max(HEADER_LEN))
}

fn packet(kind: PacketType, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    let size = if kind == PacketType::Prelogin {
        DEFAULT_PACKET_SIZE
    } else {
        PACKET_SIZE_MAX
    };
    write_message(&mut out, kind, PacketStatus::NORMAL, size, 0, 1, body);
    out.freeze()
}

fn drain(out: &mut Out, to: &mut Vec<u8>) {
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let used = out.slices(&mut slices);
        let written: usize = slices[..used].iter().map(|slice| slice.len()).sum();
        slices[..used]
            .iter()
            .for_each(|slice| to.extend_from_slice(slice));
        out.advance(written);
    }
}
