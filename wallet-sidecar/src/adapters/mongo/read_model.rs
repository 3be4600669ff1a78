//! The read model on MongoDB. Every write is an insert under an id that says what it is, or removes what is superseded: no
//! transaction and no compare-and-update is needed, and a change that is applied twice, late or half is applied once (RFD 11).
//!
//! A wallet's state at a position is a document of its own, `<wallet>/<position>`; the wallet is the one with the highest position.
//! So a late writer can add an older state, which nobody sees, and never move a wallet backwards; also on servers that evaluate a
//! conditional update in two steps, as FerretDB 1 does.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc},
    error::ErrorKind,
    options::FindOptions,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weir_contracts::event::{TransactionCreated, WalletUpdated};
use weir_servers::ServerUrl;

use super::{DUPLICATE_KEY, Mongo, at_start, failed};
use crate::ports::{
    event_store::StoreError,
    read_model::{Applied, Change, Filter, PAGE_ROWS_MAX, Page, ReadModel},
};

/// Changes that are applied under one deadline; what is done stays done when a later part fails.
pub const PART_CHANGES_MAX: usize = 100;
/// Round trips at a time within one call.
const AT_ONCE: usize = 8;
/// Wallets' states, by wallet and position.
const WALLETS: &str = "wallets";
const TRANSACTIONS: &str = "transactions";
/// Positions of our own.
pub(super) const MARKS: &str = "marks";
const SWEPT: &str = "swept";

/// SYMBOL FOR ESCAPE: stands before what is escaped in a text.
const ESCAPE: &str = "\u{241b}";
const ESCAPED_ESCAPE: &str = "\u{241b}\u{241b}";
const ESCAPED_NUL: &str = "\u{241b}0";

/// A wallet at a position.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    #[serde(rename = "_id")]
    id: String,
    #[serde(flatten)]
    wallet: WalletUpdated,
}

impl State {
    fn of(wallet: &WalletUpdated) -> Self {
        Self {
            id: format!("{}/{}", wallet.wallet_id, wallet.position),
            wallet: wallet.clone(),
        }
    }
}

/// A transaction, with its time as a number for ranges.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(rename = "_id")]
    id: String,
    created_micros: i64,
    #[serde(flatten)]
    transaction: TransactionCreated,
}

impl Kept {
    /// `None` when its time or position is none: it can never be applied.
    fn of(transaction: &TransactionCreated) -> Option<Self> {
        let created = transaction.created_at.parse::<Timestamp>().ok()?;
        can_count(transaction.position).then(|| Self {
            id: transaction.txn_id.clone(),
            created_micros: created.as_microsecond(),
            transaction: with_texts(transaction.clone(), escaped),
        })
    }

    fn transaction(self) -> TransactionCreated {
        with_texts(self.transaction, unescaped)
    }
}

/// Changes the fields that callers write freely.
fn with_texts(mut transaction: TransactionCreated, change: fn(&str) -> String) -> TransactionCreated {
    for text in [
        &mut transaction.description,
        &mut transaction.reference_id,
        &mut transaction.reference_type,
    ] {
        *text = change(text);
    }
    transaction
}

/// Without NUL, which servers that keep documents in PostgreSQL cannot store.
fn escaped(text: &str) -> String {
    text.replace(ESCAPE, ESCAPED_ESCAPE).replace('\0', ESCAPED_NUL)
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split(ESCAPED_ESCAPE);
    let first = parts.next().unwrap_or_default().replace(ESCAPED_NUL, "\0");
    parts.fold(first, |before, part| {
        before + ESCAPE + &part.replace(ESCAPED_NUL, "\0")
    })
}

/// Numbers are kept as 64 bits with a sign.
fn can_count(position: u64) -> bool {
    i64::try_from(position).is_ok()
}

#[derive(Serialize, Deserialize)]
struct Mark {
    position: i64,
}

/// The read model in one MongoDB database.
pub struct MongoReadModel {
    mongo: Mongo,
    states: Collection<State>,
    transactions: Collection<Kept>,
    marks: Collection<Mark>,
}

impl MongoReadModel {
    /// Connects, checks what the server must be able to do, and makes the indexes. The connections live on the runtime that this is
    /// called on; the calls of the port must come from other threads.
    ///
    /// # Errors
    /// `Settings` for an address or a server that cannot work; `Unavailable` for one that is away.
    pub async fn open(url: &ServerUrl) -> Result<Self, StoreError> {
        let mongo = Mongo::new(url).await?;
        mongo.check().await?;
        let model = Self {
            states: mongo.database.collection(WALLETS),
            transactions: mongo.database.collection(TRANSACTIONS),
            marks: mongo.database.collection(MARKS),
            mongo,
        };
        model.make_indexes().await?;
        Ok(model)
    }

