//! The running usage record of one open request, and the credit that pays for it.

use std::sync::Arc;

use weir_contracts::{
    entry::{Outcome, RequestKind, UsageRecord},
    tariff::{Quantity, Tariff},
};
use weir_tds::walker::Budget;

use super::purse::{LeaseGuard, Payer, Purse};
use crate::{
    credit::{LeaseView, Slice},
    journal::{REQUESTS_MAX, SlotHead, SlotState},
};

/// What a packet of a request brings in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Brought {
    /// Body bytes.
    pub bytes_in: u64,
    /// Rows of a bulk load that begin in it.
    pub bulk_rows: u64,
    /// Body bytes of a bulk load.
    pub bulk_bytes: u64,
    /// Calls of an RPC message that begin in it.
    pub calls: u64,
}

impl Brought {
    /// Adds another packet.
    pub fn add(&mut self, other: &Self) {
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bulk_rows = self.bulk_rows.saturating_add(other.bulk_rows);
        self.bulk_bytes = self.bulk_bytes.saturating_add(other.bulk_bytes);
        self.calls = self.calls.saturating_add(other.calls);
    }

    /// Takes off as many calls as fit, with everything else.
    #[must_use]
    pub fn split_off(&mut self, calls: u64) -> Self {
        let taken = Self {
            calls: self.calls.min(calls),
            ..*self
        };
        *self = Self {
            calls: self.calls - taken.calls,
            ..Self::default()
        };
        taken
    }
}

/// Everything that one part of a request has used so far. A part ends with its request, or when the lease changes.
pub struct Meter {
    kind: RequestKind,
    request: u32,
    /// What the tariff prices.
    pub totals: Quantity,
    /// COLMETADATA tokens.
    pub result_sets: u32,
    /// Sum of DONE counts without rows.
    pub rows_affected: u64,
    /// Bytes of a bulk load's body.
    pub bulk_bytes: u64,
    /// A DONE count disagreed with the rows seen.
    pub drift: bool,
    /// The walker could not read the response.
    pub unparsed: bool,
    tariff: Arc<Tariff>,
    lease: Option<(LeaseView, LeaseGuard)>,
    paid_nanos: i64,
    started_unix_nanos: u64,
    /// Calls of the message so far, over all parts; each is a request, and a message without calls is one.
    calls: u64,
}

impl Meter {
    /// The first part of request number `request`.
    #[must_use]
    pub fn new(kind: RequestKind, request: u32, tariff: Arc<Tariff>, unix_nanos: u64) -> Self {
        Self {
            kind,
            request,
            totals: Quantity {
                requests: 1,
                ..Quantity::default()
            },
            result_sets: 0,
            rows_affected: 0,
            bulk_bytes: 0,
            drift: false,
            unparsed: false,
            tariff,
            lease: None,
            paid_nanos: 0,
            started_unix_nanos: unix_nanos,
            calls: 0,
        }
    }

    /// What the totals come to with what was brought in.
    fn totals_with(&self, brought: &Brought) -> Quantity {
        let calls = self.calls.saturating_add(brought.calls);
        let further = calls.max(1) - self.calls.max(1);
        let mut totals = self.totals;
        totals.requests = totals.requests.saturating_add(further);
        totals.bytes_in = totals.bytes_in.saturating_add(brought.bytes_in);
        totals.bulk_rows = totals.bulk_rows.saturating_add(brought.bulk_rows);
        totals
    }

    /// What is due with what was brought in.
    #[must_use]
    pub fn due_with(&self, brought: &Brought) -> i64 {
        self.tariff
            .cost_nanos(&self.totals_with(brought))
            .saturating_sub(self.paid_nanos)
    }

    /// Adds what was brought in.
    pub fn bring_in(&mut self, brought: &Brought) {
        self.totals = self.totals_with(brought);
        self.calls = self.calls.saturating_add(brought.calls);
        self.bulk_bytes = self.bulk_bytes.saturating_add(brought.bulk_bytes);
    }

