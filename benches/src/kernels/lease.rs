//! One account's credit, as sessions take it in slices and give back what they do not spend.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt, pending};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir_contracts::entry::RequestKind;
use weir_contracts::ids::{AccountId, ProxyId};
use weir_contracts::tariff::Tariff;
use weir_proxy::credit::{AccountCredit, Credit, CreditOptions, More, Tenant};
use weir_proxy::journal::{Journal, JournalOptions, Slot, SlotHead};
use weir_proxy::ports::billing::{
    Billing, BillingError, CloseReport, Cut, LeaseAnswer, LeaseAsk, Login, Mode, Notice, Resolved, Start,
    Terms,
};

use super::Work;
use crate::failure::{Failure, Trying};

/// Nano-units of the lease: no measurement spends half of it, so that nobody asks for more meanwhile.
pub const LEASE_GRANT: i64 = 1 << 60;
/// Slices of a turn.
const SLICES: u64 = 500;
/// Nano-units of a slice, and what of it is spent.
const SLICE: i64 = 1_000_000;
const SPENT: i64 = 600_000;
/// Right to spend: longer than any measurement, callgrind's included.
const VALID: Duration = Duration::from_secs(24 * 3600);
/// Slots of the journal below: none is used.
const SLOTS: u32 = 64;

/// An account with a lease, whose billing grants whatever it is asked for.
pub struct Account {
    /// Its credit.
    pub credit: Arc<AccountCredit>,
    journal: Journal,
    /// It lives as long as these.
    _credit: Credit,
    _runtime: Runtime,
    _directory: TempDir,
}

impl Account {
    /// With [`LEASE_GRANT`] granted.
    ///
    /// # Errors
    /// No journal can be made, or no credit comes.
    pub fn rich(tariff: Tariff) -> Result<Self, Failure> {
        let directory = tempfile::tempdir().trying("temporary directory")?;
        let options = JournalOptions {
            slots_max: SLOTS,
            ..JournalOptions::default()
        };
        let journal = Journal::open(directory.path(), options).trying("journal")?;
        let account: AccountId = "bench".parse().trying("account")?;
        let terms = Terms {
            account,
            currency: "USD".parse().trying("currency")?,
            mode: Mode::Enforce,
            cut: Cut::AtRow,
            tariff: Arc::new(tariff),
            row_credit_bytes: 8 << 20,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.trying("runtime")?;
        let (cache, credit) = runtime.block_on(async {
            let cache = Credit::start(
                CreditOptions::default(),
                journal.clone(),
                Arc::new(Generous { terms }),
            );
            let tenant = cache.resolve(&Login::default()).await.trying("resolve")?;
            let Tenant::Known { credit, .. } = tenant else {
                return Err(Failure::new("the account is not known"));
            };
            match credit.more(1).await {
                More::Enough => Ok((cache, credit)),
                other => Err(Failure(format!("no credit: {other:?}"))),
            }
        })?;
        Ok(Self {
            credit,
            journal,
            _credit: cache,
            _runtime: runtime,
            _directory: directory,
        })
    }

    /// A journal slot of a response that it pays.
    ///
    /// # Errors
    /// All are in use.
    pub fn slot(&self) -> Result<Slot, Failure> {
        let head = SlotHead {
            session: 1,
            request: 1,
            kind: RequestKind::Batch,
            started_unix_nanos: 1_700_000_000_000_000_000,
        };
        self.journal.open_slot(head).trying("slot")
    }

    /// Takes a slice, spends a part and gives the rest back; what was spent.
    ///
    /// # Errors
    /// There is no credit, although there is.
    pub fn turn(credit: &Arc<AccountCredit>) -> Result<i64, Failure> {
        let slice = credit.take_between(1, SLICE).trying("no slice was to be had")?;
        let number = slice.lease.number;
        credit.spent(number, SPENT);
        credit.give_back(number, slice.nanos - SPENT);
        Ok(SPENT)
    }
}

pub(super) fn slice() -> Result<Work, Failure> {
    let account = Account::rich(super::meter::tariff())?;
    Ok(Box::new(move || {
        let before = account.credit.state().leftover_nanos;
        let mut spent = 0;
        for _ in 0..SLICES {
            spent += Account::turn(&account.credit)?;
        }
        let after = account.credit.state();
        if (after.leftover_nanos, after.outstanding_nanos) == (before - spent, 0) {
            return Ok(SLICES);
        }
        Err(Failure(format!("{spent} were spent of {before}: {after:?}")))
    }))
}

/// Billing that knows everybody and refuses nothing.
struct Generous {
    terms: Terms,
}

impl Billing for Generous {
    fn register(&self, _: Start) -> BoxFuture<'_, Result<(), BillingError>> {
        Box::pin(async { Ok(()) })
    }

    fn resolve_tenant(&self, _: Login) -> BoxFuture<'_, Result<Resolved, BillingError>> {
        Box::pin(async { Ok(Resolved::Terms(self.terms.clone())) })
    }

    fn lease(&self, _: LeaseAsk) -> BoxFuture<'_, Result<LeaseAnswer, BillingError>> {
        Box::pin(async {
            Ok(LeaseAnswer::Grant {
                granted_total_nanos: LEASE_GRANT,
                terms: self.terms.clone(),
                valid: VALID,
            })
        })
    }

    fn watch(
        &self,
        _: ProxyId,
        _: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Notice, BillingError>>, BillingError>> {
        Box::pin(async { Ok(pending().boxed()) })
    }

    fn report_closed(&self, _: ProxyId, _: u64, _: CloseReport) -> BoxFuture<'_, Result<(), BillingError>> {
        Box::pin(async { Ok(()) })
    }
}
