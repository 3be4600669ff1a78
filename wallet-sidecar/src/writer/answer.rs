//! Answers to commands, the keys that make them repeatable, and what can go wrong.

use serde::{Deserialize, Serialize};
use weir_contracts::{event::WalletUpdated, ids::IdError, money::Amount};

use crate::{
    ports::event_store::StoreError,
    wallet::{HoldId, Refusal, WalletId, command::REFERENCE_BYTES_MAX},
};

/// Names a command for ever: the same key never does two things. Namespaces keep callers from meeting each other's keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// A key that a gRPC caller chose.
    pub fn of_service(text: &str) -> Result<Self, IdError> {
        Self::checked("grpc", text)
    }

    /// A key that a REST caller chose.
    pub fn of_person(text: &str) -> Result<Self, IdError> {
        Self::checked("rest", text)
    }

    /// The key of a hold's release: also the proof that the hold is over.
    #[must_use]
    pub fn of_release(wallet: WalletId, hold: &HoldId) -> Self {
        Self(format!("release/{wallet}/{hold}"))
    }

    fn checked(namespace: &str, text: &str) -> Result<Self, IdError> {
        if (1..=REFERENCE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(format!("{namespace}/{text}")))
        } else {
            let shown = text.chars().take(64).collect();
            Err(IdError(
                shown,
                "key (1 to 200 printable ASCII characters, no spaces)",
            ))
        }
    }

    /// The key as it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a command led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The transaction that was recorded, if one was.
    pub txn_id: Option<String>,
    /// For `PlaceHold`: the hold's cumulative total.
    pub held_total: Option<Amount>,
    /// The wallet after it.
    pub wallet: WalletUpdated,
}

/// Why a command was not done, or is not known to be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The wallet refused; the caller's to mend.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The key was used for another command; the caller's to mend.
    #[error("the key was used for a command with other content: use a new key")]
    KeyReused,
    /// Not answered in time: ask again with the same key.
    #[error("the wallet service did not answer in time: ask again with the same key")]
    Late,
    /// The service is stopping: ask again later with the same key.
    #[error("the wallet service is stopping: ask again with the same key")]
    Stopped,
    /// The store failed: ask again later with the same key.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommandError {
    /// The error's name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::KeyReused => "KEY_REUSED",
            Self::Late => "DEADLINE",
            Self::Stopped => "STOPPING",
            Self::Store(_) => "STORE_UNAVAILABLE",
        }
    }
}
