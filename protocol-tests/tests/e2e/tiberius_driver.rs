//! tiberius, in this process, behind the same interface as the drivers of other languages.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::TryStreamExt;
use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel, FromSql, QueryItem, Row};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use weir_protocol_tests::drivers::{Driver, Reply, ResultSet, ServerError, Session, Target};

/// Longest login and longest answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(240);

/// First rows of each set that are kept as text.
const KEEP: u64 = 5;

/// The driver.
pub(crate) struct Tiberius;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

impl Driver for Tiberius {
    fn name(&self) -> &'static str {
        "tiberius"
    }

    fn connect(&self, to: &Target) -> Result<Box<dyn Session>, Vec<ServerError>> {
        let mut config = Config::new();
        config.host(to.address.ip());
        config.port(to.address.port());
        config.database(&to.database);
        config.authentication(AuthMethod::sql_server(&to.user, &to.password));
        let encryption = if to.encrypt {
            EncryptionLevel::Required
        } else {
            EncryptionLevel::NotSupported
        };
        config.encryption(encryption);
        config.trust_cert();
        let connecting = async {
            let socket = TcpStream::connect(to.address).await?;
            socket.set_nodelay(true)?;
            Client::connect(config, socket.compat_write()).await
        };
        let client = runtime()
            .block_on(async { tokio::time::timeout(ANSWER_DEADLINE, connecting).await })
            .expect("a login within its deadline");
        match client {
            Ok(client) => Ok(Box::new(Connection { client })),
            Err(error) => Err(vec![described(&error)]),
        }
    }
}

struct Connection {
    client: Client<Compat<TcpStream>>,
}

impl Connection {
    fn run(&mut self, sql: &str, by_call: bool) -> Reply {
        let answered =
            async { tokio::time::timeout(ANSWER_DEADLINE, counted(&mut self.client, sql, by_call)).await };
        runtime()
            .block_on(answered)
            .unwrap_or_else(|_| panic!("no answer to {sql}"))
    }
}

impl Session for Connection {
    fn query(&mut self, sql: &str) -> Reply {
        self.run(sql, false)
    }

    fn call(&mut self, sql: &str) -> Option<Reply> {
        Some(self.run(sql, true))
    }

    /// tiberius prepares nothing.
    fn prepared(&mut self, _sql: &str) -> Option<Reply> {
        None
    }

    fn begin(&mut self) -> Reply {
        self.query("BEGIN TRANSACTION")
    }

    fn commit(&mut self) -> Reply {
        self.query("COMMIT TRANSACTION")
    }

    fn rollback(&mut self) -> Reply {
        self.query("ROLLBACK TRANSACTION")
    }
}

async fn counted(client: &mut Client<Compat<TcpStream>>, sql: &str, by_call: bool) -> Reply {
    let mut reply = Reply::default();
    let sent = if by_call {
        client.query(sql, &[]).await
    } else {
        client.simple_query(sql).await
    };
    let mut stream = match sent {
        Ok(stream) => stream,
        Err(error) => {
            reply.errors.push(described(&error));
            return reply;
        }
    };
    loop {
        match stream.try_next().await {
            Ok(Some(QueryItem::Metadata(metadata))) => {
                let columns = metadata
                    .columns()
                    .iter()
                    .map(|column| column.name().to_owned())
                    .collect();
                reply.sets.push(ResultSet {
                    columns,
                    ..ResultSet::default()
                });
            }
            Ok(Some(QueryItem::Row(row))) => {
                reply.rows += 1;
                if let Some(set) = reply.sets.last_mut() {
                    set.rows += 1;
                    if set.rows <= KEEP {
                        set.first.push(texts(row));
                    }
                }
            }
            Ok(None) => return reply,
            Err(error) => {
                reply.errors.push(described(&error));
                return reply;
            }
        }
    }
}

fn texts(row: Row) -> Vec<Option<String>> {
    row.into_iter().map(text).collect()
}

/// A value as the tests compare it: numbers and strings; of the rest only that it is there.
fn text(value: ColumnData<'static>) -> Option<String> {
    match value {
        ColumnData::U8(value) => value.map(|value| value.to_string()),
        ColumnData::I16(value) => value.map(|value| value.to_string()),
        ColumnData::I32(value) => value.map(|value| value.to_string()),
        ColumnData::I64(value) => value.map(|value| value.to_string()),
        ColumnData::Bit(value) => value.map(|value| value.to_string()),
        ColumnData::String(value) => value.map(|value| value.to_string()),
        ColumnData::Numeric(value) => value.map(|value| value.to_string()),
        other => <&str>::from_sql(&other)
            .ok()
            .flatten()
            .map(str::to_owned)
            .or_else(|| Some("?".to_owned())),
    }
}

fn described(error: &tiberius::error::Error) -> ServerError {
    match error {
        tiberius::error::Error::Server(token) => ServerError {
            number: i64::from(token.code()),
            state: i64::from(token.state()),
            class: i64::from(token.class()),
            message: token.message().to_owned(),
        },
        other => ServerError {
            number: 0,
            state: 0,
            class: 0,
            message: other.to_string(),
        },
    }
}
