//! mssql-tds, Microsoft's own.

use async_trait::async_trait;
use mssql_tds::connection::bulk_copy::{BulkCopy, BulkLoadRow};
use mssql_tds::connection::client_context::ClientContext;
use mssql_tds::connection::cursor_ops::CursorClient;
use mssql_tds::connection::tds_client::{
    BatchErrorMode, ExecuteOptions, PreparedStatement, ResultSet, StatementResult, TdsClient,
};
use mssql_tds::connection_provider::tds_connection_provider::TdsConnectionProvider;
use mssql_tds::core::{EncryptionOptions, EncryptionSetting, TdsResult};
use mssql_tds::cursor::{CursorConcurrency, CursorScrollOption, FetchDirection};
use mssql_tds::datatypes::column_values::{ColumnValues, SqlTime};
use mssql_tds::datatypes::decoder::DecimalParts;
use mssql_tds::datatypes::sql_string::SqlString;
use mssql_tds::datatypes::sql_tvp::{TvpColumnDef, TvpTableData, TvpTypeName};
use mssql_tds::datatypes::sqltypes::SqlType;
use mssql_tds::error::Error;
use mssql_tds::message::bulk_load::StreamingBulkLoadWriter;
use mssql_tds::message::parameters::rpc_parameters::{RpcParameter, StatusFlags};
use mssql_tds::message::transaction_management::TransactionIsolationLevel;
use serde_json::{Value, json};

use super::reply::{self, Failure, Reply};
use super::values::{self, Made};
use super::{Options, Session};

/// Longest login and longest answer, in seconds.
const PATIENCE: u32 = 60;

/// A connection.
pub(crate) struct Connection {
    client: TdsClient,
}

fn encryption(options: &Options) -> Result<EncryptionOptions, Failure> {
    let mut encryption = EncryptionOptions::new();
    let (mode, trust) = match options.get("encryption") {
        "login-only" => (EncryptionSetting::PreferOff, true),
        "on" => (EncryptionSetting::On, true),
        "required" => (EncryptionSetting::Required, false),
        "strict" => (EncryptionSetting::Strict, false),
        _ => return Err(Failure::Unsupported("the driver always encrypts the login")),
    };
    encryption.mode = mode;
    encryption.trust_server_certificate = trust;
    Ok(encryption)
}

fn options<'a>() -> ExecuteOptions<'a> {
    let mut options = ExecuteOptions::new().timeout_secs(PATIENCE);
    options.on_error = BatchErrorMode::Continue;
    options
}

impl Session for Connection {
    async fn open(options: &Options) -> Result<Self, Failure> {
        let source = format!("tcp:{},{}", options.get("host"), options.get("port"));
        let mut context = ClientContext::with_data_source(&source);
        context.user_name = options.get("user").to_owned();
        context.password = options.get("password").to_owned();
        context.database = options.get("database").to_owned();
        context.connect_timeout = PATIENCE;
        context.connect_retry_count = 0;
        context.encryption_options = encryption(options)?;
        let client = TdsConnectionProvider::new()
            .create_client(context, &source, None)
            .await;
        Ok(Self {
            client: client.map_err(failed)?,
        })
    }

    async fn step(&mut self, step: &Value) -> Result<Value, Failure> {
        let sql = step["sql"].as_str().unwrap_or_default().to_owned();
        match step["do"].as_str().unwrap_or_default() {
            "batch" => {
                let first = self.client.execute(sql, options()).await;
                self.gathered(first).await
            }
            "query" => {
                let types = step["params"].as_array().into_iter().flatten();
                let given = types.map(|parameter| (parameter["type"].clone(), parameter["value"].clone()));
                let given = parameters(given)?;
                let sql = values::marked(step, "@p");
                let first = self.client.execute_sp_executesql(sql, given, ()).await;
                self.gathered(first).await
            }
            "prepared" => self.prepared(step).await,
            "begin" => {
                let level = TransactionIsolationLevel::ReadCommitted;
                ended(self.client.begin_transaction(level, None).await)
            }
            "commit" => ended(self.client.commit_transaction(None, None).await),
            "rollback" => ended(self.client.rollback_transaction(None, None).await),
            "cancel" => self.cancel(step).await,
            "bulk" => self.bulk(step).await,
            "mars" => Err(Failure::Unsupported("the driver has no MARS")),
            "tvp" => self.table(step).await,
            _ => self.cursor(step).await,
        }
    }

