//! Identities of wallets, users, holds and transactions. None is made of time or chance.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_contracts::ids::IdError;

/// Namespace of the ids below: the same user has the same wallet id in every install.
const NAMESPACE: Uuid = Uuid::from_u128(0x6a1f_2c2e_5b1d_5d0c_9f3a_77e1_0d5e_1a01);
/// Longest user id, in bytes (a UUID has 36).
pub const USER_ID_BYTES_MAX: usize = 100;
/// Longest hold id, in bytes (a lease id has at most 64).
pub const HOLD_ID_BYTES_MAX: usize = 128;

/// A wallet: made of its user's id, since each user has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WalletId(pub Uuid);

impl WalletId {
    /// The wallet of a user.
    #[must_use]
    pub fn of_user(user: &UserId) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, format!("wallet/{user}").as_bytes()))
    }
}

impl fmt::Display for WalletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for WalletId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| IdError(text.chars().take(64).collect(), "wallet id (a UUID)"))
    }
}

/// A transaction: made of its place in its wallet's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TxnId(pub Uuid);

impl TxnId {
    /// Of the event with this version (from 1) in the wallet's stream.
    #[must_use]
    pub fn at(wallet: WalletId, version: u64) -> Self {
        Self(Uuid::new_v5(&wallet.0, format!("txn/{version}").as_bytes()))
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@/+".contains(&b);
                if (1..=$max).contains(&text.len()) && text.bytes().all(valid) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError(text.chars().take(64).collect(), $what))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Whose wallet it is: a UUID, or the name of an account.
    UserId,
    USER_ID_BYTES_MAX,
    "user id (1 to 100 of A-Z a-z 0-9 - _ . : @ / +)"
);
text_id!(
    /// A hold: the id of the credit lease that it covers.
    HoldId,
    HOLD_ID_BYTES_MAX,
    "hold id (1 to 128 of A-Z a-z 0-9 - _ . : @ / +)"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_of_what_they_name_and_never_change() {
        let user: UserId = "demo".parse().unwrap();
        let wallet = WalletId::of_user(&user);
        assert_eq!(wallet, WalletId::of_user(&user));
        assert_ne!(TxnId::at(wallet, 1), TxnId::at(wallet, 2));
        assert!("".parse::<UserId>().is_err());
        assert!("a b".parse::<HoldId>().is_err());
        assert!("x".repeat(101).parse::<UserId>().is_err());
    }
}
