//! Server cursors, as drivers open them by RPC: the rows are taken once, so every cursor is static and read-only.

use rusqlite::types::{Value as Held, ValueRef};
use sqlparser::ast::Statement;
use weir_tds::build::{ColumnDef, Returned, Value};
use weir_tds::request::rpc::ProcId;

use super::answer::Answer;
use super::columns::send_row;
use super::connection::Connection;
use super::fault::Fault;
use super::parameters::Sent;
use super::rpc::{
    Prepared, handle_of, integer_of, no_handle, optional_text, read_prepared, text_of, unsupported,
};
use super::types::{Column, SqlType};
use crate::tokens::{Message, command, status};
use crate::tsql::Stmt;

/// Cursors of one session.
const CURSORS_MAX: usize = 256;
/// Rows of one cursor; they are held in memory.
pub(super) const CURSOR_ROWS_MAX: usize = 200_000;
/// First handle, as SQL Server's begin.
pub(super) const FIRST_CURSOR: i32 = 180_150_003;
/// Name of the column behind the others that says how the fetch of a row went.
const ROWSTAT: &str = "ROWSTAT";
/// ROWSTAT of a row that is there.
const FETCHED: i64 = 1;

/// SCROLLOPT: the kinds of cursor, and what is to be done at the open.
mod scroll {
    pub(super) const FORWARD_ONLY: i64 = 0x0004;
    pub(super) const STATIC: i64 = 0x0008;
    pub(super) const FAST_FORWARD: i64 = 0x0010;
    pub(super) const PARAMETERIZED: i64 = 0x1000;
    pub(super) const AUTO_FETCH: i64 = 0x2000;
    pub(super) const AUTO_CLOSE: i64 = 0x4000;
}

/// CCOPT: read-only is all there is here.
const READ_ONLY: i64 = 1;

/// Fetch types of sp_cursorfetch.
mod fetch {
    pub(super) const FIRST: i64 = 0x0001;
    pub(super) const NEXT: i64 = 0x0002;
    pub(super) const PREVIOUS: i64 = 0x0004;
    pub(super) const LAST: i64 = 0x0008;
    pub(super) const ABSOLUTE: i64 = 0x0010;
    pub(super) const RELATIVE: i64 = 0x0020;
    pub(super) const REFRESH: i64 = 0x0080;
    pub(super) const INFO: i64 = 0x0100;
    pub(super) const PREVIOUS_NO_ADJUST: i64 = 0x0200;
}

/// An open cursor.
#[derive(Debug)]
pub(super) struct Cursor {
    columns: Vec<Column>,
    rows: Vec<Vec<Held>>,
    /// Number of the first row of the last fetch, from 1; 0 before the first row, rows + 1 behind the last.
    at: i64,
    /// Rows of the last fetch.
    fetched: i64,
    forward_only: bool,
    auto_close: bool,
}

impl Cursor {
    fn count(&self) -> i64 {
        i64::try_from(self.rows.len()).unwrap_or(i64::MAX)
    }

    /// Moves, and says which rows are to be sent; none outside.
    fn go(&mut self, kind: i64, row: i64, rows: i64) -> &[Vec<Held>] {
        let (count, rows) = (self.count(), rows.max(0));
        let behind = count + 1;
        let mut at = match kind {
            fetch::FIRST => 1,
            fetch::PREVIOUS | fetch::PREVIOUS_NO_ADJUST => self.at - rows,
            fetch::LAST => (behind - rows).max(1),
            fetch::ABSOLUTE if row < 0 => behind + row,
            fetch::ABSOLUTE => row,
            fetch::RELATIVE => self.at + row,
            fetch::REFRESH => self.at,
            _ => self.at.max(1) + if self.at > 0 { self.fetched } else { 0 },
        };
        let mut take = rows;
        if kind == fetch::PREVIOUS && at < 1 && self.at > 1 {
            // A window that would begin before the first row begins with it.
            at = 1;
        } else if kind == fetch::PREVIOUS_NO_ADJUST && at < 1 {
            take = (take + at - 1).max(0);
            at = at.max(if take > 0 { 1 } else { 0 });
        }
        if at < 1 || at > count {
            self.at = at.clamp(0, behind);
            self.fetched = 0;
            return &[];
        }
        self.at = at;
        self.fetched = take.min(behind - at);
        let first = usize::try_from(at - 1).unwrap_or(0);
        let length = usize::try_from(self.fetched).unwrap_or(0);
        self.rows.get(first..first + length).unwrap_or_default()
    }

