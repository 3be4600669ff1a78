//! What the origin answers, as packets that are ready to be written, with the rows and bytes in them.
//!
//! Long answers are a head, a block that is written again and again, and a tail: the block has 256 packets, so that packet ids
//! go on where they were, and its rows end where its last packet ends.

use serde::{Deserialize, Serialize};
use weir_tds::build::TokenBuf;
use weir_tds::packet::HEADER_LEN;
use weir_tds::version::TdsVersion;

use crate::shapes::{EVENT_MAX, EVENT_MIN, Maker, Shape};

/// Type of a server's packets.
const TABULAR_RESULT: u8 = 0x04;
/// Status of a message's last packet.
const EOM: u8 = 1;
/// Packets of a block: as many as packet ids.
const BLOCK_PACKETS: usize = 256;
/// DONE with a count [MS-TDS 2.2.7.6].
const DONE_COUNT: u16 = 0x10;
/// Rows of the prepared range select.
const RANGE_ROWS: u64 = 20;
/// Length of DONE in TDS 7.2 and later.
pub const DONE_LEN: usize = 13;

/// What a client asks the origin for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// A batch with one row of the mixed shape.
    One,
    /// A batch with this many rows of the `events` mix.
    Events(u64),
    /// A batch with one varbinary(max) of this many bytes.
    Blob(u64),
    /// The prepared select of one row.
    Point,
    /// The prepared select of a range.
    Range,
    /// The prepared update of one row.
    Update,
}

impl Ask {
    /// The prepared ones, in the order of their handles.
    pub const PREPARED: [Self; 3] = [Self::Point, Self::Range, Self::Update];

    /// The text of the batch, or of what is prepared.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::One => "select id, name, price, changed, stock from goods where id = 42".to_owned(),
            Self::Events(rows) => format!("select top {rows} * from events"),
            Self::Blob(bytes) => format!("select content from files where size = {bytes}"),
            Self::Point => "select id, name, price, changed, stock from goods where id = @id".to_owned(),
            Self::Range => {
                "select id, name, price, changed, stock from goods where id between @id and @id + 19"
                    .to_owned()
            }
            Self::Update => "update goods set stock = stock - 1 where id = @id".to_owned(),
        }
    }

    /// What a batch's text asks for.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        if let Some(rest) = text.strip_prefix("select top ") {
            return Self::Events(number(rest));
        }
        match text.split_once("size = ") {
            Some((_, rest)) => Self::Blob(number(rest)),
            None => Self::One,
        }
    }
}

/// An answer in packets.
#[derive(Debug)]
pub struct Answer {
    /// Written first.
    pub head: Vec<u8>,
    /// Written this often behind it.
    pub repeats: u64,
    /// 256 packets, or none.
    pub block: Vec<u8>,
    /// Written last; ends the message.
    pub tail: Vec<u8>,
    /// Rows in all.
    pub rows: u64,
    /// Bytes of tokens in all.
    pub payload: u64,
}

impl Answer {
    /// In packets of this size.
    #[must_use]
    pub fn new(ask: Ask, packet_size: u16) -> Self {
        let room = usize::from(packet_size) - HEADER_LEN;
        match ask {
            Ask::One => {
                let mut maker = Maker::new(1024);
                maker.columns(Shape::Mixed);
                maker.row(Shape::Mixed);
                maker.bytes.extend(done(1));
                Self::whole(&maker.bytes, 1, room)
            }
            Ask::Events(rows) => events(rows, room),
            Ask::Blob(bytes) => blob(bytes, room),
            Ask::Point => Self::prepared(1, room),
            Ask::Range => Self::prepared(RANGE_ROWS, room),
            Ask::Update => Self::prepared(0, room),
        }
    }

    /// What answers an execution: rows or a count of changed ones.
    fn prepared(rows: u64, room: usize) -> Self {
        let mut maker = Maker::new(4096);
        if rows > 0 {
            maker.columns(Shape::Mixed);
        }
        (0..rows).for_each(|_| maker.row(Shape::Mixed));
        let mut tokens = TokenBuf::new(TdsVersion::V7_4);
        tokens.done_in_proc(DONE_COUNT | 1, if rows > 0 { 0xC1 } else { 0xC5 }, rows.max(1));
        tokens.return_status(0).done_proc(0, 0xE0, 0);
        maker.bytes.extend_from_slice(tokens.as_bytes());
        Self::whole(&maker.bytes, rows, room)
    }

    fn whole(tokens: &[u8], rows: u64, room: usize) -> Self {
        Self {
            head: Vec::new(),
            repeats: 0,
            block: Vec::new(),
            tail: packets(tokens, room, 1, true),
            rows,
            payload: tokens.len() as u64,
        }
    }

