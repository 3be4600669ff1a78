//! The scenarios by tiberius.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tiberius::numeric::Numeric;
use tiberius::{
    AuthMethod, Client, ColumnData, Config, EncryptionLevel, QueryItem, QueryStream, ToSql, TokenRow,
};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use super::reply::{self, Failure, Reply};
use super::values::{self, Made};
use super::{Options, Session};

/// Longest login and longest answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Connection {
    client: Client<Compat<TcpStream>>,
}

fn config(options: &Options) -> Config {
    let mut config = Config::new();
    config.host(options.get("host"));
    config.port(options.get("port").parse().unwrap_or_default());
    config.database(options.get("database"));
    config.authentication(AuthMethod::sql_server(
        options.get("user"),
        options.get("password"),
    ));
    config.handshake_timeout(Some(PATIENCE));
    config.command_timeout(Some(PATIENCE));
    config.encryption(match options.get("encryption") {
        "none" => EncryptionLevel::NotSupported,
        "login-only" => EncryptionLevel::Off,
        "on" => EncryptionLevel::On,
        "required" => EncryptionLevel::Required,
        _ => EncryptionLevel::Strict,
    });
    match options.get("encryption") {
        "required" | "strict" => config.trust_cert_ca(options.get("ca")),
        _ => config.trust_cert(),
    }
    config
}

impl Session for Connection {
    async fn open(options: &Options) -> Result<Self, Failure> {
        let config = config(options);
        let socket = TcpStream::connect(config.get_addr()).await;
        let socket = socket.map_err(|error| Failure::Error(reply::error(0, 0, 0, &error.to_string())))?;
        let _ = socket.set_nodelay(true);
        let client = Client::connect(config, socket.compat_write()).await;
        let client = client.map_err(|error| Failure::Error(described(&error)))?;
        Ok(Self { client })
    }

    async fn step(&mut self, step: &Value) -> Result<Value, Failure> {
        let sql = step["sql"].as_str().unwrap_or_default();
        match step["do"].as_str().unwrap_or_default() {
            "batch" => Ok(gathered(self.client.simple_query(sql).await).await),
            "query" => self.query(step).await,
            "prepared" => Err(Failure::Unsupported("the driver prepares no statements")),
            "begin" => Ok(ended(self.client.begin_transaction().await)),
            "commit" => Ok(ended(self.client.commit_transaction().await)),
            "rollback" => Ok(ended(self.client.rollback_transaction().await)),
            "cancel" => self.cancel(step).await,
            "bulk" => Ok(self.bulk(step).await),
            "mars" => Err(Failure::Unsupported("the driver has no MARS")),
            "tvp" => Err(Failure::Unsupported("the driver gives tables to procedures only")),
            _ => Err(Failure::Unsupported("the driver has no server cursors")),
        }
    }

    async fn close(self) {
        let _ = self.client.close().await;
    }
}

impl Connection {
    async fn query(&mut self, step: &Value) -> Result<Value, Failure> {
        let sql = values::marked(step, "@P");
        let mut given: Vec<Box<dyn ToSql>> = Vec::new();
        for parameter in step["params"].as_array().into_iter().flatten() {
            let value = &parameter["value"];
            given.push(match parameter["type"].as_str() {
                Some("int") => Box::new(value.as_i64().and_then(|value| i32::try_from(value).ok())),
                Some("nvarchar") => Box::new(value.as_str().map(str::to_owned)),
                _ => return Err(Failure::Unsupported("a type of parameter that no scenario has")),
            });
        }
        let given: Vec<&dyn ToSql> = given.iter().map(AsRef::as_ref).collect();
        Ok(gathered(self.client.query(sql, &given).await).await)
    }

    async fn cancel(&mut self, step: &Value) -> Result<Value, Failure> {
        let sql = step["sql"].as_str().unwrap_or_default();
        let after = step["after"].as_u64().unwrap_or(0);
        let failed = |error| Failure::Error(described(&error));
        let mut stream = self.client.simple_query(sql).await.map_err(failed)?;
        let mut rows = 0;
        while rows < after {
            match stream.try_next().await.map_err(failed)? {
                Some(QueryItem::Row(_)) => rows += 1,
                Some(QueryItem::Metadata(_)) => {}
                None => return Ok(json!({"cancelled": false})),
            }
        }
        drop(stream);
        self.client.cancel_query().await.map_err(failed)?;
        Ok(json!({"cancelled": true}))
    }

