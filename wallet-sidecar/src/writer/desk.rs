//! The writer's desk: the wallets in memory, a group of commands drafted on copies, committed, and only then adopted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use weir_contracts::event::{CloudEvent, TRANSACTION_CREATED_TOPIC, WALLET_UPDATED_TOPIC, WalletUpdated};

use super::{Answer, Ask, Board, CommandError, Key, Parts, snapshot};
use crate::{
    ledger::posting,
    meters::{Meters, add},
    ports::{
        clock::Clock,
        event_store::{Append, Batch, EventStore, OutMessage, READ_ROWS_MAX, StoreError, StoredAnswer},
    },
    wallet::{
        Command, Corrupt, Recorded, TxnId, Wallet, WalletId, apply::apply, decide::Facts, decide::decide,
    },
};

/// How often a group is decided anew because another writer was faster.
const CONFLICTS_MAX: u32 = 5;
/// The source of our CloudEvents.
pub const EVENT_SOURCE: &str = "weir/wallet";

impl From<Corrupt> for StoreError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Damaged(corrupt.to_string())
    }
}

/// The desk. Blocks on the store: lives on the writer's thread.
pub struct Desk {
    store: Arc<dyn EventStore>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    wallets: HashMap<WalletId, Wallet>,
    head: u64,
    /// What is in memory may not be what is stored: read on before deciding.
    stale: bool,
    pending: snapshot::Pending,
    meters: Arc<Meters>,
}

/// A group of decisions that nobody has seen yet.
struct Draft {
    at: Timestamp,
    head: u64,
    changed: HashMap<WalletId, Wallet>,
    answers: HashMap<Key, StoredAnswer>,
    views: Vec<(WalletId, WalletUpdated)>,
    appends: Vec<Append>,
}

