//! The vectors of SMP: what they carry goes through the sessions that they name, and each has its own record.

use fastrand::Rng;
use weir_contracts::entry::{Outcome, RequestKind};
use weir_protocol_tests::fuzz::Conversation;
use weir_protocol_tests::vectors;
use weir_tds::build::TokenBuf;
use weir_tds::packet::{HEADER_LEN, PacketHeader};
use weir_tds::smp::{SMP_HEADER_LEN, SmpFlag, SmpHeader};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use super::{answer, divisions, request};

/// Sessions and TDS packets, in the order of the wire.
type Packets = Vec<(u16, Vec<u8>)>;

/// What the DATA of a vector carry [MC-SMP 2.2.1].
fn carried(name: &str) -> Packets {
    let all = vectors::load();
    let vector = all.iter().find(|vector| vector.name == name).unwrap();
    let (mut rest, mut packets) = (vector.bytes.as_slice(), Packets::new());
    while let Some(header) = SmpHeader::parse(rest).unwrap() {
        let (packet, later) = rest.split_at(SMP_HEADER_LEN + header.data_len());
        if header.flag == SmpFlag::Data {
            packets.push((header.sid, packet[SMP_HEADER_LEN..].to_vec()));
        }
        rest = later;
    }
    packets
}

fn wire_len(packets: &[(u16, Vec<u8>)]) -> usize {
    packets
        .iter()
        .map(|(_, packet)| SMP_HEADER_LEN + packet.len())
        .sum()
}

fn options() -> WalkerOptions {
    WalkerOptions::new(TdsVersion::V7_4)
}

/// Body of a session's packets.
fn body(packets: &[(u16, Vec<u8>)], sid: u16) -> Vec<u8> {
    let mine = packets.iter().filter(|(of, _)| *of == sid);
    mine.flat_map(|(_, packet)| packet[HEADER_LEN..].to_vec())
        .collect()
}

#[test]
fn answers_of_two_sessions_that_alternate_are_counted_apart_at_every_split() {
    let packets = carried("smp-two-sessions-interleaved-server");
    let sids: Vec<u16> = packets.iter().map(|(sid, _)| *sid).collect();
    assert_eq!(sids, [0, 1, 1]);
    let bodies = [body(&packets, 0), body(&packets, 1)];
    for cuts in divisions(wire_len(&packets), &mut Rng::with_seed(20)) {
        let mut session = Conversation::logged_in(options(), true);
        let asked = request(TdsVersion::V7_4);
        session.client_in(&[(0, asked.clone()), (1, asked)], &[]);
        session.server_in(&packets, &cuts);
        assert_eq!(session.ended(), None, "cut at {cuts:?}");
        assert_eq!(session.to_client(), bodies, "cut at {cuts:?}");
        let mut bytes: Vec<usize> = session
            .records()
            .iter()
            .filter(|record| record.outcome == Outcome::Completed && record.rows == 0)
            .map(|record| usize::try_from(record.bytes_out).unwrap())
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, bodies.each_ref().map(Vec::len), "cut at {cuts:?}");
        session.leave();
        assert_eq!(session.records().len(), 2, "cut at {cuts:?}");
    }
}

#[test]
fn requests_of_clients_with_mars_are_passed_on_and_counted_at_every_split() {
    for (name, sid, kind) in [
        ("real-sqlclient-mars-smp", 1, RequestKind::Rpc),
        ("smp-session-lifecycle-client", 0, RequestKind::Batch),
    ] {
        let packets = carried(name);
        assert!(packets.len() == 1 && packets[0].0 == sid, "{name}: {packets:?}");
        let asked = body(&packets, sid);
        assert!(
            PacketHeader::parse(&packets[0].1)
                .unwrap()
                .unwrap()
                .status
                .is_eom()
        );
        // SYN and DATA.
        for cuts in divisions(wire_len(&packets) + SMP_HEADER_LEN, &mut Rng::with_seed(21)) {
            let what = format!("{name} cut at {cuts:?}");
            let mut session = Conversation::logged_in(options(), true);
            session.client_in(&packets, &cuts);
            let [told] = session
                .to_server()
                .try_into()
                .unwrap_or_else(|told| panic!("{what}: {told:?}"));
            // fNoMetaData of the call is cleared [MS-TDS 2.2.6.6].
            let changed = told.iter().zip(&asked).filter(|(told, asked)| told != asked);
            assert!(
                told.len() == asked.len() && changed.count() <= 1,
                "{what}: {told:?}"
            );
            let mut done = TokenBuf::new(TdsVersion::V7_4);
            done.done(0, 0xC1, 0);
            session.server_in(&[(sid, answer(done.as_bytes(), &[]))], &[]);
            session.leave();
            let [record] = session.records() else {
                panic!("{what}: {:?}", session.records());
            };
            let counted = (record.kind, record.requests, record.bytes_in);
            assert_eq!(counted, (kind, 1, asked.len() as u64), "{what}");
            assert_eq!((record.rows, record.outcome), (0, Outcome::Completed), "{what}");
        }
    }
}