    /// Connects and checks what the server must be able to do; changes nothing there.
    ///
    /// # Errors
    /// As [`MongoReadModel::open`].
    pub async fn check_server(url: &ServerUrl) -> Result<(), StoreError> {
        Mongo::new(url).await?.check().await
    }

    async fn make_indexes(&self) -> Result<(), StoreError> {
        let index = |keys: Document| IndexModel::builder().keys(keys).build();
        let states = [
            index(doc! { "wallet_id": 1, "position": -1 }),
            index(doc! { "user_id": 1, "position": -1 }),
            index(doc! { "position": -1 }),
        ];
        let transactions = [
            index(doc! { "wallet_id": 1, "position": -1 }),
            index(doc! { "wallet_id": 1, "created_micros": -1 }),
            index(doc! { "reference_id": 1, "reference_type": 1 }),
        ];
        // One at a time: FerretDB 1.24 breaks when several are asked for and some are there.
        for index in states {
            self.states.create_index(index).await.map_err(at_start)?;
        }
        for index in transactions {
            self.transactions.create_index(index).await.map_err(at_start)?;
        }
        Ok(())
    }

    async fn apply_part(&self, changes: &[Change]) -> Result<Vec<Applied>, StoreError> {
        // Transactions first: who sees a wallet at a position finds the transactions up to there.
        let mut transactions = self.insert_transactions(changes).await?;
        let mut wallets = self.bring_forward(changes).await?;
        let answers = changes.iter().map(|change| match change {
            Change::Wallet(_) => wallets.next(),
            Change::Transaction(_) => transactions.next(),
        });
        answers
            .collect::<Option<_>>()
            .ok_or_else(|| StoreError::Damaged("a change was not answered".to_owned()))
    }

