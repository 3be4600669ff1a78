//! Steps over one row that may be cut anywhere: the way of the rows that are not whole in the input, and of ALTROW.

use crate::error::WireErrorKind;
use crate::layout::{Layout, Op};
use crate::token::TokenKind;
use crate::value::ValueWalk;

/// A row arrived and there is no layout for it.
pub(crate) const NO_LAYOUT: WireErrorKind = WireErrorKind::RowWithoutMetadata;

/// The layouts in force.
#[derive(Clone, Copy)]
pub(crate) struct Layouts<'a> {
    pub(crate) main: Option<&'a Layout>,
    pub(crate) alt: &'a [(u16, Layout)],
}

/// Where in a row the walk stands.
#[derive(Debug, Clone)]
pub(crate) struct RowWalk {
    kind: TokenKind,
    /// ALTROW: the bytes of its id so far; then the index of its layout.
    id: [u8; 2],
    id_len: usize,
    alt: usize,
    /// The bitmap or the id is complete.
    head_done: bool,
    /// Index of the column or op in hand.
    op: usize,
    value: ValueWalk,
}

impl RowWalk {
    /// A row whose token byte was taken.
    pub(crate) const fn new(kind: TokenKind) -> Self {
        Self {
            kind,
            id: [0; 2],
            id_len: 0,
            alt: 0,
            head_done: false,
            op: 0,
            value: ValueWalk::new(),
        }
    }

    pub(crate) const fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Goes on as far as the input goes; true when the row is over. `bitmap` is empty when an NBCROW begins, and is kept
    /// between the calls; it was given room for the layout's bitmap.
    pub(crate) fn advance(
        &mut self,
        layouts: Layouts<'_>,
        bitmap: &mut Vec<u8>,
        input: &[u8],
        at: &mut usize,
    ) -> Result<bool, WireErrorKind> {
        if !self.head_done {
            self.head_done = match self.kind {
                TokenKind::NbcRow => read_bitmap(layouts, bitmap, input, at)?,
                TokenKind::AltRow => self.read_id(layouts, input, at)?,
                _ => true,
            };
            if !self.head_done {
                return Ok(false);
            }
        }
        let ops = match self.kind {
            TokenKind::AltRow => layouts.alt.get(self.alt).map(|(_id, layout)| &layout.row),
            TokenKind::NbcRow => layouts.main.map(|layout| &layout.columns),
            _ => layouts.main.map(|layout| &layout.row),
        };
        let ops = ops.ok_or(NO_LAYOUT)?;
        while let Some(op) = ops.get(self.op) {
            let null = self.kind == TokenKind::NbcRow && is_null(bitmap, self.op);
            if !null && !self.pass_value(*op, input, at)? {
                return Ok(false);
            }
            self.op = self.op.saturating_add(1);
        }
        Ok(true)
    }

    /// True when the value is over. All values of a row that is cut are whole but one: those take the short way.
    fn pass_value(&mut self, op: Op, input: &[u8], at: &mut usize) -> Result<bool, WireErrorKind> {
        if self.value.is_at_start()
            && let Some(end) = op.end_if(true, input, *at)
            && end <= input.len()
        {
            *at = end;
            return Ok(true);
        }
        self.value.advance(op, input, at)
    }

    /// ALTROW's id; true when it is complete.
    fn read_id(&mut self, layouts: Layouts<'_>, input: &[u8], at: &mut usize) -> Result<bool, WireErrorKind> {
        while let Some(slot) = self.id.get_mut(self.id_len) {
            let Some(byte) = input.get(*at) else {
                return Ok(false);
            };
            *slot = *byte;
            *at = at.saturating_add(1);
            self.id_len = self.id_len.saturating_add(1);
        }
        let id = u16::from_le_bytes(self.id);
        self.alt = layouts
            .alt
            .iter()
            .position(|(known, _)| *known == id)
            .ok_or(NO_LAYOUT)?;
        Ok(true)
    }
}

/// NBCROW's bitmap; true when it is complete.
fn read_bitmap(
    layouts: Layouts<'_>,
    bitmap: &mut Vec<u8>,
    input: &[u8],
    at: &mut usize,
) -> Result<bool, WireErrorKind> {
    let whole = layouts.main.ok_or(NO_LAYOUT)?.bitmap_len();
    let missing = whole.saturating_sub(bitmap.len());
    let end = at.saturating_add(missing).min(input.len());
    bitmap.extend_from_slice(input.get(*at..end).unwrap_or_default());
    *at = end;
    Ok(bitmap.len() >= whole)
}

fn is_null(bitmap: &[u8], column: usize) -> bool {
    bitmap
        .get(column / 8)
        .is_some_and(|byte| byte >> (column % 8) & 1 == 1)
}