impl Desk {
    /// Reads the snapshot and the events after it, or every event, and shows the wallets on the board.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let loaded = snapshot::load(parts.store.as_ref())?.unwrap_or_default();
        let (wallets, head) = (loaded.wallets, loaded.position);
        let mut desk = Self {
            store: parts.store,
            clock: parts.clock,
            board: parts.board,
            wallets,
            head,
            stale: true,
            pending: snapshot::Pending::since(head),
            meters: parts.meters,
        };
        if let Err(e) = desk.catch_up() {
            if head == 0 || !matches!(e, StoreError::Damaged(_)) {
                return Err(e);
            }
            tracing::error!(error = %e, "the events do not fit the snapshot of the wallets: every event is read instead");
            (desk.wallets, desk.head) = (HashMap::new(), 0);
            desk.catch_up()?;
        }
        let views = desk.wallets.iter().map(|(id, wallet)| (*id, wallet.view()));
        desk.board.publish(views, desk.head);
        Ok(desk)
    }

    /// Decides and commits a group, and answers each of it.
    pub fn work(&mut self, asks: Vec<Ask>) {
        if asks.is_empty() {
            return;
        }
        let outcomes = self.decide_group(&asks);
        match outcomes {
            Ok(outcomes) => {
                let done = outcomes.iter().filter(|o| o.is_ok()).count();
                add(&self.meters.commands_done, done);
                add(&self.meters.commands_refused, outcomes.len() - done);
                for (ask, outcome) in asks.into_iter().zip(outcomes) {
                    ask.answer(outcome);
                }
            }
            Err(e) => {
                tracing::error!(error = %e, commands = asks.len(), "a group of wallet commands was not committed");
                add(&self.meters.commands_failed, asks.len());
                asks.into_iter()
                    .for_each(|ask| ask.answer(Err(CommandError::Store(e.clone()))));
            }
        }
        // After the answers: nobody waits for it but the next group.
        self.pending
            .save_if_due(self.store.as_ref(), &self.wallets, self.head);
    }

    /// On an error nothing of the group was adopted; whether it was written is found out before the next one.
    fn decide_group(&mut self, asks: &[Ask]) -> Result<Vec<Result<Answer, CommandError>>, StoreError> {
        let mut conflict = None;
        for _ in 0..CONFLICTS_MAX {
            if self.stale {
                self.catch_up()?;
            }
            let mut draft = Draft {
                at: self.clock.now(),
                head: self.head,
                changed: HashMap::new(),
                answers: HashMap::new(),
                views: Vec::new(),
                appends: Vec::new(),
            };
            let outcomes: Vec<_> = asks.iter().map(|ask| self.draft(&mut draft, ask)).collect();
            if draft.appends.is_empty() {
                return Ok(outcomes);
            }
            let batch = Batch {
                expected_head: self.head,
                appends: std::mem::take(&mut draft.appends),
            };
            let started = Instant::now();
            match self.store.commit(&batch) {
                Ok(()) => {
                    self.meters.committed(started.elapsed());
                    self.adopt(draft);
                    return Ok(outcomes);
                }
                Err(e @ StoreError::Conflict { .. }) => {
                    self.stale = true;
                    add(&self.meters.group_conflicts, 1);
                    conflict = Some(e);
                }
                Err(e) => {
                    self.stale = true;
                    return Err(e);
                }
            }
        }
        Err(conflict.unwrap_or_else(|| StoreError::Unavailable("no attempt was made".to_owned())))
    }

    fn draft(&self, draft: &mut Draft, ask: &Ask) -> Result<Answer, CommandError> {
        let hash = ask.command.content_hash(ask.wallet);
        if let Some(key) = &ask.key
            && let Some(known) = self.known(draft, key)?
        {
            return replay(&known, hash);
        }
        let current = draft
            .changed
            .get(&ask.wallet)
            .or_else(|| self.wallets.get(&ask.wallet));
        let facts = self.facts(draft, current, ask)?;
        let events = decide(current, &ask.command, facts)?;
        let mut wallet = current.cloned();
        let mut recorded = Vec::with_capacity(events.len());
        for event in events {
            let next = Recorded {
                position: draft.head + 1 + recorded.len() as u64,
                wallet: ask.wallet,
                version: wallet.as_ref().map_or(0, |w| w.version) + 1,
                at: draft.at,
                event,
            };
            wallet = Some(apply(wallet, &next).map_err(StoreError::from)?);
            recorded.push(next);
        }
        let wallet = wallet.ok_or(crate::wallet::Refusal::UnknownWallet)?;
        let answer = answer_of(&wallet, &recorded, &ask.command);
        draft.add(wallet, recorded, ask.key.as_ref(), hash, &answer)?;
        Ok(answer)
    }

    fn known(&self, draft: &Draft, key: &Key) -> Result<Option<StoredAnswer>, StoreError> {
        match draft.answers.get(key) {
            Some(answer) => Ok(Some(answer.clone())),
            None => self.store.answer(key.as_str()),
        }
    }

    /// A hold that is open was not released; for any other the store is asked (once per new lease).
    fn facts(&self, draft: &Draft, wallet: Option<&Wallet>, ask: &Ask) -> Result<Facts, StoreError> {
        let hold_released = match (&ask.command, wallet) {
            (Command::PlaceHold { hold, .. }, Some(wallet)) if !wallet.holds.contains_key(hold) => {
                self.known(draft, &Key::of_release(wallet.id, hold))?.is_some()
            }
            _ => false,
        };
        Ok(Facts { hold_released })
    }

    fn adopt(&mut self, draft: Draft) {
        self.head = draft.head;
        self.pending.note(draft.changed.keys().copied());
        self.wallets.extend(draft.changed);
        self.board.publish(draft.views, self.head);
    }

    /// Applies what is stored after the last event known.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let mut changed = BTreeMap::new();
        loop {
            let events = self.store.events_after(self.head, READ_ROWS_MAX)?;
            let Some(last) = events.last().map(|e| e.position) else {
                break;
            };
            for recorded in &events {
                let wallet = apply(self.wallets.remove(&recorded.wallet), recorded)?;
                changed.insert(recorded.wallet, wallet.view());
                self.wallets.insert(recorded.wallet, wallet);
            }
            self.head = last;
        }
        self.pending.note(changed.keys().copied());
        self.board.publish(changed, self.head);
        self.stale = false;
        Ok(())
    }
}

