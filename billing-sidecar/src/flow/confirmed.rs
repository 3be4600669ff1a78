//! Waits until every proxy has taken in what it was told of an account, so that who tops up and asks again at once is not refused.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use weir_contracts::ids::AccountId;

use super::hub::Hub;

/// Longest wait: what the operator asked for is done in any case, and a proxy that is slow or away learns it when it can.
const CONFIRM_WAIT: Duration = Duration::from_secs(1);

/// Returns when every proxy that watches has confirmed, or after a second.
pub async fn confirmed(hub: &Arc<Hub>, account: &AccountId) {
    let deadline = Instant::now() + CONFIRM_WAIT;
    let mut progress = hub.progress();
    let Some(ticket) = hub.ask_to_confirm(account) else {
        return;
    };
    loop {
        progress.mark_unchanged();
        let reports = ticket.reports();
        if hub.watchers().iter().all(|proxy| reports.contains_key(proxy)) {
            return;
        }
        if tokio::time::timeout_at(deadline, progress.changed())
            .await
            .is_err()
        {
            tracing::debug!(%account, "not every proxy has confirmed in time");
            return;
        }
    }
}