    fn is_behind(&self) -> bool {
        self.at + self.fetched > self.count()
    }
}

/// Where the parameters of an opening procedure stand.
struct Places {
    /// Handle of the statement that was prepared as well: told first, as the first parameter.
    prepared: Option<i32>,
    cursor: usize,
    scroll: usize,
    concurrency: usize,
    rows: usize,
}

impl Connection {
    /// One of the cursor procedures, up to its DONEPROC; true if a statement in it failed.
    pub(super) fn cursor_call(
        &mut self,
        id: ProcId,
        sent: &[Sent],
        answer: &mut Answer<'_>,
    ) -> Result<bool, Fault> {
        match id {
            ProcId::CursorOpen => self.cursor_open(sent, answer),
            ProcId::CursorPrepare => {
                let (declared, text) = (optional_text(sent, 1), text_of(sent, 2)?);
                let handle = self.keep(read_prepared(&text, &declared)?)?;
                answer.tokens().return_status(0);
                return_int(answer, sent, 0, i64::from(handle))?;
                Ok(false)
            }
            ProcId::CursorExecute => {
                let prepared = self.prepared_statement(handle_of(sent)?)?;
                let places = Places {
                    prepared: None,
                    cursor: 1,
                    scroll: 2,
                    concurrency: 3,
                    rows: 4,
                };
                self.open_prepared(&prepared, sent, 5, &places, answer)
            }
            ProcId::CursorPrepExec => {
                let (declared, text) = (optional_text(sent, 2), text_of(sent, 3)?);
                let handle = self.keep(read_prepared(&text, &declared)?)?;
                let prepared = self.prepared_statement(handle)?;
                let places = Places {
                    prepared: Some(handle),
                    cursor: 1,
                    scroll: 4,
                    concurrency: 5,
                    rows: 6,
                };
                self.open_prepared(&prepared, sent, 7, &places, answer)
            }
            ProcId::CursorUnprepare => {
                self.forget(handle_of(sent)?)?;
                answer.tokens().return_status(0);
                Ok(false)
            }
            ProcId::CursorFetch => self.cursor_fetch(sent, answer),
            ProcId::CursorOption => {
                self.cursor(sent, "sp_cursoroption")?;
                answer.tokens().return_status(0);
                Ok(false)
            }
            ProcId::CursorClose => {
                let handle = handle_of(sent)?;
                if handle == -1 {
                    self.cursors.clear();
                } else if self.cursors.remove(&handle).is_none() {
                    return Err(no_cursor("sp_cursorclose", handle));
                }
                answer.tokens().return_status(0);
                Ok(false)
            }
            ProcId::Cursor => {
                self.cursor(sent, "sp_cursor")?;
                Err(Message::error(16929, "The cursor is READ ONLY.").into())
            }
            other => Err(unsupported(other.name())),
        }
    }

    fn cursor_open(&mut self, sent: &[Sent], answer: &mut Answer<'_>) -> Result<bool, Fault> {
        let text = text_of(sent, 1)?;
        let parameterized = integer_of(sent, 2).unwrap_or(0) & scroll::PARAMETERIZED != 0;
        let declared = if parameterized {
            optional_text(sent, 5)
        } else {
            String::new()
        };
        let prepared = read_prepared(&text, &declared)?;
        let places = Places {
            prepared: None,
            cursor: 0,
            scroll: 2,
            concurrency: 3,
            rows: 4,
        };
        self.open_prepared(&prepared, sent, 6, &places, answer)
    }

