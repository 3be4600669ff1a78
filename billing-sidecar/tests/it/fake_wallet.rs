//! A wallet service in memory that can be told to be away, slow, or to lose its answers after doing what was asked.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::broadcast;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status};
use weir_contracts::{
    money::Amount,
    proto::wallet::{self as proto, wallets_server},
};

/// What goes wrong with the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not done, UNAVAILABLE.
    Away,
    /// Done, but the answer is lost.
    LostReply,
    /// Not done, refused for good.
    Refused,
    /// Done after this long.
    Slow(Duration),
}

#[derive(Debug, Default, Clone)]
struct Hold {
    total: i128,
    captured: i128,
    released: bool,
}

#[derive(Debug, Default, Clone)]
struct State {
    wallet: proto::Wallet,
    balance: i128,
    receivable: i128,
    holds: BTreeMap<String, Hold>,
    transactions: Vec<proto::Transaction>,
}

impl State {
    fn held(&self) -> i128 {
        self.holds
            .values()
            .filter(|h| !h.released)
            .map(|h| h.total - h.captured)
            .sum()
    }

    fn shown(&self, position: u64) -> proto::Wallet {
        let text = |nanos: i128| Amount::from_nanos(nanos).to_string();
        proto::Wallet {
            balance: text(self.balance),
            held: text(self.held()),
            available: text(self.balance - self.held()),
            receivable: text(self.receivable),
            position,
            ..self.wallet.clone()
        }
    }
}

#[derive(Debug)]
struct Inner {
    wallets: BTreeMap<String, State>,
    keys: HashMap<String, (String, String)>,
    position: u64,
    faults: HashMap<&'static str, Vec<Fault>>,
    calls: HashMap<&'static str, usize>,
    hidden: Vec<String>,
}

/// The stand-in.
#[derive(Clone)]
pub(crate) struct FakeWallet {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<proto::Wallet>,
}

/// A served stand-in.
pub(crate) struct Served {
    pub(crate) wallet: FakeWallet,
    pub(crate) addr: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Served {
    /// Ends the server with all its connections; its state lives on in `wallet`.
    pub(crate) fn down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.down();
    }
}

fn nanos(text: &str) -> Result<i128, Status> {
    let amount: Amount = text
        .parse()
        .map_err(|e| Status::invalid_argument(format!("{e}")))?;
    Ok(amount.nanos())
}

