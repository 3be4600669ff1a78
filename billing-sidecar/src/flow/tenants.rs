//! Accounts and tariffs as operators change them: store first, then the wallet, then the hub; each step may be repeated.

use std::sync::Arc;

use weir_contracts::{
    ids::AccountId,
    login::canonical_login,
    money::Amount,
    proto::billing::{self as proto, resolve_tenant_reply::Outcome},
};

use super::{
    confirmed::confirmed,
    hub::{AccountView, Hub},
};
use crate::{
    domain::{accounts::Account, tariffs::PricedTariff},
    ports::{
        PortError,
        billing_store::{BillingStore, Stored},
        wallet_client::{WalletClient, WalletError},
    },
};

/// Accounts and their terms.
pub struct Tenants {
    /// Where they are kept.
    pub store: Arc<dyn BillingStore>,
    /// Where their money is.
    pub wallet: Arc<dyn WalletClient>,
    /// What is known of them now.
    pub hub: Arc<Hub>,
}

/// Why an operator's change was not made.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// No such account.
    #[error("there is no account {0}")]
    Unknown(AccountId),
    /// It exists, and differs.
    #[error("{0}")]
    Exists(String),
    /// The account's terms contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// The wallet failed or refused.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The store failed.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl Tenants {
    /// Fills the hub from the store, and finishes creations that a crash cut short.
    pub async fn load(&self) -> Result<(), PortError> {
        for account in self.store.accounts().await? {
            let Some(tariff) = self.store.prices(&account.tariff).await? else {
                tracing::error!(account = %account.id, tariff = account.tariff, "an account's tariff is missing");
                continue;
            };
            let unfinished = account.wallet_id.is_none();
            self.hub.put_account(account.clone(), tariff);
            if unfinished && let Err(e) = self.create(account).await {
                tracing::warn!("an account's wallet is still to be created: {e}");
            }
        }
        Ok(())
    }

    /// Creates an account with its wallet; the same again finds it there.
    pub async fn create(&self, account: Account) -> Result<AccountView, TenantError> {
        canonical_login(&account.login).map_err(|e| TenantError::Invalid(e.to_string()))?;
        let no_tariff =
            || TenantError::Invalid(format!("there is no tariff {}: add it first", account.tariff));
        let priced = self.store.tariff(&account.tariff).await?.ok_or_else(no_tariff)?;
        if priced.currency != account.currency {
            return Err(TenantError::Invalid(format!(
                "tariff {} is in {}, the account in {}: they must share one currency",
                account.tariff, priced.currency, account.currency
            )));
        }
        let mut account = match self.store.add_account(account).await? {
            Stored::New(account) | Stored::Same(account) => account,
            Stored::Other(what) => return Err(TenantError::Exists(what)),
        };
        let key = format!("account:{}", account.id);
        let wallet = self
            .wallet
            .create(&key, account.user_id(), account.currency, account.initial_credit)
            .await?;
        if account.wallet_id.is_none() {
            self.store.set_wallet(&account.id, &wallet.wallet_id).await?;
            account.wallet_id = Some(wallet.wallet_id.clone());
        }
        let id = account.id.clone();
        self.hub.put_account(account, priced.tariff);
        self.hub.put_wallet(wallet);
        self.view(&id)
    }

    /// Adds a tariff version; the same again finds it there.
    pub async fn put_tariff(&self, tariff: PricedTariff) -> Result<PricedTariff, TenantError> {
        match self.store.add_tariff(tariff).await? {
            Stored::New(tariff) | Stored::Same(tariff) => Ok(tariff),
            Stored::Other(what) => Err(TenantError::Exists(what)),
        }
    }

    /// An account as known now, with its wallet's state asked anew.
    pub async fn show(&self, id: &AccountId) -> Result<AccountView, TenantError> {
        let view = self.view(id)?;
        self.hub.put_wallet(self.wallet.get(wallet_of(&view)?).await?);
        self.view(id)
    }

    /// Adds credit; idempotent by key.
    pub async fn top_up(
        &self,
        id: &AccountId,
        amount: Amount,
        key: &str,
    ) -> Result<AccountView, TenantError> {
        if amount <= Amount::ZERO {
            return Err(TenantError::Invalid("the amount must be above zero".to_owned()));
        }
        let view = self.view(id)?;
        let key = format!("top-up:{id}:{key}");
        let state = self
            .wallet
            .top_up(&key, wallet_of(&view)?, amount, "top-up")
            .await?;
        self.hub.put_wallet(state);
        confirmed(&self.hub, id).await;
        self.view(id)
    }

    /// Freezes or unfreezes; idempotent by key.
    pub async fn set_status(
        &self,
        id: &AccountId,
        status: &str,
        key: &str,
    ) -> Result<AccountView, TenantError> {
        let view = self.view(id)?;
        let key = format!("status:{id}:{key}");
        let state = self.wallet.set_status(&key, wallet_of(&view)?, status).await?;
        self.hub.put_wallet(state);
        confirmed(&self.hub, id).await;
        self.view(id)
    }

    /// Who is behind a login.
    pub async fn resolve(&self, login: &str) -> Result<Outcome, PortError> {
        let unknown = |message: String| Outcome::Unknown(proto::Unknown { message });
        let canonical = match canonical_login(login) {
            Ok(canonical) => canonical,
            Err(e) => return Ok(unknown(e.to_string())),
        };
        let account = self.store.account_by_login(&canonical).await?;
        let view = account.and_then(|account| self.hub.account(&account.id));
        Ok(view.map_or_else(
            || unknown("no account has this login".to_owned()),
            |view| Outcome::Terms(view.account.terms(&view.tariff)),
        ))
    }

    fn view(&self, id: &AccountId) -> Result<AccountView, TenantError> {
        self.hub
            .account(id)
            .ok_or_else(|| TenantError::Unknown(id.clone()))
    }
}

/// The account's wallet, or that it is still to be created.
pub fn wallet_of(view: &AccountView) -> Result<&str, TenantError> {
    let none = || WalletError::Unavailable("the account's wallet is not created yet".to_owned());
    Ok(view.account.wallet_id.as_deref().ok_or_else(none)?)
}
