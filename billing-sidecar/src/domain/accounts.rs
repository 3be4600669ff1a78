//! Accounts: who pays, on what terms, and which login means whom.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_contracts::{
    ids::AccountId,
    money::{Amount, Currency},
    proto::billing as proto,
};

/// How many bytes of the row in hand are finished on credit, unless the account says otherwise.
pub const ROW_CREDIT_BYTES: u64 = 8 * 1024 * 1024;
/// Namespace of user ids: a wallet's user id is made of the account's name, so that creating twice is creating once.
const USER_NAMESPACE: Uuid = Uuid::from_u128(0x5765_6972_0000_5000_8000_6163_636f_756e);

/// What the gate does when credit is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Meters and never refuses.
    #[default]
    Observe,
    /// Refuses and cuts.
    Enforce,
}

/// Where a response is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Before the first row that is not covered.
    #[default]
    Row,
    /// At the end of the result set in hand.
    Result,
    /// By closing the connection.
    Close,
}

/// An account as billing keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub id: AccountId,
    /// The login that means it, as the operator wrote it.
    pub login: String,
    /// Currency of wallet and tariff.
    pub currency: Currency,
    /// What the gate does.
    pub mode: Mode,
    /// Where it cuts.
    pub cut: Cut,
    /// Tariff version that prices new leases.
    pub tariff: String,
    /// Bytes of the row in hand that are finished on credit.
    pub row_credit_bytes: u64,
    /// Credit that the wallet was, or is to be, created with.
    pub initial_credit: Amount,
    /// The wallet, once it is created.
    pub wallet_id: Option<String>,
}

impl Account {
    /// True when `other` asks for the account that is already there.
    #[must_use]
    pub fn same_request(&self, other: &Self) -> bool {
        let bare = |a: &Self| Self {
            wallet_id: None,
            ..a.clone()
        };
        bare(self) == bare(other)
    }

    /// The wallet owner's id.
    #[must_use]
    pub fn user_id(&self) -> Uuid {
        Uuid::new_v5(&USER_NAMESPACE, self.id.as_str().as_bytes())
    }

    /// The terms that a proxy is told, under `tariff`.
    #[must_use]
    pub fn terms(&self, tariff: &weir_contracts::tariff::Tariff) -> proto::Terms {
        let mode = match self.mode {
            Mode::Observe => proto::Mode::Observe,
            Mode::Enforce => proto::Mode::Enforce,
        };
        let cut = match self.cut {
            Cut::Row => proto::Cut::AtRow,
            Cut::Result => proto::Cut::AtResult,
            Cut::Close => proto::Cut::Close,
        };
        proto::Terms {
            account: self.id.to_string(),
            currency: self.currency.code().to_owned(),
            mode: mode.into(),
            cut: cut.into(),
            tariff: Some(tariff.into()),
            row_credit_bytes: self.row_credit_bytes,
        }
    }
}
