//! Gathers the books for reconciliation, up to a mark: the newest charge when it was asked. Usage that arrives meanwhile
//! is above the mark and is not compared, so a busy system reconciles too.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use weir_contracts::money::Amount;

use super::{hub::Hub, meters::Meters, rater::RATING_QUEUE};
use crate::{
    domain::reconcile::{BookedLine, Books, Verdict, verdict},
    ports::{
        PortError,
        billing_store::{BillingStore, BookFacts, BookedCharge},
        broker::Broker,
        items::Items,
        wallet_client::{ReadModel, WalletClient, WalletError, WalletTransaction},
    },
};

/// Longest wait for charges up to the mark to be captured and booked.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the read model to show them.
const READ_MODEL_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at the read model.
const READ_MODEL_EVERY: Duration = Duration::from_millis(100);
/// Read at a time.
const PAGE: usize = 1_000;
/// What the wallet calls the reference of a capture.
const CHARGE_REFERENCE: &str = "charge";

/// Reads the books.
pub struct Reconciler {
    /// Usage and charges.
    pub store: Arc<dyn BillingStore>,
    /// Captures and postings.
    pub wallet: Arc<dyn WalletClient>,
    /// The wallet's read side, when configured.
    pub read_model: Option<Arc<dyn ReadModel>>,
    /// Financial items.
    pub items: Arc<dyn Items>,
    /// Dead letters are differences.
    pub broker: Arc<dyn Broker>,
    /// Who knows what moves.
    pub hub: Arc<Hub>,
    /// Blocked streams are differences.
    pub meters: Arc<Meters>,
}

/// Why the books cannot be read now.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// A store failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The wallet failed.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl Reconciler {
    /// Compares all books up to now.
    pub async fn reconcile(&self) -> Result<Verdict, BooksError> {
        let mark = self.store.book_facts().await?.newest_charge;
        self.settled_up_to(mark).await?;
        let charges = self.charges(0, Some(mark)).await?;
        let facts = self.store.book_facts().await?;
        let items = self.item_amounts().await?;
        let shown = self.read_model(&facts, &charges).await?;
        let history = self.history(&facts).await?;
        // Read last, so whatever the wallet or the items had is known here.
        let newer: HashSet<String> = self
            .charges(mark, None)
            .await?
            .into_iter()
            .map(|c| c.id)
            .collect();
        let mut books = Books {
            with_read_model: shown.is_some(),
            complaints: self.complaints(&facts).await?,
            ..Books::default()
        };
        strangers(
            &mut books.complaints,
            &charges,
            &newer,
            &history,
            &items,
            shown.as_ref(),
        );
        let captures = captures(&mut books.complaints, &history);
        for charge in charges {
            let transaction = charge.txn_id.as_deref().and_then(|id| shown.as_ref()?.get(id));
            books.lines.push(BookedLine {
                capture: captures.get(&charge.id).copied(),
                read_model: transaction.map(|amount| amount.negated()),
                item: items.get(&charge.id).copied(),
                id: charge.id,
                account: charge.account,
                lease: charge.lease,
                currency: charge.currency,
                state: charge.state,
                usage: charge.usage,
                charge: charge.amount,
            });
        }
        for sum in self.wallet.trial_balance().await? {
            let total = books.postings.entry(sum.currency).or_insert(Amount::ZERO);
            *total = total.add(sum.total).unwrap_or(*total);
        }
        Ok(verdict(&books))
    }

    async fn settled_up_to(&self, mark: i64) -> Result<(), PortError> {
        let deadline = Instant::now() + SETTLE_WAIT;
        let mut progress = self.hub.progress();
        loop {
            progress.mark_unchanged();
            let open = self.store.charges_open().await?;
            if open.oldest.is_none_or(|oldest| oldest > mark) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, progress.changed())
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    }

    /// Charges after a number, up to a mark. Memory: some 300 bytes a charge.
    async fn charges(&self, after: i64, up_to: Option<i64>) -> Result<Vec<BookedCharge>, PortError> {
        let mut all: Vec<BookedCharge> = Vec::new();
        loop {
            let from = all.last().map_or(after, |c| c.number);
            let mut page = self.store.booked_charges(from, PAGE).await?;
            let last = page.len() < PAGE;
            page.retain(|c| up_to.is_none_or(|mark| c.number <= mark));
            let reached = page.len() < PAGE;
            all.append(&mut page);
            if last || reached {
                return Ok(all);
            }
        }
    }

    async fn item_amounts(&self) -> Result<HashMap<String, Amount>, PortError> {
        let mut all = HashMap::new();
        let mut after = String::new();
        loop {
            let page = self.items.amounts_after(&after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(all);
            };
            after.clone_from(last);
            all.extend(page);
        }
    }

    /// What the read model shows by transaction, once it shows every captured charge or its time is over.
    async fn read_model(
        &self,
        facts: &BookFacts,
        charges: &[BookedCharge],
    ) -> Result<Option<HashMap<String, Amount>>, WalletError> {
        let Some(read_model) = &self.read_model else {
            return Ok(None);
        };
        let deadline = Instant::now() + READ_MODEL_WAIT;
        loop {
            let mut shown = HashMap::new();
            for wallet_id in facts.wallets.values() {
                shown.extend(read_model.transactions(wallet_id).await?);
            }
            let mut captured = charges.iter().filter_map(|c| c.txn_id.as_ref());
            if captured.all(|id| shown.contains_key(id)) || Instant::now() >= deadline {
                return Ok(Some(shown));
            }
            tokio::time::sleep(READ_MODEL_EVERY).await;
        }
    }

    async fn history(&self, facts: &BookFacts) -> Result<Vec<WalletTransaction>, WalletError> {
        let mut all = Vec::new();
        for wallet_id in facts.wallets.values() {
            all.append(&mut history(&*self.wallet, wallet_id).await?);
        }
        Ok(all)
    }

    async fn complaints(&self, facts: &BookFacts) -> Result<Vec<String>, PortError> {
        let mut complaints = facts.uncharged.clone();
        complaints.extend(facts.lease_differences.iter().cloned());
        complaints.extend(facts.mistakes.iter().cloned());
        complaints.extend(self.meters.blocked());
        for letter in self.broker.dead_letters(RATING_QUEUE).await? {
            complaints.push(format!(
                "a usage batch lies among the dead letters: {}",
                letter.cause
            ));
        }
        Ok(complaints)
    }
}

