//! tiberius as the link's driver: connects, sets the session up, runs statements, and tells its errors in the link's terms.

use std::fmt;

use tiberius::{Client, Column, ColumnData, Query, Row};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use super::{
    address::Address,
    link::{Driver, LinkError},
    tsql::{Statement, Table},
};

/// Redirections that are followed at login (Azure, read-only routing): more than one hop is no longer a gateway.
const REDIRECTIONS_MAX: usize = 2;

/// A parameter of a statement.
#[derive(Debug, Clone)]
pub(super) enum Parameter {
    Text(String),
    MaybeText(Option<String>),
    Int(i64),
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Int(i64),
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) statement: Statement,
    pub(super) parameters: Vec<Parameter>,
}

/// What a statement brought.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) affected: u64,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// Connects to one server for one table.
#[derive(Debug, Clone)]
pub(super) struct SqlServer {
    pub(super) address: Address,
    pub(super) table: Table,
}

/// A session that is set up.
pub(super) struct Session {
    client: Client<Compat<TcpStream>>,
    table: Table,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.table.name())
    }
}

impl Driver for SqlServer {
    type Connection = Session;
    type Command = Command;
    type Answer = Answer;

    async fn connect(&self) -> Result<Session, LinkError> {
        let mut client = self.login().await?;
        let text = Statement::Session.text(&self.table);
        // A batch: options that are set inside a call end with it.
        let set = client.simple_query(text).await.map_err(told)?;
        set.into_results().await.map_err(told)?;
        Ok(Session {
            client,
            table: self.table.clone(),
        })
    }

    async fn run(session: &mut Session, command: Command) -> Result<Answer, LinkError> {
        let mut query = Query::new(command.statement.text(&session.table));
        for parameter in command.parameters {
            match parameter {
                Parameter::Text(text) => query.bind(text),
                Parameter::MaybeText(text) => query.bind(text),
                Parameter::Int(number) => query.bind(number),
            }
        }
        match command.statement {
            Statement::Session | Statement::Create | Statement::Insert | Statement::Drop => {
                let done = query.execute(&mut session.client).await.map_err(told)?;
                Ok(Answer {
                    affected: done.total(),
                    rows: Vec::new(),
                })
            }
            Statement::Database
            | Statement::Permissions
            | Statement::Shape
            | Statement::Read
            | Statement::Page => {
                let stream = query.query(&mut session.client).await.map_err(told)?;
                // Bounded by TOP in the statement, or one row by its key.
                let rows = stream.into_first_result().await.map_err(told)?;
                let rows = rows.iter().map(cells).collect::<Result<_, _>>()?;
                Ok(Answer { affected: 0, rows })
            }
        }
    }
}

impl SqlServer {
    async fn login(&self) -> Result<Client<Compat<TcpStream>>, LinkError> {
        let (mut host, mut port) = (self.address.host.clone(), self.address.port);
        for _ in 0..=REDIRECTIONS_MAX {
            let away = |e: std::io::Error| LinkError::Away(format!("{host}:{port}: {e}"));
            let socket = TcpStream::connect((host.as_str(), port)).await.map_err(away)?;
            socket.set_nodelay(true).map_err(away)?;
            let config = self.address.config(&host, port);
            match Client::connect(config, socket.compat_write()).await {
                Ok(client) => return Ok(client),
                Err(tiberius::error::Error::Routing { host: to, port: at }) => (host, port) = (to, at),
                Err(e) => return Err(told(e)),
            }
        }
        Err(LinkError::Away(format!(
            "redirected more than {REDIRECTIONS_MAX} times at login"
        )))
    }
}

fn cells(row: &Row) -> Result<Vec<Cell>, LinkError> {
    let told = |column: &Column| {
        let text = format!(
            "column {} has a type that was not asked for ({:?})",
            column.name(),
            column.column_type()
        );
        LinkError::Away(text)
    };
    row.cells()
        .map(|(column, data)| cell(data).ok_or_else(|| told(column)))
        .collect()
}

/// `None` for a type that no statement asks for.
fn cell(data: &ColumnData<'static>) -> Option<Cell> {
    let int = |n: Option<i64>| n.map_or(Cell::Null, Cell::Int);
    Some(match data {
        ColumnData::String(text) => text.as_ref().map_or(Cell::Null, |t| Cell::Text(t.to_string())),
        ColumnData::U8(n) => int(n.map(i64::from)),
        ColumnData::I16(n) => int(n.map(i64::from)),
        ColumnData::I32(n) => int(n.map(i64::from)),
        ColumnData::I64(n) => int(*n),
        ColumnData::Bit(b) => int(b.map(i64::from)),
        _ => return None,
    })
}

/// The driver's error in the link's terms. The texts are the server's and the driver's; neither has the password.
fn told(error: tiberius::error::Error) -> LinkError {
    match error {
        tiberius::error::Error::Server(token) => LinkError::Server {
            number: token.code(),
            message: token.message().to_owned(),
        },
        tiberius::error::Error::Tls(text) if text.contains("certificate") => LinkError::Certificate(text),
        other => LinkError::Away(other.to_string()),
    }
}
