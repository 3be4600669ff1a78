//! The wallet: commands in, events out. Pure and synchronous: no clock, no store, no chance.
//!
//! Invariants, after every event: `available >= 0`, every hold's rest `>= 0`, `balance = available + held`,
//! `receivable > 0` only when `available = 0`, and the sum of the transactions = `balance - receivable`.

pub mod apply;
pub mod command;
pub mod decide;
pub mod event;
pub mod ids;
pub mod state;

pub use apply::Corrupt;
pub use command::{Command, Move};
pub use decide::{Refusal, decide};
pub use event::{Event, Recorded};
pub use ids::{HoldId, TxnId, UserId, WalletId};
pub use state::{Status, Wallet};
