//! One session of the `sqlite` backend: its state, and what each kind of request does to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value as Held;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::RequestOptions;
use weir_tds::request::all_headers::AllHeaders;
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::request::transaction::TransactionRequest;
use weir_tds::version::TdsVersion;

use super::answer::Answer;
use super::bulk::Pending;
use super::cursors::{Cursor, FIRST_CURSOR};
use super::facts::{Facts, Variables};
use super::fault::Fault;
use super::rpc::Prepared;
use super::store::Store;
use crate::backend::Serve;
use crate::config::Config;
use crate::conn::reply::{Out, Reply, Stopped};
use crate::conn::{LoginInfo, Request};
use crate::tokens::{Message, command, status};
use crate::tsql;

/// How long a statement waits for another connection's lock when `SET LOCK_TIMEOUT` was not used; T-SQL waits for ever.
const LOCK_WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Pause between two tries for the lock.
pub(super) const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Session options that have an effect here; all others are accepted and forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) no_count: bool,
    pub(super) xact_abort: bool,
    pub(super) implicit_transactions: bool,
    pub(super) format_only: bool,
    pub(super) no_exec: bool,
    pub(super) row_limit: u64,
}

/// A session.
pub(crate) struct Connection {
    store: Store,
    db: Option<rusqlite::Connection>,
    pub(super) facts: Facts,
    pub(super) variables: Variables,
    pub(super) options: Options,
    pub(super) savepoints: Vec<String>,
    pub(super) descriptor: u64,
    pub(super) prepared: HashMap<i32, Arc<Prepared>>,
    pub(super) next_handle: i32,
    pub(super) cursors: HashMap<i32, Cursor>,
    pub(super) next_cursor: i32,
    pub(super) try_depth: u32,
    pub(super) bulk: Option<Pending>,
    /// Results go here and not to the client: the rows of an `INSERT … EXEC`.
    pub(super) captured: Option<Vec<Vec<Held>>>,
    pub(super) version: TdsVersion,
    login_database: String,
}

impl Connection {
    pub(crate) fn new(store: Store, info: &LoginInfo, config: &Config) -> Self {
        let facts = Facts {
            spid: info.spid,
            server: config.server_name.clone(),
            database: info.database.clone(),
            login: info.login.clone(),
            host: info.host.clone(),
            application: info.application.clone(),
            transactions: 0,
            row_count: 0,
            error: 0,
            identity: None,
            caught: None,
            procedure_depth: 0,
            lock_timeout: -1,
            text_size: 2_147_483_647,
        };
        Self {
            store,
            db: None,
            facts,
            variables: HashMap::new(),
            options: Options::default(),
            savepoints: Vec::new(),
            descriptor: u64::from(info.spid) << 32,
            prepared: HashMap::new(),
            next_handle: 1,
            cursors: HashMap::new(),
            next_cursor: FIRST_CURSOR,
            try_depth: 0,
            bulk: None,
            captured: None,
            version: info.version,
            login_database: info.database.clone(),
        }
    }

    /// The SQLite connection, opened at the first request that needs it.
    pub(super) fn db(&mut self, answer: &mut Answer<'_>) -> Result<&rusqlite::Connection, Fault> {
        if self.db.is_none() {
            let db = self.store.connect()?;
            answer
                .reply()
                .cancel()
                .interrupts(Some(db.get_interrupt_handle()));
            self.db = Some(db);
        }
        self.opened()
    }

    pub(super) fn procedures(&self) -> &super::store::Procedures {
        &self.store.procedures
    }

    pub(super) fn table_types(&self) -> &super::store::TableTypes {
        &self.store.table_types
    }

    /// The SQLite connection of a request that has opened it.
    pub(super) fn opened(&self) -> Result<&rusqlite::Connection, Fault> {
        self.db
            .as_ref()
            .ok_or_else(|| Message::error(50000, "The database file is not open.").into())
    }

