//! Which starts of a proxy are believed: epochs grow, and each start names the one before it.

use weir_contracts::ids::ProxyId;

/// What a proxy says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Whose journal directory.
    pub proxy: ProxyId,
    /// Which start, from 1.
    pub epoch: u64,
    /// Made for this start.
    pub boot_nonce: String,
    /// Of the start before; empty for the first.
    pub previous_boot_nonce: String,
}

/// The last start that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownStart {
    /// Its epoch.
    pub epoch: u64,
    /// Its nonce.
    pub boot_nonce: String,
}

/// Why a start is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartRefused {
    /// Another start followed the same one: two copies of a directory are alive.
    #[error(
        "this journal directory is a copy: another process went on from the same start. Two journals under one \
         identity would bill one usage twice. Remove the copied directory; a new one is a new proxy"
    )]
    Copied,
    /// The epoch goes back: an old state of the directory was restored.
    #[error(
        "epoch {got} is not above {known}: the journal directory is older than what billing has seen of it"
    )]
    Stale {
        /// Asked.
        got: u64,
        /// Believed last.
        known: u64,
    },
}

/// Decides about a start. A first start is believed; the same start told twice is the same start.
///
/// A start that ended before it reached billing leaves a hole in the chain: then epochs are more than one apart, the
/// nonce between is unknown, and the start is believed. A copy that hides in such a hole makes the original's next
/// start stale, so two copies can never both go on.
pub fn admit(known: Option<&KnownStart>, new: &Registration) -> Result<(), StartRefused> {
    let Some(known) = known else { return Ok(()) };
    if new.epoch < known.epoch {
        return Err(StartRefused::Stale {
            got: new.epoch,
            known: known.epoch,
        });
    }
    let believed = match new.epoch - known.epoch {
        0 => new.boot_nonce == known.boot_nonce,
        1 => new.previous_boot_nonce == known.boot_nonce,
        _ => true,
    };
    if believed {
        Ok(())
    } else {
        Err(StartRefused::Copied)
    }
}

/// Why a start is not lent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCurrent {
    /// Billing has not heard of it.
    #[error("start {0} of this proxy is not registered: register it, then ask again")]
    Unknown(u64),
    /// A later start was believed.
    #[error(
        "start {got} of this proxy is over, start {known} is registered: two processes have its journal directory \
         or a copy of it; stop one of them"
    )]
    Over {
        /// Asks.
        got: u64,
        /// Believed last.
        known: u64,
    },
}

/// Only the start that was believed last is lent to: what an earlier one still uses would come too late to be rated.
pub fn may_lend(known: Option<&KnownStart>, epoch: u64) -> Result<(), NotCurrent> {
    match known {
        Some(known) if known.epoch == epoch => Ok(()),
        Some(known) if known.epoch > epoch => Err(NotCurrent::Over {
            got: epoch,
            known: known.epoch,
        }),
        _ => Err(NotCurrent::Unknown(epoch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(epoch: u64, nonce: &str, previous: &str) -> Registration {
        Registration {
            proxy: ProxyId(uuid::Uuid::nil()),
            epoch,
            boot_nonce: nonce.into(),
            previous_boot_nonce: previous.into(),
        }
    }

    #[test]
    fn each_start_names_the_one_before_or_is_refused() {
        let known = KnownStart {
            epoch: 5,
            boot_nonce: "e".into(),
        };
        let stale = StartRefused::Stale { got: 4, known: 5 };
        for (registration, verdict) in [
            (start(5, "e", "d"), Ok(())),
            (start(6, "f", "e"), Ok(())),
            (start(7, "g", "f"), Ok(())),
            (start(5, "x", "d"), Err(StartRefused::Copied)),
            (start(6, "y", "x"), Err(StartRefused::Copied)),
            (start(4, "d", "c"), Err(stale)),
        ] {
            assert_eq!(admit(Some(&known), &registration), verdict, "{registration:?}");
        }
        assert_eq!(admit(None, &start(9, "i", "h")), Ok(()));
    }
}
