//! Follows the wallets: every change is in the hub, and so at the proxies, as soon as the wallet has committed it.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{
    hub::Hub,
    meters::{Meters, count},
};
use crate::{
    domain::settle::backoff,
    ports::wallet_client::{WalletClient, WalletError},
};

/// Wallets that are watched by name; with more, all are watched and strangers' are dropped here.
const NAMES_MAX: usize = 1_000;

/// Watches until told to stop; connects again after every break, and when there is a new wallet.
pub async fn run(wallet: Arc<dyn WalletClient>, hub: Arc<Hub>, meters: Arc<Meters>, stop: CancellationToken) {
    let mut changed = hub.wallets_changed();
    let mut failures = 0_u32;
    loop {
        changed.mark_unchanged();
        let ids = hub.wallet_ids();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => continue,
            ended = watch(&*wallet, &hub, ids, &mut failures) => {
                failures = failures.saturating_add(1);
                count(&meters.wallet_watch_breaks);
                tracing::warn!(failures, "watching wallets: {ended}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff(failures)) => {}
        }
    }
}

/// Feeds the hub until the stream ends, and says why it ended. Without wallets it waits for one.
async fn watch(wallet: &dyn WalletClient, hub: &Hub, ids: Vec<String>, failures: &mut u32) -> WalletError {
    if ids.is_empty() {
        return std::future::pending().await;
    }
    let named = if ids.len() > NAMES_MAX { Vec::new() } else { ids };
    let mut states = match wallet.watch(named).await {
        Ok(states) => states,
        Err(e) => return e,
    };
    while let Some(state) = states.next().await {
        match state {
            Ok(state) => {
                *failures = 0;
                hub.put_wallet(state);
            }
            Err(e) => return e,
        }
    }
    WalletError::Unavailable("the stream ended".to_owned())
}