    /// Opens a cursor on a query; anything else runs as it is, with cursor 0.
    fn open_prepared(
        &mut self,
        prepared: &Prepared,
        sent: &[Sent],
        parameters: usize,
        places: &Places,
        answer: &mut Answer<'_>,
    ) -> Result<bool, Fault> {
        let values = sent.get(parameters..).unwrap_or_default();
        let asked = integer_of(sent, places.scroll).unwrap_or(scroll::FORWARD_ONLY);
        let query = match prepared.statements() {
            [Stmt::Sql(statement)] if matches!(**statement, Statement::Query(_)) => statement,
            _ => {
                let failed = self.run_body(prepared, values, answer)?;
                answer.tokens().return_status(i32::from(failed));
                self.return_opened(sent, places, (0, asked, 0), answer)?;
                return Ok(failed);
            }
        };
        self.declare_parameters(prepared, values, answer)?;
        let (columns, rows) = self.locked(answer, |this, answer| this.collect(query, answer))?;
        let forward_only = asked & (scroll::FORWARD_ONLY | scroll::FAST_FORWARD) != 0;
        let mut cursor = Cursor {
            columns,
            rows,
            at: 0,
            fetched: 0,
            forward_only,
            auto_close: asked & scroll::AUTO_CLOSE != 0,
        };
        let first = if asked & scroll::AUTO_FETCH != 0 {
            integer_of(sent, places.rows).unwrap_or(0).max(0)
        } else {
            0
        };
        send_rows(&mut cursor, fetch::NEXT, 0, first, answer)?;
        let count = if forward_only { -1 } else { cursor.count() };
        let closed = cursor.auto_close && first > 0 && cursor.is_behind();
        let handle = if closed { 0 } else { self.keep_cursor(cursor)? };
        answer.tokens().return_status(0);
        let kind = match asked & (scroll::FORWARD_ONLY | scroll::FAST_FORWARD) {
            0 => scroll::STATIC,
            kind => kind,
        };
        self.return_opened(sent, places, (handle, kind, count), answer)?;
        Ok(false)
    }

    fn return_opened(
        &self,
        sent: &[Sent],
        places: &Places,
        (handle, kind, count): (i32, i64, i64),
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        if let Some(prepared) = places.prepared {
            return_int(answer, sent, 0, i64::from(prepared))?;
        }
        return_int(answer, sent, places.cursor, i64::from(handle))?;
        return_int(answer, sent, places.scroll, kind)?;
        return_int(answer, sent, places.concurrency, READ_ONLY)?;
        return_int(answer, sent, places.rows, count)
    }

    fn cursor_fetch(&mut self, sent: &[Sent], answer: &mut Answer<'_>) -> Result<bool, Fault> {
        let kind = integer_of(sent, 1).unwrap_or(fetch::NEXT);
        let row = integer_of(sent, 2).unwrap_or(0);
        let rows = integer_of(sent, 3).unwrap_or(1);
        let handle = handle_of(sent)?;
        let cursor = self.cursor(sent, "sp_cursorfetch")?;
        if kind & fetch::INFO != 0 {
            let (at, count) = (cursor.at, cursor.count());
            answer.tokens().return_status(0);
            return_int(answer, sent, 2, at)?;
            return_int(answer, sent, 3, count)?;
            return Ok(false);
        }
        if cursor.forward_only && kind != fetch::NEXT {
            let text = "fetch: The fetch type cannot be used with forward only cursors.";
            return Err(Message::error(16911, text).into());
        }
        send_rows(cursor, kind, row, rows, answer)?;
        let done = cursor.auto_close && cursor.is_behind();
        if done {
            self.cursors.remove(&handle);
        }
        answer.tokens().return_status(0);
        Ok(false)
    }

    fn cursor(&mut self, sent: &[Sent], procedure: &str) -> Result<&mut Cursor, Fault> {
        let handle = handle_of(sent)?;
        self.cursors
            .get_mut(&handle)
            .ok_or_else(|| no_cursor(procedure, handle))
    }

    fn keep_cursor(&mut self, cursor: Cursor) -> Result<i32, Fault> {
        if self.cursors.len() >= CURSORS_MAX {
            return Err(Message::error(50000, "The session has opened too many cursors.").into());
        }
        let handle = self.next_cursor;
        self.next_cursor = self.next_cursor.wrapping_add(2).max(FIRST_CURSOR);
        self.cursors.insert(handle, cursor);
        Ok(handle)
    }
}

