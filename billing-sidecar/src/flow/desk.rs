//! The credit desk: answers proxies' asks for credit, in order per account, and calls unused credit back when a wallet is
//! short. *Denied* is said only when nothing is available any more.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use weir_contracts::{
    ids::AccountId,
    money::Amount,
    proto::billing::{self as proto, DenialReason},
};

use super::{
    hub::{AccountView, Hub, Ticket},
    meters::{Meters, count},
};
use crate::{
    config::LeaseConfig,
    domain::{
        lease::{Answer, Ask, AskError, Lease, LeaseState, answer},
        proxies::{NotCurrent, may_lend},
    },
    ports::{
        PortError,
        billing_store::BillingStore,
        wallet_client::{WalletClient, WalletError, WalletState},
    },
};

/// Lends credit.
pub struct Desk {
    /// Leases.
    pub store: Arc<dyn BillingStore>,
    /// Holds.
    pub wallet: Arc<dyn WalletClient>,
    /// Accounts, and the proxies that may give back.
    pub hub: Arc<Hub>,
    /// Counts.
    pub meters: Arc<Meters>,
    /// Caps and times.
    pub config: LeaseConfig,
}

/// Why an ask has no answer.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// Another start of the proxy is believed, or none.
    #[error(transparent)]
    Start(#[from] NotCurrent),
    /// The proxy contradicts itself.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The store failed; ask again.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The wallet failed; ask again.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The account's wallet is being created; ask again.
    #[error("the account's wallet is not created yet")]
    NoWallet,
}

enum Try {
    Reply(proto::LeaseReply),
    Short(Box<WalletState>),
}

impl Desk {
    /// Answers an ask. Bounded by the wallet's call deadline and the recall wait.
    pub async fn ask(&self, ask: &Ask) -> Result<proto::LeaseReply, DeskError> {
        may_lend(self.store.known_start(ask.lease.proxy).await?.as_ref(), ask.epoch)?;
        let mut recall: Option<(Instant, Option<Ticket>)> = None;
        let mut progress = self.hub.progress();
        loop {
            progress.mark_unchanged();
            let wallet = match self.attempt(ask).await? {
                Try::Reply(reply) => return Ok(reply),
                Try::Short(wallet) => wallet,
            };
            if self.others(ask).await?.is_empty() {
                return Ok(self.spent(&wallet));
            }
            let (deadline, _) = match &mut recall {
                Some(recall) => recall,
                none => none.insert(self.call_back(ask)),
            };
            let deadline = *deadline;
            if !self.until_available(&ask.account, &mut progress, deadline).await {
                return Ok(self.spent(&wallet));
            }
        }
    }

    async fn attempt(&self, ask: &Ask) -> Result<Try, DeskError> {
        let Some(view) = self.hub.account(&ask.account) else {
            count(&self.meters.denials_other);
            let message = format!("account {} is not known here", ask.account);
            return Ok(Try::Reply(denial(DenialReason::UnknownAccount, message, None)));
        };
        let wallet_id = view.account.wallet_id.clone().ok_or(DeskError::NoWallet)?;
        let lock = self.hub.lock_of(&ask.account);
        let _in_order = lock.lock().await;
        let lease = self.store.lease(ask.lease).await?;
        let total = match answer(lease.as_ref(), &view.account.tariff, self.config.max_grant, ask)? {
            Answer::Recorded(total) => {
                count(&self.meters.leases_replayed);
                return Ok(Try::Reply(self.grant(ask, total, &view)));
            }
            Answer::Deny(_) => {
                count(&self.meters.denials_other);
                return Ok(Try::Reply(closed(ask)));
            }
            Answer::Raise(total) => total,
        };
        if lease.is_none() {
            let lease = Lease::new(ask.lease, ask.account.clone(), view.account.tariff.clone());
            self.store.open_lease(lease).await?;
        }
        let hold = ask.lease.to_string();
        let placed = self
            .wallet
            .place_hold(&wallet_id, &hold, Amount::from(total))
            .await;
        let (held, wallet) = match placed {
            Ok(placed) => placed,
            Err(WalletError::Refused(cause)) => return self.refused(ask, &wallet_id, &cause).await,
            Err(e) => return Err(e.into()),
        };
        self.hub.put_wallet(wallet.clone());
        // A wallet that holds more than we may count in is held to our cap; a grant never exceeds the hold.
        let held = held.to_i64().unwrap_or(i64::MAX).min(total.max(ask.known_nanos));
        if held > ask.known_nanos {
            self.store.set_granted(ask.lease, held).await?;
            count(&self.meters.leases_granted);
            return Ok(Try::Reply(self.grant(ask, held, &view)));
        }
        if wallet.is_frozen() {
            return Ok(Try::Reply(self.frozen(&wallet)));
        }
        Ok(Try::Short(Box::new(wallet)))
    }