    async fn bulk(&mut self, step: &Value) -> Value {
        match self.load(step).await {
            Ok(affected) => json!({"errors": [], "affected": affected}),
            Err(error) => json!({"errors": [described(&error)]}),
        }
    }

    async fn load(&mut self, step: &Value) -> tiberius::Result<u64> {
        let table = step["table"].as_str().unwrap_or_default().to_owned();
        let names = values::names(step);
        let mut request = self.client.bulk_insert(&table).await?;
        for i in 1..=values::count(step) {
            let mut row = TokenRow::new();
            for name in &names {
                row.push(column(values::made(name, i)));
            }
            request.send(row).await?;
        }
        Ok(request.finalize().await?.total())
    }
}

fn column(made: Made) -> ColumnData<'static> {
    match made {
        Made::Number(value) => ColumnData::I32(Some(value)),
        Made::Text(value) => ColumnData::String(value.map(Cow::Owned)),
        Made::Hundredths(value) => ColumnData::Numeric(Some(Numeric::new_with_scale(value.into(), 2))),
        Made::Bytes(value) => ColumnData::Binary(value.map(Cow::Owned)),
    }
}

fn ended(result: tiberius::Result<()>) -> Value {
    let errors: Vec<Value> = result.err().iter().map(described).collect();
    json!({"errors": errors})
}

/// Reads every result set; an error ends what the driver hands over.
async fn gathered(sent: tiberius::Result<QueryStream<'_>>) -> Value {
    let mut reply = Reply::default();
    match sent {
        Err(error) => reply.errors.push(described(&error)),
        Ok(mut stream) => loop {
            match stream.try_next().await {
                Ok(Some(QueryItem::Metadata(metadata))) => {
                    let columns = metadata.columns().iter();
                    reply.columns(columns.map(|column| column.name().to_owned()).collect());
                }
                Ok(Some(QueryItem::Row(row))) => reply.row(row.into_iter().map(written).collect()),
                Ok(None) => break,
                Err(error) => {
                    reply.errors.push(described(&error));
                    break;
                }
            }
        },
    }
    reply.told()
}

fn written(value: ColumnData<'static>) -> Value {
    fn told<T>(value: Option<T>, form: impl FnOnce(T) -> Value) -> Value {
        value.map_or(Value::Null, form)
    }
    match value {
        ColumnData::U8(value) => told(value, values::integer),
        ColumnData::I16(value) => told(value, values::integer),
        ColumnData::I32(value) => told(value, values::integer),
        ColumnData::I64(value) => told(value, values::integer),
        ColumnData::F32(value) => told(value, |value| values::float(value.into())),
        ColumnData::F64(value) => told(value, values::float),
        ColumnData::Bit(value) => told(value, Value::from),
        ColumnData::String(value) => told(value, |value| values::text(&value)),
        ColumnData::Guid(value) => told(value, |value| format!("g:{value}").into()),
        ColumnData::Binary(value) => told(value, |value| values::binary(&value)),
        ColumnData::Numeric(value) => told(value, |value| {
            values::decimal(value.value() < 0, value.value().unsigned_abs(), value.scale())
        }),
        ColumnData::Xml(value) => told(value, |value| values::text(&value.to_string())),
        ColumnData::DateTime(value) => told(value, |value| {
            let days = i64::from(value.days()) + values::DAYS_1900;
            values::moment(days, values::of_300ths(value.seconds_fragments()))
        }),
        ColumnData::SmallDateTime(value) => told(value, |value| {
            let days = i64::from(value.days()) + values::DAYS_1900;
            values::moment(days, u64::from(value.seconds_fragments()) * 60_000_000_000)
        }),
        ColumnData::Time(value) => told(value, |value| format!("t:{}", values::clock(nanos(value))).into()),
        ColumnData::Date(value) => told(value, |value| {
            format!("d:{}", values::date(value.days().into())).into()
        }),
        ColumnData::DateTime2(value) => told(value, |value| {
            values::moment(value.date().days().into(), nanos(value.time()))
        }),
        ColumnData::DateTimeOffset(value) => told(value, |value| {
            let moment = value.datetime2();
            values::with_offset(moment.date().days().into(), nanos(moment.time()), value.offset())
        }),
    }
}

fn nanos(time: tiberius::time::Time) -> u64 {
    time.increments() * 10_u64.pow(9 - u32::from(time.scale()))
}

fn described(error: &tiberius::error::Error) -> Value {
    match error {
        tiberius::error::Error::Server(token) => reply::error(
            token.code().into(),
            token.state(),
            token.class().into(),
            token.message(),
        ),
        other => reply::error(0, 0, 0, &other.to_string()),
    }
}