    /// Further calls that this part can count.
    #[must_use]
    pub fn room(&self) -> u64 {
        u64::from(REQUESTS_MAX).saturating_sub(self.totals.requests)
    }

    /// Kind of the request.
    #[must_use]
    pub fn kind(&self) -> RequestKind {
        self.kind
    }

    /// What is used but not paid yet, if `bytes_ahead` more are delivered.
    #[must_use]
    pub fn due_nanos(&self, bytes_ahead: u64) -> i64 {
        let mut totals = self.totals;
        totals.bytes_out = totals.bytes_out.saturating_add(bytes_ahead);
        self.tariff.cost_nanos(&totals).saturating_sub(self.paid_nanos)
    }

    /// The most that `bytes_ahead` bytes of stream can cost: every byte could begin a row.
    #[must_use]
    pub fn worst_nanos(&self, bytes_ahead: u64) -> i64 {
        let mut totals = self.totals;
        totals.bytes_out = totals.bytes_out.saturating_add(bytes_ahead);
        totals.rows = totals.rows.saturating_add(bytes_ahead);
        self.tariff.cost_nanos(&totals).saturating_sub(self.paid_nanos)
    }

    /// What the next row costs, with everything that is due before it.
    #[must_use]
    pub fn next_row_nanos(&self, bytes_ahead: u64) -> i64 {
        self.due_nanos(bytes_ahead)
            .saturating_add(self.tariff.per_row_nanos)
            .max(1)
    }

    /// Rows that may begin if `nanos` can be spent and `bytes_ahead` bytes of the packet in hand are paid for as well.
    #[must_use]
    pub fn budget(&self, nanos: i64, bytes_ahead: u64) -> Budget {
        let left = nanos.saturating_sub(self.due_nanos(bytes_ahead));
        if left < 0 {
            return Budget {
                rows: 0,
                bytes: u64::MAX,
            };
        }
        let per_row = self.tariff.per_row_nanos;
        let rows = if per_row == 0 {
            u64::MAX
        } else {
            u64::try_from(left / per_row).unwrap_or(0)
        };
        Budget {
            rows,
            bytes: u64::MAX,
        }
    }

    /// Everything due is paid: answers how much that was.
    pub fn pay(&mut self) -> i64 {
        let due = self.due_nanos(0);
        self.paid_nanos = self.paid_nanos.saturating_add(due);
        due
    }

    /// So much of what is due is paid.
    pub fn pay_part(&mut self, nanos: i64) {
        self.paid_nanos = self.paid_nanos.saturating_add(nanos);
    }

    /// Number of the lease that pays for this part; 0 for none.
    #[must_use]
    pub fn lease_number(&self) -> u32 {
        self.lease.as_ref().map_or(0, |(lease, _)| lease.number)
    }

    /// True if `lease` may pay for this part: it does already, or none does and nothing was priced yet.
    #[must_use]
    pub fn accepts(&self, lease: &LeaseView) -> bool {
        match &self.lease {
            Some((bound, _)) => bound.number == lease.number,
            None => self.paid_nanos == 0,
        }
    }

    /// Binds the part to the lease that pays for it, and to its prices.
    pub fn bind(&mut self, lease: LeaseView, guard: LeaseGuard) {
        self.tariff = Arc::clone(&lease.tariff);
        self.lease = Some((lease, guard));
    }

    /// Lets go of the lease, to be dropped once the record is in the journal.
    pub fn take_guard(&mut self) -> Option<LeaseGuard> {
        self.lease.take().map(|(_, guard)| guard)
    }

    /// What of the part's journal slot does not change.
    #[must_use]
    pub fn slot_head(&self, session: u32) -> SlotHead {
        let Self {
            kind,
            request,
            started_unix_nanos,
            ..
        } = *self;
        SlotHead {
            session,
            request,
            kind,
            started_unix_nanos,
        }
    }

