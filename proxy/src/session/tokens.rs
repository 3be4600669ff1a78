//! Token streams of the gate's own: refusals, acknowledgements, small result sets.

use bytes::Bytes;
use weir_contracts::entry::RequestKind;
use weir_tds::{
    build::{ColumnDef, ColumnType, DoneKind, ServerText, TokenBuf, Value},
    version::TdsVersion,
};

use crate::gate::refusal::{CLASS, CLASS_FATAL, Refused};

/// DONE status: the statement failed.
const ERROR: u16 = 0x0002;
/// DONE status: acknowledges an ATTENTION.
const ATTN: u16 = 0x0020;
/// DONE status: the row count is valid.
const COUNT: u16 = 0x0010;
/// DONE status: another DONE follows.
const MORE: u16 = 0x0001;
const SELECT: u16 = 0xC1;
const EXECUTE: u16 = 0xE0;
const BULK: u16 = 0xF0;
const NONE: u16 = 0xFD;

/// The final token of an answer to a request of this kind, and its CurCmd (facts 10.3).
fn last(kind: RequestKind) -> (DoneKind, u16) {
    match kind {
        RequestKind::Batch => (DoneKind::Done, SELECT),
        RequestKind::Rpc => (DoneKind::DoneProc, EXECUTE),
        RequestKind::BulkLoad => (DoneKind::Done, BULK),
        RequestKind::TransactionManager => (DoneKind::Done, NONE),
    }
}

fn error(out: &mut TokenBuf, refused: &Refused, class: u8, server: &str) {
    out.error(&ServerText {
        number: i32::try_from(refused.number).unwrap_or(i32::MAX),
        state: refused.state,
        class,
        text: &refused.message,
        server,
        procedure: "",
        line: 0,
    });
}

/// ERROR and the right DONE: never COUNT, never SRVERROR (facts 10.5).
pub(super) fn refusal(version: TdsVersion, kind: RequestKind, refused: &Refused, server: &str) -> Bytes {
    let mut out = TokenBuf::new(version);
    error(&mut out, refused, CLASS, server);
    let (done, cur_cmd) = last(kind);
    out.done_of(done, ERROR, cur_cmd, 0);
    out.take().freeze()
}

/// The same with class 20: the connection ends behind it.
pub(super) fn fatal(version: TdsVersion, kind: RequestKind, refused: &Refused, server: &str) -> Bytes {
    let mut out = TokenBuf::new(version);
    error(&mut out, refused, CLASS_FATAL, server);
    let (done, cur_cmd) = last(kind);
    out.done_of(done, ERROR, cur_cmd, 0);
    out.take().freeze()
}

/// Login denial: ERROR and DONE(ERROR); the connection is closed behind it.
pub(super) fn login_denial(version: TdsVersion, refused: &Refused, server: &str) -> Bytes {
    let mut out = TokenBuf::new(version);
    error(&mut out, refused, CLASS, server);
    out.done(ERROR, 0, 0);
    out.take().freeze()
}

/// What a server says to a request that was cancelled: no ERROR token (facts 9.1).
pub(super) fn cancelled(version: TdsVersion, kind: RequestKind) -> Bytes {
    let mut out = TokenBuf::new(version);
    let (done, cur_cmd) = last(kind);
    out.done_of(done, ERROR, cur_cmd, 0);
    out.take().freeze()
}

/// The acknowledgement of an ATTENTION: a message of its own.
pub(super) fn attention_ack(version: TdsVersion) -> Bytes {
    let mut out = TokenBuf::new(version);
    out.done(ATTN, NONE, 0);
    out.take().freeze()
}

/// A result set of text columns, in the form that a request of this kind expects.
pub(super) fn table(version: TdsVersion, kind: RequestKind, columns: &[&str], rows: &[Vec<String>]) -> Bytes {
    let mut out = TokenBuf::new(version);
    let defs: Vec<ColumnDef> = columns.iter().map(|c| ColumnDef::new(*c, ColumnType::nvarchar(4000))).collect();
    let mut count = 0;
    let mut built = out.col_metadata(&defs).is_ok();
    for row in rows {
        let values: Vec<Value<'_>> = row.iter().map(|v| Value::Str(v)).collect();
        built &= out.row(&defs, &values).is_ok();
        count += 1;
    }
    debug_assert!(built, "text columns and their values always fit");
    match kind {
        RequestKind::Rpc => {
            out.done_in_proc(COUNT | MORE, SELECT, count).return_status(0).done_proc(0, EXECUTE, 0);
        }
        _ => {
            out.done(COUNT, SELECT, count);
        }
    }
    out.take().freeze()
}
