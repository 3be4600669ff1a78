//! What stands in a segment: frames of length, check sum and body; and the entries, sessions and leases in them.
//!
//! A frame is `len u32, crc32 u32, body`, little-endian. A segment begins with a head and a checkpoint (live sessions, open leases with their
//! sums, slots that are done with), so that the last segment of an epoch alone tells all that recovery must know, and earlier ones can be trimmed.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::{fs::File, path::Path};

use serde::{Deserialize, Serialize};
use weir_contracts::ids::ProxyId;

use super::types::{JournalError, LeaseRecord, SessionRecord};

/// Bytes before a frame's body.
pub(crate) const FRAME_HEAD: u64 = 8;
/// No body is longer: names in it are bounded by the login's fields.
pub(crate) const BODY_MAX: usize = 1 << 20;
/// Slot number of an entry that came from no slot.
pub(crate) const NO_SLOT: u32 = u32::MAX;

const HEAD: u8 = 1;
const SESSION: u8 = 2;
const LEASE: u8 = 3;
const CHECKPOINT_END: u8 = 4;
const ENTRY: u8 = 5;
const EPOCH_CLOSED: u8 = 6;
const CLOSED_SLOTS: u8 = 7;
const ENTRY_PREFIX: usize = 1 + 4 + 4 + 8 + 8;

/// First frame of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) proxy: ProxyId,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    /// Of the first entry that will stand here.
    pub(crate) next_sequence: u64,
    pub(crate) next_session: u32,
}

/// A lease and what its records add up to so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseTally {
    pub(crate) record: LeaseRecord,
    pub(crate) records: u64,
    pub(crate) cost_nanos: i64,
    pub(crate) last_sequence: u64,
}

/// A frame's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Head(Head),
    Session(u32, SessionRecord),
    Lease(LeaseTally),
    /// Numbers and generations of slots whose records stand in earlier segments.
    ClosedSlots(Vec<(u32, u32)>),
    CheckpointEnd,
    Entry(EntryFrame),
    /// Recovery is done with this epoch.
    EpochClosed,
}

/// An entry as it is shipped: `json` goes out byte for byte, also when it is shipped again years later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryFrame {
    /// Slot and generation that it was made of; [`NO_SLOT`] for none.
    pub(crate) slot: (u32, u32),
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) json: Vec<u8>,
}

impl Frame {
    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEAD as usize]);
        match self {
            Self::Head(head) => tagged(out, HEAD, head)?,
            Self::Session(number, record) => tagged(out, SESSION, &(number, record))?,
            Self::Lease(tally) => tagged(out, LEASE, tally)?,
            Self::ClosedSlots(slots) => {
                out.push(CLOSED_SLOTS);
                for (number, generation) in slots {
                    out.extend_from_slice(&number.to_le_bytes());
                    out.extend_from_slice(&generation.to_le_bytes());
                }
            }
            Self::CheckpointEnd => out.push(CHECKPOINT_END),
            Self::EpochClosed => out.push(EPOCH_CLOSED),
            Self::Entry(entry) => {
                out.push(ENTRY);
                out.extend_from_slice(&entry.slot.0.to_le_bytes());
                out.extend_from_slice(&entry.slot.1.to_le_bytes());
                out.extend_from_slice(&entry.epoch.to_le_bytes());
                out.extend_from_slice(&entry.sequence.to_le_bytes());
                out.extend_from_slice(&entry.json);
            }
        }
        let body = &out[start + FRAME_HEAD as usize..];
        let (len, sum) = (
            u32::try_from(body.len()).unwrap_or(u32::MAX),
            crc32fast::hash(body),
        );
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
        out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (kind, rest) = body.split_first()?;
        Some(match *kind {
            HEAD => Self::Head(serde_json::from_slice(rest).ok()?),
            SESSION => {
                let (number, record) = serde_json::from_slice(rest).ok()?;
                Self::Session(number, record)
            }
            LEASE => Self::Lease(serde_json::from_slice(rest).ok()?),
            CHECKPOINT_END => Self::CheckpointEnd,
            EPOCH_CLOSED => Self::EpochClosed,
            CLOSED_SLOTS => {
                let half = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
                let pairs = rest
                    .chunks(8)
                    .map(|pair| Some((half(pair.get(..4)?)?, half(pair.get(4..)?)?)));
                Self::ClosedSlots(pairs.collect::<Option<_>>()?)
            }
            ENTRY => {
                let json = body.get(ENTRY_PREFIX..)?.to_vec();
                let half = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
                let word = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
                Self::Entry(EntryFrame {
                    slot: (half(1)?, half(5)?),
                    epoch: word(9)?,
                    sequence: word(17)?,
                    json,
                })
            }
            _ => return None,
        })
    }
}

fn tagged<T: Serialize>(out: &mut Vec<u8>, kind: u8, value: &T) -> Result<(), serde_json::Error> {
    out.push(kind);
    serde_json::to_writer(out, value)
}

/// What stands at the reader's place.
#[derive(Debug)]
pub(crate) enum Next {
    /// A whole frame; the reader stands behind it.
    Frame(Frame),
    /// The file ends here.
    End,
    /// What follows is no whole frame: a torn tail, or damage. The reader stays.
    Bad(&'static str),
}

/// Reads a segment frame by frame.
#[derive(Debug)]
pub(crate) struct FrameReader {
    input: BufReader<File>,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    body: Vec<u8>,
}

impl FrameReader {
    pub(crate) fn open(path: &Path, offset: u64) -> Result<Self, JournalError> {
        let mut file = File::open(path).map_err(JournalError::io(path))?;
        file.seek(SeekFrom::Start(offset))
            .map_err(JournalError::io(path))?;
        Ok(Self {
            input: BufReader::with_capacity(256 << 10, file),
            offset,
            body: Vec::new(),
        })
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        let mut head = [0; FRAME_HEAD as usize];
        match fill(&mut self.input, &mut head)? {
            0 => return Ok(Next::End),
            n if n < head.len() => return Ok(Next::Bad("a frame's head is cut off")),
            _ => {}
        }
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len == 0 || len > BODY_MAX {
            return Ok(Next::Bad("a frame's length is impossible"));
        }
        self.body.resize(len, 0);
        if fill(&mut self.input, &mut self.body)? < len {
            return Ok(Next::Bad("a frame's body is cut off"));
        }
        if crc32fast::hash(&self.body) != sum {
            return Ok(Next::Bad("a frame's check sum does not match"));
        }
        match Frame::decode(&self.body) {
            Some(frame) => {
                self.offset += FRAME_HEAD + len as u64;
                Ok(Next::Frame(frame))
            }
            None => Ok(Next::Bad("a frame of unknown kind")),
        }
    }
}

/// Reads until `out` is full or the input ends; returns how much was read.
fn fill(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < out.len() {
        match input.read(&mut out[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}
