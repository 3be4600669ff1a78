//! The meter: what is due for a chunk, paid out of a slice, and the state that the journal slot gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use weir_contracts::entry::RequestKind;
use weir_contracts::ids::{LeaseId, ProxyId};
use weir_contracts::tariff::{Quantity, Tariff};
use weir_proxy::credit::{AccountState, LeaseView, Slice};
use weir_proxy::journal::SlotState;
use weir_proxy::session::meter::{Meter, Till};
use weir_proxy::session::purse::{LeaseGuard, Purse};

use super::Work;
use crate::failure::{Failure, Trying};

/// Chunks of a turn.
const CHUNKS: u64 = 500;

/// A tariff in which rows and bytes cost.
#[must_use]
pub fn tariff() -> Tariff {
    Tariff {
        version: "bench@1".to_owned(),
        per_request_nanos: 1_000,
        per_row_nanos: 10,
        per_kib_out_nanos: 3,
        per_kib_in_nanos: 0,
        per_bulk_row_nanos: 0,
        per_server_second_nanos: 0,
    }
}

/// What a chunk of a response holds.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Rows that begin in it.
    pub rows: u64,
    /// Bytes of tokens.
    pub bytes: u64,
}

/// A read of 256 KiB of `events` rows.
const CHUNK: Chunk = Chunk {
    rows: 810,
    bytes: 256 * 1024 - 64 * 8,
};

/// The meter of one response, beside what it must come to.
pub struct ChunkMeter<P> {
    purse: P,
    meter: Meter,
    tariff: Tariff,
    paid: i64,
}

impl<P: Purse> ChunkMeter<P> {
    /// At the beginning of a response.
    pub fn new(purse: P) -> Self {
        let tariff = tariff();
        Self {
            purse,
            meter: Meter::new(RequestKind::Batch, 1, Arc::new(tariff.clone()), 0),
            tariff,
            paid: 0,
        }
    }

    /// One chunk as the relay takes it: credit, how far it reaches, what was walked, what is due, and what of the slice is left.
    ///
    /// # Errors
    /// The purse is empty, or the slice does not cover the chunk.
    pub fn pass(&mut self, chunk: Chunk) -> Result<SlotState, Failure> {
        let meter = &mut self.meter;
        let mut till = Till::new(&self.purse);
        let (need, want) = (meter.next_row_nanos(chunk.bytes), meter.worst_nanos(chunk.bytes));
        let taken = till.refill(need, want);
        let lease = till.lease().filter(|_| taken).trying("no credit")?.clone();
        if meter.lease_number() != lease.number {
            let guard = self.purse.attach(lease.number);
            meter.bind(lease, guard);
        }
        let budget = meter.budget(till.nanos(), chunk.bytes);
        if budget.rows < chunk.rows {
            return Err(Failure(format!("the slice reaches for {} rows", budget.rows)));
        }
        meter.totals.rows += chunk.rows;
        meter.totals.bytes_out += chunk.bytes;
        let due = meter.pay();
        self.paid += due;
        if till.spend(due) > 0 {
            return Err(Failure::new("the slice did not cover what it reached for"));
        }
        Ok(meter.slot_state())
    }

    /// What was paid must be the tariff's price of all that passed, to the nano-unit.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, state: &SlotState) -> Result<(), Failure> {
        let all = Quantity {
            requests: 1,
            rows: state.rows,
            bytes_out: state.bytes_out,
            ..Quantity::default()
        };
        let price = self.tariff.cost_nanos(&all);
        if (self.paid, state.cost_nanos) == (price, price) {
            return Ok(());
        }
        Err(Failure(format!("{} was paid of {price}: {state:?}", self.paid)))
    }
}

/// The meter alone: its purse is a number.
pub(super) fn chunk() -> Result<Work, Failure> {
    let purse = Pocket {
        left: AtomicI64::new(super::LEASE_GRANT),
        lease: LeaseView {
            number: 1,
            id: LeaseId {
                proxy: ProxyId(uuid::Uuid::nil()),
                epoch: 1,
                number: 1,
            },
            tariff: Arc::new(tariff()),
        },
    };
    let mut response = ChunkMeter::new(purse);
    Ok(Box::new(move || {
        let mut state = SlotState::default();
        for _ in 0..CHUNKS {
            state = response.pass(CHUNK)?;
        }
        response.check(&state)?;
        Ok(CHUNKS)
    }))
}

/// All that a chunk costs beside its walk: the account's lease, the meter, the journal slot.
pub(super) fn permit() -> Result<Work, Failure> {
    let account = super::Account::rich(tariff())?;
    let mut slot = account.slot()?;
    let mut response = ChunkMeter::new(Arc::clone(&account.credit));
    Ok(Box::new(move || {
        let before = account.credit.state().leftover_nanos;
        let (paid, mut state) = (response.paid, SlotState::default());
        for _ in 0..CHUNKS {
            state = response.pass(CHUNK)?;
            slot.write(&state).trying("slot")?;
        }
        response.check(&state)?;
        let after = account.credit.state().leftover_nanos;
        (before - after == response.paid - paid)
            .then_some(CHUNKS)
            .trying("the lease did not shrink by what was paid")
    }))
}

struct Pocket {
    left: AtomicI64,
    lease: LeaseView,
}

impl Purse for Pocket {
    fn take(&self, least: i64, want: i64) -> Option<Slice> {
        let left = self.left.load(Ordering::Relaxed);
        if left < least {
            return None;
        }
        let nanos = left.min(want);
        self.left.store(left - nanos, Ordering::Relaxed);
        Some(Slice {
            nanos,
            lease: self.lease.clone(),
        })
    }

    fn spent(&self, _: u32, _: i64) {}

    fn give_back(&self, _: u32, nanos: i64) {
        self.left.fetch_add(nanos, Ordering::Relaxed);
    }

    fn overdraw(&self, _: u32, nanos: i64) {
        self.left.fetch_sub(nanos, Ordering::Relaxed);
    }

    fn attach(&self, _: u32) -> LeaseGuard {
        Box::new(())
    }

    fn is_closing(&self, _: u32) -> bool {
        false
    }

    fn state(&self) -> AccountState {
        AccountState {
            frozen: false,
            broke: None,
            terms: None,
            balance: None,
            available: None,
            leftover_nanos: self.left.load(Ordering::Relaxed),
            outstanding_nanos: 0,
        }
    }
}
