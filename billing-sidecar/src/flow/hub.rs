//! What is known of accounts right now, who watches it, and what proxies were asked to close.
//!
//! Memory only: it is filled from the store and the wallet at each start. Every change wakes those who wait for progress.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, broadcast, watch};
use weir_contracts::{
    ids::{AccountId, ProxyId},
    proto::billing::{self as proto, notice::What},
    tariff::Tariff,
};

use crate::{domain::accounts::Account, ports::wallet_client::WalletState};

/// Notices that a slow proxy may be behind; beyond them it is told everything anew.
const NOTICES_MAX: usize = 1024;
/// Requests to proxies at one time; each has a deadline of its own.
const CLOSES_MAX: usize = 256;

/// An account as the gate is to see it.
#[derive(Debug, Clone)]
pub struct AccountView {
    /// As stored.
    pub account: Account,
    /// Its current tariff.
    pub tariff: Tariff,
    /// Its wallet, once the wallet service has told.
    pub wallet: Option<WalletState>,
}

impl AccountView {
    /// What proxies are told; none before the wallet is known.
    fn notice(&self) -> Option<proto::Notice> {
        let wallet = self.wallet.as_ref()?;
        let state = proto::AccountState {
            account: self.account.id.to_string(),
            frozen: wallet.is_frozen(),
            balance: wallet.balance.to_string(),
            available: wallet.available.to_string(),
            terms: Some(self.account.terms(&self.tariff)),
        };
        Some(proto::Notice {
            what: Some(What::Account(state)),
        })
    }
}

/// A proxy's answer to a request to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Of which start.
    pub epoch: u64,
    /// Every response that had ended is at or below it.
    pub last_sequence: u64,
    /// A response in flight keeps a lease open.
    pub busy: bool,
}

/// What proxies are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// To close the account's leases.
    Close,
    /// To say that they took in what they were told.
    Confirm,
}

#[derive(Debug)]
struct Close {
    account: AccountId,
    ask: Ask,
    /// None: every proxy is asked.
    except: Option<ProxyId>,
    reports: BTreeMap<ProxyId, Report>,
}

#[derive(Debug, Default)]
struct Inner {
    accounts: BTreeMap<AccountId, AccountView>,
    by_wallet: HashMap<String, AccountId>,
    watchers: BTreeMap<ProxyId, usize>,
    closes: HashMap<String, Close>,
    locks: HashMap<AccountId, Arc<AsyncMutex<()>>>,
}

/// Shared by all drivers.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
    notices: broadcast::Sender<proto::Notice>,
    progress: watch::Sender<u64>,
    wallets: watch::Sender<u64>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            notices: broadcast::Sender::new(NOTICES_MAX),
            progress: watch::Sender::new(0),
            wallets: watch::Sender::new(0),
        }
    }
}

impl Hub {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something moved that somebody may wait for.
    pub fn bump(&self) {
        self.progress.send_modify(|n| *n += 1);
    }

    /// Wakes on every bump.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Wakes when the set of wallets changes.
    #[must_use]
    pub fn wallets_changed(&self) -> watch::Receiver<u64> {
        self.wallets.subscribe()
    }

    /// Takes an account in, or its new terms.
    pub fn put_account(&self, account: Account, tariff: Tariff) {
        let mut inner = self.inner();
        let known = inner.accounts.get(&account.id);
        let wallet = known.and_then(|view| view.wallet.clone());
        let new_wallet = account.wallet_id.is_some()
            && known.is_none_or(|view| view.account.wallet_id != account.wallet_id);
        if let Some(wallet_id) = &account.wallet_id {
            inner.by_wallet.insert(wallet_id.clone(), account.id.clone());
        }
        let view = AccountView {
            account,
            tariff,
            wallet,
        };
        let notice = view.notice();
        inner.accounts.insert(view.account.id.clone(), view);
        drop(inner);
        if let Some(notice) = notice {
            let _ = self.notices.send(notice);
        }
        if new_wallet {
            self.wallets.send_modify(|n| *n += 1);
        }
        self.bump();
    }

    /// Takes a wallet's state in, if it is newer than what is known, and tells the proxies.
    pub fn put_wallet(&self, wallet: WalletState) {
        let mut inner = self.inner();
        let Some(account) = inner.by_wallet.get(&wallet.wallet_id).cloned() else {
            return;
        };
        let Some(view) = inner.accounts.get_mut(&account) else {
            return;
        };
        if view
            .wallet
            .as_ref()
            .is_some_and(|known| known.position >= wallet.position)
        {
            return;
        }
        view.wallet = Some(wallet);
        let notice = view.notice();
        drop(inner);
        if let Some(notice) = notice {
            let _ = self.notices.send(notice);
        }
        self.bump();
    }

    /// One account as it is known now.
    #[must_use]
    pub fn account(&self, id: &AccountId) -> Option<AccountView> {
        self.inner().accounts.get(id).cloned()
    }

