//! Bulk load [MS-TDS 2.2.6.1]: counts the rows a client uploads, at any split, in constant memory.
//!
//! The stream is a server's (COLMETADATA, ROW*, DONE) with three differences: the table of a TEXT column is one string,
//! there is no NBCROW, and nothing else may stand in it. The string is what SqlClient and FreeTDS write.

use crate::col_metadata::{NO_METADATA, Origin, read_cek_entry, read_column};
use crate::error::{WireError, WireErrorKind};
use crate::layout::{Layout, RowBounds};
use crate::read::{Fail, Reader};
use crate::row_walk::{Layouts, RowWalk};
use crate::token::TokenKind;
use crate::type_info::Framing;
use crate::walker::WalkerOptions;

/// Most columns of a bulk load: a wide table has 30 000 with its sparse ones, an ordinary one 1 024.
pub const COLUMNS_MAX: u16 = 30_000;
/// Most bytes of one column's entry or of one key: an assembly name of 128 KiB and what stands around it; a key entry
/// has at most 255 values, but real ones have one or two.
const ITEM_MAX: usize = 512 * 1024;

/// What the bulk message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkKind {
    /// INSERT BULK: rows.
    Rows,
    /// WRITETEXT BULK or UPDATETEXT BULK: one u32-counted value.
    Text,
}

#[derive(Debug, Clone)]
enum State {
    /// Before COLMETADATA; a bare DONE is an empty load (which the server refuses with 4804).
    Start,
    /// Inside what is gathered in `held`: so many keys and columns follow.
    Head(Item),
    /// Between tokens, behind the metadata.
    Boundary,
    /// Inside a row.
    Row(RowWalk),
    /// Inside DONE: so many bytes are left.
    Done(usize),
    /// Inside the value of a WRITETEXT.
    Text(u64),
    /// Behind the last byte that may come.
    End,
}

/// What of the metadata comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Count,
    KeyCount { columns: u16 },
    Key { left: u16, columns: u16 },
    Column { left: u16 },
    TextLength,
}

/// Reads the body of bulk load messages as it passes.
#[derive(Debug, Clone)]
pub struct BulkWalker {
    options: WalkerOptions,
    state: State,
    /// Bytes of a metadata item that is not whole yet.
    held: Vec<u8>,
    /// Bytes that `held` must have before it is worth reading again.
    needed: usize,
    framings: Vec<Framing>,
    layout: Option<Layout>,
    rows: u64,
    taken: u64,
    failed: Option<WireError>,
}

impl BulkWalker {
    /// A walker before the first byte of one bulk message.
    #[must_use]
    pub const fn new(options: WalkerOptions, kind: BulkKind) -> Self {
        let state = match kind {
            BulkKind::Rows => State::Start,
            BulkKind::Text => State::Head(Item::TextLength),
        };
        Self {
            options,
            state,
            held: Vec::new(),
            needed: 0,
            framings: Vec::new(),
            layout: None,
            rows: 0,
            taken: 0,
            failed: None,
        }
    }

