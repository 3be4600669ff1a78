//! SMP [MC-SMP]: every vector read as it says, however its bytes are cut; both ends together; what is refused.

use std::collections::HashMap;

use fastrand::Rng;
use weir_protocol_tests::vectors::{self, Vector};
use weir_tds::smp::{
    End, Received, SESSIONS_MAX, SMP_HEADER_LEN, Sessions, SmpError, SmpFlag, SmpHeader, WINDOW,
};

fn smp_vectors() -> Vec<Vector> {
    let found: Vec<Vector> = vectors::load()
        .into_iter()
        .filter(|v| v.layer == "smp-stream")
        .collect();
    assert!(found.len() >= 3, "only {} vectors of SMP", found.len());
    found
}

/// What an end saw: packets in order, and each session's bytes.
type Seen = (Vec<SmpHeader>, HashMap<u16, Vec<u8>>);

/// Reads a stream that comes in `pieces`; the reader's application takes everything at once.
fn read<'a>(sessions: &mut Sessions, pieces: impl Iterator<Item = &'a [u8]>) -> Result<Seen, SmpError> {
    let (mut buffered, mut packets, mut bytes) = (Vec::new(), Vec::new(), HashMap::<u16, Vec<u8>>::new());
    for piece in pieces {
        buffered.extend_from_slice(piece);
        while let Some(header) = sessions.peek(&buffered)? {
            let length = header.length as usize;
            if buffered.len() < length {
                break;
            }
            let packet: Vec<u8> = buffered.drain(..length).collect();
            if let Received::Data(sid, len) = sessions.receive(&header)? {
                assert_eq!(len, packet.len() - SMP_HEADER_LEN);
                bytes
                    .entry(sid)
                    .or_default()
                    .extend_from_slice(&packet[SMP_HEADER_LEN..]);
                sessions.window(sid).unwrap().taken(0);
            }
            packets.push(header);
        }
    }
    assert!(buffered.is_empty(), "{} bytes were left", buffered.len());
    Ok((packets, bytes))
}

fn reader_of(vector: &Vector) -> Sessions {
    if vector.is_response() {
        let mut sessions = Sessions::new(End::Client, 4096);
        for sid in 0..2 {
            sessions.open(sid).unwrap();
        }
        sessions
    } else {
        Sessions::new(End::Server, 4096)
    }
}

/// Headers and their flags [MC-SMP 2.2.1, 2.2.1.1].
#[test]
fn every_vector_reads_as_it_says_however_it_is_cut() {
    for vector in smp_vectors() {
        let name = &vector.name;
        let whole = read(&mut reader_of(&vector), std::iter::once(&vector.bytes[..])).unwrap();
        let expected = vector.expected["smp"].as_array().unwrap();
        assert_eq!(whole.0.len(), expected.len(), "{name}");
        for (header, says) in whole.0.iter().zip(expected) {
            let number = |field: &str| says[field].as_u64().unwrap();
            assert_eq!(u64::from(header.flag.byte()), number("flags"), "{name}");
            assert_eq!(u64::from(header.sid), number("sid"), "{name}");
            assert_eq!(u64::from(header.length), number("length"), "{name}");
            assert_eq!(u64::from(header.seqnum), number("seqnum"), "{name}");
            assert_eq!(u64::from(header.window), number("wndw"), "{name}");
            assert_eq!(header.data_len() as u64, number("data_len"), "{name}");
            assert_eq!(
                SmpHeader::parse(&header.encode()).unwrap(),
                Some(*header),
                "{name}"
            );
        }
        for at in 0..=vector.bytes.len() {
            let (left, right) = vector.bytes.split_at(at);
            let cut = read(&mut reader_of(&vector), [left, right].into_iter()).unwrap();
            assert_eq!(cut, whole, "{name} cut at {at}");
        }
        let single = read(&mut reader_of(&vector), vector.bytes.chunks(1)).unwrap();
        assert_eq!(single, whole, "{name} byte by byte");
    }
}

/// One end with its application: what it still has to send and what it got.
struct Peer {
    sessions: Sessions,
    wire: Vec<u8>,
    to_send: HashMap<u16, Vec<u8>>,
    got: HashMap<u16, Vec<u8>>,
    /// Bytes of each session that came and that the application has not taken.
    waiting: HashMap<u16, usize>,
}