    /// Bytes on the wire, packet headers included.
    #[must_use]
    pub fn wire(&self) -> u64 {
        self.head.len() as u64 + self.repeats * self.block.len() as u64 + self.tail.len() as u64
    }
}

/// Cuts tokens into packets of `room` bytes each, the first with this id.
fn packets(tokens: &[u8], room: usize, first_id: u8, last: bool) -> Vec<u8> {
    let count = tokens.len().div_ceil(room);
    let mut out = Vec::with_capacity(tokens.len() + count * HEADER_LEN);
    let mut id = first_id;
    for (at, piece) in tokens.chunks(room).enumerate() {
        let status = if last && at + 1 == count { EOM } else { 0 };
        let [high, low] = ((piece.len() + HEADER_LEN) as u16).to_be_bytes();
        out.extend([TABULAR_RESULT, status, high, low, 0, 0, id, 0]);
        out.extend_from_slice(piece);
        id = id.wrapping_add(1);
    }
    out
}

fn events(rows: u64, room: usize) -> Answer {
    let mut head = Maker::new(room * 2);
    head.columns(Shape::Events);
    // As many whole packets as the columns and at least one row need.
    let head_packets = (head.bytes.len() + EVENT_MIN + EVENT_MAX).div_ceil(room);
    let head_rows = head.fill_with_events(head_packets * room - head.bytes.len());
    let mut block = Maker::new(BLOCK_PACKETS * room);
    let block_rows = block.fill_with_events(BLOCK_PACKETS * room);
    let (head, head_rows, repeats) = match rows.checked_sub(head_rows) {
        Some(left) => (head, head_rows, left / block_rows),
        None => {
            let mut bare = Maker::new(room);
            bare.columns(Shape::Events);
            (bare, 0, 0)
        }
    };
    let mut tail = Maker::new(room);
    let left = rows - head_rows - repeats * block_rows;
    (0..left).for_each(|_| tail.row(Shape::Events));
    tail.bytes.extend(done(rows));
    let payload = head.bytes.len() as u64 + repeats * block.bytes.len() as u64 + tail.bytes.len() as u64;
    if head_rows == 0 {
        head_only(head, &tail.bytes, rows, room)
    } else {
        let id = 1 + head_packets as u8;
        Answer {
            head: packets(&head.bytes, room, 1, false),
            repeats,
            block: packets(&block.bytes, room, id, false),
            tail: packets(&tail.bytes, room, id, true),
            rows,
            payload,
        }
    }
}

fn head_only(mut head: Maker, tail: &[u8], rows: u64, room: usize) -> Answer {
    head.bytes.extend_from_slice(tail);
    Answer::whole(&head.bytes, rows, room)
}

/// One row of one varbinary(max), its chunks cut where packets are [MS-TDS 2.2.5.2.3].
fn blob(bytes: u64, room: usize) -> Answer {
    let mut head = vec![0x81, 1, 0, 0, 0, 0, 0, 9, 0, 0xA5, 0xFF, 0xFF, 1, b'c', 0, 0xD1];
    head.extend(bytes.to_le_bytes());
    let first = (room - head.len() - 4) as u64;
    let each = (room - 4) as u64;
    let (first, repeats) = match bytes.checked_sub(first) {
        Some(left) => (first, left / (each * BLOCK_PACKETS as u64)),
        None => (0, 0),
    };
    let mut block = Vec::new();
    if first > 0 {
        chunk(&mut head, first);
        (0..BLOCK_PACKETS).for_each(|_| chunk(&mut block, each));
    }
    let mut tail = Vec::new();
    let mut left = bytes - first - repeats * each * BLOCK_PACKETS as u64;
    while left > 0 {
        chunk(&mut tail, left.min(each));
        left -= left.min(each);
    }
    tail.extend([0; 4]);
    tail.extend(done(1));
    if first == 0 {
        head.extend(tail);
        return Answer::whole(&head, 1, room);
    }
    let payload = head.len() as u64 + repeats * block.len() as u64 + tail.len() as u64;
    Answer {
        head: packets(&head, room, 1, false),
        repeats,
        block: packets(&block, room, 2, false),
        tail: packets(&tail, room, 2, true),
        rows: 1,
        payload,
    }
}

fn chunk(out: &mut Vec<u8>, bytes: u64) {
    out.extend((bytes as u32).to_le_bytes());
    out.resize(out.len() + bytes as usize, 0x42);
}

fn done(rows: u64) -> Vec<u8> {
    let mut tokens = TokenBuf::new(TdsVersion::V7_4);
    tokens.done(DONE_COUNT, 0xC1, rows);
    tokens.as_bytes().to_vec()
}
