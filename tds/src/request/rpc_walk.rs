//! RPC requests as they pass [MS-TDS 2.2.6.6]: counts calls and clears fNoMetaData in place, at any split, in constant
//! memory. For requests that are not held whole; [`rpc`](super::rpc) reads those that are.
//!
//! Why the flag is cleared: a server of 2014 or before then leaves the metadata out, and rows without it cannot be
//! counted; a client that gets metadata it did not want reads it all the same (so SqlClient's source has it).

use super::RequestOptions;
use super::parameter::{self, read_cipher_info};
use super::rpc::{BY_NUMBER, CallFlags, NAME_UNITS_MAX, PARAMETER_NAME_UNITS_MAX, separator};
use crate::error::{WireError, WireErrorKind};
use crate::layout::Op;
use crate::read::{Fail, Reader};
use crate::type_info::{Place, TypeInfo};
use crate::value::ValueWalk;

/// Most bytes gathered at once: a TYPE_INFO with the names of an XML schema collection, the last of 128 KiB.
const ITEM_MAX: usize = 192 * 1024;

/// What comes next.
#[derive(Debug, Clone)]
enum State {
    /// So many bytes that say nothing, then the next state.
    Skip(u64, Next),
    /// An item that is read when it is whole.
    Item(Item),
    /// The low byte of a call's flags, cleared where it stands.
    Flags,
    /// First byte of a parameter, or a separator.
    Parameter,
    /// A value, then what follows it.
    Value(Op, ValueWalk, After),
}

/// Where to go behind skipped bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Call,
    Flags,
    Enclave,
    Parameter,
    ParameterHead,
    TableMetadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Headers,
    Call,
    Enclave,
    ParameterHead,
    Cipher,
    TableColumn { left: u16 },
    TableMetadata,
    TableRow,
}

/// What follows a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Parameter,
    Cipher,
    /// The value of this column of a table's row.
    Cell(usize),
}

/// Walks one RPC message.
#[derive(Debug, Clone)]
pub struct RpcWalker {
    options: RequestOptions,
    state: State,
    /// Bytes of an item that is not whole yet.
    held: Vec<u8>,
    /// Bytes that `held` must have before it is worth reading again.
    needed: usize,
    /// The table in hand: how its cells are framed, and the order of its values.
    columns: Vec<Option<Op>>,
    order: Vec<u8>,
    seen_order: bool,
    seen_unique: bool,
    taken: u64,
    calls: u32,
    cleared: u32,
    failed: Option<WireError>,
}

impl RpcWalker {
    /// A walker before the first byte of a message.
    #[must_use]
    pub fn new(options: RequestOptions) -> Self {
        let first = if options.version.has_wide_counts() {
            Item::Headers
        } else {
            Item::Call
        };
        Self {
            options,
            state: State::Item(first),
            held: Vec::new(),
            needed: 0,
            columns: Vec::new(),
            order: Vec::new(),
            seen_order: false,
            seen_unique: false,
            taken: 0,
            calls: 0,
            cleared: 0,
            failed: None,
        }
    }

    /// Calls begun so far.
    #[must_use]
    pub const fn calls(&self) -> u32 {
        self.calls
    }

    /// Flags cleared so far.
    #[must_use]
    pub const fn cleared(&self) -> u32 {
        self.cleared
    }

    /// Walks all of `input` (body bytes of one or more packets) and clears fNoMetaData in it.
    ///
    /// # Errors
    /// The client's fault: no RPC request. Every later call fails alike.
    pub fn walk(&mut self, input: &mut [u8]) -> Result<(), WireError> {
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
    /// It ended inside a call or a parameter, or an error stands from before.
    pub fn end_message(&self) -> Result<(), WireError> {
        let between = match &self.state {
            State::Parameter => true,
            State::Item(Item::Call) => self.held.is_empty(),
            _ => false,
        };
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if between => Ok(()),
            None => Err(WireError::at(self.taken, WireErrorKind::Truncated("RPC request"))),
        }
    }

