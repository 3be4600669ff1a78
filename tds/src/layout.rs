//! How the rows of a result set are laid out: compiled once per COLMETADATA, read per row.
//!
//! The fast path. A variable row is a chain: where a value begins is known only when the length before it is read, about two
//! nanoseconds each. Two ways around it:
//! - Most types with a u8 length have but one length beside NULL. The position behind such a value is worked out from that usual
//!   length while the length itself is still being read; the comparison is a branch that the processor predicts. A column with
//!   many NULLs among its values defeats the prediction and loses this treatment. Such columns are passed several at once
//!   ([`RowPlan`]). Where one stands alone, [`black_box`] keeps the compiler from seeing that both lengths are equal there, which
//!   would put the read back into the chain.
//! - NBCROW says NULL in its bitmap, so that a value left out advances by a masked length instead of a branch: random NULLs cost
//!   no mispredictions.

use std::hint::black_box;

use crate::data_type::DataType;
use crate::lengths::{Lengths, scaled_len};
use crate::read::Reader;
use crate::row_plan::RowPlan;
use crate::token::TokenKind;
use crate::type_info::{Framing, TypeInfo};

/// One step over a row: a value, or a run of fixed-length values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// This many bytes.
    Fixed(u32),
    /// u8 length, one of these; 0 is NULL.
    Byte(Lengths),
    /// The same, mostly `len`, which is one of `lengths`; `misses` counts in how many rows it was not.
    Usual { len: u8, misses: u16, lengths: Lengths },
    /// u16 length, 0xFFFF is none.
    UShort,
    /// u32 length.
    Long,
    /// The same, and a type in it that has this length.
    Variant,
    /// Text pointer, timestamp, i32 length.
    TextPtr,
    /// i32 length, -1 is none.
    LongText,
    /// Chunks.
    Plp,
}

impl From<Framing> for Op {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Fixed(n) => Self::Fixed(u32::from(n)),
            Framing::Byte(lengths) => Self::Byte(lengths),
            Framing::UShort => Self::UShort,
            Framing::Long => Self::Long,
            Framing::Variant => Self::Variant,
            Framing::TextPtr => Self::TextPtr,
            Framing::LongText => Self::LongText,
            Framing::Plp => Self::Plp,
        }
    }
}

impl From<&TypeInfo> for Op {
    fn from(info: &TypeInfo) -> Self {
        match (info.framing, usual_len(info)) {
            (Framing::Byte(lengths), Some(len)) if lengths.allow(len) => Self::Usual {
                len,
                misses: 0,
                lengths,
            },
            (framing, _) => Self::from(framing),
        }
    }
}

/// The length that all values of a type have but NULL, as far as that is known. A guess, but always a length that the type
/// has, so that a value of this length need not be looked at any more.
fn usual_len(info: &TypeInfo) -> Option<u8> {
    match info.data_type {
        DataType::Time | DataType::DateTime2 | DataType::DateTimeOffset => {
            scaled_len(info.data_type, info.scale)
        }
        DataType::VarBinary | DataType::VarChar | DataType::Binary | DataType::Char => None,
        _ => u8::try_from(info.max_len).ok().filter(|len| *len > 0),
    }
}

/// A column's usual length is given up when it misses in more than one of so many rows,
const MISSES_ROWS: u64 = 16;
/// and in more rows than these.
const MISSES_FREE: u16 = 32;

pub(crate) const ROW: u8 = TokenKind::Row.byte();
const NBC_ROW: u8 = TokenKind::NbcRow.byte();

/// Which rows may be passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBounds {
    /// A row may begin before this position.
    pub(crate) begin_before: usize,
    /// So many rows may begin.
    pub(crate) rows: u64,
    /// NBCROW is legal here.
    pub(crate) nbc: bool,
}

/// The layout of a result set's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// One per column, for NBCROW.
    pub(crate) columns: Box<[Op]>,
    /// Neighbouring fixed columns merged, for ROW and ALTROW.
    pub(crate) row: Box<[Op]>,
    /// The same, for rows that are whole.
    plan: RowPlan,
    /// Bytes of a ROW, token byte included, when every column is fixed.
    fixed_row: Option<usize>,
    /// Rows passed so far.
    passed: u64,
}