    async fn close(mut self) {
        let _ = self.client.close_connection().await;
    }
}

impl Connection {
    /// Reads every result to its end; the statement after one that failed is read as well.
    async fn gathered(&mut self, mut at: TdsResult<StatementResult>) -> Result<Value, Failure> {
        let mut reply = Reply::default();
        loop {
            match at {
                Ok(StatementResult::Rows) => {
                    let columns = self.client.get_metadata().iter();
                    reply.columns(columns.map(|column| column.column_name.clone()).collect());
                    self.rows(&mut reply).await?;
                }
                Ok(StatementResult::NoRows { rows_affected }) => {
                    reply.affected = rows_affected.or(reply.affected);
                }
                Ok(StatementResult::End) => break,
                Err(error) => reply.errors.extend(statement_errors(error)?),
            }
            at = self.client.advance().await;
        }
        Ok(reply.told())
    }

    async fn rows(&mut self, reply: &mut Reply) -> Result<(), Failure> {
        loop {
            match self.client.next_row().await {
                Ok(Some(row)) => reply.row(row.iter().map(written).collect()),
                Ok(None) => return Ok(()),
                Err(error) => {
                    reply.errors.extend(statement_errors(error)?);
                    return Ok(());
                }
            }
        }
    }

    async fn prepared(&mut self, step: &Value) -> Result<Value, Failure> {
        let mut statement = PreparedStatement::new(values::marked(step, "@p"));
        let types: Vec<Value> = step["types"].as_array().cloned().unwrap_or_default();
        let mut runs = Vec::new();
        for run in step["runs"].as_array().into_iter().flatten() {
            let given = run.as_array().cloned().unwrap_or_default();
            let given = parameters(types.iter().cloned().zip(given))?;
            let first = self
                .client
                .execute_prepared(&mut statement, given, &mut None, ())
                .await;
            runs.push(self.gathered(first).await?);
        }
        if let Some(id) = statement.take_id() {
            self.client.unprepare(id, ()).await.map_err(failed)?;
        }
        Ok(json!({"runs": runs}))
    }

    async fn cancel(&mut self, step: &Value) -> Result<Value, Failure> {
        let sql = step["sql"].as_str().unwrap_or_default().to_owned();
        self.client.execute(sql, options()).await.map_err(failed)?;
        for _ in 0..step["after"].as_u64().unwrap_or(0) {
            if self.client.next_row().await.map_err(failed)?.is_none() {
                return Ok(json!({"cancelled": false}));
            }
        }
        self.client.cancel_query(PATIENCE).await.map_err(failed)?;
        Ok(json!({"cancelled": true}))
    }

    async fn bulk(&mut self, step: &Value) -> Result<Value, Failure> {
        let names = values::names(step);
        let rows: Vec<Row> = (1..=values::count(step))
            .map(|i| Row(names.iter().map(|name| column(values::made(name, i))).collect()))
            .collect();
        let table = step["table"].as_str().unwrap_or_default();
        let loaded = BulkCopy::new(&mut self.client, table)
            .write_to_server_zerocopy(rows.iter())
            .await;
        match loaded {
            Ok(result) => Ok(json!({"errors": [], "affected": result.rows_affected})),
            Err(error) => Ok(json!({"errors": statement_errors(error)?})),
        }
    }

    async fn table(&mut self, step: &Value) -> Result<Value, Failure> {
        let names = values::names(step);
        let columns = names
            .iter()
            .map(|name| TvpColumnDef::new(parameter_type(&values::made(name, 1), true)));
        let rows = (1..=values::count(step)).map(|i| {
            names
                .iter()
                .map(|name| parameter_type(&values::made(name, i), false))
                .collect()
        });
        let data = TvpTableData::new(columns.collect(), rows.collect());
        let name = TvpTypeName::new(None, step["type"].as_str().unwrap_or_default().to_owned());
        let given = RpcParameter::new(
            Some("@p1".to_owned()),
            StatusFlags::NONE,
            SqlType::Table(name, Some(data)),
        );
        let sql = values::marked(step, "@p");
        let first = self.client.execute_sp_executesql(sql, vec![given], ()).await;
        self.gathered(first).await
    }

