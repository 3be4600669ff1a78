//! Every prebuilt answer is a response of the rows and bytes that it says, in packets as a server sends them.

use weir_benches::answer::{Answer, Ask};
use weir_benches::ends::drain::Drain;
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketType};
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Walker, WalkerOptions};

const ASKS: [Ask; 12] = [
    Ask::One,
    Ask::Events(0),
    Ask::Events(1),
    Ask::Events(17),
    Ask::Events(30_000),
    Ask::Blob(0),
    Ask::Blob(10),
    Ask::Blob(5000),
    Ask::Blob(3_000_001),
    Ask::Point,
    Ask::Range,
    Ask::Update,
];
const PACKET_SIZES: [u16; 5] = [512, 4096, 8000, 16383, 32767];

fn written(answer: &Answer) -> Vec<u8> {
    let mut all = answer.head.clone();
    (0..answer.repeats).for_each(|_| all.extend_from_slice(&answer.block));
    all.extend_from_slice(&answer.tail);
    all
}

#[test]
fn answers_hold_the_rows_and_bytes_that_they_say() {
    for ask in ASKS {
        for packet_size in PACKET_SIZES {
            let answer = Answer::new(ask, packet_size);
            let bytes = written(&answer);
            assert_eq!(bytes.len() as u64, answer.wire(), "{ask:?} in {packet_size}");
            let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
            walker.begin_message();
            let mut budget = Budget::UNLIMITED;
            let (mut at, mut id, mut payload, mut ended) = (0, 1_u8, 0, false);
            while at < bytes.len() {
                assert!(!ended, "{ask:?} in {packet_size}: packets behind the last one");
                let header = PacketHeader::parse(&bytes[at..]).unwrap().unwrap();
                assert_eq!((header.kind, header.packet_id), (PacketType::TabularResult, id));
                ended = header.status.is_eom();
                let length = usize::from(header.length);
                assert!(ended || header.length == packet_size, "{ask:?}: {header:?}");
                let mut body = &bytes[at + HEADER_LEN..at + length];
                payload += body.len() as u64;
                while !body.is_empty() {
                    let walk = walker.walk(body, &mut budget).unwrap();
                    body = &body[walk.consumed..];
                }
                at += length;
                id = id.wrapping_add(1);
            }
            assert!(ended && walker.at_boundary(), "{ask:?} in {packet_size}");
            assert_eq!((walker.rows(), payload), (answer.rows, answer.payload), "{ask:?}");
        }
    }
}

#[test]
fn the_rows_are_those_that_were_asked_for() {
    for (ask, rows) in [
        (Ask::Events(30_000), 30_000),
        (Ask::Events(1), 1),
        (Ask::Blob(3_000_001), 1),
        (Ask::Range, 20),
        (Ask::Update, 0),
    ] {
        assert_eq!(Answer::new(ask, 4096).rows, rows, "{ask:?}");
    }
}

#[test]
fn the_drain_counts_alike_however_the_bytes_come() {
    for ask in [Ask::One, Ask::Events(100), Ask::Blob(5000), Ask::Update] {
        let answer = Answer::new(ask, 512);
        let bytes = written(&answer);
        for step in [1, 2, 7, 13, 511, 512, 513, bytes.len()] {
            let mut drain = Drain::default();
            for (at, piece) in bytes.chunks(step).enumerate() {
                assert!(!drain.ended, "{ask:?} by {step}: ended before piece {at}");
                drain.take(piece);
            }
            assert!(drain.ended);
            assert_eq!((drain.payload, drain.wire), (answer.payload, answer.wire()));
            if !Ask::PREPARED.contains(&ask) {
                assert_eq!(drain.done_count(), Some(answer.rows), "{ask:?} by {step}");
            }
        }
    }
}

#[test]
fn a_batch_says_what_it_asks_for() {
    for ask in [Ask::One, Ask::Events(1_000_000), Ask::Blob(1 << 30)] {
        assert_eq!(Ask::of_text(&ask.text()), ask);
    }
}
