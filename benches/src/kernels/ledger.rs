//! The ledger: captures out of a lease's hold, decided, posted and applied.

use jiff::Timestamp;
use weir_contracts::money::Amount;
use weir_wallet::ledger::posting::{balanced, postings};
use weir_wallet::wallet::decide::Facts;
use weir_wallet::wallet::{Command, Event, HoldId, Recorded, Wallet, WalletId, apply, decide};

use super::Work;
use crate::failure::{Failure, Trying};

/// Captures of a turn.
const CAPTURES: u64 = 200;
/// Nano-units of a capture, and of a turn's hold.
const CAPTURE: i128 = 1_234_567;
const HOLD: i128 = CAPTURE * CAPTURES as i128;

/// A wallet and its events so far.
struct Book {
    id: WalletId,
    wallet: Option<Wallet>,
    version: u64,
}

impl Book {
    /// What a command leads to, posted and applied; the sum of what was captured.
    fn carry_out(&mut self, command: &Command) -> Result<i128, Failure> {
        let mut captured = 0;
        let events = decide(self.wallet.as_ref(), command, Facts::default()).trying("decide")?;
        for event in events {
            let sides = postings(&event);
            if !balanced(&sides) {
                return Err(Failure(format!("{sides:?} do not sum to zero")));
            }
            if let Event::Captured { from_hold, .. } = &event {
                captured += from_hold.nanos();
            }
            self.version += 1;
            let recorded = Recorded {
                position: self.version,
                wallet: self.id,
                version: self.version,
                at: Timestamp::UNIX_EPOCH,
                event,
            };
            self.wallet = Some(apply::apply(self.wallet.take(), &recorded).trying("apply")?);
        }
        Ok(captured)
    }
}

pub(super) fn capture() -> Result<Work, Failure> {
    let user = "bench".parse().trying("user")?;
    let mut book = Book {
        id: WalletId::of_user(&user),
        wallet: None,
        version: 0,
    };
    let create = Command::Create {
        user,
        currency: "USD".parse().trying("currency")?,
        initial: Amount::from_nanos(HOLD << 40),
    };
    book.carry_out(&create)?;
    let hold: HoldId = "lease.1.1".parse().trying("hold")?;
    let capture = Command::Capture {
        hold: Some(hold.clone()),
        amount: Amount::from_nanos(CAPTURE),
        reference_id: "00000000000000000000000000000007.1.500".to_owned(),
        description: "20 requests, 400 rows, 40960 bytes at bench@1".to_owned(),
    };
    let mut total = 0;
    Ok(Box::new(move || {
        total += HOLD;
        let place = Command::PlaceHold {
            hold: hold.clone(),
            total: Amount::from_nanos(total),
        };
        book.carry_out(&place)?;
        let mut captured = 0;
        for _ in 0..CAPTURES {
            captured += book.carry_out(&capture)?;
        }
        let rest = book.wallet.as_ref().map(|wallet| wallet.held);
        if (captured, rest) == (HOLD, Some(Amount::ZERO)) {
            return Ok(CAPTURES);
        }
        Err(Failure(format!(
            "{captured} of {HOLD} were captured, {rest:?} is held"
        )))
    }))
}
