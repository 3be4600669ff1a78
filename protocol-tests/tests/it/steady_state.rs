//! Once a response is under way, its walker and its meter allocate nothing: not for a row, not for a packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use weir_contracts::entry::RequestKind;
use weir_contracts::ids::{LeaseId, ProxyId};
use weir_contracts::tariff::Tariff;
use weir_proxy::credit::{AccountState, LeaseView, Slice};
use weir_proxy::journal::SlotState;
use weir_proxy::session::meter::{Meter, Till};
use weir_proxy::session::purse::{LeaseGuard, Purse};
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Step, Walker, WalkerOptions};

use crate::allocation::peak;

/// Rows, and how many come before the measurement: layouts settle, and slots grow to what they need.
const ROWS: u32 = 30_000;
const PACKET_BODY: usize = 4096 - 8;
const PACKETS_BEFORE: usize = 50;
/// COLMETADATA: INT, INTN, NVARCHAR(50), DECIMAL(18,2), DATETIME2(7), VARBINARY(MAX).
const COLUMNS: [&[u8]; 6] = [
    &[0x38],
    &[0x26, 4],
    &[0xE7, 100, 0, 9, 4, 0xD0, 0, 0x34],
    &[0x6A, 9, 18, 2],
    &[0x2A, 7],
    &[0xA5, 0xFF, 0xFF],
];

/// ROW and NBCROW in turn, values of changing lengths, every third INTN NULL.
fn response() -> Vec<u8> {
    let mut out = vec![0x81, COLUMNS.len() as u8, 0];
    for column in COLUMNS {
        out.extend([0, 0, 0, 0, 9, 0]);
        out.extend(column);
        out.extend([1, b'c', 0]);
    }
    for row in 0..ROWS {
        let null = row % 3 == 0;
        match row % 2 {
            0 => out.push(0xD1),
            _ => out.extend([0xD2, u8::from(null) << 1]),
        }
        out.extend(row.to_le_bytes());
        match (null, row % 2) {
            (false, _) => out.extend([4, 1, 2, 3, 4]),
            (true, 0) => out.push(0),
            (true, _) => {}
        }
        let text = (row % 51 * 2) as u16;
        out.extend(text.to_le_bytes());
        out.resize(out.len() + usize::from(text), b'a');
        out.extend([9, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend([8, 0, 0, 0, 0, 0, 0, 0, 0]);
        let long = u64::from(row % 7 * 10);
        out.extend(long.to_le_bytes());
        if long > 0 {
            out.extend((long as u32).to_le_bytes());
            out.resize(out.len() + long as usize, 0);
        }
        out.extend([0; 4]);
    }
    out
}

#[test]
fn walker_and_meter_allocate_nothing_for_a_row_or_a_packet() {
    let response = response();
    let tariff = Arc::new(tariff());
    let purse = Pocket::new(&tariff);
    let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
    walker.begin_message();
    let mut meter = Meter::new(RequestKind::Batch, 1, Arc::clone(&tariff), 0);
    let mut packets = response.chunks(PACKET_BODY);
    for packet in packets.by_ref().take(PACKETS_BEFORE) {
        pass(&mut walker, &mut meter, &purse, packet);
    }
    let before = walker.rows();
    let (state, most) = peak(|| {
        packets.fold(SlotState::default(), |_, packet| {
            pass(&mut walker, &mut meter, &purse, packet)
        })
    });
    assert!(
        walker.at_boundary() && walker.rows() - before > 20_000,
        "{} rows",
        walker.rows()
    );
    assert_eq!(state.rows, u64::from(ROWS));
    assert_eq!(state.cost_nanos, tariff.cost_nanos(&meter.totals));
    assert_eq!(most, 0, "bytes were allocated on the way");
}

/// A packet: credit, its rows as far as the credit goes, what they cost, what the slot gets.
fn pass(walker: &mut Walker, meter: &mut Meter, purse: &Pocket, packet: &[u8]) -> SlotState {
    let bytes = packet.len() as u64;
    let mut till = Till::new(purse);
    assert!(till.refill(meter.next_row_nanos(bytes), meter.worst_nanos(bytes)));
    let lease = till.lease().unwrap().clone();
    if meter.lease_number() != lease.number {
        meter.bind(lease, purse.attach(1));
    }
    let mut budget = meter.budget(till.nanos(), bytes);
    let rows = walker.rows();
    let mut rest = packet;
    while !rest.is_empty() {
        let walk = walker.walk(rest, &mut budget).unwrap();
        assert_ne!(walk.step, Step::BudgetSpent);
        rest = &rest[walk.consumed..];
    }
    meter.totals.rows += walker.rows() - rows;
    meter.totals.bytes_out += bytes;
    assert_eq!(till.spend(meter.pay()), 0);
    meter.slot_state()
}

fn tariff() -> Tariff {
    Tariff {
        version: "t@1".into(),
        per_request_nanos: 5,
        per_row_nanos: 10,
        per_kib_out_nanos: 3,
        per_kib_in_nanos: 0,
        per_bulk_row_nanos: 0,
        per_server_second_nanos: 0,
    }
}

/// A purse that is a number.
struct Pocket {
    left: AtomicI64,
    lease: LeaseView,
}

impl Pocket {
    fn new(tariff: &Arc<Tariff>) -> Self {
        Self {
            left: AtomicI64::new(1 << 50),
            lease: LeaseView {
                number: 1,
                id: LeaseId {
                    proxy: ProxyId(uuid::Uuid::nil()),
                    epoch: 1,
                    number: 1,
                },
                tariff: Arc::clone(tariff),
            },
        }
    }
}

impl Purse for Pocket {
    fn take(&self, _: i64, want: i64) -> Option<Slice> {
        self.left.fetch_sub(want, Ordering::Relaxed);
        Some(Slice {
            nanos: want,
            lease: self.lease.clone(),
        })
    }

    fn spent(&self, _: u32, _: i64) {}

    fn give_back(&self, _: u32, nanos: i64) {
        self.left.fetch_add(nanos, Ordering::Relaxed);
    }

    fn overdraw(&self, _: u32, _: i64) {
        panic!("the budget did not hold");
    }

    fn attach(&self, _: u32) -> LeaseGuard {
        Box::new(())
    }

    fn is_closing(&self, _: u32) -> bool {
        false
    }

    fn state(&self) -> AccountState {
        panic!("nobody asks")
    }
}
