//! The walker: reads a response's token stream as it passes, whatever the packets, and counts its rows.
//!
//! - Any split: input may end at any byte; state between calls is a few counters (rows), or the bytes of one unfinished token.
//! - No allocation per row: allocated is once per COLMETADATA (the layout), and when a non-row token is split (the scratch).
//! - Memory is bounded: a non-row token is at most [`TOKEN_MAX`]; values of rows and of RETURNVALUE are never kept.
//! - What it cannot read is an error with the token and its offset, once and for ever: there is no resynchronisation in TDS.
//!
//! Relaying. `consumed` counts all input taken. A caller that may rewrite tokens forwards all of it except the bytes of an
//! unfinished non-row token ([`Walker::held`]), which come back whole in [`TokenRef::bytes`]. RETURNVALUE with a long value
//! (sql_variant, TEXT family, PLP) is returned when its head is complete, `bytes` ending before the value; the value then
//! passes as row data does, in the `consumed` of that and later calls, and [`Walker::at_boundary`] is false until it is over.
//!
//! ```
//! use weir_tds::version::TdsVersion;
//! use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};
//!
//! # fn main() -> Result<(), weir_tds::error::WireError> {
//! // COLMETADATA of one INT without a name, then three rows; two are paid for.
//! let stream = [0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0x38, 0, 0xD1, 1, 0, 0, 0, 0xD1, 2, 0, 0, 0, 0xD1, 3, 0, 0, 0];
//! let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
//! let mut budget = Budget { rows: 2, bytes: u64::MAX };
//! let mut at = 0;
//! while let Some(rest) = stream.get(at..) {
//!     let walk = walker.walk(rest, &mut budget)?;
//!     at += walk.consumed;
//!     match walk.step {
//!         Step::Token(token) => assert_eq!(token.kind.name(), "COLMETADATA"),
//!         Step::NeedMore | Step::BudgetSpent => break,
//!     }
//! }
//! assert_eq!((at, walker.rows(), walker.at_boundary()), (21, 2, true));
//! # Ok(())
//! # }
//! ```

mod step;

pub use self::step::{Budget, Step, TokenRef, Walk, WalkerOptions};

use crate::col_metadata::{AltMetadata, ColMetadata};
use crate::error::{WireError, WireErrorKind};
use crate::layout::{Layout, Op, RowBounds};
use crate::row_walk::{Layouts, NO_LAYOUT, RowWalk};
use crate::scan::{Length, Scan};
use crate::token::TokenKind;
use crate::value::ValueWalk;
use crate::version::TdsVersion;

/// Most bytes of a non-row token (a RETURNVALUE's long value excluded). A COLMETADATA of 4096 UDT columns is 2 MB.
pub const TOKEN_MAX: usize = 4 * 1024 * 1024;
/// Most ALTMETADATA ids of one result set; one per COMPUTE clause.
pub const ALT_LAYOUTS_MAX: usize = 256;
/// A scratch that grew beyond this is given back once its token is done.
const SCRATCH_KEPT: usize = 4 * 1024;

#[derive(Debug, Clone)]
enum State {
    /// Between tokens.
    Boundary,
    /// Inside a non-row token, whose bytes so far are in the scratch; it has at least `needed` bytes.
    Token { scan: Scan, needed: usize },
    /// Inside a row.
    Row(RowWalk),
    /// Inside the long value of a RETURNVALUE.
    Value { op: Op, walk: ValueWalk },
}

/// One call of [`Walker::walk`].
struct Run<'a> {
    input: &'a [u8],
    /// Everything before this is taken.
    at: usize,
    /// Last token boundary of this call (the input's start if there was none), and the rows begun up to it.
    clean: usize,
    clean_rows: u64,
    /// Where no row may begin any more: the position, and the count of rows.
    last_begin: usize,
    last_row: u64,
}

/// Why a run ended, before the token is borrowed.
enum Stop {
    NeedMore,
    BudgetSpent,
    /// The token is `from..` of what was taken of the input, or the scratch if `from` is `None`.
    Token {
        kind: TokenKind,
        from: Option<usize>,
    },
}

/// Reads a response's tokens. See the module's head.
#[derive(Debug, Clone)]
pub struct Walker {
    options: WalkerOptions,
    state: State,
    layout: Option<Layout>,
    alt_layouts: Vec<(u16, Layout)>,
    /// Null bitmap of the NBCROW in hand, when it is split.
    bitmap: Vec<u8>,
    scratch: Vec<u8>,
    /// The scratch holds a token that was returned.
    scratch_done: bool,
    rows: u64,
    result_sets: u64,
    payload: u64,
    /// Offset of the token in hand, and its kind.
    token_offset: u64,
    token_in_hand: Option<TokenKind>,
    failed: Option<WireError>,
}

