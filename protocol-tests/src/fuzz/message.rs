//! Message assembly: packets to messages under a limit, messages cut anew to another packet size, in any pieces.

use weir_tds::error::WireError;
use weir_tds::framer::{Frame, Framer};
use weir_tds::message::{MessageBuf, PacketWriter, write_message};
use weir_tds::packet::{HEADER_LEN, PACKET_SIZE_MAX, PacketHeader, PacketStatus, PacketType};

use super::oracle;
use super::source::Source;

/// Limits of a message; the first hardly fits a packet, the last never stands in the way.
const LIMITS: [usize; 4] = [16, 300, 1024, 1 << 20];

/// First byte: the limit; next two: the size to cut to; the rest: packets.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let limit = LIMITS[source.below(LIMITS.len())];
    let size = source.short();
    let stream = source.rest();
    // What is made of the messages is not the assembly's, so it is measured without.
    oracle::before_login(stream.len(), || {
        let mut assembly = Assembly::new(limit);
        assembly.take(stream, stream.len(), &mut |_| ());
    });
    let (mut bodies, mut pieced_bodies) = (Vec::new(), Vec::new());
    let mut whole = Assembly::new(limit);
    whole.take(stream, stream.len(), &mut |message| bodies.push(message));
    let (mut pieced, mut have) = (Assembly::new(limit), 0);
    for piece in oracle::pieces(stream) {
        have += piece.len();
        pieced.take(stream, have, &mut |message| pieced_bodies.push(message));
    }
    assert_eq!(pieced_bodies, bodies, "cut at {:?}", oracle::cuts(stream));
    assert_eq!(pieced.end, whole.end);
    for message in bodies {
        assert!(message.body.len() <= limit, "a message above its limit");
        cut_anew(&message, size);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    kind: PacketType,
    first: PacketStatus,
    ignored: bool,
    body: Vec<u8>,
}

struct Assembly {
    at: usize,
    message: MessageBuf,
    end: Option<WireError>,
}

impl Assembly {
    fn new(limit: usize) -> Self {
        Self {
            at: 0,
            message: MessageBuf::new("message", limit),
            end: None,
        }
    }

    /// Goes on with the first `have` bytes of the stream.
    fn take(&mut self, stream: &[u8], have: usize, found: &mut dyn FnMut(Message)) {
        let framer = Framer::new(PACKET_SIZE_MAX);
        while self.end.is_none() {
            let header = match framer.next(&stream[self.at..have]) {
                Ok(Frame::Packet(header)) => header,
                Ok(Frame::NeedMore { .. }) => return,
                Err(error) => {
                    self.end = Some(error);
                    return;
                }
            };
            let next = self.at + usize::from(header.length);
            match self.message.push(&header, &stream[self.at + HEADER_LEN..next]) {
                Ok(false) => {}
                Ok(true) => {
                    let kind = self.message.kind().expect("a complete message has a kind");
                    let (first, ignored) = (self.message.first_status(), self.message.is_ignored());
                    let body = self.message.take();
                    found(Message {
                        kind,
                        first,
                        ignored,
                        body: body.to_vec(),
                    });
                }
                Err(error) => self.end = Some(error),
            }
            self.at = next;
        }
    }
}

/// Both ways to make packets of a message give it back, in packets of the size asked for.
fn cut_anew(message: &Message, size: u16) {
    let reset = PacketStatus::RESET.with(PacketStatus::RESET_SKIP_TRAN).0;
    let mut writer = PacketWriter::new(size, 51);
    writer.begin(message.kind, message.first);
    let mut out = Vec::new();
    for piece in oracle::pieces(&message.body) {
        writer.push(piece);
        out.extend_from_slice(&writer.take_ready());
        assert!(
            writer.held() <= writer.packet_size(),
            "more than a packet is held"
        );
    }
    if message.ignored {
        writer.finish_ignored();
    } else {
        writer.finish();
    }
    out.extend_from_slice(&writer.take_ready());
    let full = writer.packet_size();
    let mut at_once = bytes::BytesMut::new();
    let ignore = if message.ignored {
        PacketStatus::IGNORE
    } else {
        PacketStatus::NORMAL
    };
    write_message(
        &mut at_once,
        message.kind,
        message.first.without(PacketStatus::IGNORE).with(ignore),
        size,
        51,
        1,
        &message.body,
    );
    for packets in [&out[..], &at_once[..]] {
        let mut rest = packets;
        while let Ok(Some(header)) = PacketHeader::parse(rest) {
            let last = usize::from(header.length) == rest.len();
            assert_eq!(
                header.status.is_eom(),
                last,
                "EOM on the last packet and no other"
            );
            assert!(
                last || usize::from(header.length) == full,
                "a packet before the last is full"
            );
            rest = &rest[usize::from(header.length)..];
        }
        let mut again = Vec::new();
        Assembly::new(1 << 20).take(packets, packets.len(), &mut |message| again.push(message));
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].body, message.body);
        assert_eq!((again[0].kind, again[0].ignored), (message.kind, message.ignored));
        assert_eq!(
            again[0].first.0 & reset,
            message.first.0 & reset,
            "the reset bits stay"
        );
    }
}
