//! What billing tells unasked: marks set and cleared, leases closed on request. Also the announcement of this start, before anything else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use weir_contracts::{
    ids::{AccountId, LeaseId},
    money::Amount,
};

use super::Shared;
use crate::ports::billing::{BillingError, CloseReport, Denial, DenialReason, Notice, Start, Terms};

/// First and longest pause between two tries to reach billing.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a close request waits for responses in flight to move to another lease.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// Tries of one report; billing's own deadline is longer than all of them.
const REPORTS_MAX: u32 = 5;

/// Registers, then listens, for ever, with growing pauses.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut pause = PAUSE_MIN;
    loop {
        match listen(&shared).await {
            Ok(()) => pause = PAUSE_MIN,
            Err(e) => {
                tracing::warn!(error = %e, "no notices from billing");
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// One connection's worth of notices. `Ok` when there was at least one.
async fn listen(shared: &Arc<Shared>) -> Result<(), BillingError> {
    register(shared).await?;
    let (proxy, epoch) = (shared.journal.proxy(), shared.journal.epoch());
    let limit = shared.options.deadline;
    let late = |_| BillingError::Unavailable(format!("no answer within {limit:?}"));
    let mut notices = tokio::time::timeout(limit, shared.billing.watch(proxy, epoch))
        .await
        .map_err(late)??;
    let mut heard = false;
    while let Some(notice) = notices.next().await {
        match notice {
            Ok(notice) => take(shared, notice),
            Err(_) if heard => return Ok(()),
            Err(e) => return Err(e),
        }
        heard = true;
    }
    if heard {
        Ok(())
    } else {
        Err(BillingError::Unavailable(
            "the notices ended before the first".to_owned(),
        ))
    }
}

/// At each connection anew: the same start told twice is the same start, and a billing that was restored may not know it any more.
async fn register(shared: &Arc<Shared>) -> Result<(), BillingError> {
    let journal = &shared.journal;
    let start = Start {
        proxy: journal.proxy(),
        epoch: journal.epoch(),
        boot_nonce: journal.boot_nonce(),
        previous_boot_nonce: journal.previous_boot_nonce(),
    };
    let limit = shared.options.deadline;
    let late = |_| BillingError::Unavailable(format!("no answer within {limit:?}"));
    let told = tokio::time::timeout(limit, shared.billing.register(start))
        .await
        .map_err(late)?;
    if !matches!(told, Err(BillingError::Unavailable(_))) {
        shared.registered.send_replace(Some(told.clone()));
    }
    told
}

fn take(shared: &Arc<Shared>, notice: Notice) {
    match notice {
        Notice::Account {
            account,
            frozen,
            balance,
            available,
            terms,
        } => {
            // Taken in also for accounts that nobody uses yet: the first EXEC weir.balance of a session needs it.
            tell(&shared.account(&account), frozen, balance, available, terms);
        }
        Notice::CloseLeases { account, request_id } => {
            tokio::spawn(close(Arc::clone(shared), account, request_id));
        }
        Notice::Confirm { account, request_id } => {
            let report = CloseReport {
                request_id,
                account,
                last_sequence: 0,
                busy: false,
            };
            // As many at a time as billing asks for, which bounds them.
            tokio::spawn(send(Arc::clone(shared), report));
        }
    }
}

fn tell(
    account: &Arc<super::AccountCredit>,
    frozen: bool,
    balance: String,
    available: String,
    terms: Option<Terms>,
) {
    let funded = available.parse::<Amount>().is_ok_and(|a| a > Amount::ZERO);
    let denial = frozen.then(|| Denial {
        reason: DenialReason::Frozen,
        message: "the account's wallet is frozen".to_owned(),
        balance: balance.clone(),
        available: available.clone(),
        currency: terms
            .as_ref()
            .map_or_else(String::new, |t| t.currency.code().to_owned()),
    });
    let now = Instant::now();
    account.update(|ledger| {
        ledger.notice(denial, funded, now);
        ledger.tell(balance, available, terms);
    });
}

/// Closes an account's leases and reports. Responses in flight are given a new lease to move to, within a time; the report says if one did not.
async fn close(shared: Arc<Shared>, id: AccountId, request_id: String) {
    let Ok(_turn) = shared.close_requests.acquire().await else {
        return;
    };
    let account = shared.account(&id);
    let (leases, fly): (Vec<LeaseId>, bool) = account.update(|ledger| {
        let leases = ledger.open_leases();
        ledger.close_current();
        let fly = ledger.has_users() && !shared.is_stopping() && ledger.take_off();
        (leases, fly)
    });
    if fly {
        account.fly();
    }
    let closed = account.closed(&leases, CLOSE_WAIT).await;
    let last_sequence = match shared.journal.flush().await {
        Ok(last_sequence) => last_sequence,
        Err(e) => {
            tracing::error!(error = %e, account = %id, "leases cannot be reported closed");
            return;
        }
    };
    let report = CloseReport {
        request_id,
        account: id,
        last_sequence,
        busy: !closed,
    };
    send(Arc::clone(&shared), report).await;
}

/// Sends a report, a few times if need be.
async fn send(shared: Arc<Shared>, report: CloseReport) {
    let mut pause = PAUSE_MIN;
    for _ in 0..REPORTS_MAX {
        let (proxy, epoch) = (shared.journal.proxy(), shared.journal.epoch());
        match shared.billing.report_closed(proxy, epoch, report.clone()).await {
            Ok(()) => return,
            Err(e) => tracing::warn!(error = %e, "a close report did not arrive"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
