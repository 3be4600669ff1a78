//! Steps over one value that may be cut anywhere, in constant memory: what is kept is a few counters and up to 8 length bytes.

use crate::error::WireErrorKind;
use crate::layout::Op;
use crate::lengths::{VariantHead, variant_holds};
use crate::type_info::{
    NEGATIVE_LENGTH, PLP_MISMATCH, PLP_NULL, PLP_UNKNOWN, TEXT_TIMESTAMP_LEN, VARIANT_LENGTH,
};

/// Where in a value the walk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the first byte, or inside the first length.
    Length,
    /// Inside the head of a sql_variant.
    VariantHead,
    /// Inside the text pointer or its timestamp.
    TextPointer,
    /// Inside the length after a text pointer.
    TextLength,
    /// Inside the value's last run of bytes.
    Data,
    /// Inside a PLP chunk's length.
    ChunkLength,
    /// Inside a PLP chunk.
    Chunk,
}

const HEAD_LEN: u64 = size_of::<VariantHead>() as u64;

/// A resumable walk over one value; back at its start when the value is over.
#[derive(Debug, Clone)]
pub(crate) struct ValueWalk {
    stage: Stage,
    /// Length bytes gathered so far.
    gathered: [u8; 8],
    have: u8,
    /// Bytes left of what is being skipped.
    left: u64,
    /// PLP: stated total, and the sum of the chunks so far. The total of a sql_variant.
    total: u64,
    seen: u64,
}

impl ValueWalk {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::Length,
            gathered: [0; 8],
            have: 0,
            left: 0,
            total: 0,
            seen: 0,
        }
    }

    /// True before the first byte of a value.
    pub(crate) fn is_at_start(&self) -> bool {
        self.stage == Stage::Length && self.have == 0
    }

    /// Steps from `*at` as far as the input goes. True when the value is over; `*at` then is just behind it.
    pub(crate) fn advance(&mut self, op: Op, input: &[u8], at: &mut usize) -> Result<bool, WireErrorKind> {
        loop {
            let over = match self.stage {
                Stage::Length => self.length(op, input, at)?,
                Stage::VariantHead => self.variant_head(input, at)?,
                Stage::TextPointer => self.skip(input, at).map(|()| {
                    self.stage = Stage::TextLength;
                    false
                }),
                Stage::TextLength => match self.gather(4, input, at) {
                    Some(n) => Some(self.data(signed(n)?)),
                    None => None,
                },
                Stage::Data => self.skip(input, at).map(|()| true),
                Stage::ChunkLength => self.chunk_length(input, at)?,
                Stage::Chunk => self.skip(input, at).map(|()| {
                    self.stage = Stage::ChunkLength;
                    false
                }),
            };
            match over {
                Some(false) => {}
                Some(true) => {
                    *self = Self::new();
                    return Ok(true);
                }
                None => return Ok(false),
            }
        }
    }

    /// The value's first length. `None`: more input needed; `Some(true)`: the value is over.
    fn length(&mut self, op: Op, input: &[u8], at: &mut usize) -> Result<Option<bool>, WireErrorKind> {
        let width = match op {
            Op::Fixed(n) => return Ok(Some(self.data(u64::from(n)))),
            Op::Byte(_) | Op::Usual { .. } | Op::TextPtr => 1,
            Op::UShort => 2,
            Op::Long | Op::Variant | Op::LongText => 4,
            Op::Plp => 8,
        };
        let Some(n) = self.gather(width, input, at) else {
            return Ok(None);
        };
        let over = match op {
            Op::Byte(lengths) | Op::Usual { lengths, .. } => {
                let len = u8::try_from(n).unwrap_or(u8::MAX);
                if !lengths.allow(len) {
                    return Err(WireErrorKind::ValueLength(len));
                }
                self.data(n)
            }
            Op::UShort if n == 0xFFFF => true,
            Op::LongText if n == 0xFFFF_FFFF => true,
            Op::LongText => self.data(signed(n)?),
            Op::TextPtr if n == 0 => true,
            Op::TextPtr => {
                self.left = n.saturating_add(TEXT_TIMESTAMP_LEN as u64);
                self.stage = Stage::TextPointer;
                false
            }
            Op::Variant if n == 0 => true,
            Op::Variant if n < HEAD_LEN => return Err(VARIANT_LENGTH),
            Op::Variant => {
                self.total = n;
                self.stage = Stage::VariantHead;
                false
            }
            Op::Plp if n == PLP_NULL => true,
            Op::Plp => {
                self.total = n;
                self.stage = Stage::ChunkLength;
                false
            }
            Op::Fixed(_) | Op::UShort | Op::Long => self.data(n),
        };
        Ok(Some(over))
    }

    fn chunk_length(&mut self, input: &[u8], at: &mut usize) -> Result<Option<bool>, WireErrorKind> {
        let Some(n) = self.gather(4, input, at) else {
            return Ok(None);
        };
        let known = self.total != PLP_UNKNOWN;
        if n == 0 {
            return if known && self.seen != self.total {
                Err(PLP_MISMATCH)
            } else {
                Ok(Some(true))
            };
        }
        self.seen = self.seen.checked_add(n).ok_or(PLP_MISMATCH)?;
        if known && self.seen > self.total {
            return Err(PLP_MISMATCH);
        }
        self.left = n;
        self.stage = Stage::Chunk;
        Ok(Some(false))
    }

    /// What a sql_variant holds, and whether that is as long as it is.
    fn variant_head(&mut self, input: &[u8], at: &mut usize) -> Result<Option<bool>, WireErrorKind> {
        let Some(head) = self.gather(HEAD_LEN as u8, input, at) else {
            return Ok(None);
        };
        let [base, properties, first, ..] = head.to_le_bytes();
        if !variant_holds(self.total, [base, properties, first]) {
            return Err(VARIANT_LENGTH);
        }
        let rest = self.total.saturating_sub(HEAD_LEN);
        Ok(Some(self.data(rest)))
    }

    /// The value's last `n` bytes come now; true if there are none.
    fn data(&mut self, n: u64) -> bool {
        self.left = n;
        self.stage = Stage::Data;
        n == 0
    }

    /// Skips what is left; `None` if the input ends first.
    fn skip(&mut self, input: &[u8], at: &mut usize) -> Option<()> {
        let there = input.len().saturating_sub(*at);
        let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(there);
        *at = at.saturating_add(step);
        self.left = self.left.saturating_sub(step as u64);
        (self.left == 0).then_some(())
    }

    /// Gathers an integer of `width` (at most 8) bytes; `None` if the input ends first.
    fn gather(&mut self, width: u8, input: &[u8], at: &mut usize) -> Option<u64> {
        let missing = self
            .gathered
            .get_mut(usize::from(self.have)..usize::from(width))?;
        let mut taken = 0u8;
        for (slot, byte) in missing.iter_mut().zip(input.get(*at..)?) {
            *slot = *byte;
            taken = taken.saturating_add(1);
        }
        *at = at.saturating_add(usize::from(taken));
        self.have = self.have.saturating_add(taken);
        if self.have < width {
            return None;
        }
        let n = u64::from_le_bytes(self.gathered);
        (self.gathered, self.have) = ([0; 8], 0);
        Some(n)
    }
}

fn signed(n: u64) -> Result<u64, WireErrorKind> {
    if n > 0x7FFF_FFFF {
        Err(NEGATIVE_LENGTH)
    } else {
        Ok(n)
    }
}
