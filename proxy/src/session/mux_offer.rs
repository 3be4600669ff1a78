//! Whether clients are offered MARS (RFD 15): by policy, and by what the server last said.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a server that answered "no MARS" is taken at its word. It may have been replaced meanwhile.
pub const ASK_AGAIN: Duration = Duration::from_secs(600);

/// The offer of MARS, shared by all sessions of one proxy.
///
/// Clients are answered before the server is connected to, so the offer can be a promise that the server does not keep.
/// The login then ends with an error, and for a while nobody is offered MARS again.
#[derive(Debug, Default)]
pub struct MarsOffer {
    offered: bool,
    /// When the server last said no. Locked only while a client that asks for MARS logs in.
    lacking_since: Mutex<Option<Instant>>,
}

impl MarsOffer {
    /// An offer that is made, until the server says no; or that never is.
    #[must_use]
    pub fn new(offered: bool) -> Self {
        Self {
            offered,
            lacking_since: Mutex::new(None),
        }
    }

    /// True if a client that asks for MARS gets it.
    pub(super) fn stands(&self, now: Instant) -> bool {
        let since = *self.lacking_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.offered && since.is_none_or(|at| now.saturating_duration_since(at) >= ASK_AGAIN)
    }

    /// The server answered a request for MARS.
    pub(super) fn answered(&self, speaks: bool, now: Instant) {
        let lacking = (!speaks).then_some(now);
        *self.lacking_since.lock().unwrap_or_else(PoisonError::into_inner) = lacking;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_mars_is_asked_again_only_after_a_while() {
        let now = Instant::now();
        let offer = MarsOffer::new(true);
        assert!(offer.stands(now), "offered until the server says no");
        offer.answered(false, now);
        assert!(!offer.stands(now));
        assert!(!offer.stands(now + ASK_AGAIN - Duration::from_secs(1)));
        assert!(offer.stands(now + ASK_AGAIN));
        offer.answered(true, now);
        assert!(offer.stands(now));
        assert!(!MarsOffer::new(false).stands(now), "by policy");
    }
}
