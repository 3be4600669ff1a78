//! Credit of known content, and the terms that go with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use uuid::Uuid;
use weir_contracts::ids::{LeaseId, ProxyId};
use weir_contracts::money::Currency;
use weir_contracts::tariff::Tariff;
use weir_proxy::credit::{AccountState, LeaseView, Slice};
use weir_proxy::ports::billing::{Cut, Mode, Terms};
use weir_proxy::session::purse::{LeaseGuard, Purse};

/// The one lease that there is.
const LEASE: u32 = 1;

/// An account's credit; never below what overdrafts made of it.
pub(super) struct KnownPurse {
    nanos: AtomicI64,
    out: AtomicI64,
    tariff: Arc<Tariff>,
}

impl KnownPurse {
    pub(super) fn new(nanos: i64, tariff: Arc<Tariff>) -> Self {
        Self {
            nanos: AtomicI64::new(nanos),
            out: AtomicI64::new(0),
            tariff,
        }
    }

    pub(super) fn grant(&self, nanos: i64) {
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What is left, and what is out in slices.
    pub(super) fn content(&self) -> (i64, i64) {
        (
            self.nanos.load(Ordering::Relaxed),
            self.out.load(Ordering::Relaxed),
        )
    }
}

impl Purse for KnownPurse {
    fn take(&self, least: i64, want: i64) -> Option<Slice> {
        let there = self.nanos.load(Ordering::Relaxed);
        if there < least.max(1) {
            return None;
        }
        let nanos = want.clamp(1, there);
        self.nanos.fetch_sub(nanos, Ordering::Relaxed);
        self.out.fetch_add(nanos, Ordering::Relaxed);
        let id = LeaseId {
            proxy: ProxyId(Uuid::nil()),
            epoch: 1,
            number: LEASE,
        };
        let tariff = Arc::clone(&self.tariff);
        Some(Slice {
            nanos,
            lease: LeaseView {
                number: LEASE,
                id,
                tariff,
            },
        })
    }

    fn spent(&self, lease: u32, nanos: i64) {
        assert!(lease == LEASE && nanos >= 0, "{nanos} of lease {lease} spent");
        self.out.fetch_sub(nanos, Ordering::Relaxed);
    }

    fn give_back(&self, lease: u32, nanos: i64) {
        assert!(
            lease == LEASE && nanos >= 0,
            "{nanos} of lease {lease} given back"
        );
        self.out.fetch_sub(nanos, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn overdraw(&self, lease: u32, nanos: i64) {
        assert!(lease == LEASE && nanos >= 0, "{nanos} of lease {lease} overdrawn");
        self.nanos.fetch_sub(nanos, Ordering::Relaxed);
    }

    fn attach(&self, _lease: u32) -> LeaseGuard {
        Box::new(())
    }

    fn is_closing(&self, _lease: u32) -> bool {
        false
    }

    fn state(&self) -> AccountState {
        let (leftover_nanos, outstanding_nanos) = self.content();
        AccountState {
            frozen: false,
            broke: None,
            terms: None,
            balance: None,
            available: None,
            leftover_nanos,
            outstanding_nanos,
        }
    }
}

/// Terms as two bytes of the input choose them.
pub(super) fn terms(policy: u8, prices: u8) -> Terms {
    let price = |bit: u8, nanos: i64| if prices & bit == 0 { 0 } else { nanos };
    Terms {
        account: "acme".parse().expect("an account id"),
        currency: Currency::USD,
        mode: if policy & 1 == 0 {
            Mode::Enforce
        } else {
            Mode::Observe
        },
        cut: [Cut::AtRow, Cut::AtResult, Cut::Close, Cut::AtRow][usize::from(policy >> 1 & 3)],
        tariff: Arc::new(Tariff {
            version: "fuzz@1".into(),
            per_request_nanos: price(1, 1_000),
            per_row_nanos: price(2, 100),
            per_kib_out_nanos: price(4, 5_000),
            per_kib_in_nanos: price(8, 3_000),
            per_bulk_row_nanos: price(16, 70),
            per_server_second_nanos: price(32, 9_000),
        }),
        row_credit_bytes: if policy & 8 == 0 { 1 << 20 } else { 64 },
    }
}
