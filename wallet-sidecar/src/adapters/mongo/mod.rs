//! MongoDB: a client whose every wait ends, what its errors mean, and the check of what the server must be able to do.

pub mod read_model;

use std::{
    ffi::OsString,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use mongodb::{
    Client, Database,
    bson::{Document, doc},
    error::{Error, ErrorKind, WriteFailure},
    options::{ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, Tls, WriteConcern},
};
use tokio::runtime::Handle;
use weir_servers::ServerUrl;

use crate::ports::event_store::StoreError;

pub use read_model::MongoReadModel;

/// Longest wait for a call, all its round trips included. A server that is stopped is noticed after this long; what was asked may
/// be done then or not, and asking again is safe.
pub const CALL_WAIT: Duration = Duration::from_secs(5);
/// Calls at a time, each on a thread that blocks; more are refused at once, so that a server that hangs cannot take every thread.
pub const CALLS_MAX: usize = 128;
/// Longest wait for a TCP connection with its handshake.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for a server that can be used, when none is known.
const SELECTION_WAIT: Duration = Duration::from_secs(3);
/// The driver looks at the servers this often: a server that came back is used this much later at most.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Longest wait of the server for its majority; then the outcome is unknown.
const MAJORITY_WAIT: Duration = Duration::from_secs(4);
/// Connections of one service.
const CONNECTIONS_MAX: u32 = 16;
/// The oldest version that is used: what the drivers of today still speak to, with majority reads throughout.
const VERSION_MIN: [i32; 2] = [4, 4];

// The server's error codes that mean a setting, not a moment.
const BAD_VALUE: i32 = 2;
const UNAUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;
const UNKNOWN_WRITE_CONCERN: i32 = 79;
const UNSATISFIABLE_WRITE_CONCERN: i32 = 100;
const DUPLICATE_KEY: i32 = 11_000;

/// A client of one database, for threads that may block.
struct Mongo {
    database: Database,
    handle: Handle,
    calls: AtomicUsize,
}

impl Mongo {
    /// A client; the server is first asked by [`Mongo::check`]. Its connections live on the runtime that this is called on.
    async fn new(url: &ServerUrl) -> Result<Self, StoreError> {
        let wrong = |e: Error| StoreError::Settings(format!("mongodb_url: {}", *e.kind));
        let mut options = ClientOptions::parse(url.reveal()).await.map_err(wrong)?;
        options.app_name = Some("weir-wallet".to_owned());
        options.connect_timeout = Some(CONNECT_WAIT);
        options.server_selection_timeout = Some(SELECTION_WAIT);
        options.heartbeat_freq = Some(HEARTBEAT);
        options.max_pool_size = Some(CONNECTIONS_MAX);
        // Acknowledged is what survives the loss of a server; and only that is ever seen, so that a document found is one that stays.
        options.write_concern = Some(
            WriteConcern::builder()
                .w(mongodb::options::Acknowledgment::Majority)
                .journal(true)
                .w_timeout(MAJORITY_WAIT)
                .build(),
        );
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        options.tls = options
            .tls
            .map(|tls| trusting(tls, std::env::var_os("SSL_CERT_FILE")));
        let name = options.default_database.clone().ok_or_else(|| {
            StoreError::Settings("mongodb_url: name the database in the path: mongodb://host/weir".to_owned())
        })?;
        let client = Client::with_options(options).map_err(wrong)?;
        Ok(Self {
            database: client.database(&name),
            handle: Handle::current(),
            calls: AtomicUsize::new(0),
        })
    }

    /// The server is new enough, can be written to, and takes the write concern. Writes nothing.
    async fn check(&self) -> Result<(), StoreError> {
        let built = self.ask(doc! { "buildInfo": 1 }).await?;
        let version = built.get_array("versionArray").map(|parts| {
            let number = |n: usize| parts.get(n).and_then(mongodb::bson::Bson::as_i32).unwrap_or(0);
            [number(0), number(1)]
        });
        if version.is_ok_and(|version| version < VERSION_MIN) {
            let [major, minor] = VERSION_MIN;
            return Err(StoreError::Settings(format!(
                "the read model needs MongoDB {major}.{minor} or newer, this is {}: upgrade it, or leave mongodb_url out",
                built.get_str("version").unwrap_or("unknown")
            )));
        }
        let hello = self.ask(doc! { "hello": 1 }).await?;
        if hello.get_bool("readOnly").unwrap_or(false) {
            return Err(StoreError::Settings(
                "this MongoDB is read-only: start it without queryableBackupMode, or correct mongodb_url"
                    .to_owned(),
            ));
        }
        // A write that changes nothing waits for the same confirmations as one that does.
        let marks = self.database.collection::<Document>(read_model::MARKS);
        let nothing = marks.delete_one(doc! { "_id": "nothing" }).await;
        nothing.map(drop).map_err(at_start)
    }

    async fn ask(&self, command: Document) -> Result<Document, StoreError> {
        self.database.run_command(command).await.map_err(at_start)
    }

    /// Runs a call to its end or its deadline. Not to be called on a thread of the runtime.
    fn call<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let _place = Place::take(&self.calls)?;
        let within = async { tokio::time::timeout(CALL_WAIT, work).await };
        self.handle.block_on(within).unwrap_or_else(|_| {
            let waited = CALL_WAIT.as_secs();
            Err(StoreError::Unavailable(format!(
                "MongoDB did not answer within {waited} s"
            )))
        })
    }
}

