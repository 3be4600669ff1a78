//! The billing port: who is behind a login, credit leases, and what billing tells a proxy unasked.

use std::{sync::Arc, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};
use uuid::Uuid;
use weir_contracts::{
    ids::{AccountId, LeaseId, ProxyId},
    money::Currency,
    tariff::Tariff,
};

/// Why billing gave no answer. Nothing is known then; asking again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BillingError {
    /// Not reachable, too slow, or failing: the same question may be asked again.
    #[error("billing is not available: {0}")]
    Unavailable(String),
    /// It refuses this proxy (a copied journal directory, a wrong token): asking again does not help.
    #[error("billing refuses this proxy: {0}")]
    Refused(String),
}

/// How an account is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Measured and booked, never refused.
    Observe,
    /// Held back when its credit is spent.
    Enforce,
}

/// Where a response ends when the credit is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before the first row that is not covered.
    AtRow,
    /// After the result set in hand.
    AtResult,
    /// The connection is closed.
    Close,
}

/// An account's terms at the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose.
    pub account: AccountId,
    /// Of its wallet and its tariff.
    pub currency: Currency,
    /// Observe or enforce.
    pub mode: Mode,
    /// Where to cut.
    pub cut: Cut,
    /// Prices. A version never changes.
    pub tariff: Arc<Tariff>,
    /// A row in hand is finished on credit up to this many bytes, over all the account's sessions.
    pub row_credit_bytes: u64,
}

/// What a client said at login, as far as it tells whose account it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Login {
    /// Login name.
    pub login: String,
    /// Database asked for.
    pub database: String,
    /// Application name.
    pub application: String,
    /// Server name as the client wrote it.
    pub server: String,
}

/// Answer to [`Billing::resolve_tenant`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The account's terms.
    Terms(Terms),
    /// Nobody's login; the text says why.
    Unknown(String),
}

/// Asks for a lease or for more under it. Idempotent by `(lease, known_grant_nanos)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseAsk {
    /// Whose credit.
    pub account: AccountId,
    /// The lease, named by the proxy.
    pub lease: LeaseId,
    /// What this proxy knows to be granted under it; 0 for a new one.
    pub known_grant_nanos: i64,
    /// How much more it would like, nano-units.
    pub want_nanos: i64,
}

/// Answer to [`Billing::lease`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// Granted in all under this lease.
    Grant {
        /// Cumulative, nano-units.
        granted_total_nanos: i64,
        /// Today's terms; a tariff version other than the lease's means that a new lease is due.
        terms: Terms,
        /// Right to spend, counted from before the question.
        valid: Duration,
    },
    /// Nothing is granted.
    Denial(Denial),
}

/// Why nothing is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// Nothing is available in the wallet.
    CreditSpent,
    /// The wallet is frozen or the account is not allowed.
    Frozen,
    /// No such account.
    UnknownAccount,
    /// The lease is closed or its tariff ended: open a new one.
    LeaseClosed,
}

/// A refusal by billing, with the sums behind it (decimal strings).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The case.
    pub reason: DenialReason,
    /// For people.
    pub message: String,
    /// Not yet captured.
    pub balance: String,
    /// Balance less holds.
    pub available: String,
    /// ISO 4217 code.
    pub currency: String,
}

/// What billing tells unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A wallet changed.
    Account {
        /// Whose.
        account: AccountId,
        /// No credit may be spent.
        frozen: bool,
        /// Decimal string.
        balance: String,
        /// Decimal string.
        available: String,
        /// Today's terms, when they came along.
        terms: Option<Terms>,
    },
    /// Close the account's leases as soon as no response uses them, and report.
    CloseLeases {
        /// Whose.
        account: AccountId,
        /// To be named in the report.
        request_id: String,
    },
    /// Report as soon as every notice before this one was taken in; close nothing.
    Confirm {
        /// Whose.
        account: AccountId,
        /// To be named in the report.
        request_id: String,
    },
}

/// The answer to [`Notice::CloseLeases`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReport {
    /// Of the notice.
    pub request_id: String,
    /// Whose leases.
    pub account: AccountId,
    /// Every response that had ended, and every closing record, is at or below it.
    pub last_sequence: u64,
    /// A response still in flight keeps a lease open.
    pub busy: bool,
}

/// A start of a proxy, told to billing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Which proxy.
    pub proxy: ProxyId,
    /// Which start.
    pub epoch: u64,
    /// Of this start.
    pub boot_nonce: Uuid,
    /// Of the start before; none for the first.
    pub previous_boot_nonce: Option<Uuid>,
}

/// Billing as a proxy sees it. Every call has its own deadline inside; callers add none but may drop the future.
pub trait Billing: Send + Sync + 'static {
    /// Announces this start.
    fn register(&self, start: Start) -> BoxFuture<'_, Result<(), BillingError>>;
    /// Whose login, on what terms.
    fn resolve_tenant(&self, login: Login) -> BoxFuture<'_, Result<Resolved, BillingError>>;
    /// Opens a lease or makes one larger.
    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'_, Result<LeaseAnswer, BillingError>>;
    /// Notices from now on; the stream ends when the connection does.
    fn watch(
        &self,
        proxy: ProxyId,
        epoch: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Notice, BillingError>>, BillingError>>;
    /// Reports closed leases.
    fn report_closed(
        &self,
        proxy: ProxyId,
        epoch: u64,
        report: CloseReport,
    ) -> BoxFuture<'_, Result<(), BillingError>>;
}
