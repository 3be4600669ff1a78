//! Rows: ROW, NBCROW, ALTROW, whole or value by value for a row that is larger than memory [MS-TDS 2.2.7.20].

use bytes::{BufMut, BytesMut};

use super::column::{ColumnDef, ColumnType};
use super::metadata::AltMetadata;
use super::value::{Misfit, Place, Value, begin_plp, end_plp, put_plp_chunk, put_value};
use super::{BuildError, TokenBuf};
use crate::version::TdsVersion;

const ROW: u8 = 0xD1;
const NBCROW: u8 = 0xD2;
const ALTROW: u8 = 0xD3;

impl TokenBuf {
    /// A ROW token. Allocates nothing but the buffer's growth.
    ///
    /// # Errors
    /// Not as many values as columns, or a value that does not fit its column.
    pub fn row(&mut self, columns: &[ColumnDef], values: &[Value<'_>]) -> Result<&mut Self, BuildError> {
        same_count(columns.len(), values.len())?;
        self.whole(|out, version| {
            out.put_u8(ROW);
            put_all(out, version, columns.iter().map(|c| &c.ty), values)
        })
    }

    /// An NBCROW token (7.3B and later): a bitmap of the nulls, then the other values.
    ///
    /// # Errors
    /// As [`row`](Self::row).
    pub fn nbc_row(&mut self, columns: &[ColumnDef], values: &[Value<'_>]) -> Result<&mut Self, BuildError> {
        same_count(columns.len(), values.len())?;
        self.whole(|out, version| {
            out.put_u8(NBCROW);
            for eight in values.chunks(8) {
                let bits = eight
                    .iter()
                    .zip(0u8..)
                    .map(|(v, i)| u8::from(matches!(v, Value::Null)) << i);
                out.put_u8(bits.fold(0, |a, b| a | b));
            }
            for (column, (def, value)) in columns.iter().zip(values).enumerate() {
                if !matches!(value, Value::Null) {
                    put_value(out, version, &def.ty, value, Place::Row)
                        .map_err(|Misfit| BuildError::Value { column })?;
                }
            }
            Ok(())
        })
    }

    /// An ALTROW token: a row of a COMPUTE clause.
    ///
    /// # Errors
    /// As [`row`](Self::row).
    pub fn alt_row(&mut self, metadata: &AltMetadata, values: &[Value<'_>]) -> Result<&mut Self, BuildError> {
        same_count(metadata.columns.len(), values.len())?;
        self.whole(|out, version| {
            out.put_u8(ALTROW);
            out.put_u16_le(metadata.id);
            put_all(
                out,
                version,
                metadata.columns.iter().map(|c| &c.column.ty),
                values,
            )
        })
    }

    /// The token byte of a ROW alone; the values follow one by one, in column order.
    pub fn begin_row(&mut self) -> &mut Self {
        self.out.put_u8(ROW);
        self
    }

    /// One value of a row begun with [`begin_row`](Self::begin_row).
    ///
    /// # Errors
    /// The value does not fit the type (`column` is then 0).
    pub fn value(&mut self, ty: &ColumnType, value: &Value<'_>) -> Result<&mut Self, BuildError> {
        self.whole(|out, version| {
            put_value(out, version, ty, value, Place::Row).map_err(|Misfit| BuildError::Value { column: 0 })
        })
    }

    /// Head of a PLP value that comes in pieces: its total, or `None` where that is not known.
    pub fn begin_plp(&mut self, total: Option<u64>) -> &mut Self {
        begin_plp(&mut self.out, total);
        self
    }

    /// One chunk of such a value; an empty one is left out.
    pub fn plp_chunk(&mut self, chunk: &[u8]) -> &mut Self {
        put_plp_chunk(&mut self.out, chunk);
        self
    }

    /// End of such a value.
    pub fn end_plp(&mut self) -> &mut Self {
        end_plp(&mut self.out);
        self
    }
}

fn same_count(columns: usize, values: usize) -> Result<(), BuildError> {
    if columns == values {
        Ok(())
    } else {
        Err(BuildError::Count { columns, values })
    }
}

fn put_all<'a>(
    out: &mut BytesMut,
    version: TdsVersion,
    types: impl Iterator<Item = &'a ColumnType>,
    values: &[Value<'_>],
) -> Result<(), BuildError> {
    for (column, (ty, value)) in types.zip(values).enumerate() {
        put_value(out, version, ty, value, Place::Row).map_err(|Misfit| BuildError::Value { column })?;
    }
    Ok(())
}
