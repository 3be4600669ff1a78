//! Waits until an account is settled: its leases closed, every response that had ended rated and captured, the holds of
//! closed leases released.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use weir_contracts::{event::Place, ids::AccountId};

use super::hub::{Hub, Report, Ticket};
use crate::{
    domain::lease::{Lease, LeaseState},
    ports::{PortError, billing_store::BillingStore},
};

/// Why it is not settled.
#[derive(Debug, thiserror::Error)]
pub enum NotSettled {
    /// The deadline passed; what is missing, in words.
    #[error("not settled within {wait:?}: {}", .missing.join("; "))]
    Missing {
        /// How long it was waited for.
        wait: Duration,
        /// In words.
        missing: Vec<String>,
    },
    /// Too many wait already.
    #[error("too many requests wait for accounts to settle: ask again")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Has the account's leases closed and waits, at most `wait`.
pub async fn wait_settled(
    store: &dyn BillingStore,
    hub: &Arc<Hub>,
    account: &AccountId,
    wait: Duration,
) -> Result<(), NotSettled> {
    let deadline = Instant::now() + wait;
    let mut progress = hub.progress();
    let ticket = hub.ask_to_close(account, None).ok_or(NotSettled::Busy)?;
    loop {
        progress.mark_unchanged();
        let missing = missing(store, hub, &ticket, account).await?;
        if missing.is_empty() {
            return Ok(());
        }
        if tokio::time::timeout_at(deadline, progress.changed())
            .await
            .is_err()
        {
            return Err(NotSettled::Missing { wait, missing });
        }
    }
}

async fn missing(
    store: &dyn BillingStore,
    hub: &Hub,
    ticket: &Ticket,
    account: &AccountId,
) -> Result<Vec<String>, PortError> {
    let reports = ticket.reports();
    let mut missing = Vec::new();
    for proxy in hub.watchers() {
        if !reports.contains_key(&proxy) {
            missing.push(format!(
                "proxy {proxy} has not said that it closed the account's leases"
            ));
        }
    }
    for (proxy, report) in &reports {
        let until = Place {
            epoch: report.epoch,
            sequence: report.last_sequence,
        };
        let mark = store.mark(*proxy).await?;
        if report.last_sequence > 0 && mark.is_none_or(|mark| mark < until) {
            missing.push(format!(
                "usage of proxy {proxy} is not rated up to {}-{}",
                until.epoch, until.sequence
            ));
        }
    }
    // After the marks: what they cover is in the store by now.
    let unsettled = store.unsettled(account).await?;
    if unsettled.charges > 0 {
        missing.push(format!(
            "{} charges are not captured and booked",
            unsettled.charges
        ));
    }
    if unsettled.failed > 0 {
        missing.push(format!("{} charges were refused by the wallet", unsettled.failed));
    }
    for lease in unsettled.leases {
        missing.extend(open_lease(&lease, reports.get(&lease.id.proxy)));
    }
    Ok(missing)
}

/// An open lease of the start that reported is in use by a response in flight, or newer than the report: nothing to wait for. One of an
/// earlier start was ended by the proxy's recovery: what stands before its end in the journal is still on its way.
fn open_lease(lease: &Lease, report: Option<&Report>) -> Option<String> {
    let id = lease.id;
    match lease.state {
        LeaseState::Open => match report {
            Some(report) if id.epoch >= report.epoch => None,
            Some(_) => Some(format!(
                "lease {id} is of an earlier start of its proxy, whose usage is not rated yet"
            )),
            None => Some(format!("lease {id} is open and its proxy is not connected")),
        },
        LeaseState::Closing => Some(format!("the hold of lease {id} is not released")),
        LeaseState::Blocked => Some(format!(
            "lease {id} is blocked: its closing record does not add up"
        )),
        LeaseState::Settled => None,
    }
}
