//! Tariff versions as operators write them: decimal prices in one currency. A version never changes.

use serde::{Deserialize, Serialize};
use weir_contracts::{
    money::{Amount, Currency},
    tariff::Tariff,
};

/// Longest version name, bytes.
pub const VERSION_LEN_MAX: usize = 64;

/// A tariff with its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedTariff {
    /// The prices.
    pub tariff: Tariff,
    /// What they are in.
    pub currency: Currency,
}

/// Prices as decimal strings; what is left out is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each field is a price named by its unit")]
pub struct Prices {
    pub currency: Currency,
    #[serde(default)]
    pub per_request: Amount,
    #[serde(default)]
    pub per_row: Amount,
    #[serde(default)]
    pub per_kib_out: Amount,
    #[serde(default)]
    pub per_kib_in: Amount,
    #[serde(default)]
    pub per_bulk_row: Amount,
    #[serde(default)]
    pub per_server_second: Amount,
}

/// Why prices are not a tariff.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TariffError {
    /// The version's name.
    #[error("a version is 1 to 64 of a-z 0-9 _ . @ -, for example demo@1")]
    Version,
    /// Below zero or too large for the data path.
    #[error("`{0}` must not be negative and at most 1000000")]
    Price(&'static str),
}

/// Largest single price, nano-units: a million units.
const PRICE_MAX_NANOS: i64 = 1_000_000 * 1_000_000_000;

impl Prices {
    /// The tariff version that these prices make.
    pub fn tariff(&self, version: &str) -> Result<PricedTariff, TariffError> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.@-".contains(&b);
        if !(1..=VERSION_LEN_MAX).contains(&version.len()) || !version.bytes().all(known) {
            return Err(TariffError::Version);
        }
        let price = |name, amount: Amount| match amount.to_i64() {
            Some(nanos) if (0..=PRICE_MAX_NANOS).contains(&nanos) => Ok(nanos),
            _ => Err(TariffError::Price(name)),
        };
        let tariff = Tariff {
            version: version.to_owned(),
            per_request_nanos: price("per_request", self.per_request)?,
            per_row_nanos: price("per_row", self.per_row)?,
            per_kib_out_nanos: price("per_kib_out", self.per_kib_out)?,
            per_kib_in_nanos: price("per_kib_in", self.per_kib_in)?,
            per_bulk_row_nanos: price("per_bulk_row", self.per_bulk_row)?,
            per_server_second_nanos: price("per_server_second", self.per_server_second)?,
        };
        Ok(PricedTariff {
            tariff,
            currency: self.currency,
        })
    }
}

impl From<&PricedTariff> for Prices {
    fn from(priced: &PricedTariff) -> Self {
        let t = &priced.tariff;
        Self {
            currency: priced.currency,
            per_request: t.per_request_nanos.into(),
            per_row: t.per_row_nanos.into(),
            per_kib_out: t.per_kib_out_nanos.into(),
            per_kib_in: t.per_kib_in_nanos.into(),
            per_bulk_row: t.per_bulk_row_nanos.into(),
            per_server_second: t.per_server_second_nanos.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_decimal_strings_and_never_negative() {
        let prices: Prices = serde_json::from_str(r#"{"currency":"USD","per_row":"0.000010"}"#).unwrap();
        let priced = prices.tariff("demo@1").unwrap();
        assert_eq!(priced.tariff.per_row_nanos, 10_000);
        assert_eq!(Prices::from(&priced), prices);
        assert_eq!(prices.tariff("Demo 1"), Err(TariffError::Version));
        let gift = Prices {
            per_row: Amount::from_nanos(-1),
            ..prices
        };
        assert_eq!(gift.tariff("demo@1"), Err(TariffError::Price("per_row")));
    }
}
