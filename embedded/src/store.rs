//! One SQLite file, one thread that owns it, and commands that wait for the commit of their group.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak, mpsc::TryRecvError},
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that may wait for the thread; beyond it callers wait.
const COMMANDS_MAX: usize = 1024;
/// Commands in one transaction.
const GROUP_MAX: usize = 64;
/// How long another process may hold the file before a command fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the last work of a store that was dropped, before its file is opened again: one busy time-out, and room.
const LAST_WORK_DEADLINE: Duration = Duration::from_secs(12);
/// WAL pages before SQLite folds them back (4 KiB each).
const WAL_PAGES: u32 = 2000;

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file system or SQLite refused; nothing of the command was done. Asking again is safe.
    #[error("embedded store: {0}")]
    Sqlite(String),
    /// The same id was stored with other content: somebody made an id twice. Nothing was changed.
    #[error("{0} is already stored with other content")]
    Conflict(String),
    /// Positions of a batch do not ascend; the caller is at fault.
    #[error("positions must ascend: {0}")]
    Order(String),
    /// No queue is bound to the topic, so nobody would keep the message.
    #[error("no queue is bound to topic `{0}`")]
    Unroutable(String),
    /// The store's thread has ended.
    #[error("embedded store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.to_string())
    }
}

/// A command as the thread sees it: run inside the group's transaction, answered after its commit.
trait Command: Send {
    fn run(&mut self, connection: &Connection) -> bool;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Call<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Command for Call<F, T>
where
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let outcome = work(connection);
        let done = outcome.is_ok();
        self.outcome = Some(outcome);
        done
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let outcome = match (committed, self.outcome) {
            (_, Some(Err(own))) => Err(own),
            (Err(shared), _) => Err(shared),
            (Ok(()), Some(value)) => value,
            (Ok(()), None) => Err(StoreError::Closed),
        };
        // The caller may have given up waiting; the command is done all the same.
        let _ = self.reply.send(outcome);
    }
}

/// An open file, shared by all who open the same path in this process.
#[derive(Debug)]
pub(crate) struct Store {
    commands: mpsc::Sender<Box<dyn Command>>,
    /// Counts changes made by this process; see [`Store::changes`].
    changes: watch::Sender<u64>,
}

/// A store that was opened here, and its thread: disconnected once that has ended.
struct Opened {
    store: Weak<Store>,
    thread: std::sync::mpsc::Receiver<()>,
}

type Registry = Mutex<HashMap<PathBuf, Opened>>;
static OPEN: std::sync::LazyLock<Registry> = std::sync::LazyLock::new(Registry::default);

impl Store {
    /// Opens the file, or joins those who have it open in this process.
    pub(crate) fn open(path: &Path, schema: &'static str) -> Result<Arc<Self>, StoreError> {
        let io = |e: std::io::Error| StoreError::Sqlite(format!("{}: {e}", path.display()));
        let parent = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let name = path
            .file_name()
            .ok_or_else(|| StoreError::Sqlite(format!("{} is not a file", path.display())))?;
        let place = parent.canonicalize().map_err(io)?.join(name);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, opened| matches!(opened.thread.try_recv(), Err(TryRecvError::Empty)));
        if let Some(opened) = open.get(&place) {
            let store = opened.store.upgrade().filter(|s| !s.commands.is_closed());
            if let Some(store) = store {
                return Ok(store);
            }
            // Nobody holds it any more, but what was posted at the last drop is still to be done: who opens the file next
            // must find it done.
            let _ended = opened.thread.recv_timeout(LAST_WORK_DEADLINE);
        }
        let (store, thread) = Self::start(&place, schema)?;
        let opened = Opened {
            store: Arc::downgrade(&store),
            thread,
        };
        open.insert(place, opened);
        Ok(store)
    }

    /// Opens the file with a connection of its own, as another process would.
    pub(crate) fn open_alone(path: &Path, schema: &'static str) -> Result<Arc<Self>, StoreError> {
        Ok(Self::start(path, schema)?.0)
    }

    /// Starts the file's thread; what comes with the store is disconnected once the thread has ended.
    fn start(
        path: &Path,
        schema: &'static str,
    ) -> Result<(Arc<Self>, std::sync::mpsc::Receiver<()>), StoreError> {
        let connection = connect(path, schema)?;
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (alive, thread) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("weir-embedded".into())
            .spawn(move || {
                serve(connection, queue);
                drop(alive);
            })
            .map_err(|e| StoreError::Sqlite(format!("no thread: {e}")))?;
        let store = Arc::new(Self {
            commands,
            changes: watch::Sender::new(0),
        });
        Ok((store, thread))
    }

    /// Runs `work` inside a transaction and returns after its commit. Once given, it is done even if the caller stops waiting.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            work: Some(work),
            outcome: None,
            reply,
        };
        self.commands
            .send(Box::new(call))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` some time later, without an answer: for `Drop`, where nobody can wait. Left out when the queue is full.
    pub(crate) fn post<F>(&self, work: F)
    where
        F: FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    {
        let (reply, _) = oneshot::channel();
        let _ = self.commands.try_send(Box::new(Call {
            work: Some(work),
            outcome: None,
            reply,
        }));
    }

    /// Wakes those who wait for a change.
    pub(crate) fn touch(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes made through this process; other processes' changes are found by polling only.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn connect(path: &Path, schema: &str) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.execute_batch(schema)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The thread: takes what waits, up to [`GROUP_MAX`], into one transaction; ends when nobody holds the store.
fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Box<dyn Command>>) {
    let mut group: Vec<Box<dyn Command>> = Vec::with_capacity(GROUP_MAX);
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_MAX {
            let Ok(next) = queue.try_recv() else { break };
            group.push(next);
        }
        let committed = run_group(&mut connection, &mut group);
        for command in group.drain(..) {
            command.answer(committed.clone());
        }
    }
}

/// Each command in a savepoint of its own, so that one which fails takes nothing of its neighbours with it.
fn run_group(connection: &mut Connection, group: &mut [Box<dyn Command>]) -> Result<(), StoreError> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for command in group {
        let savepoint = transaction.savepoint()?;
        if command.run(&savepoint) {
            savepoint.commit()?;
        } else {
            savepoint.finish()?;
        }
    }
    transaction.commit()?;
    Ok(())
}
