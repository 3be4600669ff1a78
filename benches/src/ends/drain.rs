//! Counts an answer on its way into nowhere: packets by their headers, tokens by their bytes, rows by the count of the last DONE.

use weir_tds::packet::HEADER_LEN;

use crate::answer::DONE_LEN;

/// Status bit of a message's last packet.
const EOM: u8 = 1;

/// What came of an answer so far.
#[derive(Debug, Default)]
pub struct Drain {
    head: [u8; HEADER_LEN],
    head_len: usize,
    body_left: usize,
    last: bool,
    /// The message has ended.
    pub ended: bool,
    /// Bytes of tokens.
    pub payload: u64,
    /// Bytes, headers included.
    pub wire: u64,
    /// The last bytes of the tokens, at most as many as a DONE has.
    end: Vec<u8>,
}

impl Drain {
    /// Before the first byte of the next answer.
    pub fn begin(&mut self) {
        *self = Self {
            end: std::mem::take(&mut self.end),
            ..Self::default()
        };
        self.end.clear();
    }

    /// Takes bytes as they came.
    pub fn take(&mut self, mut bytes: &[u8]) {
        self.wire += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.body_left == 0 {
                let taken = bytes.len().min(HEADER_LEN - self.head_len);
                let (head, rest) = bytes.split_at(taken);
                if let Some(room) = self.head.get_mut(self.head_len..self.head_len + taken) {
                    room.copy_from_slice(head);
                }
                self.head_len += taken;
                bytes = rest;
                if self.head_len == HEADER_LEN {
                    self.head_len = 0;
                    let [_, status, high, low, ..] = self.head;
                    self.last = status & EOM != 0;
                    self.body_left = usize::from(u16::from_be_bytes([high, low])).saturating_sub(HEADER_LEN);
                }
                continue;
            }
            let (body, rest) = bytes.split_at(bytes.len().min(self.body_left));
            self.body_left -= body.len();
            self.payload += body.len() as u64;
            self.keep_end(body);
            bytes = rest;
            self.ended |= self.last && self.body_left == 0;
        }
    }

    /// Only the last of what may be the last 13 bytes is kept.
    fn keep_end(&mut self, body: &[u8]) {
        if !self.last && self.body_left > DONE_LEN {
            return;
        }
        let tail = body.get(body.len().saturating_sub(DONE_LEN)..).unwrap_or(body);
        self.end.extend_from_slice(tail);
        let over = self.end.len().saturating_sub(DONE_LEN);
        self.end.drain(..over);
    }

    /// The count of the last DONE; `None` if the tokens do not end with one.
    #[must_use]
    pub fn done_count(&self) -> Option<u64> {
        let [0xFD..=0xFF, _, _, _, _, count @ ..] = self.end.as_slice() else {
            return None;
        };
        count.try_into().ok().map(u64::from_le_bytes)
    }
}