impl FakeWallet {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                wallets: BTreeMap::new(),
                keys: HashMap::new(),
                position: 0,
                faults: HashMap::new(),
                calls: HashMap::new(),
                hidden: Vec::new(),
            })),
            changes: broadcast::Sender::new(8_192),
        }
    }

    /// Serves on a free port, or on the one given.
    pub(crate) async fn serve(&self, at: Option<SocketAddr>) -> Served {
        let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let listener = loop {
            // The one before on this port may still be ending.
            match std::net::TcpListener::bind(at) {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let service = wallets_server::WalletsServer::new(self.clone());
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let _ = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await;
        });
        Served {
            wallet: self.clone(),
            addr,
            runtime: Some(runtime),
        }
    }

    /// The next calls of a kind go wrong like this, in order.
    pub(crate) fn script(&self, call: &'static str, faults: impl IntoIterator<Item = Fault>) {
        let mut inner = self.inner.lock().unwrap();
        inner.faults.entry(call).or_default().extend(faults);
    }

    /// Serves the read side over REST, as much of it as reconciliation reads.
    pub(crate) async fn serve_rest(&self) -> SocketAddr {
        use axum::extract::{Path, Query};
        let wallet = self.clone();
        let page = async move |Path(id): Path<String>, Query(query): Query<HashMap<String, usize>>| {
            let inner = wallet.inner.lock().unwrap();
            let all = inner
                .wallets
                .get(&id)
                .map(|w| w.transactions.clone())
                .unwrap_or_default();
            let (page, limit) = (query["page"], query["limit"]);
            let hidden = inner.hidden.clone();
            let lines = all.iter().rev().filter(|t| !hidden.contains(&t.txn_id));
            let lines: Vec<_> = lines
                .skip((page - 1) * limit)
                .take(limit)
                .map(|t| serde_json::json!({"txn_id": t.txn_id, "amount": t.amount}))
                .collect();
            axum::Json(serde_json::json!({"transactions": lines}))
        };
        let routes = axum::Router::new().route("/wallets/{id}/transactions", axum::routing::get(page));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        addr
    }

    /// Hides the newest charge from the read side.
    pub(crate) fn hide_newest_charge(&self) {
        let mut inner = self.inner.lock().unwrap();
        let all = inner.wallets.values().flat_map(|w| &w.transactions);
        let newest = all
            .filter(|t| t.reference_type == "charge")
            .max_by_key(|t| t.position);
        let id = newest.unwrap().txn_id.clone();
        inner.hidden.push(id);
    }

    /// Tells watchers of `n` changes in a row, each with one nano-unit more available.
    pub(crate) fn announce(&self, n: u64) -> String {
        let (wallet, from) = {
            let mut inner = self.inner.lock().unwrap();
            let from = inner.position;
            inner.position += n;
            let wallet = inner.wallets.values().next().unwrap().shown(from);
            (wallet, from)
        };
        let mut last = String::new();
        for i in 1..=n {
            last = Amount::from_nanos(i128::from(i)).to_string();
            let _ = self.changes.send(proto::Wallet {
                available: last.clone(),
                position: from + i,
                ..wallet.clone()
            });
        }
        last
    }

    /// As `script`, unless earlier faults are still to come.
    pub(crate) fn script_if_well(&self, call: &'static str, faults: impl IntoIterator<Item = Fault>) {
        let mut inner = self.inner.lock().unwrap();
        let scripted = inner.faults.entry(call).or_default();
        if scripted.is_empty() {
            scripted.extend(faults);
        }
    }

    /// How often a kind was called.
    pub(crate) fn calls(&self, call: &'static str) -> usize {
        self.inner.lock().unwrap().calls.get(call).copied().unwrap_or(0)
    }

    /// Sum of all captures.
    pub(crate) fn captured(&self) -> i128 {
        let inner = self.inner.lock().unwrap();
        let all = inner.wallets.values().flat_map(|w| &w.transactions);
        let captures = all.filter(|t| t.reference_type == "charge");
        captures.map(|t| -nanos(&t.amount).unwrap()).sum()
    }

    /// Holds that are not released.
    pub(crate) fn open_holds(&self) -> usize {
        let inner = self.inner.lock().unwrap();
        let all = inner.wallets.values().flat_map(|w| w.holds.values());
        all.filter(|h| !h.released).count()
    }

    /// Changes a transaction behind everyone's back.
    pub(crate) fn tamper(&self, change: impl Fn(&mut proto::Transaction)) {
        let mut inner = self.inner.lock().unwrap();
        inner
            .wallets
            .values_mut()
            .flat_map(|w| w.transactions.iter_mut())
            .for_each(change);
    }

    async fn enter(&self, call: &'static str) -> Result<bool, Status> {
        let fault = {
            let mut inner = self.inner.lock().unwrap();
            *inner.calls.entry(call).or_default() += 1;
            let faults = inner.faults.entry(call).or_default();
            if faults.is_empty() {
                None
            } else {
                Some(faults.remove(0))
            }
        };
        match fault {
            None => Ok(false),
            Some(Fault::LostReply) => Ok(true),
            Some(Fault::Away) => Err(Status::unavailable("scripted")),
            Some(Fault::Refused) => Err(Status::failed_precondition("scripted")),
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                Ok(false)
            }
        }
    }

    /// Runs a command once per key; the same key with other content is an error.
    fn once(
        &self,
        key: &str,
        content: String,
        wallet_id: &str,
        command: impl FnOnce(&mut State, u64) -> Result<String, Status>,
    ) -> Result<(String, proto::Wallet), Status> {
        let mut inner = self.inner.lock().unwrap();
        if let Some((there, txn)) = inner.keys.get(key) {
            if *there != content {
                return Err(Status::already_exists(format!("key {key} has other content")));
            }
            let txn = txn.clone();
            let position = inner.position;
            let wallet = inner
                .wallets
                .get(wallet_id)
                .ok_or_else(|| Status::not_found("wallet"))?;
            return Ok((txn, wallet.shown(position)));
        }
        inner.position += 1;
        let position = inner.position;
        let wallet = inner
            .wallets
            .get_mut(wallet_id)
            .ok_or_else(|| Status::not_found("wallet"))?;
        let txn = command(wallet, position)?;
        let shown = wallet.shown(position);
        inner.keys.insert(key.to_owned(), (content, txn.clone()));
        let _ = self.changes.send(shown.clone());
        Ok((txn, shown))
    }
}