    /// Answers each transaction among the changes, in their order.
    async fn insert_transactions(
        &self,
        changes: &[Change],
    ) -> Result<impl Iterator<Item = Applied> + use<>, StoreError> {
        let asked = || {
            changes.iter().filter_map(|change| match change {
                Change::Transaction(transaction) => Some(transaction),
                Change::Wallet(_) => None,
            })
        };
        let mut first = BTreeMap::new();
        for kept in asked().filter_map(Kept::of) {
            first.entry(kept.id.clone()).or_insert(kept);
        }
        let new: Vec<&Kept> = first.values().collect();
        let known: BTreeSet<String> = insert(&self.transactions, &new)
            .await?
            .into_iter()
            .filter_map(|n| new.get(n).map(|kept| kept.id.clone()))
            .collect();
        let stored = stream::iter(known)
            .map(|id| async { found_again(&self.transactions, id).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<Kept>>()
            .await?;
        // What is there now under each id; `true` for what was there before.
        let mut there: BTreeMap<String, (TransactionCreated, bool)> = first
            .into_iter()
            .map(|(id, kept)| (id, (kept.transaction(), false)))
            .collect();
        for kept in stored {
            there.insert(kept.id.clone(), (kept.transaction(), true));
        }
        let answers: Vec<Applied> = asked()
            .map(|transaction| match there.get_mut(&transaction.txn_id) {
                Some((same, known)) if same == transaction => {
                    if std::mem::replace(known, true) {
                        Applied::Known
                    } else {
                        Applied::Stored
                    }
                }
                _ => Applied::OtherContent,
            })
            .collect();
        Ok(answers.into_iter())
    }

    /// Answers each wallet among the changes, in their order.
    async fn bring_forward(
        &self,
        changes: &[Change],
    ) -> Result<impl Iterator<Item = Applied> + use<>, StoreError> {
        let asked = || {
            changes.iter().filter_map(|change| match change {
                Change::Wallet(wallet) => Some(wallet),
                Change::Transaction(_) => None,
            })
        };
        let named: BTreeSet<String> = asked().map(|wallet| wallet.wallet_id.clone()).collect();
        let stored = stream::iter(named)
            .map(|id| self.newest_two(doc! { "wallet_id": id }))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let mut latest = Latest::new(stored);
        let mut answers: Vec<Applied> = asked().map(|wallet| latest.see(wallet)).collect();
        let new: Vec<State> = latest.moved().map(State::of).collect();
        let taken = insert(&self.states, &new.iter().collect::<Vec<_>>()).await?;
        // Somebody else stored the same position in between.
        for state in taken.into_iter().filter_map(|n| new.get(n)) {
            let there: State = found_again(&self.states, state.id.clone()).await?;
            if there.wallet != state.wallet {
                refuse(&mut answers, asked(), &state.wallet);
            }
        }
        stream::iter(latest.superseded())
            .map(|(wallet, position)| async move {
                let older = doc! { "wallet_id": wallet, "position": { "$lt": position } };
                self.states.delete_many(older).await.map(drop).map_err(failed)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(answers.into_iter())
    }

    /// A wallet's newest state and the one before it, if it is still there.
    async fn newest_two(&self, of: Document) -> Result<Vec<WalletUpdated>, StoreError> {
        let newest = self.states.find(of).sort(doc! { "position": -1 }).limit(2);
        let states: Vec<State> = newest
            .await
            .map_err(failed)?
            .try_collect()
            .await
            .map_err(failed)?;
        Ok(states.into_iter().map(|state| state.wallet).collect())
    }

    async fn newest(&self, of: Document) -> Result<Option<WalletUpdated>, StoreError> {
        let newest = self.states.find_one(of).sort(doc! { "position": -1 }).await;
        Ok(newest.map_err(failed)?.map(|state| state.wallet))
    }

    async fn page(&self, matching: Document, filter: &Filter) -> Result<Page, StoreError> {
        let limit = filter.limit.clamp(1, PAGE_ROWS_MAX);
        // Counted first: a transaction that comes in between is on the page, and in the next total.
        let total = self.transactions.count_documents(matching.clone()).await;
        let total = total.map_err(failed)?;
        let options = FindOptions::builder()
            .sort(doc! { "position": -1 })
            .skip(u64::from(filter.page.max(1) - 1) * u64::from(limit))
            .limit(i64::from(limit))
            .build();
        let found = self.transactions.find(matching).with_options(options).await;
        let kept: Vec<Kept> = found.map_err(failed)?.try_collect().await.map_err(failed)?;
        let transactions: Vec<_> = kept.into_iter().map(Kept::transaction).collect();
        let total = total.max(transactions.len() as u64);
        Ok(Page { transactions, total })
    }

    async fn keep_swept(&self, position: u64) -> Result<(), StoreError> {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        let set = doc! { "$set": { "position": position } };
        let kept = self
            .marks
            .update_one(doc! { "_id": SWEPT }, set)
            .upsert(true)
            .await;
        kept.map(drop).map_err(failed)
    }
}

/// What each wallet is after the changes seen so far.
struct Latest {
    /// By wallet id: the latest state, whether it is new, and whether older ones are stored.
    wallets: BTreeMap<String, (WalletUpdated, bool, bool)>,
}

impl Latest {
    fn new(stored: Vec<Vec<WalletUpdated>>) -> Self {
        let newest = stored.into_iter().filter_map(|states| {
            let several = states.len() > 1;
            let newest = states.into_iter().next()?;
            Some((newest.wallet_id.clone(), (newest, false, several)))
        });
        Self {
            wallets: newest.collect(),
        }
    }

    fn see(&mut self, wallet: &WalletUpdated) -> Applied {
        if !can_count(wallet.position) {
            return Applied::OtherContent;
        }
        match self.wallets.entry(wallet.wallet_id.clone()) {
            Entry::Vacant(place) => {
                place.insert((wallet.clone(), true, false));
                Applied::Stored
            }
            Entry::Occupied(mut place) => {
                let (latest, new, older) = place.get_mut();
                match wallet.position.cmp(&latest.position) {
                    std::cmp::Ordering::Less => Applied::Known,
                    std::cmp::Ordering::Equal if wallet == latest => Applied::Known,
                    std::cmp::Ordering::Equal => Applied::OtherContent,
                    std::cmp::Ordering::Greater => {
                        // One that is new itself was never stored.
                        *older |= !*new;
                        *new = true;
                        *latest = wallet.clone();
                        Applied::Stored
                    }
                }
            }
        }
    }

    fn moved(&self) -> impl Iterator<Item = &WalletUpdated> {
        let new = self.wallets.values().filter(|(_, new, _)| *new);
        new.map(|(wallet, ..)| wallet)
    }

    /// Wallets with older states, and the position before which they are.
    fn superseded(&self) -> Vec<(String, i64)> {
        let old = self.wallets.values().filter(|(.., older)| *older);
        old.filter_map(|(wallet, ..)| Some((wallet.wallet_id.clone(), i64::try_from(wallet.position).ok()?)))
            .collect()
    }
}

/// Takes back what was answered for a wallet at a position that is stored with other content.
fn refuse<'a>(
    answers: &mut [Applied],
    asked: impl Iterator<Item = &'a WalletUpdated>,
    wallet: &WalletUpdated,
) {
    for (answer, asked) in answers.iter_mut().zip(asked) {
        if asked.wallet_id == wallet.wallet_id && asked.position == wallet.position {
            *answer = Applied::OtherContent;
        }
    }
}

/// Inserts what is not there; answers the places of those whose id is.
async fn insert<T: Serialize + Send + Sync>(
    collection: &Collection<T>,
    documents: &[&T],
) -> Result<Vec<usize>, StoreError> {
    if documents.is_empty() {
        return Ok(Vec::new());
    }
    let inserted = collection
        .insert_many(documents.iter().copied())
        .ordered(false)
        .await;
    let Err(error) = inserted else {
        return Ok(Vec::new());
    };
    if let ErrorKind::InsertMany(several) = error.kind.as_ref()
        && several.write_concern_error.is_none()
        && let Some(each) = &several.write_errors
        && each.iter().all(|e| e.code == DUPLICATE_KEY)
    {
        return Ok(each.iter().map(|e| e.index).collect());
    }
    Err(failed(error))
}

/// A document whose id was found taken. It may be gone again, superseded or cleared: then the changes come again.
async fn found_again<T: DeserializeOwned + Send + Sync>(
    collection: &Collection<T>,
    id: String,
) -> Result<T, StoreError> {
    let found = collection.find_one(doc! { "_id": &id }).await.map_err(failed)?;
    found.ok_or_else(|| StoreError::Unavailable(format!("document {id} was there and is not: apply again")))
}

fn matching(wallet_id: &str, filter: &Filter) -> Document {
    let mut matching = doc! { "wallet_id": wallet_id };
    let mut created = Document::new();
    if let Some(from) = filter.from_micros {
        created.insert("$gte", from);
    }
    if let Some(until) = filter.until_micros {
        created.insert("$lt", until);
    }
    if !created.is_empty() {
        matching.insert("created_micros", created);
    }
    if let Some(kind) = &filter.r#type {
        matching.insert("type", kind);
    }
    if let Some(status) = &filter.status {
        matching.insert("status", status);
    }
    matching
}

impl ReadModel for MongoReadModel {
    fn apply(&self, changes: &[Change]) -> Result<Vec<Applied>, StoreError> {
        let mut applied = Vec::with_capacity(changes.len());
        for part in changes.chunks(PART_CHANGES_MAX) {
            applied.extend(self.mongo.call(self.apply_part(part))?);
        }
        Ok(applied)
    }

    fn position(&self) -> Result<u64, StoreError> {
        let newest = self.mongo.call(self.newest(doc! {}))?;
        Ok(newest.map_or(0, |wallet| wallet.position))
    }

    fn wallet(&self, wallet_id: &str) -> Result<Option<WalletUpdated>, StoreError> {
        self.mongo.call(self.newest(doc! { "wallet_id": wallet_id }))
    }

    fn wallet_of_user(&self, user_id: &str) -> Result<Option<WalletUpdated>, StoreError> {
        self.mongo.call(self.newest(doc! { "user_id": user_id }))
    }

    fn transactions(&self, wallet_id: &str, filter: &Filter) -> Result<Page, StoreError> {
        self.mongo.call(self.page(matching(wallet_id, filter), filter))
    }

    fn swept(&self) -> Result<u64, StoreError> {
        let mark = self
            .mongo
            .call(async { self.marks.find_one(doc! { "_id": SWEPT }).await.map_err(failed) })?;
        let position = mark.map_or(0, |mark| mark.position);
        u64::try_from(position).map_err(|_| StoreError::Damaged(format!("swept up to {position}")))
    }

    fn set_swept(&self, position: u64) -> Result<(), StoreError> {
        self.mongo.call(self.keep_swept(position))
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.mongo.call(async {
            // First the mark: a crash in between must not leave a mark past documents that are gone.
            self.keep_swept(0).await?;
            self.transactions.delete_many(doc! {}).await.map_err(failed)?;
            self.states.delete_many(doc! {}).await.map_err(failed)?;
            // A sweep in between may have kept another one.
            self.keep_swept(0).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_escaped_without_nul_and_comes_back() {
        let letters = ["\0", ESCAPE, "0", "a"];
        for n in 0..4_usize.pow(5) {
            let text: String = (0..5).map(|place| letters[n / 4_usize.pow(place) % 4]).collect();
            let kept = escaped(&text);
            assert!(!kept.contains('\0'));
            assert_eq!(unescaped(&kept), text);
        }
    }
}