impl Peer {
    fn new(end: End) -> Self {
        Self {
            sessions: Sessions::new(end, 512),
            wire: Vec::new(),
            to_send: HashMap::new(),
            got: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    fn send_some(&mut self, rng: &mut Rng) {
        for (&sid, bytes) in &mut self.to_send {
            let Some(window) = self.sessions.window(sid) else {
                continue;
            };
            while window.can_send() && !bytes.is_empty() && rng.u8(..4) > 0 {
                let len = rng.usize(1..=bytes.len().min(512));
                self.wire.extend_from_slice(&window.data(len).unwrap().encode());
                self.wire.extend(bytes.drain(..len));
            }
        }
    }

    /// Takes what of the other's wire came, all but a random rest.
    fn receive_some(&mut self, from: &mut Vec<u8>, rng: &mut Rng) {
        while let Some(header) = self.sessions.peek(from).unwrap() {
            if from.len() < header.length as usize || rng.u8(..8) == 0 {
                return;
            }
            let packet: Vec<u8> = from.drain(..header.length as usize).collect();
            if let Received::Data(sid, len) = self.sessions.receive(&header).unwrap() {
                self.got
                    .entry(sid)
                    .or_default()
                    .extend_from_slice(&packet[SMP_HEADER_LEN..]);
                *self.waiting.entry(sid).or_default() += len;
            }
        }
    }

    fn take_some(&mut self, rng: &mut Rng) {
        for (&sid, waiting) in &mut self.waiting {
            assert!(
                *waiting <= WINDOW as usize * 512,
                "more waits than the window allows"
            );
            *waiting = rng.usize(0..=*waiting);
            let window = self.sessions.window(sid).unwrap();
            window.taken(*waiting);
            if let Some(ack) = window.acknowledge() {
                self.wire.extend_from_slice(&ack.encode());
            }
        }
    }
}

#[test]
fn two_ends_pass_every_byte_of_every_session_and_neither_is_ever_stuck() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let (mut client, mut server) = (Peer::new(End::Client), Peer::new(End::Server));
        for sid in 0..rng.u16(1..=5) {
            let syn = client.sessions.open(sid).unwrap();
            client.wire.extend_from_slice(&syn.encode());
            for peer in [&mut client, &mut server] {
                let len = rng.usize(0..20_000);
                let bytes = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
                peer.to_send.insert(sid, bytes);
            }
        }
        let (up, down) = (client.to_send.clone(), server.to_send.clone());
        let mut turns = 0;
        let sent = |peer: &Peer| peer.wire.is_empty() && peer.to_send.values().all(Vec::is_empty);
        while !sent(&client) || !sent(&server) {
            turns += 1;
            assert!(turns < 20_000, "seed {seed}: the ends wait for each other");
            client.send_some(&mut rng);
            server.receive_some(&mut client.wire, &mut rng);
            server.take_some(&mut rng);
            server.send_some(&mut rng);
            client.receive_some(&mut server.wire, &mut rng);
            client.take_some(&mut rng);
        }
        let all = |sent: HashMap<u16, Vec<u8>>| -> HashMap<u16, Vec<u8>> {
            sent.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect()
        };
        assert_eq!((server.got, client.got), (all(up), all(down)), "seed {seed}");
    }
}

fn packet(flag: SmpFlag, sid: u16, seqnum: u32, window: u32) -> SmpHeader {
    SmpHeader::control(flag, sid, seqnum, window)
}

fn server_with_session() -> Sessions {
    let mut sessions = Sessions::new(End::Server, 512);
    sessions.receive(&packet(SmpFlag::Syn, 7, 0, 4)).unwrap();
    sessions
}

/// Each ends the connection [MC-SMP 3.1.5.1].
#[test]
fn abuse_is_refused() {
    use SmpFlag::{Ack, Data, Fin, Syn};
    let refused = |packets: &[SmpHeader]| {
        let mut sessions = server_with_session();
        let mut last = None;
        for packet in packets {
            assert!(last.is_none(), "refused before the last packet: {last:?}");
            last = sessions.receive(packet).err();
        }
        last
    };
    let sid = 7;
    assert_eq!(
        refused(&[packet(Syn, sid, 0, 4)]),
        Some(SmpError::AlreadyOpen(sid))
    );
    assert_eq!(
        refused(&[packet(Syn, 8, 1, 4)]),
        Some(SmpError::SynNumbered { sid: 8, seqnum: 1 })
    );
    for flag in [Data, Ack, Fin] {
        assert_eq!(
            refused(&[packet(flag, 8, 1, 4)]),
            Some(SmpError::UnknownSession(8))
        );
    }
    for seqnum in [0, 2, u32::MAX] {
        let expected = 1;
        assert_eq!(
            refused(&[packet(Data, sid, seqnum, 4)]),
            Some(SmpError::Sequence {
                sid,
                seqnum,
                expected
            })
        );
    }
    assert_eq!(
        refused(&[packet(Ack, sid, 1, 4)]),
        Some(SmpError::Sequence {
            sid,
            seqnum: 1,
            expected: 0
        })
    );
    // Nobody took the four that came.
    let five: Vec<SmpHeader> = (1..=5).map(|n| packet(Data, sid, n, 4)).collect();
    assert_eq!(
        refused(&five),
        Some(SmpError::BeyondWindow {
            sid,
            seqnum: 5,
            window: 4
        })
    );
    for flag in [Ack, Data] {
        assert_eq!(
            refused(&[packet(flag, sid, u32::from(flag == Data), 3)]),
            Some(SmpError::WindowBack { sid, from: 4, to: 3 })
        );
    }
    for flag in [Data, Ack, Fin] {
        let again = packet(flag, sid, u32::from(flag == Data), 4);
        assert_eq!(
            refused(&[packet(Fin, sid, 0, 4), again]),
            Some(SmpError::AfterFin(sid))
        );
    }
}