fn transaction(
    wallet: &mut State,
    position: u64,
    amount: i128,
    kind: (&str, &str),
    reference: &str,
    description: &str,
) -> String {
    let txn_id = format!("txn-{position}");
    wallet.transactions.push(proto::Transaction {
        txn_id: txn_id.clone(),
        wallet_id: wallet.wallet.wallet_id.clone(),
        amount: Amount::from_nanos(amount).to_string(),
        r#type: kind.0.to_owned(),
        description: description.to_owned(),
        reference_id: reference.to_owned(),
        reference_type: kind.1.to_owned(),
        status: "COMPLETED".to_owned(),
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        balance_after: Amount::from_nanos(wallet.balance).to_string(),
        position,
    });
    txn_id
}

fn reply<T>(lost: bool, message: T) -> Result<Response<T>, Status> {
    if lost {
        Err(Status::unavailable("the answer is lost"))
    } else {
        Ok(Response::new(message))
    }
}

fn move_reply((txn_id, wallet): (String, proto::Wallet)) -> proto::MoveReply {
    proto::MoveReply {
        txn_id,
        wallet: Some(wallet),
    }
}

#[tonic::async_trait]
impl wallets_server::Wallets for FakeWallet {
    async fn create_wallet(
        &self,
        request: Request<proto::CreateWalletRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let lost = self.enter("create").await?;
        let m = request.into_inner();
        let wallet_id = format!("wallet-{}", m.user_id);
        let balance = nanos(&m.initial_balance)?;
        self.inner
            .lock()
            .unwrap()
            .wallets
            .entry(wallet_id.clone())
            .or_insert_with(|| State {
                wallet: proto::Wallet {
                    wallet_id: wallet_id.clone(),
                    user_id: m.user_id.clone(),
                    currency: m.currency.clone(),
                    status: "ACTIVE".to_owned(),
                    ..proto::Wallet::default()
                },
                ..State::default()
            });
        let content = format!("{m:?}");
        let (_, shown) = self.once(&m.key, content, &wallet_id, |w, position| {
            w.balance += balance;
            Ok(transaction(
                w,
                position,
                balance,
                ("CREDIT", "initial"),
                &m.key,
                "initial credit",
            ))
        })?;
        reply(lost, shown)
    }

    async fn get_wallet(
        &self,
        request: Request<proto::GetWalletRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let lost = self.enter("get").await?;
        let inner = self.inner.lock().unwrap();
        let wallet = inner.wallets.get(&request.into_inner().wallet_id);
        reply(
            lost,
            wallet
                .ok_or_else(|| Status::not_found("wallet"))?
                .shown(inner.position),
        )
    }

    async fn top_up(
        &self,
        request: Request<proto::MoveRequest>,
    ) -> Result<Response<proto::MoveReply>, Status> {
        let lost = self.enter("top_up").await?;
        let m = request.into_inner();
        let amount = nanos(&m.amount)?;
        let done = self.once(&m.key, format!("{m:?}"), &m.wallet_id, |w, position| {
            w.balance += amount;
            Ok(transaction(
                w,
                position,
                amount,
                ("CREDIT", "top_up"),
                &m.reference_id,
                &m.description,
            ))
        })?;
        reply(lost, move_reply(done))
    }

    async fn withdraw(&self, _: Request<proto::MoveRequest>) -> Result<Response<proto::MoveReply>, Status> {
        Err(Status::unimplemented("not asked by billing"))
    }

    async fn set_status(
        &self,
        request: Request<proto::SetStatusRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let lost = self.enter("set_status").await?;
        let m = request.into_inner();
        let (_, shown) = self.once(&m.key, format!("{m:?}"), &m.wallet_id, |w, _| {
            w.wallet.status.clone_from(&m.status);
            Ok(String::new())
        })?;
        reply(lost, shown)
    }

