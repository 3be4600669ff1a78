//! Framer: packets off a stream that comes whole and in pieces, under a limit of the input's choice.

use weir_tds::error::WireError;
use weir_tds::framer::{Frame, Framer};
use weir_tds::packet::{HEADER_LEN, PacketHeader};

use super::oracle;
use super::source::Source;

/// First two bytes: the limit; the rest: what a peer sends.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let framer = Framer::new(source.short());
    let stream = source.rest();
    let mut whole = Frames::default();
    oracle::before_login(stream.len(), || whole.take(&framer, stream));
    let (mut pieced, mut have) = (Frames::default(), 0);
    for piece in oracle::pieces(stream) {
        have += piece.len();
        pieced.take(&framer, &stream[..have]);
    }
    if !stream.is_empty() {
        assert_eq!(pieced, whole, "cut at {:?}", oracle::cuts(stream));
    }
}

/// What was found so far, folded: a list would be more than the framer itself costs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Frames {
    at: usize,
    packets: u32,
    fold: u64,
    end: Option<WireError>,
}

impl Frames {
    fn take(&mut self, framer: &Framer, stream: &[u8]) {
        while self.end.is_none() {
            let rest = &stream[self.at..];
            match framer.next(rest) {
                Ok(Frame::Packet(header)) => {
                    let length = usize::from(header.length);
                    assert!(
                        (HEADER_LEN..=usize::from(framer.max())).contains(&length),
                        "{header:?}"
                    );
                    assert!(length <= rest.len(), "a packet longer than what came");
                    assert_eq!(header.body_len(), length - HEADER_LEN);
                    assert_eq!(PacketHeader::parse(rest), Ok(Some(header)));
                    self.at += length;
                    self.packets += 1;
                    self.fold = self.fold.wrapping_mul(31)
                        ^ u64::from(header.length) << 8
                        ^ u64::from(header.kind.byte())
                        ^ u64::from(header.status.0) << 32;
                }
                Ok(Frame::NeedMore { at_least }) => {
                    assert!(
                        at_least > rest.len(),
                        "more is asked for than {at_least}, which is there"
                    );
                    return;
                }
                Err(error) => self.end = Some(error),
            }
        }
    }
}
