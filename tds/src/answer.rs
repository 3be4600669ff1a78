//! What the gate itself says to a client: refusals, cuts, acknowledgements, and small result sets [MS-TDS 2.2.7].
//!
//! Every answer ends with the DONE token that the request's kind calls for, never with COUNT (unless rows of ours stand
//! before it), never with SRVERROR: drivers take that for a dead connection.

use crate::build::{BuildError, ColumnDef, ColumnFlags, ColumnType, DoneKind, ServerText, TokenBuf, Value};
use crate::packet::PacketType;
use crate::utf16;

/// DONE status: more tokens of the family follow.
const MORE: u16 = 0x0001;
/// DONE status: the statement failed.
const ERROR: u16 = 0x0002;
/// DONE status: the count is valid.
const COUNT: u16 = 0x0010;
/// DONE status: acknowledges an Attention.
const ATTENTION: u16 = 0x0020;

/// CurCmd of a SELECT.
const SELECT: u16 = 0xC1;
/// CurCmd of a procedure.
const PROCEDURE: u16 = 0xE0;
/// CurCmd of a bulk insert.
const BULK_INSERT: u16 = 0xF0;
/// CurCmd of no statement in particular.
const NONE: u16 = 0xFD;

/// Least class of an ERROR token; drivers assert it.
const CLASS_MIN: u8 = 11;
/// Most characters of a cell in [`ResultSet`]: nvarchar(4000).
const CELL_UNITS_MAX: usize = 4000;

/// How the answer to a request must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// SQL batch: DONE.
    Batch,
    /// One or several RPCs: DONEPROC.
    Rpc,
    /// Bulk load: DONE.
    Bulk,
    /// Transaction manager: DONE.
    Transaction,
}

impl RequestKind {
    /// The kind of a message; `None` for those that start no work.
    #[must_use]
    pub const fn of(message: PacketType) -> Option<Self> {
        match message {
            PacketType::SqlBatch => Some(Self::Batch),
            PacketType::Rpc => Some(Self::Rpc),
            PacketType::BulkLoad => Some(Self::Bulk),
            PacketType::TransactionManager => Some(Self::Transaction),
            _ => None,
        }
    }
}

/// Where a request stood when it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing of it reached the server, and nothing of an answer the client.
    NotStarted,
    /// Its response was cut behind a whole token.
    Cut,
}

/// Why the gate says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Error number, 50000 or above: none of SQL Server's own, which drivers' retry lists are made of.
    pub number: i32,
    /// Tells the case.
    pub state: u8,
    /// 16 keeps the connection; 20 and more end it. Below 11 is raised to 11.
    pub class: u8,
    /// What happened and what to do, without SQLSTATEs and socket numbers: SQLAlchemy looks for them in the text, and
    /// takes the connection for dead.
    pub message: &'a str,
    /// Name the gate gives itself.
    pub server_name: &'a str,
}

impl Refusal<'_> {
    fn text(&self) -> ServerText<'_> {
        ServerText {
            number: self.number,
            state: self.state,
            class: self.class.max(CLASS_MIN),
            text: self.message,
            server: self.server_name,
            procedure: "",
            line: 0,
        }
    }
}

/// ERROR and the final DONE or DONEPROC of a refused or cut request. The packet that carries it has EOM.
///
/// ENVCHANGEs that must reach the client (a reset's 18, what was kept while draining) go into `out` first.
pub fn refuse(out: &mut TokenBuf, refusal: &Refusal<'_>, kind: RequestKind, stage: Stage) {
    let (token, cur_cmd) = match (kind, stage) {
        (RequestKind::Rpc, _) => (DoneKind::Proc, PROCEDURE),
        (RequestKind::Batch, Stage::Cut) => (DoneKind::Done, SELECT),
        (RequestKind::Bulk, _) => (DoneKind::Done, BULK_INSERT),
        (RequestKind::Batch, Stage::NotStarted) | (RequestKind::Transaction, _) => (DoneKind::Done, NONE),
    };
    out.error(&refusal.text()).done_of(token, ERROR, cur_cmd, 0);
}

/// ERROR and DONE that deny a login: a response without LOGINACK [MS-TDS 2.2.7.14]. Close after it.
///
/// Before LOGINACK the two sides have no version yet: `out` must have one of the client's count width, which is 4 bytes
/// if it asked for 7.1 or less or if the PRELOGIN answer said major 7 or 8 [MS-TDS A<47>].
pub fn deny_login(out: &mut TokenBuf, refusal: &Refusal<'_>) {
    out.error(&refusal.text()).done(ERROR, 0, 0);
}

/// Acknowledges one Attention of the client: a message of its own, with nothing else in it.
pub fn acknowledge_attention(out: &mut TokenBuf) {
    out.done(ATTENTION, NONE, 0);
}

/// Answers a request that the client threw away with IGNORE: one DONE, no ERROR token [MS-TDS 2.2.1.7].
pub fn acknowledge_ignored(out: &mut TokenBuf) {
    out.done(ERROR, 0, 0);
}

/// A small result set of text columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultSet<'a> {
    /// Column names.
    pub columns: &'a [&'a str],
    /// Cells by row, `None` for NULL; each row as long as `columns`. Money is text: a decimal loses nothing that way.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Answers `EXEC weir.…` with a result set: in a batch COLMETADATA, rows and DONE; to an RPC COLMETADATA, rows,