impl Layout {
    /// Compiles a layout from framings alone.
    #[must_use]
    pub fn new(framings: impl IntoIterator<Item = Framing>) -> Self {
        Self::compile(framings.into_iter().map(Op::from).collect())
    }

    /// Compiles a layout from the columns' types: faster rows than from framings alone.
    #[must_use]
    pub fn from_types<'a>(types: impl IntoIterator<Item = &'a TypeInfo>) -> Self {
        Self::compile(types.into_iter().map(Op::from).collect())
    }

    fn compile(columns: Box<[Op]>) -> Self {
        let mut row: Vec<Op> = Vec::with_capacity(columns.len());
        for op in &columns {
            match (row.last_mut(), op) {
                (_, Op::Fixed(0)) => {}
                (Some(Op::Fixed(run)), Op::Fixed(n)) => *run = run.saturating_add(*n),
                _ => row.push(*op),
            }
        }
        let fixed_row = match row.as_slice() {
            [] => Some(1),
            [Op::Fixed(n)] => usize::try_from(*n).ok().and_then(|n| n.checked_add(1)),
            _ => None,
        };
        Self {
            columns,
            plan: RowPlan::new(&row),
            row: row.into_boxed_slice(),
            fixed_row,
            passed: 0,
        }
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Bytes of an NBCROW's null bitmap.
    #[must_use]
    pub fn bitmap_len(&self) -> usize {
        self.columns.len().div_ceil(8)
    }

    /// Passes the rows from `at` on that are whole in the input, as far as `bounds` allow: how many, and where the last ends.
    pub(crate) fn whole_rows(&mut self, input: &[u8], mut at: usize, bounds: RowBounds) -> (u64, usize) {
        let misses_allowed = u16::try_from(self.passed / MISSES_ROWS)
            .unwrap_or(u16::MAX)
            .saturating_add(MISSES_FREE);
        let mut rows: u64 = 0;
        while rows < bounds.rows && at < bounds.begin_before {
            let end = match (input.get(at), self.fixed_row) {
                (Some(&ROW), Some(len)) => {
                    let (more, end) = fixed_rows(
                        input,
                        at,
                        len,
                        bounds.rows.saturating_sub(rows),
                        bounds.begin_before,
                    );
                    if more == 0 {
                        break;
                    }
                    rows = rows.saturating_add(more);
                    at = end;
                    continue;
                }
                (Some(&ROW), None) => {
                    let more = bounds.rows.saturating_sub(rows);
                    // A row may begin while more than these bytes are left.
                    let left = input.len().saturating_sub(bounds.begin_before);
                    let rest = input.get(at..).unwrap_or_default();
                    let (more, rest) = self.plan.pass(&mut self.row, rest, more, left, misses_allowed);
                    if more == 0 {
                        break;
                    }
                    rows = rows.saturating_add(more);
                    at = input.len().saturating_sub(rest.len());
                    continue;
                }
                (Some(&NBC_ROW), _) if bounds.nbc => self.nbc_row_end(input, at.saturating_add(1)),
                _ => None,
            };
            let Some(end) = end else { break };
            at = end;
            rows = rows.saturating_add(1);
        }
        self.passed = self.passed.saturating_add(rows);
        (rows, at)
    }

    /// Where the NBCROW ends whose bitmap begins at `at`; `None` if it is not all there, or broken. Also `None` for some of the
    /// last rows of an input: 8 bytes of bitmap are read at once, and lengths are read even of values that are left out.
    #[inline]
    fn nbc_row_end(&self, input: &[u8], at: usize) -> Option<usize> {
        let mut bitmap_at = at;
        let mut at = at.checked_add(self.bitmap_len())?;
        for ops in self.columns.chunks(64) {
            let nulls = u64::from_le_bytes(*input.get(bitmap_at..)?.first_chunk::<8>()?);
            bitmap_at = bitmap_at.checked_add(8)?;
            let mut present = !nulls;
            for op in ops {
                at = op.end_if(present & 1 == 1, input, at)?;
                present >>= 1;
            }
        }
        (at <= input.len()).then_some(at)
    }
}

