//! What a proxy's ask for credit is answered, before the wallet is asked.

use weir_contracts::{
    ids::{AccountId, LeaseId},
    money::Amount,
};

use super::{LEASE_TOTAL_MAX_NANOS, Lease, LeaseState};

/// A proxy asks for credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Who asks, in which start.
    pub epoch: u64,
    /// Which lease to open or raise.
    pub lease: LeaseId,
    /// For whom.
    pub account: AccountId,
    /// What the proxy knows to be granted, nano-units.
    pub known_nanos: i64,
    /// How much more it would like, nano-units.
    pub want_nanos: i64,
}

/// A final no, without the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The lease takes no more: it ended, its tariff ended, or its total is full. A new one may be opened.
    LeaseClosed,
}

/// The ask contradicts itself: the proxy's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Negative or zero amounts.
    #[error("known_grant_nanos must be at least 0 and want_nanos at least 1")]
    Amounts,
    /// The lease's id names another start.
    #[error("the lease belongs to another epoch of the proxy: leases are opened in the epoch that uses them")]
    Epoch,
    /// The lease is someone else's.
    #[error("the lease belongs to another account")]
    Account,
}

/// What to do about an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The reply to the same ask was lost: this is the total that was recorded then.
    Recorded(i64),
    /// Have the wallet hold this cumulative total.
    Raise(i64),
    /// No.
    Deny(Denied),
}

/// Decides. `lease` is what is recorded under the asked id, `tariff` the account's current version.
pub fn answer(lease: Option<&Lease>, tariff: &str, max_grant: Amount, ask: &Ask) -> Result<Answer, AskError> {
    if ask.known_nanos < 0 || ask.want_nanos < 1 {
        return Err(AskError::Amounts);
    }
    if ask.lease.epoch != ask.epoch {
        return Err(AskError::Epoch);
    }
    let granted = match lease {
        None => 0,
        Some(lease) if lease.account != ask.account => return Err(AskError::Account),
        Some(lease) if lease.state != LeaseState::Open || lease.tariff != tariff => {
            return Ok(Answer::Deny(Denied::LeaseClosed));
        }
        Some(lease) => lease.granted_nanos,
    };
    if granted > ask.known_nanos {
        return Ok(Answer::Recorded(granted));
    }
    // The proxy may know of more than a billing store that was restored: the wallet's hold is cumulative and decides.
    let cap = max_grant.to_i64().unwrap_or(LEASE_TOTAL_MAX_NANOS);
    let total = ask
        .known_nanos
        .saturating_add(ask.want_nanos.min(cap))
        .min(LEASE_TOTAL_MAX_NANOS);
    Ok(if total > ask.known_nanos {
        Answer::Raise(total)
    } else {
        Answer::Deny(Denied::LeaseClosed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(known_nanos: i64, want_nanos: i64) -> Ask {
        Ask {
            epoch: 2,
            lease: "00000000000000000000000000000001.2.7".parse().unwrap(),
            account: "demo".parse().unwrap(),
            known_nanos,
            want_nanos,
        }
    }

    fn lease(state: LeaseState, granted_nanos: i64) -> Lease {
        let ask = ask(0, 1);
        Lease {
            granted_nanos,
            state,
            ..Lease::new(ask.lease, ask.account, "t@1".into())
        }
    }

    #[test]
    fn the_table_of_asks() {
        use Answer::{Deny, Raise, Recorded};
        use LeaseState::{Blocked, Closing, Open, Settled};
        let closed = Deny(Denied::LeaseClosed);
        let full = LEASE_TOTAL_MAX_NANOS;
        for (recorded, tariff, ask, expected) in [
            (None, "t@1", ask(0, 40), Raise(40)),
            (None, "t@1", ask(0, 4_000), Raise(1_000)),
            (Some(lease(Open, 0)), "t@1", ask(0, 40), Raise(40)),
            (Some(lease(Open, 100)), "t@1", ask(100, 40), Raise(140)),
            (Some(lease(Open, 140)), "t@1", ask(100, 40), Recorded(140)),
            (Some(lease(Open, 100)), "t@1", ask(150, 40), Raise(190)),
            (Some(lease(Open, 100)), "t@2", ask(100, 40), closed),
            (Some(lease(Closing, 100)), "t@1", ask(100, 40), closed),
            (Some(lease(Settled, 100)), "t@1", ask(0, 40), closed),
            (Some(lease(Blocked, 100)), "t@1", ask(100, 40), closed),
            (Some(lease(Open, full)), "t@1", ask(full, 40), closed),
            (Some(lease(Open, full - 1)), "t@1", ask(full - 1, 40), Raise(full)),
        ] {
            let answer = answer(recorded.as_ref(), tariff, Amount::from_nanos(1_000), &ask);
            assert_eq!(answer, Ok(expected), "{recorded:?} {tariff} {ask:?}");
        }
    }

    #[test]
    fn asks_that_contradict_themselves_are_errors() {
        let max = Amount::from_nanos(1_000);
        assert_eq!(answer(None, "t@1", max, &ask(0, 0)), Err(AskError::Amounts));
        assert_eq!(answer(None, "t@1", max, &ask(-1, 5)), Err(AskError::Amounts));
        let other_epoch = Ask {
            epoch: 3,
            ..ask(0, 5)
        };
        assert_eq!(answer(None, "t@1", max, &other_epoch), Err(AskError::Epoch));
        let foreign = Ask {
            account: "other".parse().unwrap(),
            ..ask(0, 5)
        };
        let recorded = lease(LeaseState::Open, 0);
        assert_eq!(
            answer(Some(&recorded), "t@1", max, &foreign),
            Err(AskError::Account)
        );
    }
}