/// DONEINPROC, RETURNSTATUS 0 and DONEPROC.
///
/// # Errors
/// A row that is not as long as the columns: a fault of the caller.
pub fn result_set(out: &mut TokenBuf, set: &ResultSet<'_>, kind: RequestKind) -> Result<(), BuildError> {
    let columns: Vec<ColumnDef> = set
        .columns
        .iter()
        .enumerate()
        .map(|(i, name)| column(name, i, set))
        .collect();
    out.col_metadata(&columns)?;
    for row in &set.rows {
        let cells = row.iter().map(|c| {
            c.as_deref()
                .map_or(Value::Null, |t| Value::Str(utf16::clip(t, CELL_UNITS_MAX)))
        });
        out.row(&columns, &cells.collect::<Vec<_>>())?;
    }
    let rows = set.rows.len() as u64;
    if kind == RequestKind::Rpc {
        out.done_in_proc(COUNT | MORE, SELECT, rows)
            .return_status(0)
            .done_proc(0, PROCEDURE, 0);
    } else {
        out.done(COUNT, SELECT, rows);
    }
    Ok(())
}

/// An nvarchar as wide as its widest cell: drivers size their buffers by it.
fn column(name: &str, index: usize, set: &ResultSet<'_>) -> ColumnDef {
    let cells = set.rows.iter().filter_map(|row| row.get(index)?.as_deref());
    let widest = cells
        .map(utf16::units)
        .max()
        .unwrap_or(1)
        .clamp(1, CELL_UNITS_MAX);
    let ty = ColumnType::nvarchar(u16::try_from(widest).unwrap_or(4000));
    ColumnDef::new(name, ty).with_flags(ColumnFlags::NULLABLE)
}

/// Answers a statement that gives nothing back, such as `EXEC weir.pause`.
pub fn succeed(out: &mut TokenBuf, kind: RequestKind) {
    match kind {
        RequestKind::Rpc => out.return_status(0).done_proc(0, PROCEDURE, 0),
        _ => out.done(0, NONE, 0),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::TdsVersion;

    const REFUSAL: Refusal<'_> = Refusal {
        number: 50_402,
        state: 1,
        class: 16,
        message: "credit spent",
        server_name: "weir",
    };

    fn tail(kind: RequestKind, stage: Stage, version: TdsVersion) -> Vec<u8> {
        let mut out = TokenBuf::new(version);
        refuse(&mut out, &REFUSAL, kind, stage);
        let len = if version.has_wide_counts() { 13 } else { 9 };
        let bytes = out.take();
        bytes.get(bytes.len() - len..).unwrap().to_vec()
    }

    #[test]
    fn each_kind_of_request_ends_with_its_own_token() {
        let v = TdsVersion::V7_4;
        let end = |token, cmd| vec![token, 2, 0, cmd, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(tail(RequestKind::Batch, Stage::Cut, v), end(0xFD, 0xC1));
        assert_eq!(tail(RequestKind::Batch, Stage::NotStarted, v), end(0xFD, 0xFD));
        assert_eq!(tail(RequestKind::Rpc, Stage::Cut, v), end(0xFE, 0xE0));
        assert_eq!(tail(RequestKind::Rpc, Stage::NotStarted, v), end(0xFE, 0xE0));
        assert_eq!(tail(RequestKind::Bulk, Stage::Cut, v), end(0xFD, 0xF0));
        assert_eq!(
            tail(RequestKind::Transaction, Stage::NotStarted, v),
            end(0xFD, 0xFD)
        );
        assert_eq!(
            tail(RequestKind::Rpc, Stage::Cut, TdsVersion::V7_1),
            [0xFE, 2, 0, 0xE0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn an_error_never_has_a_class_that_drivers_take_for_information() {
        let mut out = TokenBuf::new(TdsVersion::V7_4);
        refuse(
            &mut out,
            &Refusal { class: 0, ..REFUSAL },
            RequestKind::Batch,
            Stage::Cut,
        );
        assert_eq!(out.as_bytes().get(8), Some(&11));
    }

    #[test]
    fn a_long_text_is_clipped_and_the_length_stays_true() {
        let mut out = TokenBuf::new(TdsVersion::V7_4);
        let text = "ü".repeat(70_000);
        refuse(
            &mut out,
            &Refusal {
                message: &text,
                ..REFUSAL
            },
            RequestKind::Batch,
            Stage::Cut,
        );
        let bytes = out.take();
        let len = u16::from_le_bytes([*bytes.get(1).unwrap(), *bytes.get(2).unwrap()]);
        assert_eq!(usize::from(len) + 3 + 13, bytes.len());
    }

    #[test]
    fn a_result_set_in_a_batch_ends_in_done_and_to_an_rpc_in_doneproc() {
        let set = ResultSet {
            columns: &["account", "balance"],
            rows: vec![
                vec![Some("demo".into()), Some("5.00".into())],
                vec![None, Some(String::new())],
            ],
        };
        let mut out = TokenBuf::new(TdsVersion::V7_4);
        result_set(&mut out, &set, RequestKind::Batch).unwrap();
        assert!(
            out.take()
                .ends_with(&[0xFD, 0x10, 0, 0xC1, 0, 2, 0, 0, 0, 0, 0, 0, 0])
        );
        result_set(&mut out, &set, RequestKind::Rpc).unwrap();
        let bytes = out.take();
        let end = [0xFF, 0x11, 0, 0xC1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x79, 0, 0, 0, 0];
        assert!(bytes.windows(end.len()).any(|w| w == end));
        assert!(bytes.ends_with(&[0xFE, 0, 0, 0xE0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let short = ResultSet {
            columns: &["a", "b"],
            rows: vec![vec![None]],
        };
        assert!(result_set(&mut out, &short, RequestKind::Batch).is_err());
    }
}