    fn run(&mut self, input: &mut [u8], at: &mut usize) -> Result<(), WireErrorKind> {
        loop {
            let more = *at < input.len();
            match &mut self.state {
                State::Skip(0, next) => self.state = next.state(),
                State::Value(op, value, after) => {
                    let (op, after) = (*op, *after);
                    if !value.advance(op, input, at)? {
                        return Ok(());
                    }
                    self.state = self.behind_value(after);
                }
                _ if !more => return Ok(()),
                State::Skip(left, _) => {
                    let there = input.len() - *at;
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
                    *at += step;
                    *left -= step as u64;
                }
                State::Item(item) => {
                    let item = *item;
                    self.gather(item, input, at)?;
                }
                State::Flags => {
                    if let Some(low) = input
                        .get_mut(*at)
                        .filter(|b| u16::from(**b) & CallFlags::NO_METADATA != 0)
                    {
                        *low &= !2;
                        self.cleared = self.cleared.saturating_add(1);
                    }
                    *at += 1;
                    self.calls = self.calls.saturating_add(1);
                    let next = if self.options.enclave {
                        Next::Enclave
                    } else {
                        Next::Parameter
                    };
                    self.state = State::Skip(1, next);
                }
                State::Parameter => {
                    let first = input.get(*at).copied().unwrap_or_default();
                    *at += 1;
                    self.state = match separator(first, self.options.version) {
                        Some(_) => State::Item(Item::Call),
                        None if first > PARAMETER_NAME_UNITS_MAX => return Err(super::rpc::NO_PARAMETER),
                        None => State::Skip(u64::from(first) * 2, Next::ParameterHead),
                    };
                }
            }
        }
    }

