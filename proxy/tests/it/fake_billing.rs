//! A billing service with one wallet: grants partially, counts calls, can be slow, away, frozen, or change its tariff.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use tokio::sync::{broadcast, mpsc};
use weir_contracts::{
    ids::{AccountId, LeaseId, ProxyId},
    money::{Amount, Currency},
    tariff::Tariff,
};
use weir_proxy::ports::billing::{
    Billing, BillingError, CloseReport, Cut, Denial, DenialReason, LeaseAnswer, LeaseAsk, Login, Mode,
    Notice, Resolved, Start, Terms,
};

pub(crate) const PRICE: i64 = 10_000;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) available: i64,
    pub(crate) frozen: bool,
    pub(crate) away: bool,
    /// Does not believe this start.
    pub(crate) refuses: bool,
    pub(crate) version: u32,
    pub(crate) delay: Duration,
    pub(crate) valid: Duration,
    pub(crate) leases: HashMap<LeaseId, i64>,
    pub(crate) closed: Vec<LeaseId>,
    /// Replies lost after they took effect, so many from now on.
    pub(crate) lose_replies: u32,
    /// Most that one answer grants.
    pub(crate) grant_max: i64,
}

#[derive(Debug)]
pub(crate) struct FakeBilling {
    pub(crate) state: Mutex<State>,
    pub(crate) asked: AtomicUsize,
    pub(crate) at_once: AtomicUsize,
    pub(crate) at_once_max: AtomicUsize,
    notices: broadcast::Sender<Notice>,
    reports: mpsc::UnboundedSender<CloseReport>,
}

pub(crate) fn account() -> AccountId {
    "demo".parse().unwrap()
}

impl FakeBilling {
    pub(crate) fn new(available: i64) -> (Arc<Self>, mpsc::UnboundedReceiver<CloseReport>) {
        let (reports, told) = mpsc::unbounded_channel();
        let state = State {
            available,
            frozen: false,
            away: false,
            refuses: false,
            version: 1,
            delay: Duration::ZERO,
            valid: Duration::from_secs(60),
            leases: HashMap::new(),
            closed: Vec::new(),
            lose_replies: 0,
            grant_max: i64::MAX,
        };
        let billing = Self {
            state: Mutex::new(state),
            asked: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            at_once_max: AtomicUsize::new(0),
            notices: broadcast::channel(64).0,
            reports,
        };
        (Arc::new(billing), told)
    }

    pub(crate) fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub(crate) fn terms(&self) -> Terms {
        let version = self.set(|s| s.version);
        let tariff = Tariff {
            version: format!("demo@{version}"),
            per_request_nanos: 0,
            per_row_nanos: PRICE,
            per_kib_out_nanos: 0,
            per_kib_in_nanos: 0,
            per_bulk_row_nanos: 0,
            per_server_second_nanos: 0,
        };
        Terms {
            account: account(),
            currency: Currency::USD,
            mode: Mode::Enforce,
            cut: Cut::AtRow,
            tariff: Arc::new(tariff),
            row_credit_bytes: 8 << 20,
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until the proxy listens, then tells it.
    pub(crate) async fn tell(&self, notice: Notice) {
        while self.notices.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        self.notices.send(notice).unwrap();
    }

    pub(crate) async fn tell_account(&self) {
        let (frozen, available) = self.set(|s| (s.frozen, s.available));
        let available = Amount::from_nanos(i128::from(available)).to_string();
        let terms = Some(self.terms());
        self.tell(Notice::Account {
            account: account(),
            frozen,
            balance: available.clone(),
            available,
            terms,
        })
        .await;
    }

    fn decide(&self, ask: &LeaseAsk) -> Result<LeaseAnswer, BillingError> {
        let terms = self.terms();
        let mut state = self.state.lock().unwrap();
        if state.away {
            return Err(BillingError::Unavailable("away".into()));
        }
        let deny = |reason, available: i64| {
            Ok(LeaseAnswer::Denial(Denial {
                reason,
                message: "no".into(),
                balance: "0.00".into(),
                available: Amount::from_nanos(i128::from(available)).to_string(),
                currency: "USD".into(),
            }))
        };
        if state.closed.contains(&ask.lease) {
            return deny(DenialReason::LeaseClosed, state.available);
        }
        if state.frozen {
            return deny(DenialReason::Frozen, state.available);
        }
        let held = state.leases.get(&ask.lease).copied().unwrap_or(0);
        assert!(
            ask.known_grant_nanos <= held,
            "the proxy knows more than was granted"
        );
        let more = if held > ask.known_grant_nanos {
            0
        } else {
            ask.want_nanos.min(state.available).min(state.grant_max)
        };
        if held + more <= ask.known_grant_nanos {
            return deny(DenialReason::CreditSpent, 0);
        }
        state.available -= more;
        state.leases.insert(ask.lease, held + more);
        if state.lose_replies > 0 {
            state.lose_replies -= 1;
            return Err(BillingError::Unavailable("the reply was lost".into()));
        }
        Ok(LeaseAnswer::Grant {
            granted_total_nanos: held + more,
            terms,
            valid: state.valid,
        })
    }
}

impl Billing for FakeBilling {
    fn register(&self, _start: Start) -> BoxFuture<'_, Result<(), BillingError>> {
        let refused = self.set(|s| s.refuses);
        async move {
            if refused {
                return Err(BillingError::Refused("a copied directory".into()));
            }
            Ok(())
        }
        .boxed()
    }

    fn resolve_tenant(&self, login: Login) -> BoxFuture<'_, Result<Resolved, BillingError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let away = self.set(|s| s.away);
        async move {
            match login.login.as_str() {
                _ if away => Err(BillingError::Unavailable("away".into())),
                "demo" => Ok(Resolved::Terms(self.terms())),
                other => Ok(Resolved::Unknown(format!("nobody is called {other}"))),
            }
        }
        .boxed()
    }

    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'_, Result<LeaseAnswer, BillingError>> {
        async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.at_once_max.fetch_max(now, Ordering::SeqCst);
            let delay = self.set(|s| s.delay);
            if delay > Duration::ZERO {
                tokio::time::sleep(delay).await;
            } else {
                tokio::task::yield_now().await;
            }
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            self.decide(&ask)
        }
        .boxed()
    }

    fn watch(
        &self,
        _proxy: ProxyId,
        _epoch: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Notice, BillingError>>, BillingError>> {
        let notices = tokio_stream::wrappers::BroadcastStream::new(self.notices.subscribe());
        let stream = notices
            .map(|n| n.map_err(|e| BillingError::Unavailable(e.to_string())))
            .boxed();
        async move { Ok(stream) }.boxed()
    }

    fn report_closed(
        &self,
        _: ProxyId,
        _: u64,
        report: CloseReport,
    ) -> BoxFuture<'_, Result<(), BillingError>> {
        let _ = self.reports.send(report);
        async { Ok(()) }.boxed()
    }
}
