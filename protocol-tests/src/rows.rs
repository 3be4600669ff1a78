//! Counts the rows in raw bytes that came from a gate, packets and torn ends included.

use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketType};
use weir_tds::token::TokenKind;
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};

/// Reads responses as they come and counts.
pub struct Rows {
    walker: Walker,
    head: Vec<u8>,
    body_left: usize,
    /// The packet in hand ends its message.
    last: bool,
    counted: Counted,
    row_began: u64,
    error: Option<i32>,
}

/// What was counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows whose token byte came.
    pub rows: u64,
    /// Bytes of token stream, packet headers excluded.
    pub payload: u64,
    /// Bytes of the shortest row; `u64::MAX` before two rows stood one behind the other.
    pub shortest_row: u64,
    /// Messages that ended.
    pub messages: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Self::new()
    }
}

impl Rows {
    /// Before the first byte of a response, after the login.
    #[must_use]
    pub fn new() -> Self {
        Self {
            walker: Walker::new(WalkerOptions::new(TdsVersion::V7_4)),
            head: Vec::with_capacity(HEADER_LEN),
            body_left: 0,
            last: false,
            counted: Counted {
                shortest_row: u64::MAX,
                ..Counted::default()
            },
            row_began: 0,
            error: None,
        }
    }

    /// Number of the last ERROR that came.
    #[must_use]
    pub fn error(&self) -> Option<i32> {
        self.error
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// Takes bytes as they came from the socket.
    ///
    /// # Panics
    /// When they are not a response.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body_left == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(HEADER_LEN - self.head.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                self.open_packet();
                continue;
            }
            let (body, rest) = bytes.split_at(bytes.len().min(self.body_left));
            self.body_left -= body.len();
            self.walk(body);
            bytes = rest;
            if self.body_left == 0 && self.last {
                self.end_message();
            }
        }
    }

    fn open_packet(&mut self) {
        if self.head.len() < HEADER_LEN {
            return;
        }
        let header = PacketHeader::parse(&self.head).ok().flatten();
        let header = header.unwrap_or_else(|| panic!("no packet header: {:?}", self.head));
        assert_eq!(header.kind, PacketType::TabularResult, "{header:?}");
        self.head.clear();
        self.body_left = header.body_len();
        self.last = header.status.is_eom();
        if self.body_left == 0 && self.last {
            self.end_message();
        }
    }

    fn end_message(&mut self) {
        self.counted.messages += 1;
        self.walker.begin_message();
        self.row_began = 0;
    }

    /// One row at a time, so that each row's length is seen.
    fn walk(&mut self, mut body: &[u8]) {
        self.counted.payload += body.len() as u64;
        while !body.is_empty() {
            let before = self.walker.rows();
            let mut budget = Budget {
                rows: 1,
                bytes: u64::MAX,
            };
            let walk = self.walker.walk(body, &mut budget);
            let walk = walk.unwrap_or_else(|error| panic!("no token stream: {error}"));
            let spent = walk.step == Step::BudgetSpent;
            if let Step::Token(token) = &walk.step
                && token.kind == TokenKind::Error
            {
                // Behind the token's byte and its length [MS-TDS 2.2.7.10].
                let number = token.bytes.get(3..7).and_then(|bytes| bytes.try_into().ok());
                self.error = number.map(i32::from_le_bytes);
            }
            body = &body[walk.consumed..];
            self.counted.rows += self.walker.rows() - before;
            if spent {
                let at = self.walker.payload_bytes();
                let length = at - self.row_began;
                if self.row_began > 0 && self.walker.rows() > 1 {
                    self.counted.shortest_row = self.counted.shortest_row.min(length);
                }
                self.row_began = at;
            }
        }
    }
}
