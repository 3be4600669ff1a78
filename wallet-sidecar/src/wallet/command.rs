//! What can be asked of a wallet. A command is validated text by text at the edge, and judged in `decide`.

use serde::Serialize;
use sha2::{Digest, Sha256};
use weir_contracts::money::{Amount, Currency};

use super::{
    ids::{HoldId, UserId, WalletId},
    state::Status,
};

/// Longest reference, reference type, key or reason, in bytes: a charge's id is a reference.
pub const REFERENCE_BYTES_MAX: usize = 200;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1000;

/// Money in or out, with what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// More than zero.
    pub amount: Amount,
    /// The currency that the caller believes the wallet has; checked when given.
    pub currency: Option<Currency>,
    /// What the caller calls it: a payment, an order.
    pub reference_id: String,
    /// What kind of thing `reference_id` names.
    pub reference_type: String,
    /// For people.
    pub description: String,
}

/// A command to one wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Makes the wallet, with credit if `initial` is more than zero.
    Create {
        /// Whose it is.
        user: UserId,
        /// Of everything in it.
        currency: Currency,
        /// Zero or more.
        initial: Amount,
    },
    /// Puts money in; what the wallet owes is paid first.
    TopUp(Move),
    /// Takes available money out.
    Withdraw(Move),
    /// Freezes, unfreezes or closes it.
    SetStatus {
        /// The status to have.
        status: Status,
        /// For people.
        reason: String,
    },
    /// Raises a hold's cumulative total to at most `total`.
    PlaceHold {
        /// Which hold.
        hold: HoldId,
        /// Cumulative, captures included; more than zero.
        total: Amount,
    },
    /// Takes money for usage that already happened: from the hold, then from what is available, then on the receivable.
    Capture {
        /// Which hold; `None` when the usage had none.
        hold: Option<HoldId>,
        /// More than zero.
        amount: Amount,
        /// The charge's id.
        reference_id: String,
        /// For people.
        description: String,
    },
    /// Gives the rest of a hold back and ends it for good.
    ReleaseHold {
        /// Which hold.
        hold: HoldId,
    },
}

impl Command {
    /// Digest of all that the command says: the same key with another digest is an error, never a replay.
    #[must_use]
    pub fn content_hash(&self, wallet: WalletId) -> [u8; 32] {
        // Serialization of these types into memory cannot fail; if it ever did, the empty text would refuse reuse of the key.
        let content = serde_json::to_vec(self).unwrap_or_default();
        let mut digest = Sha256::new();
        digest.update(wallet.0.as_bytes());
        digest.update(content);
        digest.finalize().into()
    }
}