    /// Gathers bytes until `item` can be read, then reads it. Never takes a byte more than it needs.
    fn gather(&mut self, item: Item, input: &[u8], at: &mut usize) -> Result<(), WireErrorKind> {
        let missing = self.needed.max(self.held.len() + 1) - self.held.len();
        let end = at.saturating_add(missing).min(input.len());
        self.held
            .extend_from_slice(input.get(*at..end).unwrap_or_default());
        *at = end;
        if self.held.len() < self.needed {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let read = self.read(item, &mut Reader::new(&held, 0));
        self.held = held;
        match read {
            Ok(next) => {
                self.held.clear();
                self.needed = 0;
                self.state = next;
            }
            Err(Fail::Short(needed)) if needed > ITEM_MAX => {
                return Err(WireErrorKind::TooLarge {
                    what: "a type of an RPC parameter",
                    limit: ITEM_MAX as u64,
                });
            }
            Err(Fail::Short(needed)) => self.needed = needed,
            Err(Fail::Bad(_, kind)) => return Err(kind),
        }
        Ok(())
    }

    fn read(&mut self, item: Item, r: &mut Reader<'_>) -> Result<State, Fail> {
        Ok(match item {
            Item::Headers => match u64::from(r.u32()?).checked_sub(4) {
                Some(left) => State::Skip(left, Next::Call),
                None => return Err(r.bad(4, WireErrorKind::Invalid("ALL_HEADERS with a total below 4"))),
            },
            Item::Call => match r.u16()? {
                BY_NUMBER => State::Skip(2, Next::Flags),
                units if units > NAME_UNITS_MAX => {
                    let limit = u64::from(NAME_UNITS_MAX);
                    return Err(r.bad(
                        2,
                        WireErrorKind::TooLarge {
                            what: "a procedure name",
                            limit,
                        },
                    ));
                }
                units => State::Skip(u64::from(units) * 2, Next::Flags),
            },
            Item::Enclave => State::Skip(u64::from(r.u16()?), Next::Parameter),
            Item::ParameterHead => self.read_parameter_head(r)?,
            Item::Cipher => {
                read_cipher_info(r, self.options.version)?;
                State::Parameter
            }
            Item::TableColumn { left: 0 } => State::Item(Item::TableMetadata),
            Item::TableColumn { left } => {
                let framing = parameter::read_column(r, self.options.version)?;
                self.columns.push(framing.map(Op::from));
                match left.saturating_sub(1) {
                    0 => State::Item(Item::TableMetadata),
                    left => State::Item(Item::TableColumn { left }),
                }
            }
            Item::TableMetadata => self.read_table_metadata(r)?,
            Item::TableRow => match r.u8()? {
                parameter::TABLE_END => State::Parameter,
                parameter::TABLE_ROW => self.cell(0),
                other => return Err(r.bad(1, WireErrorKind::Token(other))),
            },
        })
    }

    fn read_parameter_head(&mut self, r: &mut Reader<'_>) -> Result<State, Fail> {
        let status = parameter::ParameterStatus(r.u8()?);
        if r.peek() == Some(parameter::TABLE) {
            r.u8()?;
            if status.is_encrypted() {
                return Err(r.bad(1, parameter::ENCRYPTED_TABLE));
            }
            for _name in ["database", "schema", "type"] {
                r.b_varchar()?;
            }
            let count = parameter::read_column_count(r)?;
            self.columns.clear();
            self.order.clear();
            (self.seen_order, self.seen_unique) = (false, false);
            return Ok(match count {
                0 => State::Item(Item::TableMetadata),
                left => State::Item(Item::TableColumn { left }),
            });
        }
        let info = TypeInfo::read(r, self.options.version, Place::Parameter)?;
        let after = if status.is_encrypted() {
            After::Cipher
        } else {
            After::Parameter
        };
        Ok(State::Value(Op::from(info.framing), ValueWalk::new(), after))
    }

    fn read_table_metadata(&mut self, r: &mut Reader<'_>) -> Result<State, Fail> {
        match r.u8()? {
            parameter::TABLE_END => {
                let framings = std::mem::take(&mut self.columns);
                self.columns = parameter::reorder(framings, &self.order);
                Ok(State::Item(Item::TableRow))
            }
            parameter::TABLE_ORDER_UNIQUE if !self.seen_unique => {
                let skip = u64::from(r.u16()?) * 3;
                self.seen_unique = true;
                Ok(State::Skip(skip, Next::TableMetadata))
            }
            parameter::TABLE_COLUMN_ORDER if !self.seen_order => {
                let n = r.u16()?;
                if usize::from(n) != self.columns.len() {
                    return Err(r.bad(2, parameter::INCOMPLETE_ORDER));
                }
                self.order = r.take(usize::from(n) * 2)?.to_vec();
                self.seen_order = true;
                Ok(State::Item(Item::TableMetadata))
            }
            other => Err(r.bad(1, WireErrorKind::Token(other))),
        }
    }

    /// The value of the first column from `index` on that has one; behind the last, the next row.
    fn cell(&self, index: usize) -> State {
        let mut rest = self.columns.iter().enumerate().skip(index);
        match rest.find_map(|(at, op)| op.map(|op| (at, op))) {
            Some((at, op)) => State::Value(op, ValueWalk::new(), After::Cell(at)),
            None => State::Item(Item::TableRow),
        }
    }

    fn behind_value(&self, after: After) -> State {
        match after {
            After::Parameter => State::Parameter,
            After::Cipher => State::Item(Item::Cipher),
            After::Cell(index) => self.cell(index + 1),
        }
    }
}

impl Next {
    const fn state(self) -> State {
        match self {
            Self::Call => State::Item(Item::Call),
            Self::Flags => State::Flags,
            Self::Enclave => State::Item(Item::Enclave),
            Self::Parameter => State::Parameter,
            Self::ParameterHead => State::Item(Item::ParameterHead),
            Self::TableMetadata => State::Item(Item::TableMetadata),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{ColumnDef, ColumnType, RpcBuf, Value};
    use crate::request::rpc::ProcId;
    use crate::version::TdsVersion;

    #[test]
    fn the_flag_is_cleared_in_every_call_at_every_split() {
        let options = RequestOptions::new(TdsVersion::V7_4);
        let build = |flags: u16| {
            let columns = [ColumnDef::new("", ColumnType::nvarchar(10))];
            let rows: [&[Value<'_>]; 2] = [&[Value::Null], &[Value::Str("x")]];
            let mut rpc = RpcBuf::new(options, 0);
            for _ in 0..3 {
                rpc.call(ProcId::PrepExec, flags | 1);
                rpc.parameter("@p", 1, &ColumnType::IntN(4), &Value::Null)
                    .unwrap();
                rpc.table("@t", ("dbo", "t"), Some((&columns, &rows))).unwrap();
                rpc.parameter("", 0, &ColumnType::VarBinaryMax, &Value::Bytes(&[2; 300]))
                    .unwrap();
            }
            rpc.finish()
        };
        let wanted = build(0);
        for step in [1, 2, 3, 5, 64, 10_000] {
            let mut body = build(CallFlags::NO_METADATA);
            let mut walker = RpcWalker::new(options);
            for piece in body.chunks_mut(step) {
                walker.walk(piece).unwrap();
            }
            assert_eq!(walker.end_message(), Ok(()), "step {step}");
            assert_eq!((walker.calls(), walker.cleared()), (3, 3));
            assert_eq!(body, wanted, "step {step}");
        }
    }

    #[test]
    fn a_message_that_ends_inside_a_call_is_an_error() {
        let mut walker = RpcWalker::new(RequestOptions::new(TdsVersion::V7_1));
        walker.walk(&mut [0xFF, 0xFF, 10]).unwrap();
        assert!(walker.end_message().is_err());
    }
}
