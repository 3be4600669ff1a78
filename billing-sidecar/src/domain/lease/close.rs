//! How a lease ends: the proxy's closing record must agree with what was rated.

use weir_contracts::entry::LeaseClosed;

use super::{Lease, LeaseState};

/// What a closing record does to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// Everything agrees: after the last capture the hold is released.
    Agreed,
    /// It was closed before; nothing changes.
    Already,
    /// Something differs: nothing is released until an operator has looked.
    Differs(CloseDifference),
}

/// What differs between a closing record and the rating, proxy's number first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseDifference {
    /// Count of records.
    #[error("the proxy closed it with {0} records, {1} were rated")]
    Records(u64, u64),
    /// Sum of costs.
    #[error("the proxy closed it with a cost of {0} nano-units, its records add up to {1}")]
    Cost(i64, i64),
    /// Last sequence.
    #[error("the proxy closed it after sequence {0}, the last record rated has {1}")]
    LastSequence(u64, u64),
    /// Whose it is.
    #[error("the proxy closed it for another account")]
    Account,
}

/// Decides. Called in sequence order, so every record up to the closing one is in the tally.
#[must_use]
pub fn close(lease: &Lease, record: &LeaseClosed) -> Closing {
    if lease.state != LeaseState::Open {
        return Closing::Already;
    }
    let tally = &lease.tally;
    let difference = if lease.account != record.account {
        Some(CloseDifference::Account)
    } else if record.records != tally.records {
        Some(CloseDifference::Records(record.records, tally.records))
    } else if record.cost_nanos != tally.reported_nanos {
        Some(CloseDifference::Cost(record.cost_nanos, tally.reported_nanos))
    } else if record.last_sequence != tally.last_sequence {
        Some(CloseDifference::LastSequence(
            record.last_sequence,
            tally.last_sequence,
        ))
    } else {
        None
    };
    difference.map_or(Closing::Agreed, Closing::Differs)
}

#[cfg(test)]
mod tests {
    use super::{super::Tally, *};

    #[test]
    fn a_closing_record_must_agree_in_every_number() {
        let id = "00000000000000000000000000000001.2.7".parse().unwrap();
        let account: weir_contracts::ids::AccountId = "demo".parse().unwrap();
        let open = Lease {
            tally: Tally {
                records: 3,
                reported_nanos: 500,
                rated_nanos: 500,
                last_sequence: 9,
            },
            ..Lease::new(id, account.clone(), "t@1".into())
        };
        let record = LeaseClosed {
            lease: id,
            account,
            records: 3,
            cost_nanos: 500,
            last_sequence: 9,
        };
        assert_eq!(close(&open, &record), Closing::Agreed);
        for (changed, difference) in [
            (
                LeaseClosed {
                    records: 4,
                    ..record.clone()
                },
                CloseDifference::Records(4, 3),
            ),
            (
                LeaseClosed {
                    cost_nanos: 1,
                    ..record.clone()
                },
                CloseDifference::Cost(1, 500),
            ),
            (
                LeaseClosed {
                    last_sequence: 8,
                    ..record.clone()
                },
                CloseDifference::LastSequence(8, 9),
            ),
            (
                LeaseClosed {
                    account: "other".parse().unwrap(),
                    ..record.clone()
                },
                CloseDifference::Account,
            ),
        ] {
            assert_eq!(close(&open, &changed), Closing::Differs(difference));
        }
        for state in [LeaseState::Closing, LeaseState::Settled, LeaseState::Blocked] {
            let ended = Lease {
                state,
                ..open.clone()
            };
            assert_eq!(close(&ended, &record), Closing::Already);
        }
    }
}