/// The result of an open or a fetch: the columns with ROWSTAT behind them, the rows, DONEINPROC.
fn send_rows(
    cursor: &mut Cursor,
    kind: i64,
    row: i64,
    rows: i64,
    answer: &mut Answer<'_>,
) -> Result<(), Fault> {
    let mut columns = cursor.columns.clone();
    columns.push(Column {
        name: ROWSTAT.to_owned(),
        kind: SqlType::Int,
        nullable: false,
        identity: false,
    });
    let version = answer.version();
    let defs: Vec<ColumnDef> = columns.iter().map(|c| c.to_def(version)).collect();
    let kinds: Vec<SqlType> = columns.iter().map(|c| c.kind.for_version(version)).collect();
    answer.tokens().col_metadata(&defs)?;
    let last = defs.len() - 1;
    let mut count = 0;
    // An open without AUTO_FETCH only tells the columns.
    let window = if rows > 0 || kind != fetch::NEXT {
        cursor.go(kind, row, rows)
    } else {
        &[]
    };
    for row in window {
        send_row(answer, &defs, &kinds, |at| match row.get(at) {
            Some(value) => ValueRef::from(value),
            None if at == last => ValueRef::Integer(FETCHED),
            None => ValueRef::Null,
        })?;
        count += 1;
    }
    let counted = if count > 0 { status::COUNT } else { status::FINAL };
    answer.done(counted, command::SELECT, count);
    Ok(())
}

/// An int output parameter, if the client asked for it.
fn return_int(answer: &mut Answer<'_>, sent: &[Sent], at: usize, value: i64) -> Result<(), Fault> {
    let Some(asked) = sent.get(at).filter(|s| s.output) else {
        return Ok(());
    };
    let ty = SqlType::Int.to_wire(true);
    let ordinal = u16::try_from(at).unwrap_or(u16::MAX);
    answer
        .tokens()
        .return_value(&Returned::output(ordinal, &asked.name, &ty), &Value::Int(value))?;
    Ok(())
}

fn no_cursor(procedure: &str, handle: i32) -> Fault {
    if handle == 0 {
        return no_handle(handle);
    }
    let text = format!("{procedure}: The cursor identifier value provided ({handle:x}) is not valid.");
    Message::error(16909, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rows: &[Vec<Held>]) -> Vec<i64> {
        rows.iter()
            .filter_map(|row| match row.first() {
                Some(Held::Integer(n)) => Some(*n),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_cursor_scrolls_as_sp_cursorfetch_says() {
        let mut cursor = Cursor {
            columns: vec![],
            rows: (1..=10).map(|n| vec![Held::Integer(n)]).collect(),
            at: 0,
            fetched: 0,
            forward_only: false,
            auto_close: false,
        };
        for (kind, row, rows, want) in [
            (fetch::NEXT, 0, 3, vec![1, 2, 3]),
            (fetch::NEXT, 0, 3, vec![4, 5, 6]),
            (fetch::PREVIOUS, 0, 3, vec![1, 2, 3]),
            (fetch::PREVIOUS, 0, 3, vec![]),
            (fetch::NEXT, 0, 2, vec![1, 2]),
            (fetch::LAST, 0, 4, vec![7, 8, 9, 10]),
            (fetch::NEXT, 0, 4, vec![]),
            (fetch::PREVIOUS, 0, 2, vec![9, 10]),
            (fetch::ABSOLUTE, 5, 2, vec![5, 6]),
            (fetch::ABSOLUTE, -2, 5, vec![9, 10]),
            (fetch::ABSOLUTE, 0, 2, vec![]),
            (fetch::FIRST, 0, 1, vec![1]),
            (fetch::RELATIVE, 3, 2, vec![4, 5]),
            (fetch::PREVIOUS, 0, 5, vec![1, 2, 3, 4, 5]),
            (fetch::ABSOLUTE, 11, 1, vec![]),
        ] {
            assert_eq!(
                numbers(cursor.go(kind, row, rows)),
                want,
                "{kind:#x} {row} {rows}"
            );
        }
    }
}