/// Over TLS (`tls=true` in the address), with the authorities of `SSL_CERT_FILE` unless the address names some (`tlsCAFile`); else the
/// driver's own list of public ones counts.
fn trusting(tls: Tls, authorities: Option<OsString>) -> Tls {
    match (tls, authorities) {
        (Tls::Enabled(mut options), Some(file)) if options.ca_file_path.is_none() => {
            options.ca_file_path = Some(file.into());
            Tls::Enabled(options)
        }
        (tls, _) => tls,
    }
}

/// One of the [`CALLS_MAX`] calls.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(calls: &'a AtomicUsize) -> Result<Self, StoreError> {
        let place = Self(calls);
        if calls.fetch_add(1, Ordering::SeqCst) < CALLS_MAX {
            return Ok(place);
        }
        Err(StoreError::Unavailable(format!(
            "{CALLS_MAX} calls wait for MongoDB already"
        )))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What an error means while the service runs.
#[allow(clippy::needless_pass_by_value, reason = "used as `map_err(failed)`")]
fn failed(error: Error) -> StoreError {
    match error.kind.as_ref() {
        ErrorKind::Bson(e) => StoreError::Damaged(format!("a document of MongoDB cannot be read: {e}")),
        other => StoreError::Unavailable(format!("MongoDB: {other}")),
    }
}

/// What an error means at the start, when a wrong setting must be told from a server that is away.
fn at_start(error: Error) -> StoreError {
    let (code, said) = match error.kind.as_ref() {
        ErrorKind::Command(e) => (e.code, e.message.clone()),
        ErrorKind::Write(WriteFailure::WriteConcernError(e)) => (e.code, e.message.clone()),
        ErrorKind::Write(WriteFailure::WriteError(e)) => (e.code, e.message.clone()),
        ErrorKind::Authentication { message, .. } => (AUTHENTICATION_FAILED, message.clone()),
        ErrorKind::InvalidTlsConfig { .. } | ErrorKind::IncompatibleServer { .. } => {
            (BAD_VALUE, error.to_string())
        }
        _ => return failed(error),
    };
    let remedy = match code {
        UNAUTHORIZED => "give the user the role readWrite on the database of mongodb_url",
        AUTHENTICATION_FAILED => "check user, password and authSource in mongodb_url",
        UNKNOWN_WRITE_CONCERN | UNSATISFIABLE_WRITE_CONCERN => {
            "the read model needs write concern majority: add members that hold data to the replica set"
        }
        BAD_VALUE => {
            "the read model needs write concern majority with journal: run MongoDB with journaling on"
        }
        _ => return failed(error),
    };
    StoreError::Settings(format!("MongoDB refuses ({code}: {said}): {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn authorities_of_the_address_come_before_those_of_the_system() {
        for (url, trusted) in [
            ("mongodb://h/weir?tls=true", Some("/roots.pem")),
            ("mongodb://h/weir?tls=true&tlsCAFile=/own.pem", Some("/own.pem")),
            ("mongodb://h/weir?tls=false", None),
        ] {
            let options = ClientOptions::parse(url).await.unwrap();
            let tls = trusting(options.tls.unwrap(), Some("/roots.pem".into()));
            let path = match tls {
                Tls::Enabled(options) => options.ca_file_path,
                Tls::Disabled => None,
            };
            assert_eq!(path, trusted.map(Into::into), "{url}");
        }
    }
}
