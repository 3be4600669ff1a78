//! What both billing stores make of their rows, and what they answer: written once, so that they cannot differ.

mod answers;
mod rows;
mod usage;

pub(super) use answers::{Named, account_there, decided, login_taken, rated, tariff_there};
pub(super) use rows::{
    EntryColumns, account, account_totals, booked_charge, charge, known_start, lease, place, priced,
    proxy_mark, usage_part, word,
};
pub(super) use usage::{AddedUp, Part, entry_id};

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use weir_contracts::money::Amount;

/// Differences that reconciliation names in one answer; the first is what an operator needs.
pub(super) const NAMED_MAX: i64 = 20;

/// Something stored does not parse: broken, or written by a newer program.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) String);

impl Unreadable {
    pub(super) fn new(what: impl Display) -> Self {
        Self(what.to_string())
    }
}

/// A row of either database, columns from 0.
pub(super) trait Columns {
    /// Why a column cannot be had.
    type Error: From<Unreadable>;

    fn text(&self, column: usize) -> Result<String, Self::Error>;
    fn text_or_null(&self, column: usize) -> Result<Option<String>, Self::Error>;
    fn int(&self, column: usize) -> Result<i64, Self::Error>;
    /// Money, exact, in whichever form the database keeps it.
    fn amount(&self, column: usize) -> Result<Amount, Self::Error>;

    fn count(&self, column: usize) -> Result<u64, Self::Error> {
        self.int(column).map(from_db)
    }

    /// Money as the data path counts it.
    fn nanos(&self, column: usize) -> Result<i64, Self::Error> {
        let amount = self.amount(column)?;
        let nanos = amount.to_i64();
        nanos.ok_or_else(|| {
            Unreadable::new(format!("{amount} is more than a lease or a record can cost")).into()
        })
    }

    fn parsed<T: FromStr<Err: Display>>(&self, column: usize) -> Result<T, Self::Error> {
        parse(&self.text(column)?).map_err(Into::into)
    }

    fn parsed_or_null<T: FromStr<Err: Display>>(&self, column: usize) -> Result<Option<T>, Self::Error> {
        let text = self.text_or_null(column)?;
        text.map(|t| parse(&t)).transpose().map_err(Into::into)
    }

    /// A value of one of our enums, as JSON has it.
    fn of_word<T: DeserializeOwned>(&self, column: usize) -> Result<T, Self::Error> {
        let word = serde_json::Value::String(self.text(column)?);
        serde_json::from_value(word).map_err(|e| Unreadable::new(e).into())
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Unreadable> {
    text.parse().map_err(Unreadable::new)
}

/// Counts are stored as `i64`; what came in was checked to fit.
pub(super) fn to_db(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The reverse; a negative count in the database is zero.
pub(super) fn from_db(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// How many rows are asked for.
pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