/// Which end opens [MC-SMP 3.2, 3.3.2.2].
#[test]
fn only_clients_open_sessions_and_not_without_end() {
    let mut client = Sessions::new(End::Client, 512);
    assert_eq!(
        client.receive(&packet(SmpFlag::Syn, 3, 0, 4)),
        Err(SmpError::SynFromServer(3))
    );
    let mut server = Sessions::new(End::Server, 512);
    for sid in 0..=u16::try_from(SESSIONS_MAX).unwrap() {
        let opened = server.receive(&packet(SmpFlag::Syn, sid, 0, 4));
        if usize::from(sid) < SESSIONS_MAX {
            assert_eq!(opened, Ok(Received::Opened(sid)));
        } else {
            let limit = SESSIONS_MAX;
            assert_eq!(opened, Err(SmpError::TooManySessions { limit }));
        }
    }
}

#[test]
fn broken_headers_are_refused_from_the_byte_that_breaks_them() {
    let sessions = server_with_session();
    assert_eq!(sessions.peek(&[]), Ok(None));
    assert_eq!(sessions.peek(&[0x12]), Err(SmpError::Smid(0x12)));
    assert_eq!(sessions.peek(&[0x53]), Ok(None));
    for flags in [0x00, 0x03, 0x0F, 0x10, 0x88, 0xFF] {
        assert_eq!(sessions.peek(&[0x53, flags]), Err(SmpError::Flags(flags)));
    }
    let with_length = |flag: SmpFlag, length: u32| {
        let mut header = packet(flag, 7, 1, 4);
        header.length = length;
        sessions.peek(&header.encode()).map(|h| h.map(|h| h.length))
    };
    for flag in [SmpFlag::Syn, SmpFlag::Ack, SmpFlag::Fin] {
        assert_eq!(with_length(flag, 16), Ok(Some(16)));
        assert!(matches!(with_length(flag, 17), Err(SmpError::Length { .. })));
    }
    assert_eq!(with_length(SmpFlag::Data, 16), Ok(Some(16)));
    assert_eq!(with_length(SmpFlag::Data, 512 + 16), Ok(Some(528)));
    for length in [0, 15, 512 + 17, u32::MAX] {
        assert!(
            matches!(with_length(SmpFlag::Data, length), Err(SmpError::Length { .. })),
            "{length}"
        );
    }
}

#[test]
fn a_session_closes_when_both_sides_said_fin_and_its_number_is_free_again() {
    let mut sessions = server_with_session();
    let fin = packet(SmpFlag::Fin, 7, 0, 4);
    assert_eq!(sessions.receive(&fin), Ok(Received::Finished(7)));
    assert!(
        sessions.window(7).unwrap().data(1).is_none(),
        "the peer throws it away"
    );
    assert_eq!(
        sessions.receive(&packet(SmpFlag::Syn, 7, 0, 4)),
        Err(SmpError::AlreadyOpen(7))
    );
    assert_eq!(sessions.fin(7), Some(fin));
    assert!(sessions.is_empty());
    assert_eq!(sessions.fin(7), None);
    assert_eq!(
        sessions.receive(&packet(SmpFlag::Syn, 7, 0, 4)),
        Ok(Received::Opened(7))
    );
    // The other order: what comes behind our FIN is nobody's, but still counted.
    assert!(sessions.fin(7).is_some());
    assert_eq!(sessions.fin(7), None, "once");
    let mut data = packet(SmpFlag::Data, 7, 1, 4);
    data.length = 20;
    assert_eq!(sessions.receive(&data), Ok(Received::Ignored(7, 4)));
    assert!(matches!(sessions.receive(&data), Err(SmpError::Sequence { .. })));
    assert_eq!(sessions.receive(&fin), Ok(Received::Finished(7)));
    assert!(sessions.is_empty());
}

/// Sequence numbers wrap [MC-SMP 3.1.3.1].
#[test]
fn windows_go_round() {
    let mut sessions = Sessions::new(End::Server, 512);
    let half = u32::MAX / 2;
    sessions.receive(&packet(SmpFlag::Syn, 0, 0, half)).unwrap();
    for window in [half * 2, u32::MAX, 3] {
        sessions.receive(&packet(SmpFlag::Ack, 0, 0, window)).unwrap();
    }
    assert_eq!(
        sessions.receive(&packet(SmpFlag::Ack, 0, 0, u32::MAX)),
        Err(SmpError::WindowBack {
            sid: 0,
            from: 3,
            to: u32::MAX
        })
    );
}