    /// The wallet forbids it: it is frozen, or the hold is over.
    async fn refused(&self, ask: &Ask, wallet_id: &str, cause: &str) -> Result<Try, DeskError> {
        let wallet = self.wallet.get(wallet_id).await?;
        self.hub.put_wallet(wallet.clone());
        if wallet.is_frozen() {
            return Ok(Try::Reply(self.frozen(&wallet)));
        }
        count(&self.meters.denials_other);
        tracing::warn!(lease = %ask.lease, "the wallet refused a hold: {cause}");
        Ok(Try::Reply(closed(ask)))
    }

    /// Other leases of the account from which credit may come back.
    async fn others(&self, ask: &Ask) -> Result<Vec<Lease>, DeskError> {
        let mut leases = self.store.unsettled(&ask.account).await?.leases;
        leases.retain(|lease| {
            lease.id != ask.lease && lease.unused_nanos() > 0 && lease.state != LeaseState::Blocked
        });
        Ok(leases)
    }

    fn call_back(&self, ask: &Ask) -> (Instant, Option<Ticket>) {
        count(&self.meters.recalls);
        let wait = Duration::from_millis(u64::from(self.config.recall_wait_ms));
        let ticket = self.hub.ask_to_close(&ask.account, Some(ask.lease.proxy));
        (Instant::now() + wait, ticket)
    }

    /// True as soon as the wallet has something available; false at the deadline.
    async fn until_available(
        &self,
        account: &AccountId,
        progress: &mut tokio::sync::watch::Receiver<u64>,
        deadline: Instant,
    ) -> bool {
        loop {
            let wallet = self.hub.account(account).and_then(|view| view.wallet);
            if wallet.is_some_and(|w| w.available > Amount::ZERO || w.is_frozen()) {
                return Instant::now() < deadline;
            }
            if tokio::time::timeout_at(deadline, progress.changed())
                .await
                .is_err()
            {
                return false;
            }
        }
    }

    fn grant(&self, ask: &Ask, total: i64, view: &AccountView) -> proto::LeaseReply {
        let grant = proto::Grant {
            lease_id: ask.lease.to_string(),
            granted_total_nanos: total,
            terms: Some(view.account.terms(&view.tariff)),
            valid_ms: self.config.valid_ms,
        };
        proto::LeaseReply {
            outcome: Some(proto::lease_reply::Outcome::Grant(grant)),
        }
    }

    fn spent(&self, wallet: &WalletState) -> proto::LeaseReply {
        count(&self.meters.denials_credit);
        let message = format!(
            "the credit is spent: {} {} available, {} held",
            wallet.available, wallet.currency, wallet.held
        );
        denial(DenialReason::CreditSpent, message, Some(wallet))
    }

    fn frozen(&self, wallet: &WalletState) -> proto::LeaseReply {
        count(&self.meters.denials_frozen);
        let message = format!("the account's wallet is {}", wallet.status.to_lowercase());
        denial(DenialReason::Frozen, message, Some(wallet))
    }
}

fn closed(ask: &Ask) -> proto::LeaseReply {
    let message = format!("lease {} takes no more: open a new one", ask.lease);
    denial(DenialReason::LeaseClosed, message, None)
}

fn denial(reason: DenialReason, message: String, wallet: Option<&WalletState>) -> proto::LeaseReply {
    let text = |amount: fn(&WalletState) -> String| wallet.map(amount).unwrap_or_default();
    let denial = proto::Denial {
        reason: reason.into(),
        message,
        balance: text(|w| w.balance.to_string()),
        available: text(|w| w.available.to_string()),
        currency: text(|w| w.currency.to_string()),
    };
    proto::LeaseReply {
        outcome: Some(proto::lease_reply::Outcome::Denial(denial)),
    }
}
