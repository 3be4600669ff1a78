//! The settler: captures charges from wallets, writes their financial items, releases the holds of closed leases.
//!
//! In order per account, accounts side by side. Every step is idempotent by its id, so a crash between any two of them
//! repeats a step and changes nothing. A wallet that is away costs a pause; a wallet that says no costs an alarm.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use weir_contracts::ids::{AccountId, LeaseId};

use super::{
    hub::Hub,
    meters::{Meters, count},
};
use crate::{
    domain::settle::{ChargeState, PendingCharge, Work, backoff, description},
    ports::{
        PortError,
        billing_store::BillingStore,
        items::{FinancialItem, Items},
        wallet_client::{Capture, WalletClient, WalletError},
    },
};

/// Accounts looked at in one pass.
const ACCOUNTS_MAX: usize = 1_000;
/// Accounts that are worked on at one time.
const AT_ONCE: usize = 8;
/// Steps of one account taken at a time, so that others get their turn.
const STEPS_MAX: usize = 64;
/// Work that nobody woke us for is found this late.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Settles charges.
pub struct Settler {
    /// What is to be done.
    pub store: Arc<dyn BillingStore>,
    /// Who has the money.
    pub wallet: Arc<dyn WalletClient>,
    /// Where items go.
    pub items: Arc<dyn Items>,
    /// Who is woken.
    pub hub: Arc<Hub>,
    /// Counts.
    pub meters: Arc<Meters>,
    /// Wakes us.
    pub charged: Arc<Notify>,
}

/// Why an account's next step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A store failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The wallet failed.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The account's wallet is not created yet.
    #[error("the account has no wallet yet")]
    NoWallet,
}

#[derive(Default)]
struct Pauses(Mutex<HashMap<AccountId, (u32, Instant)>>);

impl Pauses {
    fn ready(&self, account: &AccountId) -> bool {
        let pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pauses
            .get(account)
            .is_none_or(|(_, until)| Instant::now() >= *until)
    }

    fn failed(&self, account: &AccountId) -> u32 {
        let mut pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (failures, until) = pauses.entry(account.clone()).or_insert((0, Instant::now()));
        *failures = failures.saturating_add(1);
        *until = Instant::now() + backoff(*failures);
        *failures
    }

    fn worked(&self, account: &AccountId) {
        let mut pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.remove(account);
    }

    /// When the first pause ends.
    fn shortest(&self) -> Duration {
        let pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let ends = pauses
            .values()
            .map(|(_, until)| until.saturating_duration_since(now));
        ends.min().unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }
}

impl Settler {
    /// Works until told to stop; the steps in hand are finished.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let pauses = Arc::new(Pauses::default());
        let mut running: JoinSet<AccountId> = JoinSet::new();
        let mut busy: HashSet<AccountId> = HashSet::new();
        while !stop.is_cancelled() {
            let waiting = match this.store.accounts_with_work(ACCOUNTS_MAX).await {
                Ok(accounts) => accounts,
                Err(e) => {
                    tracing::warn!("settling: {e}");
                    Vec::new()
                }
            };
            for account in waiting {
                if running.len() >= AT_ONCE {
                    break;
                }
                if pauses.ready(&account) && busy.insert(account.clone()) {
                    running.spawn(Arc::clone(&this).account(account, Arc::clone(&pauses)));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = running.join_next(), if !running.is_empty() => match done {
                    Ok(account) => { busy.remove(&account); }
                    Err(e) => {
                        tracing::error!("settling: a step ended by itself: {e}");
                        busy.clear();
                        running.abort_all();
                        while running.join_next().await.is_some() {}
                    }
                },
                () = this.charged.notified() => {}
                () = tokio::time::sleep(pauses.shortest().max(Duration::from_millis(5))) => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    async fn account(self: Arc<Self>, account: AccountId, pauses: Arc<Pauses>) -> AccountId {
        let (steps, ended) = self.pass(&account).await;
        if steps > 0 {
            pauses.worked(&account);
        }
        match ended {
            Ok(()) => pauses.worked(&account),
            Err(e) => {
                count(&self.meters.settle_failures);
                let failures = pauses.failed(&account);
                tracing::warn!(%account, failures, "settling: {e}");
            }
        }
        account
    }

    /// Takes the next steps of one account, in order, up to the first that fails; says how many were taken.
    pub async fn pass(&self, account: &AccountId) -> (usize, Result<(), StepError>) {
        let work = match self.store.work(account, STEPS_MAX).await {
            Ok(work) => work,
            Err(e) => return (0, Err(e.into())),
        };
        let all = work.len();
        for (taken, step) in work.into_iter().enumerate() {
            let done = match step {
                Work::Charge(charge) => self.charge(*charge).await,
                Work::Release { lease, wallet_id } => self.release(account, lease, wallet_id).await,
            };
            self.hub.bump();
            if done.is_err() {
                return (taken, done);
            }
        }
        (all, Ok(()))
    }

    async fn charge(&self, mut charge: PendingCharge) -> Result<(), StepError> {
        if charge.state == ChargeState::Pending && !self.capture(&mut charge).await? {
            return Ok(());
        }
        let item = FinancialItem {
            txn_id: charge.txn_id.unwrap_or_default(),
            lease: charge.lease.map(|l| l.to_string()),
            account: charge.account,
            tariff: charge.tariff,
            amount: charge.amount,
            currency: charge.currency,
            requests: charge.totals.requests,
            rows: charge.totals.rows,
            bytes_out: charge.totals.bytes_out,
            rated_at: charge.rated_at,
            id: charge.id,
        };
        self.items.write(&item).await?;
        self.store.set_itemized(&item.id).await?;
        Ok(())
    }

    /// True when the wallet has it; false when it refused for good.
    async fn capture(&self, charge: &mut PendingCharge) -> Result<bool, StepError> {
        let capture = Capture {
            key: charge.id.clone(),
            wallet_id: charge.wallet_id.clone().ok_or(StepError::NoWallet)?,
            hold_id: charge.lease.map(|l| l.to_string()).unwrap_or_default(),
            amount: charge.amount,
            description: description(&charge.totals, &charge.tariff),
        };
        match self.wallet.capture(&capture).await {
            Ok((txn_id, state)) => {
                self.store.set_captured(&charge.id, &txn_id).await?;
                charge.txn_id = Some(txn_id);
                count(&self.meters.charges_captured);
                self.hub.put_wallet(state);
                Ok(true)
            }
            Err(e) if e.is_transient() => Err(e.into()),
            Err(e) => {
                count(&self.meters.charges_refused);
                tracing::error!(charge = charge.id, account = %charge.account, "settling: {e}");
                self.store.set_failed(&charge.id, &e.to_string()).await?;
                Ok(false)
            }
        }
    }

    async fn release(
        &self,
        account: &AccountId,
        lease: LeaseId,
        wallet_id: Option<String>,
    ) -> Result<(), StepError> {
        let wallet_id = wallet_id.ok_or(StepError::NoWallet)?;
        let lock = self.hub.lock_of(account);
        let _in_order = lock.lock().await;
        match self.wallet.release(&wallet_id, &lease.to_string()).await {
            Ok(state) => self.hub.put_wallet(state),
            // A lease that was closed before its first grant has no hold.
            Err(WalletError::NotFound(_)) => {}
            Err(e) => return Err(e.into()),
        }
        self.store.set_settled(lease).await?;
        count(&self.meters.leases_released);
        Ok(())
    }
}
