//! Framer and walker over streams of known rows, in the pieces that a proxy reads or in the bodies of packets.

use weir_tds::framer::{Frame, Framer};
use weir_tds::packet::DEFAULT_PACKET_SIZE;
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};

use super::Work;
use crate::answer::{Answer, Ask};
use crate::failure::{Failure, Trying};
use crate::shapes::Shape;

/// Bytes of a stream: a few pieces.
const STREAM: usize = 1024 * 1024;
/// Pieces as a proxy reads them.
const PIECE: usize = 256 * 1024;
/// Body of a packet of the usual size.
const PACKET_BODY: usize = 4096 - 8;
/// DONE behind the last row.
const DONE_LEN: usize = 13;

/// Packets of the usual size, one behind the other.
pub(super) fn framer() -> Result<Work, Failure> {
    let answer = Answer::new(Ask::Events(10_000), DEFAULT_PACKET_SIZE);
    let packets = answer.block;
    let count = (packets.len() / usize::from(DEFAULT_PACKET_SIZE)) as u64;
    let framer = Framer::new(DEFAULT_PACKET_SIZE);
    Ok(Box::new(move || {
        let (mut at, mut seen) = (0, 0);
        while let Some(rest) = packets.get(at..).filter(|rest| !rest.is_empty()) {
            match framer.next(rest).map_err(Failure::new)? {
                Frame::Packet(header) => at += usize::from(header.length),
                Frame::NeedMore { .. } => break,
            }
            seen += 1;
        }
        check("packets", seen, count)
    }))
}

pub(super) fn fixed() -> Result<Work, Failure> {
    walk(Shape::Fixed, PIECE)
}

pub(super) fn mixed() -> Result<Work, Failure> {
    walk(Shape::Mixed, PIECE)
}

pub(super) fn mixed_in_packets() -> Result<Work, Failure> {
    walk(Shape::Mixed, PACKET_BODY)
}

pub(super) fn events() -> Result<Work, Failure> {
    walk(Shape::Events, PIECE)
}

pub(super) fn events_in_packets() -> Result<Work, Failure> {
    walk(Shape::Events, PACKET_BODY)
}

pub(super) fn ints() -> Result<Work, Failure> {
    walk(Shape::Ints, PIECE)
}

pub(super) fn nbcrow() -> Result<Work, Failure> {
    walk(Shape::Nbc, PIECE)
}

pub(super) fn plp() -> Result<Work, Failure> {
    walk(Shape::Plp, PIECE)
}

pub(super) fn wide() -> Result<Work, Failure> {
    walk(Shape::Wide, PIECE)
}

pub(super) fn wide_nbcrow() -> Result<Work, Failure> {
    walk(Shape::WideNbc, PIECE)
}

/// Walks the rows of one result set again and again: metadata come once, so that a turn is rows and nothing else.
fn walk(shape: Shape, piece: usize) -> Result<Work, Failure> {
    let mut response = shape.response(STREAM);
    response.bytes.truncate(response.bytes.len() - DONE_LEN);
    let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
    let metadata = walker.walk(&response.bytes, &mut Budget::UNLIMITED.clone());
    let walk = metadata.map_err(Failure::new)?;
    if !matches!(walk.step, Step::Token(_)) {
        return Err(Failure::new("the stream begins with no metadata"));
    }
    let rows = response.bytes.split_off(walk.consumed);
    Ok(Box::new(move || {
        let before = walker.rows();
        for mut rest in rows.chunks(piece) {
            while !rest.is_empty() {
                let mut budget = Budget::UNLIMITED;
                let walk = walker.walk(rest, &mut budget).map_err(Failure::new)?;
                rest = rest.get(walk.consumed..).unwrap_or_default();
            }
        }
        if !walker.at_boundary() {
            return Err(Failure::new("a row is not over where its stream ends"));
        }
        check("rows", walker.rows() - before, response.rows)
    }))
}

/// What was counted, if it is what there is.
pub(super) fn check(what: &str, seen: u64, there: u64) -> Result<u64, Failure> {
    (seen == there)
        .then_some(seen)
        .trying(format!("{seen} {what} were counted, {there} are there"))
}