    async fn cursor(&mut self, step: &Value) -> Result<Value, Failure> {
        let sql = step["sql"].as_str().unwrap_or_default();
        let fetch = step["fetch"]
            .as_i64()
            .and_then(|fetch| i32::try_from(fetch).ok())
            .unwrap_or(1);
        let (scroll, lock) = (CursorScrollOption::FORWARD_ONLY, CursorConcurrency::READONLY);
        let open = self
            .client
            .cursor_open(sql, scroll, lock, fetch, Some(PATIENCE), None)
            .await;
        let open = open.map_err(failed)?;
        let mut reply = Reply::default();
        let mut named = false;
        loop {
            let fetched = self.client.cursor_fetch(
                open.cursor_id,
                FetchDirection::NEXT,
                0,
                fetch,
                Some(PATIENCE),
                None,
            );
            fetched.await.map_err(failed)?;
            let mut rows = 0;
            while let Some((row, _)) = self.client.next_cursor_row().await.map_err(failed)? {
                if !named {
                    let columns = self.client.get_metadata().iter().take(row.len());
                    reply.columns(columns.map(|column| column.column_name.clone()).collect());
                    named = true;
                }
                reply.row(row.iter().map(written).collect());
                rows += 1;
            }
            self.client.close_query().await.map_err(failed)?;
            if rows == 0 {
                break;
            }
        }
        let closed = self
            .client
            .cursor_close(open.cursor_id, Some(PATIENCE), None)
            .await;
        closed.map_err(failed)?;
        Ok(reply.told())
    }
}

/// A row of a bulk load.
struct Row(Vec<ColumnValues>);

#[async_trait]
impl BulkLoadRow for &Row {
    async fn write_to_packet(
        &self,
        writer: &mut StreamingBulkLoadWriter<'_>,
        column_index: &mut usize,
    ) -> TdsResult<()> {
        for value in &self.0 {
            writer.write_column_value(*column_index, value).await?;
            *column_index += 1;
        }
        Ok(())
    }
}

