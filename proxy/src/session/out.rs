//! What waits to be written to a socket: a queue of byte pieces that are never copied together.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};
use weir_tds::packet::HEADER_LEN;

/// Pieces given to one vectored write; more stay for the next.
pub const PIECES_PER_WRITE: usize = 64;

/// Places for pieces that an empty queue keeps.
const PIECES_KEPT: usize = 16;

/// Bytes on their way to one socket.
#[derive(Debug, Default)]
pub struct Out {
    pieces: VecDeque<Bytes>,
    len: usize,
    /// Taken off so far, all told.
    taken: u64,
    /// Bytes of this queue that were moved on to the queue of a shared socket, and that it has not taken yet (MARS).
    moved: usize,
}

impl Out {
    /// Bytes that wait for the socket, here or where they were moved to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len + self.moved
    }

    /// Bytes of memory that what waits takes at most, its bookkeeping included: many small pieces count for more than
    /// their bytes. Bounds are on this.
    #[must_use]
    pub fn held(&self) -> usize {
        // A queue that grows doubles its places.
        self.len() + 2 * self.pieces.len() * size_of::<Bytes>()
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if nothing waits here; what was moved on may still wait there.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.len == 0
    }

    /// Says how many bytes that were moved on from here still wait there.
    pub(super) fn set_moved(&mut self, bytes: usize) {
        self.moved = bytes;
    }

    /// Bytes taken off so far, and that count once all that waits now is taken as well.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.taken, self.taken + self.len as u64)
    }

    /// Length of the TDS packet at the head, if all of it is here [MS-TDS 2.2.3.1.3].
    pub(super) fn packet_len(&self) -> Option<usize> {
        let mut head = self.pieces.iter().flat_map(|piece| piece.iter().copied()).skip(2);
        let length = usize::from(u16::from_be_bytes([head.next()?, head.next()?]));
        (length >= HEADER_LEN && length <= self.len).then_some(length)
    }

    /// Moves the first bytes on, piece by piece.
    pub(super) fn move_front(&mut self, mut bytes: usize, mut to: impl FnMut(Bytes)) {
        while bytes > 0 {
            let Some(front) = self.pieces.front_mut() else {
                return;
            };
            let piece = front.split_to(bytes.min(front.len()));
            if front.is_empty() {
                self.pieces.pop_front();
            }
            bytes -= piece.len();
            self.len = self.len.saturating_sub(piece.len());
            self.taken += piece.len() as u64;
            to(piece);
        }
    }

    /// Puts a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// What waits, if it is one piece: most often it is.
    #[must_use]
    pub fn only_piece(&self) -> Option<&[u8]> {
        match self.pieces.len() {
            1 => self.pieces.front().map(|piece| &piece[..]),
            _ => None,
        }
    }

    /// The first pieces, for a vectored write.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; PIECES_PER_WRITE]) -> usize {
        let mut used = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// Takes off what was written.
    pub fn advance(&mut self, mut written: usize) {
        self.len = self.len.saturating_sub(written);
        self.taken += written as u64;
        while let Some(front) = self.pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
        if self.pieces.capacity() > PIECES_KEPT {
            self.pieces = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_move_on_whole_however_their_bytes_lie_in_pieces() {
        let packets = [4, 1, 0, 9, 0, 0, 1, 0, b'x', 4, 1, 0, 8, 0, 0, 1, 0, 4, 1, 0];
        for size in 1..packets.len() {
            let mut out = Out::default();
            for piece in packets.chunks(size) {
                out.push(Bytes::copy_from_slice(piece));
            }
            let mut moved = Vec::new();
            while let Some(len) = out.packet_len() {
                let mut packet = Vec::new();
                out.move_front(len, |piece| packet.extend_from_slice(&piece));
                moved.push(packet);
            }
            assert_eq!(moved, [&packets[..9], &packets[9..17]], "pieces of {size}");
            assert_eq!((out.len(), out.progress()), (3, (17, 20)));
        }
    }

    #[test]
    fn advancing_over_pieces_keeps_order_and_length() {
        let mut out = Out::default();
        for piece in ["abc", "", "defg", "h"] {
            out.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(out.len(), 8);
        out.advance(4);
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let used = out.slices(&mut slices);
        let seen: Vec<u8> = slices[..used].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(seen, b"efgh");
        out.advance(4);
        assert!(out.is_empty());
    }
}
