//! Reconciliation: Σ usage × tariff = Σ charges = Σ captures = Σ read-model transactions = Σ financial items, and postings
//! sum to zero. Compared charge by charge, so a difference has a name; two that cancel out are two differences.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_contracts::{ids::AccountId, ids::LeaseId, money::Amount, money::Currency};

/// One charge as every place has it.
#[derive(Debug, Clone)]
pub struct BookedLine {
    /// The charge's id.
    pub id: String,
    /// Who pays.
    pub account: AccountId,
    /// From which hold.
    pub lease: Option<LeaseId>,
    /// In what.
    pub currency: Currency,
    /// Its state's name.
    pub state: &'static str,
    /// Sum of its entries.
    pub usage: Amount,
    /// Its amount.
    pub charge: Amount,
    /// What the wallet captured under its id.
    pub capture: Option<Amount>,
    /// What the wallet's read model shows for that transaction.
    pub read_model: Option<Amount>,
    /// Its financial item.
    pub item: Option<Amount>,
}

/// All that is compared.
#[derive(Debug, Default)]
pub struct Books {
    /// Every charge up to the mark.
    pub lines: Vec<BookedLine>,
    /// False when no read model is configured.
    pub with_read_model: bool,
    /// What does not add up already by itself: mistakes of rating, blocked streams, strangers in the wallet.
    pub complaints: Vec<String>,
    /// Sum of all postings, by currency.
    pub postings: BTreeMap<String, Amount>,
}

/// Sums over all charges compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "each field is a sum named by where it was read")]
pub struct Sums {
    pub usage: Amount,
    pub charges: Amount,
    pub captures: Amount,
    pub read_model: Option<Amount>,
    pub items: Amount,
    pub postings: Amount,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Everything is equal.
    pub ok: bool,
    /// In words; none when ok.
    pub first_difference: Option<String>,
    /// Number of differences.
    pub differences: usize,
    /// Charges compared.
    pub charges: usize,
    /// Of the first currency; there is one in most installs.
    pub sums: Sums,
    /// Of each currency.
    pub by_currency: BTreeMap<String, Sums>,
}

/// Compares.
#[must_use]
pub fn verdict(books: &Books) -> Verdict {
    let mut differences: Vec<String> = Vec::new();
    let mut by_currency: BTreeMap<String, Sums> = BTreeMap::new();
    for line in &books.lines {
        differences.extend(difference(line, books.with_read_model));
        add(
            by_currency.entry(line.currency.code().to_owned()).or_default(),
            line,
            books.with_read_model,
        );
    }
    differences.extend(books.complaints.iter().cloned());
    for (currency, total) in &books.postings {
        by_currency.entry(currency.clone()).or_default().postings = *total;
        if !total.is_zero() {
            differences.push(format!(
                "the wallet's postings in {currency} sum to {total}, not to zero"
            ));
        }
    }
    if books.with_read_model {
        for sums in by_currency.values_mut() {
            sums.read_model.get_or_insert(Amount::ZERO);
        }
    }
    Verdict {
        ok: differences.is_empty(),
        differences: differences.len(),
        first_difference: differences.into_iter().next(),
        charges: books.lines.len(),
        sums: by_currency.values().next().copied().unwrap_or_default(),
        by_currency,
    }
}

/// Bound: sums stay within the ledger's own range; beyond it they saturate, and the lines still compare.
fn add(sums: &mut Sums, line: &BookedLine, with_read_model: bool) {
    let plus = |to: &mut Amount, more: Option<Amount>| {
        let more = more.unwrap_or_default();
        *to = to.add(more).unwrap_or(*to);
    };
    plus(&mut sums.usage, Some(line.usage));
    plus(&mut sums.charges, Some(line.charge));
    plus(&mut sums.captures, line.capture);
    plus(&mut sums.items, line.item);
    if with_read_model {
        plus(sums.read_model.get_or_insert(Amount::ZERO), line.read_model);
    }
}

fn difference(line: &BookedLine, with_read_model: bool) -> Option<String> {
    let places = [
        ("its usage", Some(line.usage), true),
        ("the wallet's capture", line.capture, true),
        ("the wallet's read model", line.read_model, with_read_model),
        ("its financial item", line.item, true),
    ];
    let (name, amount, _) = places
        .into_iter()
        .find(|(_, amount, compared)| *compared && *amount != Some(line.charge))?;
    let found = amount.map_or_else(|| "missing".to_owned(), |a| a.to_string());
    let lease = line.lease.map(|l| format!(", lease {l}")).unwrap_or_default();
    Some(format!(
        "charge {} of account {}{lease} is {} {} ({}), {name} is {found}",
        line.id, line.account, line.charge, line.currency, line.state
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(nanos: i128) -> BookedLine {
        let amount = Amount::from_nanos(nanos);
        BookedLine {
            id: "p.1.1".into(),
            account: "demo".parse().unwrap(),
            lease: None,
            currency: Currency::USD,
            state: "itemized",
            usage: amount,
            charge: amount,
            capture: Some(amount),
            read_model: Some(amount),
            item: Some(amount),
        }
    }

    fn books(lines: Vec<BookedLine>) -> Books {
        Books {
            lines,
            with_read_model: true,
            postings: BTreeMap::from([("USD".to_owned(), Amount::ZERO)]),
            ..Books::default()
        }
    }

    #[test]
    fn equal_books_are_ok() {
        let verdict = verdict(&books(vec![line(5), line(7)]));
        assert!(verdict.ok, "{verdict:?}");
        assert_eq!(verdict.sums.items, Amount::from_nanos(12));
        assert_eq!(verdict.sums.read_model, Some(Amount::from_nanos(12)));
    }

    #[test]
    fn each_place_that_differs_is_named() {
        let other = Some(Amount::from_nanos(6));
        for (changed, name) in [
            (
                BookedLine {
                    usage: Amount::from_nanos(4),
                    ..line(5)
                },
                "its usage",
            ),
            (
                BookedLine {
                    capture: other,
                    ..line(5)
                },
                "the wallet's capture",
            ),
            (
                BookedLine {
                    read_model: None,
                    ..line(5)
                },
                "the wallet's read model is missing",
            ),
            (
                BookedLine {
                    item: None,
                    ..line(5)
                },
                "its financial item is missing",
            ),
        ] {
            let verdict = verdict(&books(vec![line(5), changed]));
            assert!(!verdict.ok);
            let named = verdict.first_difference.unwrap();
            assert!(named.contains(name), "{named}");
        }
    }

    #[test]
    fn differences_that_cancel_out_and_postings_that_do_not_are_found() {
        let more = BookedLine {
            capture: Some(Amount::from_nanos(6)),
            ..line(5)
        };
        let less = BookedLine {
            capture: Some(Amount::from_nanos(4)),
            ..line(5)
        };
        assert_eq!(verdict(&books(vec![more, less])).differences, 2);
        let mut uneven = books(vec![line(5)]);
        uneven.postings.insert("USD".into(), Amount::from_nanos(1));
        assert!(!verdict(&uneven).ok);
    }

    #[test]
    fn without_a_read_model_it_is_left_out() {
        let mut without = books(vec![BookedLine {
            read_model: None,
            ..line(5)
        }]);
        without.with_read_model = false;
        let verdict = verdict(&without);
        assert!(verdict.ok);
        assert_eq!(verdict.sums.read_model, None);
    }
}
