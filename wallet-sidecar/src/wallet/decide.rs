//! What a wallet does with a command: events, or a refusal with its reason. Pure: everything it knows is in its arguments.

use weir_contracts::money::{Amount, Currency, MAX_NANOS};

use super::{
    command::{Command, Move},
    event::Event,
    ids::{HoldId, UserId},
    state::{Status, Wallet},
};

/// Most holds that a wallet may have open at once: one per credit lease, so far beyond any fleet of proxies.
pub const OPEN_HOLDS_MAX: usize = 10_000;

/// Why a wallet refuses a command. The caller's to mend; asking again does not help until something changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such wallet.
    #[error("there is no such wallet")]
    UnknownWallet,
    /// The user has a wallet already.
    #[error("the user has a wallet already")]
    WalletExists,
    /// Frozen: no holds, no withdrawals.
    #[error("the wallet is frozen: unfreeze it first")]
    Frozen,
    /// Closed for good.
    #[error("the wallet is closed")]
    Closed,
    /// Not enough is available.
    #[error("insufficient funds: {available} {currency} available, {asked} asked")]
    InsufficientFunds {
        /// What could be taken.
        available: Amount,
        /// What was asked.
        asked: Amount,
        /// Of both.
        currency: Currency,
    },
    /// Zero or less.
    #[error("the amount must be more than zero")]
    NotPositive,
    /// The balance would not fit `DECIMAL(28,9)`.
    #[error("the amount is out of range")]
    OutOfRange,
    /// The caller believes in another currency.
    #[error("the wallet's currency is {wallet}, the command's {command}")]
    OtherCurrency {
        /// Of the wallet.
        wallet: Currency,
        /// Of the command.
        command: Currency,
    },
    /// The hold was released: it cannot be used again.
    #[error("the hold was released: use a new one")]
    HoldReleased,
    /// More holds than [`OPEN_HOLDS_MAX`].
    #[error("too many open holds: release some first")]
    TooManyHolds,
    /// Money is in it, held or owed.
    #[error(
        "the wallet cannot be closed: balance {balance}, held {held}, owed {receivable}; settle these first"
    )]
    NotSettled {
        /// What is in it.
        balance: Amount,
        /// Part of it that is held.
        held: Amount,
        /// What the user owes.
        receivable: Amount,
    },
}

impl Refusal {
    /// The refusal's name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownWallet => "WALLET_NOT_FOUND",
            Self::WalletExists => "WALLET_EXISTS",
            Self::Frozen => "WALLET_FROZEN",
            Self::Closed => "WALLET_CLOSED",
            Self::InsufficientFunds { .. } => "INSUFFICIENT_FUNDS",
            Self::NotPositive => "AMOUNT_NOT_POSITIVE",
            Self::OutOfRange => "AMOUNT_OUT_OF_RANGE",
            Self::OtherCurrency { .. } => "CURRENCY_MISMATCH",
            Self::HoldReleased => "HOLD_RELEASED",
            Self::TooManyHolds => "TOO_MANY_HOLDS",
            Self::NotSettled { .. } => "WALLET_NOT_SETTLED",
        }
    }
}

/// What the store knows that the wallet does not keep in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// The command's hold was released earlier (released holds are kept in the store alone: their number has no bound).
    pub hold_released: bool,
}

/// The events that the command leads to; none when it changes nothing.
pub fn decide(wallet: Option<&Wallet>, command: &Command, facts: Facts) -> Result<Vec<Event>, Refusal> {
    match (wallet, command) {
        (
            None,
            Command::Create {
                user,
                currency,
                initial,
            },
        ) => create(user, *currency, *initial),
        (Some(_), Command::Create { .. }) => Err(Refusal::WalletExists),
        (None, _) => Err(Refusal::UnknownWallet),
        (Some(w), Command::TopUp(m)) => top_up(w, m),
        (Some(w), Command::Withdraw(m)) => withdraw(w, m),
        (Some(w), Command::SetStatus { status, reason }) => set_status(w, *status, reason),
        (Some(w), Command::PlaceHold { hold, total }) => place_hold(w, hold, *total, facts),
        (
            Some(w),
            Command::Capture {
                hold,
                amount,
                reference_id,
                description,
            },
        ) => capture(w, hold.as_ref(), *amount, reference_id, description),
        (Some(w), Command::ReleaseHold { hold }) => Ok(release(w, hold)),
    }
}

fn create(user: &UserId, currency: Currency, initial: Amount) -> Result<Vec<Event>, Refusal> {
    if initial.is_negative() {
        return Err(Refusal::NotPositive);
    }
    let mut events = vec![Event::Opened {
        user: user.clone(),
        currency,
    }];
    if !initial.is_zero() {
        events.push(Event::ToppedUp {
            amount: initial,
            to_receivable: Amount::ZERO,
            balance_after: initial,
            reference_id: String::new(),
            reference_type: "initial_balance".to_owned(),
            description: "initial balance".to_owned(),
        });
    }
    Ok(events)
}

