//! The sessions of a MARS connection: one state, one transaction, statements one after the other as T-SQL runs them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use sqlparser::ast::Statement;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::RequestOptions;
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::version::TdsVersion;

use super::answer::Answer;
use super::bulk::Pending;
use super::connection::{Connection, LOCK_RETRY};
use super::fault::Fault;
use super::store::Store;
use crate::backend::Serve;
use crate::config::Config;
use crate::conn::reply::{Reply, Stopped};
use crate::conn::{LoginInfo, Request};
use crate::demo;
use crate::tokens::{command, status};
use crate::tsql::{self, Stmt};

/// What the sessions share. A statement holds it while it runs; its rows then wait in the session's own queue.
#[derive(Clone)]
pub(crate) struct Group(Arc<Mutex<Connection>>);

/// One session.
pub(crate) struct Member {
    group: Group,
    version: TdsVersion,
    server: String,
    /// A load announced in this session: the next message of this session carries its rows.
    bulk: Option<Pending>,
}

impl Group {
    pub(crate) fn new(store: Store, info: &LoginInfo, config: &Config) -> Self {
        Self(Arc::new(Mutex::new(Connection::new(store, info, config))))
    }

    pub(crate) fn member(&self) -> Member {
        let (version, server) = {
            let shared = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (shared.version, shared.facts.server.clone())
        };
        Member {
            group: self.clone(),
            version,
            server,
            bulk: None,
        }
    }

    /// Waits for the other sessions' statement; `None` once this session's request is cancelled.
    fn wait(&self, reply: &Reply) -> Option<MutexGuard<'_, Connection>> {
        loop {
            match self.0.try_lock() {
                Ok(shared) => return Some(shared),
                Err(TryLockError::Poisoned(shared)) => return Some(shared.into_inner()),
                Err(TryLockError::WouldBlock) if reply.cancel().wait(LOCK_RETRY) => return None,
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }
}

impl Serve for Member {
    fn serve(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Stopped> {
        let group = self.group.clone();
        let Some(mut shared) = group.wait(reply) else {
            return Answer::new(reply, self.version, &self.server).finish_cancelled();
        };
        if let Some(generated) = self.generated(request, &shared) {
            // A generated table needs nothing that is shared: however long its reader takes, nobody waits for it.
            drop(shared);
            return self.stream(&generated, reply);
        }
        shared.bulk = self.bulk.take();
        let served = shared.serve(request, reply);
        self.bulk = shared.bulk.take();
        served
    }
}

/// A batch of one query that the generator answers by itself.
struct Generated {
    plan: demo::Plan,
    limit: u64,
    format_only: bool,
    no_count: bool,
}

impl Member {
    fn generated(&self, request: &Request, shared: &Connection) -> Option<Generated> {
        let resets = PacketStatus::RESET.with(PacketStatus::RESET_SKIP_TRAN);
        let options = &shared.options;
        if request.kind != PacketType::SqlBatch
            || request.ignored
            || request.status.intersects(resets)
            || options.implicit_transactions
            || options.no_exec
        {
            return None;
        }
        let batch = SqlBatch::parse(&request.body, RequestOptions::new(self.version)).ok()?;
        let statements = tsql::parse(&batch.text()).ok()?;
        let [Stmt::Sql(statement)] = statements.as_slice() else {
            return None;
        };
        let Statement::Query(query) = &**statement else {
            return None;
        };
        Some(Generated {
            plan: demo::plan(query, &HashMap::new())?,
            limit: match options.row_limit {
                0 => u64::MAX,
                limit => limit,
            },
            format_only: options.format_only,
            no_count: options.no_count,
        })
    }

    fn stream(&mut self, generated: &Generated, reply: &mut Reply) -> Result<(), Stopped> {
        self.bulk = None;
        let mut answer = Answer::new(reply, self.version, &self.server);
        match generated
            .plan
            .run(&mut answer, generated.limit, generated.format_only)
        {
            Ok(rows) => {
                let count = if generated.no_count {
                    status::FINAL
                } else {
                    status::COUNT
                };
                answer.done(count, command::SELECT, rows);
                answer.finish()
            }
            Err(Fault::Stopped(Stopped::Gone)) => Err(Stopped::Gone),
            Err(_) => answer.finish_cancelled(),
        }
    }
}