    async fn place_hold(
        &self,
        request: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldReply>, Status> {
        let lost = self.enter("place_hold").await?;
        let m = request.into_inner();
        let total = nanos(&m.total)?;
        let shown = {
            let mut inner = self.inner.lock().unwrap();
            inner.position += 1;
            let position = inner.position;
            let w = inner
                .wallets
                .get_mut(&m.wallet_id)
                .ok_or_else(|| Status::not_found("wallet"))?;
            if w.wallet.status != "ACTIVE" {
                return Err(Status::failed_precondition("frozen"));
            }
            let available = w.balance - w.held();
            let hold = w.holds.entry(m.hold_id.clone()).or_default();
            if hold.released {
                return Err(Status::failed_precondition("the hold is over"));
            }
            hold.total += (total - hold.total).max(0).min(available.max(0));
            let held_total = Amount::from_nanos(hold.total).to_string();
            proto::PlaceHoldReply {
                held_total,
                wallet: Some(w.shown(position)),
            }
        };
        let _ = self.changes.send(shown.wallet.clone().unwrap());
        reply(lost, shown)
    }

    async fn capture(
        &self,
        request: Request<proto::CaptureRequest>,
    ) -> Result<Response<proto::MoveReply>, Status> {
        let lost = self.enter("capture").await?;
        let m = request.into_inner();
        let amount = nanos(&m.amount)?;
        let done = self.once(&m.key, format!("{m:?}"), &m.wallet_id, |w, position| {
            if let Some(hold) = w.holds.get_mut(&m.hold_id) {
                let from_hold = amount.min(hold.total - hold.captured);
                hold.captured += from_hold;
            }
            let from_balance = amount.min(w.balance);
            w.balance -= from_balance;
            w.receivable += amount - from_balance;
            Ok(transaction(
                w,
                position,
                -amount,
                ("DEBIT", "charge"),
                &m.key,
                &m.description,
            ))
        })?;
        reply(lost, move_reply(done))
    }

    async fn release_hold(
        &self,
        request: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let lost = self.enter("release").await?;
        let m = request.into_inner();
        let shown = {
            let mut inner = self.inner.lock().unwrap();
            inner.position += 1;
            let position = inner.position;
            let w = inner
                .wallets
                .get_mut(&m.wallet_id)
                .ok_or_else(|| Status::not_found("wallet"))?;
            w.holds.entry(m.hold_id).or_default().released = true;
            w.shown(position)
        };
        let _ = self.changes.send(shown.clone());
        reply(lost, shown)
    }

    async fn list_transactions(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsReply>, Status> {
        let lost = self.enter("list").await?;
        let m = request.into_inner();
        let inner = self.inner.lock().unwrap();
        let all = inner.wallets.values().flat_map(|w| w.transactions.iter());
        let mut found: Vec<_> = all
            .filter(|t| m.wallet_id.is_empty() || t.wallet_id == m.wallet_id)
            .filter(|t| t.position > m.after_position)
            .cloned()
            .collect();
        found.sort_by_key(|t| t.position);
        found.truncate(m.limit as usize);
        reply(lost, proto::ListTransactionsReply { transactions: found })
    }

    async fn trial_balance(
        &self,
        _: Request<proto::TrialBalanceRequest>,
    ) -> Result<Response<proto::TrialBalanceReply>, Status> {
        let lost = self.enter("trial_balance").await?;
        let line = |account: &str, total: &str| proto::LedgerAccount {
            ledger_account: account.to_owned(),
            currency: "USD".to_owned(),
            total: total.to_owned(),
        };
        reply(
            lost,
            proto::TrialBalanceReply {
                accounts: vec![line("wallet", "-1.00"), line("cash", "1.00")],
            },
        )
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::Wallet, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.enter("watch").await?;
        let ids = request.into_inner().wallet_ids;
        let changes = self.changes.subscribe();
        let now: Vec<_> = {
            let inner = self.inner.lock().unwrap();
            let named = ids.iter().filter_map(|id| inner.wallets.get(id));
            named.map(|w| Ok(w.shown(inner.position))).collect()
        };
        let later = tokio_stream::wrappers::BroadcastStream::new(changes);
        let later = later.map(|change| change.map_err(|e| Status::data_loss(e.to_string())));
        Ok(Response::new(Box::pin(tokio_stream::iter(now).chain(later))))
    }
}