fn hundredths(value: i64) -> DecimalParts {
    let text = format!("{}.{:02}", value / 100, value % 100);
    DecimalParts::from_string(&text, 10, 2).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn column(made: Made) -> ColumnValues {
    let text = |text: String| ColumnValues::String(SqlString::from_utf8_string(text));
    match made {
        Made::Number(value) => ColumnValues::Int(value),
        Made::Text(value) => value.map_or(ColumnValues::Null, text),
        Made::Hundredths(value) => ColumnValues::Decimal(hundredths(value)),
        Made::Bytes(value) => value.map_or(ColumnValues::Null, ColumnValues::Bytes),
    }
}

/// A cell of a table parameter, or its type alone.
fn parameter_type(made: &Made, bare: bool) -> SqlType {
    match made {
        Made::Number(value) => SqlType::Int((!bare).then_some(*value)),
        Made::Text(value) => {
            let text = value.clone().filter(|_| !bare);
            SqlType::NVarchar(text.map(SqlString::from_utf8_string), 40)
        }
        Made::Hundredths(value) => SqlType::Decimal((!bare).then(|| hundredths(*value))),
        Made::Bytes(value) => SqlType::VarBinary(value.clone().filter(|_| !bare), 8),
    }
}

/// Parameters @p1, @p2 … of these types and values.
fn parameters(given: impl Iterator<Item = (Value, Value)>) -> Result<Vec<RpcParameter>, Failure> {
    given
        .enumerate()
        .map(|(at, (kind, value))| {
            let text = value.as_str().map(str::to_owned);
            let value = match kind.as_str() {
                Some("int") => SqlType::Int(value.as_i64().and_then(|value| i32::try_from(value).ok())),
                Some("nvarchar") => SqlType::NVarchar(text.map(SqlString::from_utf8_string), 4000),
                Some("decimal") => {
                    let parts = text
                        .map(|text| DecimalParts::from_string(&text, 18, 4))
                        .transpose();
                    SqlType::Decimal(parts.map_err(failed)?)
                }
                _ => return Err(Failure::Unsupported("a type of parameter that no scenario has")),
            };
            Ok(RpcParameter::new(
                Some(format!("@p{}", at + 1)),
                StatusFlags::NONE,
                value,
            ))
        })
        .collect()
}

fn ended(result: TdsResult<()>) -> Result<Value, Failure> {
    match result {
        Ok(()) => Ok(json!({"errors": []})),
        Err(error) => Ok(json!({"errors": statement_errors(error)?})),
    }
}

/// The server's errors; any other ends the scenario.
fn statement_errors(error: Error) -> Result<Vec<Value>, Failure> {
    match error {
        Error::SqlServerError { diagnostics } => Ok(diagnostics
            .errors
            .iter()
            .map(|error| {
                reply::error(
                    error.number.into(),
                    error.state,
                    error.class.into(),
                    &error.message,
                )
            })
            .collect()),
        other => Err(Failure::Error(reply::error(0, 0, 0, &other.to_string()))),
    }
}

fn failed(error: Error) -> Failure {
    match statement_errors(error) {
        Ok(mut errors) if !errors.is_empty() => Failure::Error(errors.swap_remove(0)),
        Ok(_) => Failure::Error(reply::error(0, 0, 0, "")),
        Err(failure) => failure,
    }
}

/// The driver calls them nanoseconds, but counts in units of 100.
fn nanos(time: &SqlTime) -> u64 {
    time.time_nanoseconds * 100
}

fn written(value: &ColumnValues) -> Value {
    match value {
        ColumnValues::TinyInt(value) => values::integer(*value),
        ColumnValues::SmallInt(value) => values::integer(*value),
        ColumnValues::Int(value) => values::integer(*value),
        ColumnValues::BigInt(value) => values::integer(*value),
        ColumnValues::Real(value) => values::float((*value).into()),
        ColumnValues::Float(value) => values::float(*value),
        ColumnValues::Decimal(value) | ColumnValues::Numeric(value) => {
            values::decimal(!value.is_positive, value.magnitude(), value.scale)
        }
        ColumnValues::Bit(value) => (*value).into(),
        ColumnValues::String(value) => values::text(&value.to_utf8_string()),
        ColumnValues::DateTime(value) => {
            let days = i64::from(value.days) + values::DAYS_1900;
            values::moment(days, values::of_300ths(value.time))
        }
        ColumnValues::Date(value) => format!("d:{}", values::date(value.get_days().into())).into(),
        ColumnValues::Time(value) => format!("t:{}", values::clock(nanos(value))).into(),
        ColumnValues::DateTime2(value) => values::moment(value.days.into(), nanos(&value.time)),
        ColumnValues::DateTimeOffset(value) => {
            let moment = &value.datetime2;
            values::with_offset(moment.days.into(), nanos(&moment.time), value.offset)
        }
        ColumnValues::SmallDateTime(value) => {
            let days = i64::from(value.days) + values::DAYS_1900;
            values::moment(days, u64::from(value.time) * 60_000_000_000)
        }
        ColumnValues::SmallMoney(value) => {
            values::decimal(value.int_val < 0, value.int_val.unsigned_abs().into(), 4)
        }
        ColumnValues::Money(value) => {
            let low = i64::from(value.lsb_part) & 0xffff_ffff;
            let whole = i64::from(value.msb_part) << 32 | low;
            values::decimal(whole < 0, whole.unsigned_abs().into(), 4)
        }
        ColumnValues::Bytes(value) => values::binary(value),
        ColumnValues::Xml(value) => values::text(&value.as_string()),
        ColumnValues::Json(value) => values::text(&value.as_string()),
        ColumnValues::Null => Value::Null,
        ColumnValues::Uuid(value) => format!("g:{value}").into(),
        ColumnValues::Vector(value) => values::text(&format!("{value:?}")),
    }
}
