//! Rows of a generated table onto the wire: one encoded template per place in the cycle, the id's bytes put in per row.

use rusqlite::types::ValueRef;
use weir_tds::build::{ColumnDef, TokenBuf, Value};
use weir_tds::version::TdsVersion;

use super::plan::{Plan, What};
use super::tables::{CYCLE, Maker};
use crate::sql::{Answer, Column, Fault, Scratch, SqlType, to_wire};

/// Token of a row without a bitmap.
const ROW: u8 = 0xD1;
/// Token of a row with a bitmap of its nulls.
const NBCROW: u8 = 0xD2;
/// Rows between two looks at whether the request was cancelled and the buffer is full.
const ROWS_AT_ONCE: u64 = 16;

/// Where in a template the id goes.
#[derive(Debug, Clone, Copy)]
struct Hole {
    at: usize,
    maker: Maker,
}

/// A row but for the bytes that follow from its id.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    holes: Vec<Hole>,
}

impl Plan {
    /// Sends the result; returns its rows.
    pub(crate) fn run(&self, answer: &mut Answer<'_>, limit: u64, format_only: bool) -> Result<u64, Fault> {
        let rows = if format_only { 0 } else { self.rows().min(limit) };
        match &self.what {
            What::Count { name, big } => {
                let kind = if *big { SqlType::BigInt } else { SqlType::Int };
                let column = Column {
                    name: name.clone(),
                    kind,
                    nullable: true,
                    identity: false,
                };
                let defs = [column.to_def(answer.version())];
                answer.tokens().col_metadata(&defs)?;
                if format_only {
                    return Ok(0);
                }
                let count = i64::try_from(self.rows()).unwrap_or(i64::MAX);
                answer.tokens().row(&defs, &[Value::Int(count)])?;
                Ok(1)
            }
            What::Columns(columns) => {
                let mut encoder = Encoder::new(self, columns, answer.version());
                answer.tokens().col_metadata(&encoder.defs)?;
                let start = if self.descending {
                    self.last.saturating_sub(self.skip)
                } else {
                    self.first.max(1).saturating_add(self.skip)
                };
                for row in 0..rows {
                    let id = if self.descending { start - row } else { start + row };
                    encoder.put(id, answer.tokens())?;
                    if row % ROWS_AT_ONCE == 0 {
                        answer.row_written()?;
                    }
                }
                Ok(rows)
            }
        }
    }
}

struct Encoder<'p> {
    plan: &'p Plan,
    columns: &'p [(usize, String)],
    kinds: Vec<SqlType>,
    defs: Vec<ColumnDef>,
    version: TdsVersion,
    templates: Vec<Option<Template>>,
}

impl<'p> Encoder<'p> {
    fn new(plan: &'p Plan, columns: &'p [(usize, String)], version: TdsVersion) -> Self {
        let made = columns
            .iter()
            .filter_map(|(at, name)| plan.table.columns.get(*at).map(|c| c.column(name)));
        let made: Vec<Column> = made.collect();
        // A result that does not come around again would only fill the memory.
        let kept = if plan.rows() > CYCLE { CYCLE } else { 0 };
        let templates = (0..kept).map(|_| None).collect();
        let kinds = made.iter().map(|c| c.kind.for_version(version)).collect();
        Self {
            plan,
            columns,
            kinds,
            defs: made.iter().map(|c| c.to_def(version)).collect(),
            version,
            templates,
        }
    }

    fn put(&mut self, id: u64, tokens: &mut TokenBuf) -> Result<(), Fault> {
        if self.templates.is_empty() {
            return self.template(id).map(|template| template.write(id, tokens));
        }
        let place = usize::try_from(id % CYCLE).unwrap_or(0);
        if self.templates.get(place).is_none_or(Option::is_none) {
            let template = self.template(id)?;
            if let Some(slot) = self.templates.get_mut(place) {
                *slot = Some(template);
            }
        }
        let Some(Some(template)) = self.templates.get(place) else {
            return Ok(());
        };
        template.write(id, tokens);
        Ok(())
    }

    /// Encodes a row cell by cell and remembers where the cells stand that follow the id.
    fn template(&self, id: u64) -> Result<Template, Fault> {
        let made: Vec<_> = self
            .columns
            .iter()
            .filter_map(|(at, _)| self.plan.table.columns.get(*at))
            .collect();
        let held: Vec<_> = made.iter().map(|c| c.value(id)).collect();
        let is_null = |h: &rusqlite::types::Value| matches!(h, rusqlite::types::Value::Null);
        let bitmap = self.version >= TdsVersion::V7_3B && held.iter().any(is_null);
        let mut row = TokenBuf::new(self.version);
        if bitmap {
            row.raw(&[NBCROW]);
            for eight in held.chunks(8) {
                let bits = eight
                    .iter()
                    .zip(0_u8..)
                    .map(|(h, at)| u8::from(is_null(h)) << at)
                    .fold(0, |a, b| a | b);
                row.raw(&[bits]);
            }
        } else {
            row.raw(&[ROW]);
        }
        let mut holes = Vec::new();
        for (((column, held), def), kind) in made.iter().zip(&held).zip(&self.defs).zip(&self.kinds) {
            if bitmap && is_null(held) {
                continue;
            }
            if !matches!(column.maker, Maker::Mixed(_)) {
                holes.push(Hole {
                    at: row.len(),
                    maker: column.maker,
                });
            }
            let mut scratch = Scratch::new();
            let value = to_wire(ValueRef::from(held), *kind, &mut scratch).unwrap_or(Value::Null);
            row.value(&def.ty, &value)?;
        }
        Ok(Template {
            bytes: row.take().to_vec(),
            holes,
        })
    }
}

impl Template {
    /// Appends the row of an id.
    fn write(&self, id: u64, tokens: &mut TokenBuf) {
        let mut done = 0;
        for hole in &self.holes {
            tokens.raw(self.bytes.get(done..hole.at).unwrap_or_default());
            done = hole.at;
            match hole.maker {
                Maker::Id => {
                    tokens.raw(&(id as u32).to_le_bytes());
                    done += 4;
                }
                Maker::Tenth => {
                    tokens.raw(&(id / 10).to_le_bytes());
                    done += 8;
                }
                Maker::Mixed(_) => {}
            }
        }
        tokens.raw(self.bytes.get(done..).unwrap_or_default());
    }
}