    /// The part as its journal slot holds it.
    #[must_use]
    pub fn slot_state(&self) -> SlotState {
        SlotState {
            lease_number: self.lease_number(),
            requests: u32::try_from(self.totals.requests).unwrap_or(u32::MAX),
            // A bulk load returns no rows; its slot counts those that came in.
            rows: if self.kind == RequestKind::BulkLoad {
                self.totals.bulk_rows
            } else {
                self.totals.rows
            },
            bytes_out: self.totals.bytes_out,
            bytes_in: self.totals.bytes_in,
            server_nanos: self.totals.server_nanos,
            result_sets: self.result_sets,
            cost_nanos: self.paid_nanos,
            unparsed: self.unparsed,
        }
    }

    /// The part as a usage record.
    #[must_use]
    pub fn record(&self, payer: &Payer, outcome: Outcome, unix_nanos: u64) -> UsageRecord {
        UsageRecord {
            account: payer.terms.account.clone(),
            principal: payer.principal.clone(),
            session: u64::from(payer.session),
            request: u64::from(self.request),
            kind: self.kind,
            requests: self.totals.requests,
            rows: self.totals.rows,
            rows_affected: self.rows_affected,
            result_sets: u64::from(self.result_sets),
            bytes_out: self.totals.bytes_out,
            bytes_in: self.totals.bytes_in,
            bulk_rows: self.totals.bulk_rows,
            bulk_bytes: self.bulk_bytes,
            server_nanos: self.totals.server_nanos,
            started_unix_nanos: self.started_unix_nanos,
            ended_unix_nanos: unix_nanos,
            outcome,
            drift: self.drift,
            unparsed: self.unparsed,
            tariff: self.tariff.version.clone(),
            lease: self.lease.as_ref().map(|(lease, _)| lease.id),
            cost_nanos: self.paid_nanos,
        }
    }

    /// The next part of the same request, after the lease changed: counts start anew, nothing is counted twice.
    #[must_use]
    pub fn next_part(&self) -> Self {
        let mut part = Self::new(
            self.kind,
            self.request,
            Arc::clone(&self.tariff),
            self.started_unix_nanos,
        );
        part.totals = Quantity::default();
        part.calls = self.calls;
        part.unparsed = self.unparsed;
        part
    }
}

/// Credit in hand during one pass over what the server sent. It is given back when the pass ends, so that no session
/// sits on credit that another is refused for (RFD 3).
pub struct Till<'a> {
    purse: &'a dyn Purse,
    slice: Option<Slice>,
}

impl<'a> Till<'a> {
    /// An empty till.
    #[must_use]
    pub fn new(purse: &'a dyn Purse) -> Self {
        Self { purse, slice: None }
    }

    /// Nanos in hand.
    #[must_use]
    pub fn nanos(&self) -> i64 {
        self.slice.as_ref().map_or(0, |s| s.nanos)
    }

    /// The lease that the credit in hand comes from.
    #[must_use]
    pub fn lease(&self) -> Option<&LeaseView> {
        self.slice.as_ref().map(|s| &s.lease)
    }

    /// Gives back what is in hand and takes `need..=want` afresh. False if not even `need` is there.
    pub fn refill(&mut self, need: i64, want: i64) -> bool {
        self.give_back();
        let need = need.max(1);
        self.slice = self.purse.take(need, want.max(need));
        self.slice.is_some()
    }

    /// Spends from what is in hand; answers what it did not cover.
    pub fn spend(&mut self, nanos: i64) -> i64 {
        let Some(slice) = &mut self.slice else {
            return nanos;
        };
        let covered = nanos.min(slice.nanos).max(0);
        slice.nanos -= covered;
        if covered > 0 {
            self.purse.spent(slice.lease.number, covered);
        }
        nanos - covered
    }

    fn give_back(&mut self) {
        if let Some(slice) = self.slice.take()
            && slice.nanos > 0
        {
            self.purse.give_back(slice.lease.number, slice.nanos);
        }
    }
}

impl Drop for Till<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
