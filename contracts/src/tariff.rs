//! A tariff version and what a quantity costs under it: the one place where money is rounded.
//!
//! The proxy spends credit and billing charges with the same function, so both reach the same integer.

use serde::{Deserialize, Serialize};

/// Bytes in the KiB that prices count in.
pub const BYTES_PER_KIB: i128 = 1024;
/// Nanoseconds in the second that prices count in.
pub const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Prices in nano-units of the account's currency. A version never changes once it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is a price named by its unit")]
pub struct Tariff {
    /// For example `demo@1`.
    pub version: String,
    pub per_request_nanos: i64,
    pub per_row_nanos: i64,
    pub per_kib_out_nanos: i64,
    pub per_kib_in_nanos: i64,
    pub per_bulk_row_nanos: i64,
    pub per_server_second_nanos: i64,
}

/// What one usage record part measured, as far as money counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is a quantity named by its unit")]
pub struct Quantity {
    pub requests: u64,
    pub rows: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub bulk_rows: u64,
    pub server_nanos: u64,
}

impl Tariff {
    /// Cost of a quantity in nano-units. Byte and time prices are rounded up, once per call and price.
    ///
    /// Saturates at `i64::MAX`: a lease is capped far below, so a saturated cost is a refusal, never a gift.
    #[must_use]
    pub fn cost_nanos(&self, q: &Quantity) -> i64 {
        // Asked for each packet: what has no price costs no division.
        let whole = |price: i64, n: u64| i128::from(price) * i128::from(n);
        let part = |price: i64, n: u64, per: i128| match price {
            0 => 0,
            _ => (whole(price, n) + per - 1) / per,
        };
        let sum = whole(self.per_request_nanos, q.requests)
            .saturating_add(whole(self.per_row_nanos, q.rows))
            .saturating_add(whole(self.per_bulk_row_nanos, q.bulk_rows))
            .saturating_add(part(self.per_kib_out_nanos, q.bytes_out, BYTES_PER_KIB))
            .saturating_add(part(self.per_kib_in_nanos, q.bytes_in, BYTES_PER_KIB))
            .saturating_add(part(
                self.per_server_second_nanos,
                q.server_nanos,
                NANOS_PER_SECOND,
            ));
        i64::try_from(sum).unwrap_or(i64::MAX)
    }

    /// The least that a request which returns something costs: below it an account counts as out of credit.
    #[must_use]
    pub fn admission_nanos(&self) -> i64 {
        let first_byte = u64::from(self.per_row_nanos == 0);
        self.cost_nanos(&Quantity {
            requests: 1,
            rows: 1,
            bytes_out: first_byte,
            ..Quantity::default()
        })
        .max(1)
    }

    /// True when nothing under this tariff costs anything.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let Self {
            per_request_nanos,
            per_row_nanos,
            per_kib_out_nanos,
            per_kib_in_nanos,
            per_bulk_row_nanos,
            per_server_second_nanos,
            ..
        } = self;
        let prices = per_request_nanos | per_row_nanos | per_bulk_row_nanos;
        prices | per_kib_out_nanos | per_kib_in_nanos | per_server_second_nanos == 0
    }
}

impl From<&Tariff> for crate::proto::billing::Tariff {
    fn from(t: &Tariff) -> Self {
        Self {
            version: t.version.clone(),
            per_request_nanos: t.per_request_nanos,
            per_row_nanos: t.per_row_nanos,
            per_kib_out_nanos: t.per_kib_out_nanos,
            per_kib_in_nanos: t.per_kib_in_nanos,
            per_bulk_row_nanos: t.per_bulk_row_nanos,
            per_server_second_nanos: t.per_server_second_nanos,
        }
    }
}

impl From<crate::proto::billing::Tariff> for Tariff {
    fn from(t: crate::proto::billing::Tariff) -> Self {
        Self {
            version: t.version,
            per_request_nanos: t.per_request_nanos,
            per_row_nanos: t.per_row_nanos,
            per_kib_out_nanos: t.per_kib_out_nanos,
            per_kib_in_nanos: t.per_kib_in_nanos,
            per_bulk_row_nanos: t.per_bulk_row_nanos,
            per_server_second_nanos: t.per_server_second_nanos,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Tariff {
        Tariff {
            version: "demo@1".into(),
            per_request_nanos: 0,
            per_row_nanos: 10_000,
            per_kib_out_nanos: 0,
            per_kib_in_nanos: 0,
            per_bulk_row_nanos: 0,
            per_server_second_nanos: 0,
        }
    }

    #[test]
    fn five_units_buy_half_a_million_rows_at_the_demo_tariff() {
        assert_eq!(
            demo().cost_nanos(&Quantity {
                rows: 500_000,
                ..Quantity::default()
            }),
            5_000_000_000
        );
        assert_eq!(demo().admission_nanos(), 10_000);
        assert!(!demo().is_free());
    }

    #[test]
    fn a_begun_kib_is_rounded_up_once_and_large_sums_saturate() {
        let tariff = Tariff {
            per_kib_out_nanos: 1000,
            per_row_nanos: 0,
            ..demo()
        };
        assert_eq!(
            tariff.cost_nanos(&Quantity {
                bytes_out: 1,
                ..Quantity::default()
            }),
            1
        );
        assert_eq!(
            tariff.cost_nanos(&Quantity {
                bytes_out: 1024,
                ..Quantity::default()
            }),
            1000
        );
        assert_eq!(
            tariff.cost_nanos(&Quantity {
                bytes_out: 1025,
                ..Quantity::default()
            }),
            1001
        );
        assert_eq!(
            demo().cost_nanos(&Quantity {
                rows: u64::MAX,
                ..Quantity::default()
            }),
            i64::MAX
        );
    }
}
