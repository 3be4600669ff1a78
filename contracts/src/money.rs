//! Money: a fixed-point integer of nano-units in an `i128`, with a currency; decimal strings at every edge.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nano-units in one unit of currency: nine fraction digits, as `DECIMAL(28,9)` in every database.
pub const NANOS_PER_UNIT: i128 = 1_000_000_000;

/// Largest absolute amount: what `DECIMAL(28,9)` holds.
pub const MAX_NANOS: i128 = 10_i128.pow(28) - 1;

/// Why a text or a sum is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not `[-]digits[.digits]`.
    #[error("not a decimal number: write it like 12.34")]
    Syntax,
    /// More than nine fraction digits: would have to be rounded, so it is refused.
    #[error("more than nine digits after the point")]
    TooFine,
    /// Does not fit `DECIMAL(28,9)`.
    #[error("amount out of range: at most 19 digits before the point")]
    OutOfRange,
    /// Not one of the currencies that wallets have.
    #[error("unknown currency: use USD, EUR, INR or GBP")]
    Currency,
}

/// A signed amount in nano-units of some currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(i128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount of `nanos` nano-units. Bound: callers stay within [`MAX_NANOS`]; arithmetic here is checked.
    #[must_use]
    pub const fn from_nanos(nanos: i128) -> Self {
        Self(nanos)
    }

    /// The amount in nano-units.
    #[must_use]
    pub const fn nanos(self) -> i128 {
        self.0
    }

    /// The amount as the data path counts it; `None` beyond ±9.2 billion units.
    #[must_use]
    pub fn to_i64(self) -> Option<i64> {
        i64::try_from(self.0).ok()
    }

    /// Sum, or `OutOfRange`.
    #[expect(
        clippy::should_implement_trait,
        reason = "the trait could not answer with an error"
    )]
    pub fn add(self, other: Self) -> Result<Self, MoneyError> {
        Self::checked(self.0.checked_add(other.0))
    }

    /// Difference, or `OutOfRange`.
    #[expect(
        clippy::should_implement_trait,
        reason = "the trait could not answer with an error"
    )]
    pub fn sub(self, other: Self) -> Result<Self, MoneyError> {
        Self::checked(self.0.checked_sub(other.0))
    }

    /// The amount with its sign turned.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(-self.0)
    }

    /// True below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// True at zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    fn checked(nanos: Option<i128>) -> Result<Self, MoneyError> {
        match nanos {
            Some(n) if n.unsigned_abs() <= MAX_NANOS.unsigned_abs() => Ok(Self(n)),
            _ => Err(MoneyError::OutOfRange),
        }
    }
}

impl From<i64> for Amount {
    fn from(nanos: i64) -> Self {
        Self(i128::from(nanos))
    }
}

impl fmt::Display for Amount {
    /// At least two fraction digits, no trailing zeros beyond them: `5.00`, `0.00001`, `-3.50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        let unit = NANOS_PER_UNIT.unsigned_abs();
        let fraction = format!("{:09}", nanos % unit);
        let kept = fraction.trim_end_matches('0').len().max(2);
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(
            f,
            "{sign}{}.{}",
            nanos / unit,
            fraction.get(..kept).unwrap_or(&fraction)
        )
    }
}

impl FromStr for Amount {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
            return Err(MoneyError::Syntax);
        }
        if fraction.len() > 9 {
            return Err(MoneyError::TooFine);
        }
        if whole.trim_start_matches('0').len() > 19 {
            return Err(MoneyError::OutOfRange);
        }
        let units: i128 = whole.parse().map_err(|_| MoneyError::OutOfRange)?;
        let nanos: i128 = format!("{fraction:0<9}")
            .parse()
            .map_err(|_| MoneyError::Syntax)?;
        let total = units
            .checked_mul(NANOS_PER_UNIT)
            .and_then(|n| n.checked_add(nanos));
        Self::checked(total.map(|n| if negative { -n } else { n }))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A wallet's currency (ISO 4217).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the ISO 4217 codes")]
pub enum Currency {
    USD,
    EUR,
    INR,
    GBP,
}

impl Currency {
    /// The ISO 4217 code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::USD => "USD",
            Self::EUR => "EUR",
            Self::INR => "INR",
            Self::GBP => "GBP",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        [Self::USD, Self::EUR, Self::INR, Self::GBP]
            .into_iter()
            .find(|c| c.code() == text)
            .ok_or(MoneyError::Currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_round_trip() {
        for (text, nanos, shown) in [
            ("0", 0, "0.00"),
            ("5", 5_000_000_000, "5.00"),
            ("5.00", 5_000_000_000, "5.00"),
            ("0.000010", 10_000, "0.00001"),
            ("-3.5", -3_500_000_000, "-3.50"),
            ("0.000000001", 1, "0.000000001"),
            (
                "9999999999999999999.999999999",
                MAX_NANOS,
                "9999999999999999999.999999999",
            ),
        ] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(amount.nanos(), nanos, "{text}");
            assert_eq!(amount.to_string(), shown);
            assert_eq!(shown.parse::<Amount>().unwrap(), amount);
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused_with_its_reason() {
        for (text, error) in [
            ("", MoneyError::Syntax),
            ("-", MoneyError::Syntax),
            (".5", MoneyError::Syntax),
            ("5.", MoneyError::Syntax),
            ("1e3", MoneyError::Syntax),
            ("+1", MoneyError::Syntax),
            ("1.0000000001", MoneyError::TooFine),
            ("10000000000000000000", MoneyError::OutOfRange),
        ] {
            assert_eq!(text.parse::<Amount>(), Err(error), "{text}");
        }
        assert_eq!(
            Amount::from_nanos(MAX_NANOS).add(Amount::from_nanos(1)),
            Err(MoneyError::OutOfRange)
        );
    }
}
