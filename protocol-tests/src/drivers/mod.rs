//! Real drivers behind one interface: connect, run, count rows, read the server's errors.

mod process;

use std::net::SocketAddr;

use serde::Deserialize;

pub use process::{Process, directory, interpreter, node, node_program, python};

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The gate's listener, or a server's.
    pub address: SocketAddr,
    /// SQL login.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database that LOGIN7 names.
    pub database: String,
    /// Whether the client asks for encryption of the whole connection.
    pub encrypt: bool,
}

impl Target {
    /// The demo tenant at an address, without encryption.
    #[must_use]
    pub fn demo(address: SocketAddr) -> Self {
        let name = || "demo".to_owned();
        Self {
            address,
            user: name(),
            password: name(),
            database: name(),
            encrypt: false,
        }
    }

    /// The same with another login and password.
    #[must_use]
    pub fn with_login(self, user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            ..self
        }
    }

    /// The same with the whole connection encrypted.
    #[must_use]
    pub fn encrypted(self) -> Self {
        Self {
            encrypt: true,
            ..self
        }
    }
}

/// An error as the driver handed it on; number 0 is the driver's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerError {
    /// The error's number.
    pub number: i64,
    /// Its state.
    #[serde(default)]
    pub state: i64,
    /// Its class (severity).
    #[serde(default)]
    pub class: i64,
    /// What it says.
    #[serde(default)]
    pub message: String,
}

/// One result set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ResultSet {
    /// Column names in order.
    pub columns: Vec<String>,
    /// Rows that the driver handed over, counted one by one.
    pub rows: u64,
    /// The first few rows as text.
    #[serde(default)]
    pub first: Vec<Vec<Option<String>>>,
}

/// All that came back for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Reply {
    /// The result sets in order.
    #[serde(default)]
    pub sets: Vec<ResultSet>,
    /// Rows of all sets.
    #[serde(default)]
    pub rows: u64,
    /// Errors in order.
    #[serde(default)]
    pub errors: Vec<ServerError>,
}

impl Reply {
    /// The reply, when it has no error.
    ///
    /// # Panics
    /// When it has one.
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(self.errors.is_empty(), "{:?}", self.errors);
        self
    }

    /// The numbers of the errors.
    #[must_use]
    pub fn numbers(&self) -> Vec<i64> {
        self.errors.iter().map(|error| error.number).collect()
    }

    /// A value of the first row of the first set, by column name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn value(&self, column: &str) -> String {
        let set = self
            .sets
            .first()
            .unwrap_or_else(|| panic!("no result set: {self:?}"));
        let at = set.columns.iter().position(|name| name == column);
        let at = at.unwrap_or_else(|| panic!("no column {column} in {:?}", set.columns));
        let row = set.first.first().unwrap_or_else(|| panic!("no row: {self:?}"));
        row[at].clone().unwrap_or_else(|| panic!("{column} is NULL"))
    }

    /// The first value of the first row.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn scalar(&self) -> String {
        let row = self.sets.first().and_then(|set| set.first.first());
        let value = row.and_then(|row| row.first().cloned().flatten());
        value.unwrap_or_else(|| panic!("no value: {self:?}"))
    }
}

/// A driver that can connect.
pub trait Driver: Send + Sync {
    /// How failures name it.
    fn name(&self) -> &'static str;

    /// A new connection, or why there is none.
    ///
    /// # Errors
    /// What the server answered to the login, or number 0 when the driver gave up by itself.
    fn connect(&self, to: &Target) -> Result<Box<dyn Session>, Vec<ServerError>>;
}

/// One connection.
pub trait Session: Send {
    /// Runs a text as a batch and counts what comes back.
    fn query(&mut self, sql: &str) -> Reply;

    /// Runs a text by a procedure call (`sp_executesql`); none if the driver has no such way.
    fn call(&mut self, sql: &str) -> Option<Reply>;

    /// Runs a text that was prepared before (`sp_prepare`, `sp_execute`); none if the driver has no such way.
    fn prepared(&mut self, sql: &str) -> Option<Reply>;

    /// Begins a transaction in the driver's own way.
    fn begin(&mut self) -> Reply;

    /// Commits in the driver's own way.
    fn commit(&mut self) -> Reply;

    /// Rolls back in the driver's own way.
    fn rollback(&mut self) -> Reply;
}