    /// All accounts as they are known now.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountView> {
        self.inner().accounts.values().cloned().collect()
    }

    /// All wallets, to be watched.
    #[must_use]
    pub fn wallet_ids(&self) -> Vec<String> {
        self.inner().by_wallet.keys().cloned().collect()
    }

    /// The lock under which an account's holds are raised and released, so that wallet and store agree on the order.
    #[must_use]
    pub fn lock_of(&self, account: &AccountId) -> Arc<AsyncMutex<()>> {
        Arc::clone(self.inner().locks.entry(account.clone()).or_default())
    }

    /// Notices from now on. Subscribe before taking the snapshot, then nothing falls between.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<proto::Notice> {
        self.notices.subscribe()
    }

    /// Everything that a proxy must know now: all accounts, and what it is asked to close.
    #[must_use]
    pub fn snapshot(&self) -> Vec<proto::Notice> {
        let inner = self.inner();
        let accounts = inner.accounts.values().filter_map(AccountView::notice);
        let closes = inner
            .closes
            .iter()
            .map(|(id, close)| request_notice(id, close.ask, &close.account));
        accounts.chain(closes).collect()
    }

    /// Counts a proxy as watching until the guard is dropped.
    #[must_use]
    pub fn watching(self: &Arc<Self>, proxy: ProxyId) -> Watching {
        *self.inner().watchers.entry(proxy).or_insert(0) += 1;
        self.bump();
        Watching {
            hub: Arc::clone(self),
            proxy,
        }
    }

    /// Proxies that watch now.
    #[must_use]
    pub fn watchers(&self) -> Vec<ProxyId> {
        self.inner().watchers.keys().copied().collect()
    }

    /// Asks all proxies (but one) to close an account's leases. None when too many such requests are open.
    #[must_use]
    pub fn ask_to_close(self: &Arc<Self>, account: &AccountId, except: Option<ProxyId>) -> Option<Ticket> {
        self.ask(Ask::Close, account, except)
    }

    /// Asks all proxies to say when they took in what they were told of an account so far. None when too many such requests are open.
    #[must_use]
    pub fn ask_to_confirm(self: &Arc<Self>, account: &AccountId) -> Option<Ticket> {
        self.ask(Ask::Confirm, account, None)
    }

    fn ask(self: &Arc<Self>, ask: Ask, account: &AccountId, except: Option<ProxyId>) -> Option<Ticket> {
        let id = format!("request-{}", uuid::Uuid::new_v4().simple());
        let mut inner = self.inner();
        if inner.closes.len() >= CLOSES_MAX {
            return None;
        }
        let close = Close {
            account: account.clone(),
            ask,
            except,
            reports: BTreeMap::new(),
        };
        inner.closes.insert(id.clone(), close);
        drop(inner);
        let _ = self.notices.send(request_notice(&id, ask, account));
        Some(Ticket {
            hub: Arc::clone(self),
            id,
        })
    }

    /// True when a notice is not for this proxy.
    #[must_use]
    pub fn spares(&self, notice: &proto::Notice, proxy: ProxyId) -> bool {
        let Some(What::CloseLeases(close)) = &notice.what else {
            return false;
        };
        let inner = self.inner();
        inner
            .closes
            .get(&close.request_id)
            .is_none_or(|c| c.except == Some(proxy))
    }

    /// Takes a proxy's report in; one for a request that is over is dropped.
    pub fn report(&self, request_id: &str, proxy: ProxyId, report: Report) {
        if let Some(close) = self.inner().closes.get_mut(request_id) {
            close.reports.insert(proxy, report);
        }
        self.bump();
    }
}

fn request_notice(id: &str, ask: Ask, account: &AccountId) -> proto::Notice {
    let (account, request_id) = (account.to_string(), id.to_owned());
    let what = match ask {
        Ask::Close => What::CloseLeases(proto::CloseLeases { account, request_id }),
        Ask::Confirm => What::Confirm(proto::Confirm { account, request_id }),
    };
    proto::Notice { what: Some(what) }
}

/// A proxy watches while this lives.
#[derive(Debug)]
pub struct Watching {
    hub: Arc<Hub>,
    proxy: ProxyId,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut inner = self.hub.inner();
        if let Some(count) = inner.watchers.get_mut(&self.proxy) {
            *count -= 1;
            if *count == 0 {
                inner.watchers.remove(&self.proxy);
            }
        }
        drop(inner);
        self.hub.bump();
    }
}

/// An open request; over when dropped.
#[derive(Debug)]
pub struct Ticket {
    hub: Arc<Hub>,
    id: String,
}

impl Ticket {
    /// What proxies reported so far.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<ProxyId, Report> {
        let inner = self.hub.inner();
        inner
            .closes
            .get(&self.id)
            .map(|c| c.reports.clone())
            .unwrap_or_default()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hub.inner().closes.remove(&self.id);
    }
}