/// Rows of `len` bytes from `at` on, at most `most` and none that begins at `begin_before` or later: how many, and their end.
fn fixed_rows(input: &[u8], at: usize, len: usize, most: u64, begin_before: usize) -> (u64, usize) {
    let most = usize::try_from(most)
        .unwrap_or(usize::MAX)
        .min(begin_before.saturating_sub(at).div_ceil(len));
    let candidates = input.get(at..).unwrap_or_default().chunks_exact(len).take(most);
    let rows = candidates.take_while(|row| row.first() == Some(&ROW)).count();
    (rows as u64, at.saturating_add(rows.saturating_mul(len)))
}

impl Op {
    /// Where the value ends that begins at `at`; it may be past the input's end. `None` if its length is not all there.
    #[inline(always)]
    pub(crate) fn end(&mut self, input: &[u8], at: usize, misses_allowed: u16) -> Option<usize> {
        match *self {
            Self::Fixed(n) => at.checked_add(widen(n)),
            Self::Usual { len, lengths, .. } => {
                let n = *input.get(at)?;
                if n == len {
                    at.checked_add(black_box(usize::from(len) + 1))
                } else {
                    self.miss(misses_allowed);
                    lengths.end(n, at)
                }
            }
            Self::Byte(lengths) => lengths.end(*input.get(at)?, at),
            Self::UShort => {
                let n = u16::from_le_bytes(*input.get(at..)?.first_chunk::<2>()?);
                at.checked_add(ushort_len(n))
            }
            other => other.long_end(input, at),
        }
    }

    /// The same for a value that may be left out.
    #[inline(always)]
    pub(crate) fn end_if(self, present: bool, input: &[u8], at: usize) -> Option<usize> {
        // Opaque, or the compiler would make branches of it.
        let mask = black_box(0usize.wrapping_sub(usize::from(present)));
        match self {
            Self::Fixed(n) => at.checked_add(widen(n) & mask),
            Self::Usual { len, lengths, .. } => {
                let n = *input.get(at)?;
                let usual = usize::from(len);
                if (usize::from(n) ^ usual) & mask == 0 {
                    at.checked_add((usual + 1) & mask)
                } else {
                    lengths.end(black_box(n), at)
                }
            }
            Self::Byte(lengths) => {
                let n = *input.get(at)?;
                if present && !lengths.allow(n) {
                    return None;
                }
                at.checked_add((usize::from(n) + 1) & mask)
            }
            Self::UShort => {
                let n = u16::from_le_bytes(*input.get(at..)?.first_chunk::<2>()?);
                at.checked_add(ushort_len(n) & mask)
            }
            other if present => other.long_end(input, at),
            _ => Some(at),
        }
    }

    /// A length was not the usual one. When that is no exception, the guess costs more than it gains.
    #[cold]
    fn miss(&mut self, allowed: u16) {
        if let Self::Usual { misses, lengths, .. } = self {
            if *misses < allowed {
                *misses = misses.saturating_add(1);
            } else {
                *self = Self::Byte(*lengths);
            }
        }
    }

    #[inline(never)]
    fn long_end(self, input: &[u8], at: usize) -> Option<usize> {
        let framing = match self {
            Self::Long => Framing::Long,
            Self::Variant => Framing::Variant,
            Self::TextPtr => Framing::TextPtr,
            Self::LongText => Framing::LongText,
            Self::Plp => Framing::Plp,
            Self::Fixed(_) | Self::Byte(_) | Self::Usual { .. } | Self::UShort => return None,
        };
        let mut r = Reader::new(input, at);
        framing.read_value(&mut r).ok().map(|_value| r.at())
    }
}

impl Lengths {
    /// Where the value of `n` bytes ends whose length is at `at`; `None` if there is no such value of the type, which the walk
    /// over rows that are not whole then refuses.
    #[inline(always)]
    fn end(self, n: u8, at: usize) -> Option<usize> {
        if self.allow(n) {
            at.checked_add(usize::from(n) + 1)
        } else {
            None
        }
    }
}

/// Bytes of a value with a u16 length, the length included; 0xFFFF is NULL.
#[inline(always)]
pub(crate) fn ushort_len(n: u16) -> usize {
    let n = if n == 0xFFFF { 0 } else { n };
    usize::from(n) + 2
}

#[inline(always)]
pub(crate) fn widen(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