impl Walker {
    /// A walker before the first message.
    #[must_use]
    pub const fn new(options: WalkerOptions) -> Self {
        Self {
            options,
            state: State::Boundary,
            layout: None,
            alt_layouts: Vec::new(),
            bitmap: Vec::new(),
            scratch: Vec::new(),
            scratch_done: false,
            rows: 0,
            result_sets: 0,
            payload: 0,
            token_offset: 0,
            token_in_hand: None,
            failed: None,
        }
    }

    /// After an error: the token in which it was found; none if its first byte names no token.
    #[must_use]
    pub const fn token_at_fault(&self) -> Option<TokenKind> {
        self.token_in_hand
    }

    /// Bytes of the split non-row token in hand; empty at a boundary and inside rows and values.
    #[must_use]
    pub fn unfinished(&self) -> &[u8] {
        match self.state {
            State::Token { .. } => &self.scratch,
            _ => &[],
        }
    }

    /// The options in force.
    #[must_use]
    pub const fn options(&self) -> WalkerOptions {
        self.options
    }

    /// New options, from the next token on (after LOGINACK and FEATUREEXTACK).
    pub const fn set_options(&mut self, options: WalkerOptions) {
        self.options = options;
    }

    /// True between tokens: here a stream can be cut.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    /// Bytes of an unfinished non-row token that were taken and will come back whole in a [`TokenRef`].
    #[must_use]
    pub const fn held(&self) -> usize {
        match self.state {
            State::Token { .. } => self.scratch.len(),
            _ => 0,
        }
    }

    /// Rows begun since [`Self::begin_message`]: ROW, NBCROW and ALTROW.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Result sets begun since [`Self::begin_message`]: COLMETADATA but those of no column.
    #[must_use]
    pub const fn result_sets(&self) -> u64 {
        self.result_sets
    }

    /// Bytes taken since [`Self::begin_message`]. After an error: those before the token at fault, as far as the failing call
    /// took them.
    #[must_use]
    pub const fn payload_bytes(&self) -> u64 {
        self.payload
    }

    /// A new response message begins; metadata and counters of the last one are dropped.
    pub fn begin_message(&mut self) {
        self.state = State::Boundary;
        self.layout = None;
        self.alt_layouts = Vec::new();
        self.bitmap = Vec::new();
        self.clear_scratch();
        (self.rows, self.result_sets, self.payload, self.token_offset) = (0, 0, 0, 0);
        self.failed = None;
    }

