//! Blocks that sockets are read into, lent to sessions while bytes flow and taken back when they rest: an idle session holds
//! none, and a busy one asks no allocator for each statement.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

/// Blocks that are kept for the next session: 2 MiB at most. Beyond them blocks go back to the allocator.
const KEPT_MAX: usize = 256;

/// Bytes of a block: the first read of a message, and the beginning of a packet of the usual size before it.
pub(super) const BLOCK: usize = 8 * 1024;

/// The blocks that nobody uses at the moment.
#[derive(Debug)]
pub struct Blocks {
    kept: Mutex<Vec<BytesMut>>,
    kept_max: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self::keeping(KEPT_MAX)
    }
}

impl Blocks {
    /// Keeps so many blocks at most.
    #[must_use]
    pub fn keeping(kept_max: usize) -> Self {
        Self {
            kept: Mutex::default(),
            kept_max,
        }
    }

    /// A block with nothing in it.
    #[must_use]
    pub fn lend(&self) -> BytesMut {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| BytesMut::with_capacity(BLOCK))
    }

    /// Takes a block back if nothing is in it and nobody else has a part of it.
    pub(super) fn take_back(&self, mut block: BytesMut) {
        if block.capacity() == 0
            || !block.is_empty()
            || !block.try_reclaim(BLOCK)
            || block.capacity() > 2 * BLOCK
        {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.kept_max {
            kept.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_lent_again_unless_somebody_holds_a_part_of_it() {
        let blocks = Blocks::default();
        let mut block = blocks.lend();
        block.extend_from_slice(b"packet");
        let at = block.as_ptr();
        let packet = block.split_to(6).freeze();
        blocks.take_back(block);
        let other = blocks.lend();
        assert_ne!(other.as_ptr(), at, "a part of it is still to be written");
        drop(packet);
        let mut block = other;
        let at = block.as_ptr();
        block.extend_from_slice(b"packet");
        drop(block.split_to(6));
        blocks.take_back(block);
        let again = blocks.lend();
        assert_eq!((again.as_ptr(), again.capacity()), (at, BLOCK));
    }
}
