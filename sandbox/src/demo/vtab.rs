//! The generated tables inside SQLite, for joins, aggregates and all that the streaming plan does not cover.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;

use rusqlite::types::ToSqlOutput;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConnection, VTabCursor, sqlite3_vtab,
    sqlite3_vtab_cursor,
};
use rusqlite::{Connection, Error, Result};

use super::tables::{TABLES, Table};

/// Bits of the plan number: which bounds on `id` come as arguments, in this order.
const EQUAL: c_int = 1;
const LOWER: c_int = 2;
const LOWER_OPEN: c_int = 4;
const UPPER: c_int = 8;
const UPPER_OPEN: c_int = 16;

/// Makes the tables known to a connection; they need no CREATE.
///
/// # Errors
/// SQLite refused one.
pub(crate) fn register(db: &Connection) -> Result<()> {
    const MODULE: Module<'static, GeneratedTable> = Module::eponymous_only_module();
    for table in &TABLES {
        let name = CString::new(table.name).map_err(|e| Error::ModuleError(e.to_string()))?;
        db.create_module(name.as_c_str(), &MODULE, Some(table))?;
    }
    Ok(())
}

#[repr(C)]
struct GeneratedTable {
    base: sqlite3_vtab,
    table: &'static Table,
}

// SAFETY: repr(C) with the base class first, as rusqlite's contract of this trait asks; nothing else is unsafe here.
#[allow(unsafe_code, reason = "the only door to SQLite's virtual tables")]
unsafe impl<'vtab> VTab<'vtab> for GeneratedTable {
    type Aux = &'static Table;
    type Cursor = Cursor<'vtab>;

    fn connect(
        _db: &mut VTabConnection,
        aux: Option<&Self::Aux>,
        _module_name: &[u8],
        _database_name: &[u8],
        _table_name: &[u8],
        _args: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        let table = *aux.ok_or_else(|| Error::ModuleError("no table".to_owned()))?;
        let one = |c: &super::tables::Made| {
            format!(
                "[{}] {}{}",
                c.name,
                c.declared,
                if c.nullable { "" } else { " NOT NULL" }
            )
        };
        let columns: Vec<String> = table.columns.iter().map(one).collect();
        let schema = CString::new(format!("CREATE TABLE x({})", columns.join(", ")))
            .map_err(|e| Error::ModuleError(e.to_string()))?;
        Ok((
            Cow::Owned(schema),
            Self {
                base: sqlite3_vtab::default(),
                table,
            },
        ))
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        use IndexConstraintOp as Op;
        let (mut plan, mut argument) = (0, 0);
        let (mut equal, mut lower, mut upper) = (None, None, None);
        for (at, constraint) in info.constraints().enumerate() {
            // Column 0 is the id, -1 the row id, which is the same.
            if constraint.column() > 0 || !constraint.is_usable() {
                continue;
            }
            match constraint.operator() {
                Op::SQLITE_INDEX_CONSTRAINT_EQ => equal = Some((at, EQUAL)),
                Op::SQLITE_INDEX_CONSTRAINT_GE => lower = Some((at, LOWER)),
                Op::SQLITE_INDEX_CONSTRAINT_GT => lower = Some((at, LOWER | LOWER_OPEN)),
                Op::SQLITE_INDEX_CONSTRAINT_LE => upper = Some((at, UPPER)),
                Op::SQLITE_INDEX_CONSTRAINT_LT => upper = Some((at, UPPER | UPPER_OPEN)),
                _ => {}
            }
        }
        for (at, bits) in [equal, lower, upper].into_iter().flatten() {
            plan |= bits;
            argument += 1;
            // SQLite checks the bound again: an argument that is no integer only widens the range here.
            info.constraint_usage(at).set_argv_index(argument);
        }
        let rows = self.table.rows as f64;
        let share = if equal.is_some() {
            1.0 / rows
        } else {
            0.5_f64.powi(argument)
        };
        info.set_estimated_cost(rows * share);
        info.set_estimated_rows((rows * share) as i64);
        let ascending = {
            let mut orders = info.order_bys();
            let first = orders
                .next()
                .is_some_and(|o| o.column() <= 0 && !o.is_order_by_desc());
            first && orders.next().is_none()
        };
        info.set_order_by_consumed(ascending);
        info.set_idx_num(plan);
        Ok(true)
    }

    fn open(&'vtab mut self) -> Result<Cursor<'vtab>> {
        Ok(Cursor {
            base: sqlite3_vtab_cursor::default(),
            table: self.table,
            at: 1,
            last: 0,
            phantom: PhantomData,
        })
    }
}

#[repr(C)]
struct Cursor<'vtab> {
    base: sqlite3_vtab_cursor,
    table: &'static Table,
    at: i64,
    last: i64,
    phantom: PhantomData<&'vtab GeneratedTable>,
}

// SAFETY: repr(C) with the base class first, as rusqlite's contract of this trait asks; nothing else is unsafe here.
#[allow(unsafe_code, reason = "the only door to SQLite's virtual tables")]
unsafe impl VTabCursor for Cursor<'_> {
    fn filter(&mut self, plan: c_int, _text: Option<&str>, args: &Filters<'_>) -> Result<()> {
        self.at = 1;
        self.last = self.table.rows as i64;
        let mut argument = 0;
        let mut next = |bit: c_int| {
            if plan & bit == 0 {
                return None;
            }
            argument += 1;
            args.get::<i64>(argument - 1).ok()
        };
        if let Some(id) = next(EQUAL) {
            (self.at, self.last) = (id.max(1), id.min(self.last));
        }
        if let Some(low) = next(LOWER) {
            let low = if plan & LOWER_OPEN == 0 {
                low
            } else {
                low.saturating_add(1)
            };
            self.at = self.at.max(low);
        }
        if let Some(high) = next(UPPER) {
            let high = if plan & UPPER_OPEN == 0 {
                high
            } else {
                high.saturating_sub(1)
            };
            self.last = self.last.min(high);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at > self.last
    }

    fn column(&self, ctx: &mut Context, column: c_int) -> Result<()> {
        let made = usize::try_from(column)
            .ok()
            .and_then(|c| self.table.columns.get(c));
        match made {
            Some(made) => ctx.set_result(ToSqlOutput::Owned(made.value(self.at as u64))),
            None => Ok(()),
        }
    }

    fn rowid(&self) -> Result<i64> {
        Ok(self.at)
    }
}