    /// Runs `f` until the lock is free, the lock timeout has passed, or an ATTENTION comes.
    pub(super) fn locked<T>(
        &mut self,
        answer: &mut Answer<'_>,
        mut f: impl FnMut(&mut Self, &mut Answer<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.db(answer)?;
        let wait = u64::try_from(self.facts.lock_timeout).map_or(LOCK_WAIT_DEFAULT, Duration::from_millis);
        let mut waited = Duration::ZERO;
        loop {
            if answer.is_cancelled() {
                return Err(Fault::Stopped(Stopped::Cancelled));
            }
            match f(self, answer) {
                Err(Fault::Busy) if waited < wait => {
                    if answer.reply().cancel().wait(LOCK_RETRY) {
                        return Err(Fault::Stopped(Stopped::Cancelled));
                    }
                    waited += LOCK_RETRY;
                }
                Err(Fault::Busy) => {
                    return Err(Message::new(1222, 16, 51, "Lock request time out period exceeded.").into());
                }
                Err(Fault::Conflict) => {
                    self.rollback_all(answer);
                    let text = "Transaction aborted due to update conflict: another connection changed the database since it began.";
                    return Err(Message::new(3960, 16, 2, text).into());
                }
                other => return other,
            }
        }
    }

    fn run(&mut self, request: &Request, answer: &mut Answer<'_>) -> Result<(), Fault> {
        if request
            .status
            .intersects(PacketStatus::RESET.with(PacketStatus::RESET_SKIP_TRAN))
        {
            self.reset(request.status.contains(PacketStatus::RESET_SKIP_TRAN), answer);
        }
        if request.kind != PacketType::BulkLoad {
            self.bulk = None;
        }
        let options = RequestOptions::new(self.version);
        match request.kind {
            PacketType::SqlBatch => {
                let batch = SqlBatch::parse(&request.body, options).map_err(|e| bad_request(&e))?;
                self.batch_text(&batch.text(), answer)
            }
            PacketType::Rpc => self.rpc(&request.body, options, answer),
            PacketType::TransactionManager => {
                let headers = AllHeaders::parse(&request.body, self.version).map_err(|e| bad_request(&e))?;
                let asked =
                    TransactionRequest::parse(&request.body, &headers).map_err(|e| bad_request(&e))?;
                self.transaction(&asked, answer)
            }
            PacketType::BulkLoad => self.bulk_load(&request.body, self.version, answer),
            _ => Err(Message::new(4002, 20, 1, "The message type is not known after the login.").into()),
        }
    }

    fn batch_text(&mut self, text: &str, answer: &mut Answer<'_>) -> Result<(), Fault> {
        let statements = tsql::parse(text).map_err(|e| syntax(&e))?;
        self.variables = HashMap::new();
        self.block(&statements, answer)?;
        Ok(())
    }

    /// RESETCONNECTION: back to the state after login; the isolation level would stay [MS-TDS 2.2.3.1.2].
    fn reset(&mut self, keep_transaction: bool, answer: &mut Answer<'_>) {
        answer.tokens().env_reset_ack();
        if !keep_transaction && self.facts.transactions > 0 {
            self.end_in_sqlite("ROLLBACK");
            self.facts.transactions = 0;
            self.savepoints.clear();
        }
        if self.facts.database != self.login_database {
            answer
                .tokens()
                .env_database(&self.login_database, &self.facts.database);
            self.facts.database.clone_from(&self.login_database);
        }
        self.options = Options::default();
        self.facts.lock_timeout = -1;
        self.prepared.clear();
        self.cursors.clear();
        self.drop_temporary_tables();
    }

    fn drop_temporary_tables(&mut self) {
        let Some(db) = &self.db else { return };
        let names = db
            .prepare("SELECT name FROM sqlite_temp_master WHERE type = 'table'")
            .and_then(|mut s| {
                s.query_map([], |row| row.get::<_, String>(0))?
                    .collect::<Result<Vec<_>, _>>()
            });
        for name in names.unwrap_or_default() {
            let _ = db.execute_batch(&format!("DROP TABLE temp.\"{}\"", name.replace('"', "\"\"")));
        }
    }

    /// The value of a variable, for output parameters.
    pub(super) fn variable_value(&self, name: &str) -> Held {
        self.variables.get(name).map_or(Held::Null, |v| v.value.clone())
    }

    pub(super) fn end_in_sqlite(&self, statement: &str) {
        if let Some(db) = &self.db
            && !db.is_autocommit()
        {
            // SQLite refuses it only when the transaction has ended already.
            let _ = db.execute_batch(statement);
        }
    }
}

fn bad_request(error: &weir_tds::error::WireError) -> Fault {
    Message::new(
        4002,
        16,
        1,
        format!("The incoming request is not well formed: {error}."),
    )
    .into()
}

/// The message for text that cannot be read.
pub(super) fn syntax(error: &tsql::SyntaxError) -> Fault {
    let text = if error.near.is_empty() {
        "Incorrect syntax near the end of the text.".to_owned()
    } else {
        format!("Incorrect syntax near '{}'.", error.near)
    };
    let mut message = match error.keyword {
        true => Message::new(
            156,
            15,
            1,
            format!("Incorrect syntax near the keyword '{}'.", error.near),
        ),
        false => Message::new(102, 15, 1, text),
    };
    message.line = error.line;
    message.into()
}

impl Serve for Connection {
    fn serve(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Stopped> {
        let cancel = Arc::clone(reply.cancel());
        cancel.interrupts(self.db.as_ref().map(rusqlite::Connection::get_interrupt_handle));
        let served = self.answer(request, reply);
        cancel.interrupts(None);
        served
    }
}

impl Connection {
    fn answer(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Stopped> {
        let server = self.facts.server.clone();
        let mut answer = Answer::new(reply, self.version, &server);
        if request.ignored {
            return answer.finish_cancelled();
        }
        self.try_depth = 0;
        self.captured = None;
        self.facts.procedure_depth = 0;
        let ended = self.run(request, &mut answer);
        self.notice_lost_transaction(&mut answer);
        match ended {
            Ok(()) => answer.finish(),
            Err(Fault::Stopped(Stopped::Gone)) => Err(Stopped::Gone),
            Err(Fault::Stopped(Stopped::Cancelled)) => {
                if self.options.xact_abort && self.facts.transactions > 0 {
                    self.rollback_all(&mut answer);
                }
                answer.finish_cancelled()
            }
            Err(fault) => {
                let message = fault_message(fault);
                let fatal = message.class >= 20;
                answer.message(&message);
                answer.done(status::ERROR, command::NONE, 0);
                answer.finish()?;
                if fatal { reply.send(Out::Close) } else { Ok(()) }
            }
        }
    }
}

/// What a client is told of a fault.
pub(super) fn fault_message(fault: Fault) -> Message {
    match fault {
        Fault::Message(message) => *message,
        Fault::Busy | Fault::Conflict => Message::new(1222, 16, 51, "Lock request time out period exceeded."),
        Fault::Stopped(_) => Message::error(3617, "The query was cancelled."),
    }
}