/// All transactions of a wallet, oldest first.
pub async fn history(
    wallet: &dyn WalletClient,
    wallet_id: &str,
) -> Result<Vec<WalletTransaction>, WalletError> {
    let mut all: Vec<WalletTransaction> = Vec::new();
    loop {
        let after = all.last().map_or(0, |t| t.position);
        let mut page = wallet.transactions(wallet_id, after, 1_000).await?;
        let last = page.len() < PAGE;
        if page.first().is_some_and(|t| t.position <= after) {
            return Err(WalletError::Unavailable(
                "the wallet's pages do not move on".to_owned(),
            ));
        }
        all.append(&mut page);
        if last {
            return Ok(all);
        }
    }
}

/// Captured amounts by charge; a charge that was captured twice is a complaint.
fn captures(complaints: &mut Vec<String>, history: &[WalletTransaction]) -> BTreeMap<String, Amount> {
    let mut captures = BTreeMap::new();
    for t in history.iter().filter(|t| t.reference_type == CHARGE_REFERENCE) {
        if captures
            .insert(t.reference_id.clone(), t.amount.negated())
            .is_some()
        {
            complaints.push(format!("charge {} was captured twice", t.reference_id));
        }
    }
    captures
}

/// What the wallet, its read model or the items have that no charge explains.
fn strangers(
    complaints: &mut Vec<String>,
    charges: &[BookedCharge],
    newer: &HashSet<String>,
    history: &[WalletTransaction],
    items: &HashMap<String, Amount>,
    shown: Option<&HashMap<String, Amount>>,
) {
    let known: HashSet<&str> = charges.iter().map(|c| c.id.as_str()).collect();
    let is_charge = |id: &str| known.contains(id) || newer.contains(id);
    let captures = history.iter().filter(|t| t.reference_type == CHARGE_REFERENCE);
    for t in captures.filter(|t| !is_charge(&t.reference_id)) {
        complaints.push(format!(
            "the wallet captured {} that was never charged",
            t.reference_id
        ));
    }
    for id in items.keys().filter(|id| !is_charge(id)) {
        complaints.push(format!("financial item {id} has no charge"));
    }
    let written: HashMap<&str, Amount> = history.iter().map(|t| (t.txn_id.as_str(), t.amount)).collect();
    for (id, amount) in shown.into_iter().flatten() {
        match written.get(id.as_str()) {
            Some(ledger) if ledger == amount => {}
            Some(ledger) => {
                complaints.push(format!(
                    "the read model shows transaction {id} with {amount}, the ledger has {ledger}"
                ));
            }
            None => complaints.push(format!(
                "the read model shows transaction {id}, the ledger has none"
            )),
        }
    }
}