    /// Rows begun so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Body bytes taken so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.taken
    }

    /// True between tokens: here an upload can be broken off with only whole rows behind it.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        matches!(self.state, State::Start | State::Boundary | State::End)
    }

    /// Takes all of `input`: body bytes of one or more packets.
    ///
    /// # Errors
    /// The client's fault: a stream that is no bulk load. Every later call fails alike; rows up to there stay counted.
    pub fn walk(&mut self, input: &[u8]) -> Result<(), WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut at = 0;
        let result = self.run(input, &mut at);
        let offset = self.taken.saturating_add(at as u64);
        self.taken = self.taken.saturating_add(input.len() as u64);
        result.map_err(|kind| {
            let error = WireError::at(offset, kind);
            self.failed = Some(error.clone());
            error
        })
    }

    /// The message's last byte was walked.
    ///
    /// # Errors
    /// It ended inside a token, or an error stands from before. An end without DONE between tokens is not one: a client
    /// that gives up sends Attention next. Nor is a DONE whose count has 4 bytes where [MS-TDS 2.2.7.6] has 8 since 7.2:
    /// SqlClient and mssql-tds write it so, and servers do not read it.
    pub fn end_message(&self) -> Result<(), WireError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.at_boundary() || self.short_count() => Ok(()),
            None => Err(WireError::at(self.taken, WireErrorKind::Truncated("bulk load"))),
        }
    }

    /// True behind the first half of an 8-byte count.
    fn short_count(&self) -> bool {
        self.options.version.has_wide_counts() && matches!(self.state, State::Done(4))
    }

    fn run(&mut self, input: &[u8], at: &mut usize) -> Result<(), WireErrorKind> {
        while *at < input.len() {
            match &mut self.state {
                State::Start | State::Boundary => self.token(input, at)?,
                State::Head(item) => {
                    let item = *item;
                    self.head(item, input, at)?;
                }
                State::Row(row) => {
                    let layouts = Layouts {
                        main: self.layout.as_ref(),
                        alt: &[],
                    };
                    if row.advance(layouts, &mut Vec::new(), input, at)? {
                        self.state = State::Boundary;
                    }
                }
                State::Done(left) => {
                    let step = (*left).min(input.len() - *at);
                    *at += step;
                    *left -= step;
                    if *left == 0 {
                        self.state = State::End;
                    }
                }
                State::Text(left) => {
                    let there = input.len() - *at;
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
                    *at += step;
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = State::End;
                    }
                }
                State::End => return Err(WireErrorKind::Invalid("bytes behind the end of a bulk load")),
            }
        }
        // A row or value of no bytes left ends here, not at the next input.
        if let State::Row(row) = &mut self.state {
            let layouts = Layouts {
                main: self.layout.as_ref(),
                alt: &[],
            };
            if row.advance(layouts, &mut Vec::new(), input, at)? {
                self.state = State::Boundary;
            }
        }
        Ok(())
    }

    /// Takes a token byte, or the rows that are whole in the input.
    fn token(&mut self, input: &[u8], at: &mut usize) -> Result<(), WireErrorKind> {
        let byte = input.get(*at).copied().unwrap_or_default();
        self.state = match TokenKind::from_byte(byte) {
            Some(TokenKind::ColMetadata) if matches!(self.state, State::Start) => State::Head(Item::Count),
            Some(TokenKind::Done) => State::Done(if self.options.version.has_wide_counts() {
                12
            } else {
                8
            }),
            Some(TokenKind::Row) => {
                let layout = self.layout.as_mut().ok_or(WireErrorKind::RowWithoutMetadata)?;
                let bounds = RowBounds {
                    begin_before: usize::MAX,
                    rows: u64::MAX,
                    nbc: false,
                };
                let (rows, end) = layout.whole_rows(input, *at, bounds);
                if rows > 0 {
                    self.rows = self.rows.saturating_add(rows);
                    *at = end;
                    return Ok(());
                }
                self.rows = self.rows.saturating_add(1);
                State::Row(RowWalk::new(TokenKind::Row))
            }
            _ => return Err(WireErrorKind::Token(byte)),
        };
        *at += 1;
        Ok(())
    }

    /// Gathers bytes until the metadata item in hand can be read, then reads it. Never takes a byte more than it needs.
    fn head(&mut self, item: Item, input: &[u8], at: &mut usize) -> Result<(), WireErrorKind> {
        let missing = self.needed.max(self.held.len() + 1) - self.held.len();
        let end = at.saturating_add(missing).min(input.len());
        self.held
            .extend_from_slice(input.get(*at..end).unwrap_or_default());
        *at = end;
        if self.held.len() < self.needed {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let read = self.read_item(item, &held);
        self.held = held;
        match read {
            Ok(next) => {
                self.held.clear();
                self.needed = 0;
                self.state = next;
            }
            Err(Fail::Short(needed)) if needed > ITEM_MAX => {
                return Err(WireErrorKind::TooLarge {
                    what: "a column of a bulk load",
                    limit: ITEM_MAX as u64,
                });
            }
            Err(Fail::Short(needed)) => self.needed = needed,
            Err(Fail::Bad(_, kind)) => return Err(kind),
        }
        Ok(())
    }

    fn read_item(&mut self, item: Item, bytes: &[u8]) -> Result<State, Fail> {
        let mut r = Reader::new(bytes, 0);
        Ok(match item {
            Item::Count => match r.u16()? {
                0 | NO_METADATA => {
                    return Err(r.bad(2, WireErrorKind::Invalid("a bulk load without columns")));
                }
                count if count > COLUMNS_MAX => {
                    let limit = u64::from(COLUMNS_MAX);
                    return Err(r.bad(
                        2,
                        WireErrorKind::TooLarge {
                            what: "the columns of a bulk load",
                            limit,
                        },
                    ));
                }
                columns if self.options.column_encryption => State::Head(Item::KeyCount { columns }),
                columns => State::Head(Item::Column { left: columns }),
            },
            Item::KeyCount { columns } => match r.u16()? {
                0 => State::Head(Item::Column { left: columns }),
                left => State::Head(Item::Key { left, columns }),
            },
            Item::Key { left, columns } => {
                read_cek_entry(&mut r)?;
                match left.saturating_sub(1) {
                    0 => State::Head(Item::Column { left: columns }),
                    left => State::Head(Item::Key { left, columns }),
                }
            }
            Item::Column { left } => {
                let column = read_column(&mut r, &self.options, Origin::BulkLoad)?;
                self.framings.push(column.type_info.framing);
                match left.saturating_sub(1) {
                    0 => {
                        self.layout = Some(Layout::new(std::mem::take(&mut self.framings)));
                        State::Boundary
                    }
                    left => State::Head(Item::Column { left }),
                }
            }
            Item::TextLength => match r.u32()? {
                0 => State::End,
                n => State::Text(u64::from(n)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Collation, ColumnDef, ColumnType, TokenBuf, Value};
    use crate::version::TdsVersion;

    fn upload() -> Vec<u8> {
        let columns = [
            ColumnDef::new("id", ColumnType::Int),
            ColumnDef::new("t", ColumnType::Text(Collation::LATIN1)).with_table(&["dbo", "t"]),
            ColumnDef::new("s", ColumnType::NVarCharMax(Collation::LATIN1)),
        ];
        let mut out = TokenBuf::new(TdsVersion::V7_4);
        out.bulk_metadata(&columns).unwrap();
        for i in 0..50 {
            let text = if i % 2 == 0 {
                Value::Null
            } else {
                Value::Str("abc")
            };
            out.row(&columns, &[Value::Int(i), text, Value::Str("ü")])
                .unwrap();
        }
        out.done(0, 0, 0);
        out.take().to_vec()
    }

    #[test]
    fn rows_are_counted_alike_at_every_split() {
        let bytes = upload();
        for step in [1, 2, 3, 7, 64, bytes.len()] {
            let mut walker = BulkWalker::new(WalkerOptions::new(TdsVersion::V7_4), BulkKind::Rows);
            for piece in bytes.chunks(step) {
                walker.walk(piece).unwrap();
            }
            assert_eq!(walker.end_message(), Ok(()), "step {step}");
            assert_eq!((walker.rows(), walker.bytes()), (50, bytes.len() as u64));
        }
    }

    #[test]
    fn an_upload_that_ends_inside_a_row_or_goes_on_behind_done_is_an_error() {
        let bytes = upload();
        let mut walker = BulkWalker::new(WalkerOptions::new(TdsVersion::V7_4), BulkKind::Rows);
        walker.walk(bytes.get(..bytes.len() - 20).unwrap()).unwrap();
        assert!(walker.end_message().is_err());
        let mut walker = BulkWalker::new(WalkerOptions::new(TdsVersion::V7_4), BulkKind::Rows);
        walker.walk(&bytes).unwrap();
        assert!(walker.walk(&[0xFD]).is_err());
        assert!(walker.walk(&[]).is_err(), "an error stands");
    }

    #[test]
    fn a_count_of_four_bytes_ends_an_upload_as_well() {
        let bytes = upload();
        for (cut, whole) in [
            (1, false),
            (3, false),
            (4, true),
            (5, false),
            (8, false),
            (12, false),
        ] {
            let mut walker = BulkWalker::new(WalkerOptions::new(TdsVersion::V7_4), BulkKind::Rows);
            walker.walk(bytes.get(..bytes.len() - cut).unwrap()).unwrap();
            assert_eq!(walker.end_message().is_ok(), whole, "{cut} bytes less");
            assert_eq!(walker.rows(), 50);
        }
    }

    #[test]
    fn a_writetext_is_one_value() {
        let mut walker = BulkWalker::new(WalkerOptions::new(TdsVersion::V7_4), BulkKind::Text);
        for byte in [3u8, 0, 0, 0, 0x81, 1, 2] {
            walker.walk(&[byte]).unwrap();
        }
        assert_eq!((walker.end_message(), walker.rows()), (Ok(()), 0));
    }
}
