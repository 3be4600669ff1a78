//! What waits to be written to a socket: a queue of byte pieces that are never copied together.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Pieces given to one vectored write; more stay for the next.
pub const PIECES_PER_WRITE: usize = 64;

/// Bytes on their way to one socket.
#[derive(Debug, Default)]
pub struct Out {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Out {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
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
        while let Some(front) = self.pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
