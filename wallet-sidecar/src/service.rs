//! What the faces (gRPC, REST) share: the writer, the board, the stores, and questions that read several of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use weir_contracts::event::{TransactionCreated, WalletUpdated};

use crate::{
    health::Healths,
    ledger::TrialBalance,
    meters::Meters,
    ports::{
        event_store::{EventStore, READ_ROWS_MAX, StoreError},
        read_model::{Filter, Page, ReadModel},
    },
    relay::blocking,
    wallet::{Command, UserId, WalletId},
    writer::{Answer, Board, CommandError, Key, Writer, board::Watching},
};

/// How long a query waits for the read model to reach what was committed before it asked.
pub const READ_OWN_WRITES_WAIT: Duration = Duration::from_millis(500);
/// Positions that the read model may lag behind before the service is not ready.
pub const LAG_READY_MAX: u64 = 10_000;
/// Longest wait for one check of `/ready`.
const CHECK_WAIT: Duration = Duration::from_secs(2);

/// The parts; clones share them.
#[derive(Clone)]
pub struct Service {
    writer: Writer,
    board: Arc<Board>,
    store: Arc<dyn EventStore>,
    read_model: Arc<dyn ReadModel>,
    projected: watch::Receiver<u64>,
    healths: Healths,
    meters: Arc<Meters>,
    sums: Arc<Mutex<Sums>>,
}

/// Sums of all postings up to a position: each question reads on from there.
#[derive(Default, Clone)]
struct Sums {
    position: u64,
    balance: TrialBalance,
}

/// What the service is made of.
#[allow(missing_docs, reason = "each field is the part that its type names")]
pub struct Parts {
    pub writer: Writer,
    pub board: Arc<Board>,
    pub store: Arc<dyn EventStore>,
    pub read_model: Arc<dyn ReadModel>,
    pub projected: watch::Receiver<u64>,
    pub healths: Healths,
    pub meters: Arc<Meters>,
}

/// Numbers by name.
pub type Numbers = Vec<(&'static str, u64)>;

/// One line of `/ready`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// Why not, or a number worth knowing.
    pub detail: String,
}

impl Service {
    /// Of its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            writer: parts.writer,
            board: parts.board,
            store: parts.store,
            read_model: parts.read_model,
            projected: parts.projected,
            healths: parts.healths,
            meters: parts.meters,
            sums: Arc::default(),
        }
    }

    /// Has a command decided and committed.
    pub async fn command(
        &self,
        wallet: WalletId,
        key: Option<Key>,
        command: Command,
    ) -> Result<Answer, CommandError> {
        self.writer.ask(wallet, key, command).await
    }

    /// A wallet as last committed.
    #[must_use]
    pub fn wallet(&self, id: WalletId) -> Option<Arc<WalletUpdated>> {
        self.board.wallet(id)
    }

    /// A watch of the named wallets, or of all; `None` when there are too many watches.
    #[must_use]
    pub fn watch(&self, only: BTreeSet<WalletId>) -> Option<Watching> {
        self.board.watch(only)
    }

    /// A user's wallet from the read model, or the committed state when that is newer (a write just made here).
    pub async fn wallet_of_user(&self, user: &UserId) -> Result<Option<WalletUpdated>, CommandError> {
        let committed = self.board.wallet(WalletId::of_user(user));
        let (read_model, name) = (Arc::clone(&self.read_model), user.to_string());
        let document = blocking(move || read_model.wallet_of_user(&name))
            .await
            .map_err(unavailable)?;
        Ok(match (document, committed) {
            (Some(d), Some(c)) if d.position >= c.position => Some(d),
            (_, Some(c)) => Some(c.as_ref().clone()),
            (d, None) => d,
        })
    }

    /// A page of a wallet's transactions from the read model; waits a bounded time for it to reach what is committed.
    pub async fn page(&self, wallet: WalletId, filter: Filter) -> Result<Page, CommandError> {
        if let Some(committed) = self.board.wallet(wallet) {
            let mut projected = self.projected.clone();
            let reached = projected.wait_for(|position| *position >= committed.position);
            // After the wait the page is what the read model has: it lags, and `/ready` says so.
            let _ = tokio::time::timeout(READ_OWN_WRITES_WAIT, reached).await;
        }
        let read_model = Arc::clone(&self.read_model);
        blocking(move || read_model.transactions(&wallet.to_string(), &filter))
            .await
            .map_err(unavailable)
    }

    /// Transactions after a position, oldest first, from the event store.
    pub async fn transactions_after(
        &self,
        wallet: Option<WalletId>,
        position: u64,
        limit: usize,
    ) -> Result<Vec<TransactionCreated>, CommandError> {
        let store = Arc::clone(&self.store);
        let events = blocking(move || store.transactions_after(wallet, position, limit))
            .await
            .map_err(unavailable)?;
        Ok(events
            .iter()
            .filter_map(crate::wallet::Recorded::transaction)
            .collect())
    }

    /// Sums of every posting stored.
    pub async fn trial_balance(&self) -> Result<TrialBalance, CommandError> {
        let (store, sums) = (Arc::clone(&self.store), Arc::clone(&self.sums));
        blocking(move || sum_up(store.as_ref(), &sums))
            .await
            .map_err(unavailable)
    }

    /// Positions that the read model is behind.
    fn projection_lag(&self) -> u64 {
        self.board.head().saturating_sub(*self.projected.borrow())
    }

    /// What `/metrics` shows: counters, and values of this moment.
    #[must_use]
    pub fn metrics(&self) -> (Numbers, Numbers) {
        let (wallets, watchers) = self.board.sizes();
        let values = vec![
            ("event_position", self.board.head()),
            ("projection_lag_positions", self.projection_lag()),
            ("wallets", wallets as u64),
            ("watchers", watchers as u64),
        ];
        (self.meters.all().to_vec(), values)
    }

    /// What `/ready` shows.
    pub async fn checks(&self) -> Vec<Check> {
        let store = Arc::clone(&self.store);
        let writable = tokio::time::timeout(CHECK_WAIT, blocking(move || store.check_writable())).await;
        let writable = match writable {
            Ok(outcome) => outcome.err(),
            Err(_) => Some(format!("no answer within {} s", CHECK_WAIT.as_secs())),
        };
        let lag = self.projection_lag();
        let line = |name, trouble: Option<String>| Check {
            name,
            ok: trouble.is_none(),
            detail: trouble.unwrap_or_default(),
        };
        vec![
            line("event_store", writable),
            line("relay", self.healths.relay.trouble()),
            line("projection", self.healths.projector.trouble()),
            line("sweep", self.healths.sweep.trouble()),
            Check {
                name: "projection_lag",
                ok: lag <= LAG_READY_MAX,
                detail: lag.to_string(),
            },
        ]
    }
}

fn unavailable(cause: String) -> CommandError {
    CommandError::Store(StoreError::Unavailable(cause))
}

fn sum_up(store: &dyn EventStore, sums: &Mutex<Sums>) -> Result<TrialBalance, StoreError> {
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = sums.clone();
    loop {
        let posted = store.postings_after(next.position, READ_ROWS_MAX)?;
        let Some(last) = posted.last().map(|p| p.position) else {
            break;
        };
        for one in posted {
            next.balance.add(one.currency, one.posting);
        }
        next.position = last;
    }
    *sums = next.clone();
    Ok(next.balance)
}
