//! The wallet's read side over REST: what its projection shows, for reconciliation.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use weir_contracts::money::Amount;

use crate::{
    config::Token,
    ports::wallet_client::{ReadModel, WalletError},
};

/// Longest wait for one page.
const PAGE_DEADLINE: Duration = Duration::from_secs(5);
/// Transactions asked for at a time: the wallet's own limit.
const PAGE: usize = 200;
/// Pages read at most: twenty million transactions of one wallet. Beyond, reconciliation says that it cannot.
const PAGES_MAX: usize = 100_000;

/// The wallet's REST side.
#[derive(Debug, Clone)]
pub struct WalletRest {
    agent: ureq::Agent,
    base: String,
    token: Token,
}

#[derive(Deserialize)]
struct Page {
    transactions: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    txn_id: String,
    amount: Amount,
}

impl WalletRest {
    /// A client for `base`, for example `http://127.0.0.1:3003`.
    #[must_use]
    pub fn new(base: &str, token: Token) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(PAGE_DEADLINE));
        Self {
            agent: config.build().into(),
            base: base.trim_end_matches('/').to_owned(),
            token,
        }
    }

    fn all(&self, wallet_id: &str) -> Result<Vec<(String, Amount)>, WalletError> {
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let lines = self.page(wallet_id, page)?;
            let last = lines.len() < PAGE;
            all.extend(lines.into_iter().map(|line| (line.txn_id, line.amount)));
            if last {
                return Ok(all);
            }
        }
        Err(WalletError::Unavailable(
            "the wallet's history has too many pages".to_owned(),
        ))
    }

    fn page(&self, wallet_id: &str, page: usize) -> Result<Vec<Line>, WalletError> {
        let url = format!(
            "{}/wallets/{wallet_id}/transactions?page={page}&limit={PAGE}",
            self.base
        );
        let bearer = format!("Bearer {}", self.token.reveal());
        let failed = |e: ureq::Error| WalletError::Unavailable(format!("{url}: {e}"));
        let mut response = self
            .agent
            .get(&url)
            .header("authorization", bearer)
            .call()
            .map_err(failed)?;
        let page: Page = response.body_mut().read_json().map_err(failed)?;
        Ok(page.transactions)
    }
}

#[async_trait]
impl ReadModel for WalletRest {
    async fn transactions(&self, wallet_id: &str) -> Result<Vec<(String, Amount)>, WalletError> {
        let (this, wallet_id) = (self.clone(), wallet_id.to_owned());
        let ended = |e| WalletError::Unavailable(format!("reading the read model ended: {e}"));
        tokio::task::spawn_blocking(move || this.all(&wallet_id))
            .await
            .map_err(ended)?
    }
}