fn positive(amount: Amount) -> Result<Amount, Refusal> {
    if amount > Amount::ZERO {
        Ok(amount)
    } else {
        Err(Refusal::NotPositive)
    }
}

fn checked_move(w: &Wallet, m: &Move) -> Result<Amount, Refusal> {
    match m.currency {
        Some(command) if command != w.currency => Err(Refusal::OtherCurrency {
            wallet: w.currency,
            command,
        }),
        _ => positive(m.amount),
    }
}

fn sum(a: Amount, b: Amount) -> Result<Amount, Refusal> {
    a.add(b).map_err(|_| Refusal::OutOfRange)
}

fn top_up(w: &Wallet, m: &Move) -> Result<Vec<Event>, Refusal> {
    let amount = checked_move(w, m)?;
    if w.status == Status::Closed {
        return Err(Refusal::Closed);
    }
    let to_receivable = amount.min(w.receivable);
    let kept = Amount::from_nanos(amount.nanos() - to_receivable.nanos());
    Ok(vec![Event::ToppedUp {
        amount,
        to_receivable,
        balance_after: sum(w.balance(), kept)?,
        reference_id: m.reference_id.clone(),
        reference_type: m.reference_type.clone(),
        description: m.description.clone(),
    }])
}

fn withdraw(w: &Wallet, m: &Move) -> Result<Vec<Event>, Refusal> {
    let amount = checked_move(w, m)?;
    may_spend(w)?;
    if amount > w.available {
        return Err(Refusal::InsufficientFunds {
            available: w.available,
            asked: amount,
            currency: w.currency,
        });
    }
    Ok(vec![Event::Withdrawn {
        amount,
        balance_after: Amount::from_nanos(w.balance().nanos() - amount.nanos()),
        reference_id: m.reference_id.clone(),
        reference_type: m.reference_type.clone(),
        description: m.description.clone(),
    }])
}

fn may_spend(w: &Wallet) -> Result<(), Refusal> {
    match w.status {
        Status::Active => Ok(()),
        Status::Frozen => Err(Refusal::Frozen),
        Status::Closed => Err(Refusal::Closed),
    }
}

fn set_status(w: &Wallet, status: Status, reason: &str) -> Result<Vec<Event>, Refusal> {
    if w.status == status {
        return Ok(Vec::new());
    }
    if w.status == Status::Closed {
        return Err(Refusal::Closed);
    }
    if status == Status::Closed && (!w.balance().is_zero() || !w.receivable.is_zero()) {
        return Err(Refusal::NotSettled {
            balance: w.balance(),
            held: w.held,
            receivable: w.receivable,
        });
    }
    Ok(vec![Event::StatusChanged {
        status,
        reason: reason.to_owned(),
    }])
}

/// Grants what is available, up to the total: a partial grant is a grant, and `available = 0` is no event.
fn place_hold(w: &Wallet, hold: &HoldId, total: Amount, facts: Facts) -> Result<Vec<Event>, Refusal> {
    positive(total)?;
    may_spend(w)?;
    if facts.hold_released {
        return Err(Refusal::HoldReleased);
    }
    if total.nanos() > MAX_NANOS {
        return Err(Refusal::OutOfRange);
    }
    if !w.holds.contains_key(hold) && w.holds.len() >= OPEN_HOLDS_MAX {
        return Err(Refusal::TooManyHolds);
    }
    let more = total.nanos() - w.hold_total(hold).nanos();
    let by = Amount::from_nanos(more.min(w.available.nanos()));
    if by <= Amount::ZERO {
        return Ok(Vec::new());
    }
    Ok(vec![Event::HoldPlaced {
        hold: hold.clone(),
        by,
    }])
}

/// Never refused for status or funds: the usage has happened.
fn capture(
    w: &Wallet,
    hold: Option<&HoldId>,
    amount: Amount,
    reference_id: &str,
    description: &str,
) -> Result<Vec<Event>, Refusal> {
    let asked = positive(amount)?.nanos();
    let rest = hold.and_then(|h| w.holds.get(h)).map_or(0, |h| h.rest().nanos());
    let from_hold = asked.min(rest);
    let from_available = (asked - from_hold).min(w.available.nanos());
    let to_receivable = Amount::from_nanos(asked - from_hold - from_available);
    sum(w.receivable, to_receivable)?;
    Ok(vec![Event::Captured {
        hold: hold.cloned(),
        amount,
        from_hold: Amount::from_nanos(from_hold),
        from_available: Amount::from_nanos(from_available),
        to_receivable,
        balance_after: Amount::from_nanos(w.balance().nanos() - from_hold - from_available),
        reference_id: reference_id.to_owned(),
        description: description.to_owned(),
    }])
}

/// A hold that was never granted anything has no events; that it is over is kept by the command's key.
fn release(w: &Wallet, hold: &HoldId) -> Vec<Event> {
    let Some(open) = w.holds.get(hold) else {
        return Vec::new();
    };
    let amount = open.rest();
    vec![Event::HoldReleased {
        hold: hold.clone(),
        amount,
        to_receivable: amount.min(w.receivable),
    }]
}