    /// The message's last byte was walked.
    ///
    /// # Errors
    /// The message ended inside a token, or an error stands from before.
    pub fn end_message(&self) -> Result<(), WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let name = match &self.state {
            State::Boundary => return Ok(()),
            State::Token { scan, .. } => scan.kind().name(),
            State::Row(row) => row.kind().name(),
            State::Value { .. } => TokenKind::ReturnValue.name(),
        };
        Err(WireError::at(self.payload, WireErrorKind::Truncated(name)))
    }

    /// Takes from `input` (token stream of one or more packets, no headers) up to the first non-row token that completes, the
    /// first row token that `budget` does not cover, or the input's end. Rows pass without return.
    ///
    /// # Errors
    /// A token that is not known or cannot be read. From then on every call fails alike until [`Self::begin_message`].
    /// [`Self::payload_bytes`], [`Self::rows`] and `budget` then stand at the last token boundary of this call, so what was
    /// whole before the fault can still be delivered.
    pub fn walk<'a>(&'a mut self, input: &'a [u8], budget: &mut Budget) -> Result<Walk<'a>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.scratch_done {
            self.clear_scratch();
        }
        let rows_before = self.rows;
        let mut run = Run {
            input,
            at: 0,
            clean: 0,
            clean_rows: self.rows,
            last_begin: usize::try_from(budget.bytes).unwrap_or(usize::MAX),
            last_row: self.rows.saturating_add(budget.rows),
        };
        let stop = self.run(&mut run);
        if let Err(error) = &stop {
            self.failed = Some(error.clone());
            self.rows = run.clean_rows;
            run.at = run.clean;
        }
        budget.rows = budget.rows.saturating_sub(self.rows.saturating_sub(rows_before));
        budget.bytes = budget.bytes.saturating_sub(run.at as u64);
        self.payload = self.payload.saturating_add(run.at as u64);
        let step = match stop? {
            Stop::NeedMore => Step::NeedMore,
            Stop::BudgetSpent => Step::BudgetSpent,
            Stop::Token { kind, from } => Step::Token(TokenRef {
                kind,
                bytes: match from {
                    Some(from) => input.get(from..run.at).unwrap_or_default(),
                    None => &self.scratch,
                },
                offset: self.token_offset,
            }),
        };
        Ok(Walk {
            consumed: run.at,
            step,
        })
    }

    fn run(&mut self, run: &mut Run<'_>) -> Result<Stop, WireError> {
        loop {
            match &mut self.state {
                State::Boundary => {
                    (run.clean, run.clean_rows) = (run.at, self.rows);
                    self.token_offset = self.payload.saturating_add(run.at as u64);
                    let Some(byte) = run.input.get(run.at) else {
                        return Ok(Stop::NeedMore);
                    };
                    self.token_in_hand = None;
                    let kind = self.token_kind(*byte)?;
                    self.token_in_hand = Some(kind);
                    if !kind.is_row() {
                        return self.begin_token(kind, run);
                    }
                    if self.rows >= run.last_row || run.at >= run.last_begin {
                        return Ok(Stop::BudgetSpent);
                    }
                    self.pass_rows(kind, run)?;
                }
                State::Token { .. } => return self.continue_token(run),
                State::Row(_) => {
                    if !self.continue_row(run)? {
                        return Ok(Stop::NeedMore);
                    }
                    self.state = State::Boundary;
                }
                State::Value { op, walk } => {
                    let over = walk.advance(*op, run.input, &mut run.at);
                    let at = self.payload.saturating_add(run.at as u64);
                    if !over.map_err(|kind| WireError::at(at, kind))? {
                        return Ok(Stop::NeedMore);
                    }
                    self.state = State::Boundary;
                }
            }
        }
    }

    /// The kind of a token byte, if it is legal on this connection.
    fn token_kind(&self, byte: u8) -> Result<TokenKind, WireError> {
        TokenKind::from_byte(byte)
            .filter(|kind| match kind {
                TokenKind::Offset => self.options.version < TdsVersion::V7_2,
                TokenKind::NbcRow => self.nbc_rows_legal(),
                TokenKind::DataClassification => self.options.data_classification > 0,
                _ => true,
            })
            .ok_or_else(|| WireError::at(self.token_offset, WireErrorKind::Token(byte)))
    }

    fn nbc_rows_legal(&self) -> bool {
        self.options.version >= TdsVersion::V7_3B
    }

    /// Passes the rows that are whole in the input; if the first is not, begins to walk it.
    fn pass_rows(&mut self, kind: TokenKind, run: &mut Run<'_>) -> Result<(), WireError> {
        if kind != TokenKind::AltRow {
            let nbc = self.nbc_rows_legal();
            let Some(layout) = &mut self.layout else {
                return Err(WireError::at(self.token_offset, NO_LAYOUT));
            };
            let bounds = RowBounds {
                begin_before: run.last_begin,
                rows: run.last_row.saturating_sub(self.rows),
                nbc,
            };
            let (rows, end) = layout.whole_rows(run.input, run.at, bounds);
            run.at = end;
            self.rows = self.rows.saturating_add(rows);
            if rows > 0 {
                return Ok(());
            }
        }
        run.at = run.at.saturating_add(1);
        self.rows = self.rows.saturating_add(1);
        self.bitmap.clear();
        self.state = State::Row(RowWalk::new(kind));
        Ok(())
    }

    /// Goes on in a row; true when it is over.
    fn continue_row(&mut self, run: &mut Run<'_>) -> Result<bool, WireError> {
        let State::Row(row) = &mut self.state else {
            return Ok(true);
        };
        let layouts = Layouts {
            main: self.layout.as_ref(),
            alt: &self.alt_layouts,
        };
        let over = row.advance(layouts, &mut self.bitmap, run.input, &mut run.at);
        over.map_err(|kind| WireError::at(self.payload.saturating_add(run.at as u64), kind))
    }

    fn begin_token(&mut self, kind: TokenKind, run: &mut Run<'_>) -> Result<Stop, WireError> {
        let mut scan = Scan::new(kind);
        let from = run.at;
        let rest = run.input.get(from..).unwrap_or_default();
        match self.scan_length(&mut scan, rest)? {
            Length::Whole(len, then) => {
                run.at = from.saturating_add(len);
                self.complete(kind, rest.get(..len).unwrap_or_default(), then)?;
                Ok(Stop::Token {
                    kind,
                    from: Some(from),
                })
            }
            Length::AtLeast(needed) => {
                self.scratch.extend_from_slice(rest);
                run.at = run.input.len();
                self.state = State::Token { scan, needed };
                Ok(Stop::NeedMore)
            }
        }
    }

    /// Collects a split token, never a byte more than it surely has.
    fn continue_token(&mut self, run: &mut Run<'_>) -> Result<Stop, WireError> {
        loop {
            let State::Token { scan, needed } = &self.state else {
                return Ok(Stop::NeedMore);
            };
            let (mut scan, needed) = (scan.clone(), *needed);
            let missing = needed.saturating_sub(self.scratch.len());
            let end = run.at.saturating_add(missing).min(run.input.len());
            self.scratch
                .extend_from_slice(run.input.get(run.at..end).unwrap_or_default());
            run.at = end;
            if self.scratch.len() < needed {
                return Ok(Stop::NeedMore);
            }
            let token = std::mem::take(&mut self.scratch);
            let length = self.scan_length(&mut scan, &token);
            let kind = scan.kind();
            let done = match length? {
                Length::Whole(_, then) => {
                    self.complete(kind, &token, then)?;
                    true
                }
                Length::AtLeast(needed) => {
                    self.state = State::Token { scan, needed };
                    false
                }
            };
            self.scratch = token;
            if done {
                self.scratch_done = true;
                return Ok(Stop::Token { kind, from: None });
            }
        }
    }

    fn scan_length(&self, scan: &mut Scan, token: &[u8]) -> Result<Length, WireError> {
        let length = scan
            .run(token, &self.options)
            .map_err(|(at, kind)| self.error_in_token(at, kind))?;
        let (Length::Whole(bytes, _) | Length::AtLeast(bytes)) = length;
        if bytes > TOKEN_MAX {
            let kind = WireErrorKind::TooLarge {
                what: scan.kind().name(),
                limit: TOKEN_MAX as u64,
            };
            return Err(self.error_in_token(0, kind));
        }
        Ok(length)
    }

    fn error_in_token(&self, at: usize, kind: WireErrorKind) -> WireError {
        WireError::at(self.token_offset.saturating_add(at as u64), kind)
    }

    /// A non-row token is whole: what it changes for the rows to come.
    fn complete(&mut self, kind: TokenKind, token: &[u8], then: Option<Op>) -> Result<(), WireError> {
        match kind {
            TokenKind::ColMetadata => self.col_metadata(token)?,
            TokenKind::AltMetadata => self.alt_metadata(token)?,
            _ => {}
        }
        self.state = match then {
            Some(op) => State::Value {
                op,
                walk: ValueWalk::new(),
            },
            None => State::Boundary,
        };
        Ok(())
    }

    /// Count 0xFFFF, and by MS-TDS 2.2.7.4 also count 0, leaves the metadata in force as it is.
    fn col_metadata(&mut self, token: &[u8]) -> Result<(), WireError> {
        let metadata = ColMetadata::parse(token, &self.options).map_err(|e| self.rebase(e))?;
        if metadata.no_metadata {
            self.result_sets = self.result_sets.saturating_add(1);
        } else if !metadata.columns.is_empty() {
            self.result_sets = self.result_sets.saturating_add(1);
            let layout = Layout::from_types(metadata.columns.iter().map(|column| &column.type_info));
            self.bitmap.clear();
            self.bitmap.reserve(layout.bitmap_len());
            self.layout = Some(layout);
            self.alt_layouts.clear();
        }
        Ok(())
    }

    fn alt_metadata(&mut self, token: &[u8]) -> Result<(), WireError> {
        let metadata = AltMetadata::parse(token, &self.options).map_err(|e| self.rebase(e))?;
        self.alt_layouts.retain(|(id, _)| *id != metadata.id);
        if self.alt_layouts.len() >= ALT_LAYOUTS_MAX {
            let kind = WireErrorKind::TooLarge {
                what: "number of ALTMETADATA",
                limit: ALT_LAYOUTS_MAX as u64,
            };
            return Err(self.error_in_token(0, kind));
        }
        let layout = Layout::from_types(metadata.columns.iter().map(|column| &column.type_info));
        self.alt_layouts.push((metadata.id, layout));
        Ok(())
    }

    fn rebase(&self, error: WireError) -> WireError {
        WireError::at(self.token_offset.saturating_add(error.offset), error.kind)
    }

    fn clear_scratch(&mut self) {
        self.scratch_done = false;
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT);
    }
}
