//! Events change the wallet here and nowhere else; replaying a stream gives the same wallet.

use weir_contracts::money::{Amount, MoneyError};

use super::{
    event::{Event, Recorded},
    ids::HoldId,
    state::{Status, Wallet},
};
use crate::ledger::hold::Hold;

/// An event that does not fit the wallet: the store was damaged or another program wrote to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {position} of wallet {wallet} does not fit: {why}")]
pub struct Corrupt {
    /// The event's place.
    pub position: u64,
    /// The wallet's id.
    pub wallet: String,
    /// What does not fit.
    pub why: String,
}

/// The wallet after `recorded`; `wallet` is `None` before its first event.
pub fn apply(wallet: Option<Wallet>, recorded: &Recorded) -> Result<Wallet, Corrupt> {
    let corrupt = |why: String| Corrupt {
        position: recorded.position,
        wallet: recorded.wallet.to_string(),
        why,
    };
    let mut wallet = match (wallet, &recorded.event) {
        (Some(_), Event::Opened { .. }) => return Err(corrupt("opened twice".to_owned())),
        (Some(wallet), _) => wallet,
        (None, Event::Opened { user, currency }) => Wallet {
            id: recorded.wallet,
            user: user.clone(),
            currency: *currency,
            status: Status::Active,
            available: Amount::ZERO,
            held: Amount::ZERO,
            receivable: Amount::ZERO,
            holds: std::collections::BTreeMap::new(),
            version: 0,
            position: 0,
            created_at: recorded.at,
            updated_at: recorded.at,
        },
        (None, _) => return Err(corrupt("not opened".to_owned())),
    };
    if recorded.wallet != wallet.id || recorded.version != wallet.version + 1 {
        return Err(corrupt(format!(
            "version {} after {}",
            recorded.version, wallet.version
        )));
    }
    wallet
        .change(&recorded.event)
        .map_err(|e| corrupt(e.to_string()))?;
    wallet.version = recorded.version;
    wallet.position = recorded.position;
    wallet.updated_at = recorded.at;
    Ok(wallet)
}

impl Wallet {
    fn change(&mut self, event: &Event) -> Result<(), MoneyError> {
        match event {
            Event::Opened { .. } => {}
            Event::ToppedUp {
                amount,
                to_receivable,
                ..
            } => self.put(*amount, *to_receivable)?,
            Event::Withdrawn { amount, .. } => self.available = less(self.available, *amount)?,
            Event::HoldPlaced { hold, by } => {
                let entry = self.holds.entry(hold.clone()).or_insert_with(Hold::empty);
                entry.total = entry.total.add(*by)?;
                self.available = less(self.available, *by)?;
                self.held = self.held.add(*by)?;
            }
            Event::Captured {
                hold,
                from_hold,
                from_available,
                to_receivable,
                ..
            } => {
                if let Some(hold) = hold {
                    self.capture_from(hold, *from_hold)?;
                }
                self.available = less(self.available, *from_available)?;
                self.receivable = self.receivable.add(*to_receivable)?;
            }
            Event::HoldReleased {
                hold,
                amount,
                to_receivable,
            } => {
                self.holds.remove(hold);
                self.held = less(self.held, *amount)?;
                self.put(*amount, *to_receivable)?;
            }
            Event::StatusChanged { status, .. } => self.status = *status,
        }
        Ok(())
    }

    /// Money that becomes free: first to what is owed, the rest to what is available.
    fn put(&mut self, amount: Amount, to_receivable: Amount) -> Result<(), MoneyError> {
        self.receivable = less(self.receivable, to_receivable)?;
        self.available = self.available.add(less(amount, to_receivable)?)?;
        Ok(())
    }

    fn capture_from(&mut self, hold: &HoldId, amount: Amount) -> Result<(), MoneyError> {
        if amount.is_zero() {
            return Ok(());
        }
        let entry = self.holds.get_mut(hold).ok_or(MoneyError::OutOfRange)?;
        less(entry.rest(), amount)?;
        entry.captured = entry.captured.add(amount)?;
        self.held = less(self.held, amount)?;
        Ok(())
    }
}

/// `a - b`, which must not be negative.
fn less(a: Amount, b: Amount) -> Result<Amount, MoneyError> {
    let rest = a.sub(b)?;
    if rest.is_negative() {
        Err(MoneyError::OutOfRange)
    } else {
        Ok(rest)
    }
}