impl Draft {
    fn add(
        &mut self,
        wallet: Wallet,
        recorded: Vec<Recorded>,
        key: Option<&Key>,
        hash: [u8; 32],
        answer: &Answer,
    ) -> Result<(), StoreError> {
        if recorded.is_empty() && key.is_none() {
            return Ok(());
        }
        let stored = key.map(|key| stored_answer(key, hash, answer)).transpose()?;
        let messages = messages(&wallet, &recorded)?;
        let (id, currency) = (wallet.id, wallet.currency);
        let mut events = Vec::with_capacity(recorded.len());
        for one in recorded {
            let postings = posting::postings(&one.event);
            if !posting::balanced(&postings) {
                return Err(StoreError::Damaged(format!(
                    "event {} would not balance",
                    one.position
                )));
            }
            events.push((one, postings));
        }
        if let (Some(key), Some(stored)) = (key, &stored) {
            self.answers.insert(key.clone(), stored.clone());
        }
        if !events.is_empty() {
            self.head += events.len() as u64;
            self.views.push((id, wallet.view()));
            self.changed.insert(id, wallet);
        }
        self.appends.push(Append {
            wallet: id,
            currency,
            events,
            answer: stored,
            messages,
        });
        Ok(())
    }
}

fn answer_of(wallet: &Wallet, recorded: &[Recorded], command: &Command) -> Answer {
    let txn = recorded.iter().rev().find(|r| r.event.is_transaction());
    Answer {
        txn_id: txn.map(|r| TxnId::at(r.wallet, r.version).to_string()),
        held_total: match command {
            Command::PlaceHold { hold, .. } => Some(wallet.hold_total(hold)),
            _ => None,
        },
        wallet: wallet.view(),
    }
}

fn replay(known: &StoredAnswer, hash: [u8; 32]) -> Result<Answer, CommandError> {
    if known.hash != hash {
        return Err(CommandError::KeyReused);
    }
    serde_json::from_str(&known.body)
        .map_err(|e| StoreError::Damaged(format!("the answer to {} cannot be read: {e}", known.key)).into())
}

fn unwritable(e: &serde_json::Error) -> StoreError {
    StoreError::Damaged(format!("cannot be written as JSON: {e}"))
}

fn stored_answer(key: &Key, hash: [u8; 32], answer: &Answer) -> Result<StoredAnswer, StoreError> {
    Ok(StoredAnswer {
        key: key.as_str().to_owned(),
        hash,
        body: serde_json::to_string(answer).map_err(|e| unwritable(&e))?,
    })
}

/// What others are told: each new transaction, then the wallet after all of them.
fn messages(wallet: &Wallet, recorded: &[Recorded]) -> Result<Vec<OutMessage>, StoreError> {
    let Some(last) = recorded.last() else {
        return Ok(Vec::new());
    };
    let mut out = Vec::new();
    for (one, txn) in recorded.iter().filter_map(|r| r.transaction().map(|t| (r, t))) {
        let id = format!("transaction/{}", txn.txn_id);
        out.push(message(TRANSACTION_CREATED_TOPIC, id, one.at, txn)?);
    }
    let id = format!("wallet/{}", last.position);
    out.push(message(WALLET_UPDATED_TOPIC, id, last.at, wallet.view())?);
    Ok(out)
}

fn message<T: serde::Serialize>(
    topic: &str,
    id: String,
    at: Timestamp,
    data: T,
) -> Result<OutMessage, StoreError> {
    let event = CloudEvent::new(topic, EVENT_SOURCE.to_owned(), id.clone(), at.to_string(), data);
    Ok(OutMessage {
        topic: topic.to_owned(),
        id,
        body: serde_json::to_vec(&event).map_err(|e| unwritable(&e))?,
    })
}
