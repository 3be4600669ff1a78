//! Reads capture files: classic pcap, Ethernet, IPv4 and TCP; puts each direction of a connection together.

use std::collections::BTreeMap;

/// One direction of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Direction {
    /// Sender's address and port.
    pub from: ([u8; 4], u16),
    /// Receiver's address and port.
    pub to: ([u8; 4], u16),
}

/// What was sent in one direction.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Whose.
    pub direction: Direction,
    /// True if its SYN was captured, so that the bytes are its first.
    pub from_start: bool,
    /// Gaps that the capture has; the bytes behind a gap follow those before it.
    pub gaps: usize,
    /// The bytes.
    pub bytes: Vec<u8>,
}

struct Segment {
    sequence: u32,
    data: Vec<u8>,
}

#[derive(Default)]
struct Segments {
    first: Option<u32>,
    list: Vec<Segment>,
}

/// Every direction of every connection of a capture, by address.
///
/// # Panics
/// When it is not a capture file this can read.
#[must_use]
pub fn streams(file: &[u8]) -> Vec<Stream> {
    let mut directions: BTreeMap<Direction, Segments> = BTreeMap::new();
    for frame in frames(file) {
        let Some((direction, syn, segment)) = tcp(frame) else {
            continue;
        };
        let segments = directions.entry(direction).or_default();
        if syn {
            segments.first = Some(segment.sequence.wrapping_add(1));
        } else if !segment.data.is_empty() {
            segments.list.push(segment);
        }
    }
    directions
        .into_iter()
        .map(|(direction, segments)| join(direction, segments))
        .collect()
}

/// The payload of every TCP segment, as captured, retransmissions and all.
///
/// # Panics
/// When it is not a capture file this can read.
#[must_use]
pub fn payloads(file: &[u8]) -> Vec<(Direction, Vec<u8>)> {
    frames(file)
        .into_iter()
        .filter_map(tcp)
        .map(|(direction, _syn, segment)| (direction, segment.data))
        .collect()
}

fn frames(file: &[u8]) -> Vec<&[u8]> {
    let little = match file.get(..4) {
        Some([0xD4, 0xC3, 0xB2, 0xA1] | [0x4D, 0x3C, 0xB2, 0xA1]) => true,
        Some([0xA1, 0xB2, 0xC3, 0xD4] | [0xA1, 0xB2, 0x3C, 0x4D]) => false,
        other => panic!("not a pcap file: {other:?}"),
    };
    let u32_at = |at: usize| {
        let bytes = file
            .get(at..at + 4)
            .and_then(|b| b.first_chunk::<4>().copied())
            .unwrap_or_default();
        if little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        }
    };
    assert_eq!(u32_at(20), 1, "not a capture of Ethernet");
    let mut frames = Vec::new();
    let mut at = 24;
    while at + 16 <= file.len() {
        let captured = u32_at(at + 8) as usize;
        let Some(frame) = file.get(at + 16..at + 16 + captured) else {
            break;
        };
        frames.push(frame);
        at += 16 + captured;
    }
    frames
}

/// Direction, SYN, and the segment of a frame, if it is IPv4 and TCP.
fn tcp(frame: &[u8]) -> Option<(Direction, bool, Segment)> {
    let be = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let mut link = 14;
    if be(frame, 12)? == 0x8100 {
        link += 4;
    }
    if be(frame, link - 2)? != 0x0800 {
        return None;
    }
    let ip = frame.get(link..)?;
    let header = usize::from(ip.first()? & 0x0F) * 4;
    if *ip.get(9)? != 6 {
        return None;
    }
    // An offloading network card captures a total length of 0: the frame's own length is meant.
    let total = match usize::from(be(ip, 2)?) {
        0 => ip.len(),
        total => total.min(ip.len()),
    };
    let tcp = ip.get(header..total)?;
    let address = |at: usize| ip.get(at..)?.first_chunk::<4>().copied();
    let direction = Direction {
        from: (address(12)?, be(tcp, 0)?),
        to: (address(16)?, be(tcp, 2)?),
    };
    let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk::<4>()?);
    let data = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?.to_vec();
    Some((direction, tcp.get(13)? & 0x02 != 0, Segment { sequence, data }))
}

fn join(direction: Direction, mut segments: Segments) -> Stream {
    let first = segments
        .first
        .or(segments.list.first().map(|s| s.sequence))
        .unwrap_or(0);
    let place = |segment: &Segment| segment.sequence.wrapping_sub(first);
    // What lies "before" the start is a retransmission from before the capture.
    segments.list.retain(|segment| place(segment) < u32::MAX / 2);
    segments.list.sort_by_key(place);
    let mut bytes: Vec<u8> = Vec::new();
    let mut gaps = 0;
    let mut expected = 0;
    for segment in &segments.list {
        let at = place(segment) as usize;
        gaps += usize::from(at > expected);
        let known = expected.saturating_sub(at);
        if let Some(new) = segment.data.get(known..) {
            bytes.extend_from_slice(new);
            expected = at + segment.data.len();
        }
    }
    Stream {
        direction,
        from_start: segments.first.is_some(),
        gaps,
        bytes,
    }
}
