//! RPC requests, built: for tests, scenario drivers, and what the gate asks of a server itself [MS-TDS 2.2.6.6].

use bytes::{BufMut, BytesMut};

use super::column::{ColumnDef, ColumnType};
use super::type_info::put_type_info;
use super::value::{Misfit, Place, Value, put_value};
use super::{BuildError, put_b_varchar, put_us_varchar};
use crate::request::RequestOptions;
use crate::request::all_headers::AllHeaders;
use crate::request::rpc::{NAME_UNITS_MAX, ProcId};
use crate::version::TdsVersion;

/// Builds one RPC message of one or several calls.
#[derive(Debug)]
pub struct RpcBuf {
    out: BytesMut,
    options: RequestOptions,
    calls: u32,
}

impl RpcBuf {
    /// A message without calls, in a transaction (0 = none).
    #[must_use]
    pub fn new(options: RequestOptions, transaction: u64) -> Self {
        let mut out = BytesMut::new();
        if options.version.has_wide_counts() {
            out.put_slice(&AllHeaders::encode(transaction));
        }
        Self {
            out,
            options,
            calls: 0,
        }
    }

    /// A call of a numbered procedure.
    pub fn call(&mut self, id: ProcId, flags: u16) -> &mut Self {
        self.separate();
        self.out.put_u16_le(u16::MAX);
        self.out.put_u16_le(id.number());
        self.flags(flags)
    }

    /// A call by name; the name is clipped to what the protocol allows.
    pub fn call_name(&mut self, name: &str, flags: u16) -> &mut Self {
        self.separate();
        put_us_varchar(&mut self.out, name, usize::from(NAME_UNITS_MAX));
        self.flags(flags)
    }

    fn separate(&mut self) {
        if self.calls > 0 {
            self.out.put_u8(if self.options.version.has_wide_counts() {
                0xFF
            } else {
                0x80
            });
        }
        self.calls += 1;
    }

    fn flags(&mut self, flags: u16) -> &mut Self {
        self.out.put_u16_le(flags);
        if self.options.enclave {
            self.out.put_u16_le(0);
        }
        self
    }

    /// A parameter of the last call. `status`: 1 output, 2 default.
    ///
    /// # Errors
    /// The value does not fit the type; nothing of the parameter stays.
    pub fn parameter(
        &mut self,
        name: &str,
        status: u8,
        ty: &ColumnType,
        value: &Value<'_>,
    ) -> Result<&mut Self, BuildError> {
        let start = self.out.len();
        put_b_varchar(&mut self.out, name);
        self.out.put_u8(status);
        put_parameter_type(&mut self.out, self.options.version, ty);
        if let Err(Misfit) = put_value(&mut self.out, self.options.version, ty, value, Place::Bare) {
            self.out.truncate(start);
            return Err(BuildError::Value { column: 0 });
        }
        Ok(self)
    }

    /// A table-valued parameter of the last call; `None` for a NULL table.
    ///
    /// # Errors
    /// Too many columns, or a row that does not fit them; nothing of the parameter stays.
    pub fn table(
        &mut self,
        name: &str,
        type_name: (&str, &str),
        table: Option<(&[ColumnDef], &[&[Value<'_>]])>,
    ) -> Result<&mut Self, BuildError> {
        let start = self.out.len();
        put_b_varchar(&mut self.out, name);
        self.out.put_slice(&[0, 0xF3, 0]);
        put_b_varchar(&mut self.out, type_name.0);
        put_b_varchar(&mut self.out, type_name.1);
        let result = self.rows(table);
        if let Err(e) = result {
            self.out.truncate(start);
            return Err(e);
        }
        Ok(self)
    }

    fn rows(&mut self, table: Option<(&[ColumnDef], &[&[Value<'_>]])>) -> Result<(), BuildError> {
        let version = self.options.version;
        let Some((columns, rows)) = table else {
            self.out.put_slice(&[0xFF, 0xFF, 0, 0]);
            return Ok(());
        };
        let count = u16::try_from(columns.len())
            .ok()
            .filter(|n| *n <= crate::request::parameter::TABLE_COLUMNS_MAX);
        self.out
            .put_u16_le(count.ok_or(BuildError::TooLarge("the columns of a table-valued parameter"))?);
        for column in columns {
            self.out.put_u32_le(column.user_type);
            self.out.put_u16_le(column.flags.0);
            put_parameter_type(&mut self.out, version, &column.ty);
            put_b_varchar(&mut self.out, "");
        }
        self.out.put_u8(0);
        for row in rows {
            if row.len() != columns.len() {
                return Err(BuildError::Count {
                    columns: columns.len(),
                    values: row.len(),
                });
            }
            self.out.put_u8(1);
            for (index, (column, value)) in columns.iter().zip(*row).enumerate() {
                put_value(&mut self.out, version, &column.ty, value, Place::Bare)
                    .map_err(|Misfit| BuildError::Value { column: index })?;
            }
        }
        self.out.put_u8(0);
        Ok(())
    }

    /// The body.
    #[must_use]
    pub fn finish(self) -> BytesMut {
        self.out
    }
}

/// TYPE_INFO of a parameter: that of a UDT has its three names only.
fn put_parameter_type(out: &mut BytesMut, version: TdsVersion, ty: &ColumnType) {
    if let ColumnType::Udt {
        database,
        schema,
        name,
        ..
    } = ty
    {
        out.put_u8(ty.byte());
        for part in [database, schema, name] {
            put_b_varchar(out, part);
        }
    } else {
        put_type_info(out, version, ty);
    }
}
