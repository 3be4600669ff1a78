//! Double entry: every event is postings that sum to zero in its wallet's currency. Pure.

pub mod account;
pub mod hold;
pub mod posting;

pub use account::LedgerAccount;
pub use posting::{Posting, TrialBalance, postings};
