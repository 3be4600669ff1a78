//! How long a client may rest inside a request. One that stops half-way would keep what it has sent, and what is open for
//! it, for ever; between two requests a session may rest as long as it likes.

use std::time::{Duration, Instant};

use super::{
    engine::{Phase, SERVER_OUT_MAX, Session},
    leg::Leg,
};

/// What passes when a client rests too long.
pub(super) const REST_OF_REQUEST: &str = "the rest of a request";

/// The client's rest in hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    /// When it is too long.
    pub(super) until: Instant,
    /// Bytes that had come when it began: any more end it.
    received: u64,
}

impl Pause {
    /// The pause after this turn: none unless the rest of a request is waited for, and a new one whenever bytes came.
    fn after(before: Option<Self>, waits: bool, received: u64, now: Instant, idle: Duration) -> Option<Self> {
        match before {
            _ if !waits => None,
            Some(pause) if pause.received == received => Some(pause),
            _ => Some(Self {
                until: now + idle,
                received,
            }),
        }
    }
}

impl Session {
    /// Begins, keeps or ends the client's pause.
    pub(super) fn watch_upload(&mut self, now: Instant) {
        let waits = self.waits_for_rest();
        let (received, idle) = (self.client.received, self.settings.upload_idle);
        self.pause = Pause::after(self.pause, waits, received, now, idle);
    }

    /// True if only the client holds up a request: part of it is there, and what is there can be passed on.
    fn waits_for_rest(&self) -> bool {
        let uploading = match &self.phase {
            // A whole packet that is not taken waits for the gate: for credit, or for room towards the server.
            Phase::Ready(relay) => {
                (relay.is_uploading() || self.client.buffered() > 0) && has_no_packet(&self.client)
            }
            Phase::Mars(mux) => mux.is_uploading() || self.client.buffered() > 0,
            Phase::Login(_) | Phase::Closing(_) => false,
        };
        uploading && self.wants_client() && self.server.out.len() < SERVER_OUT_MAX
    }
}

fn has_no_packet(client: &Leg) -> bool {
    matches!(client.peek_packet(), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_from_the_last_byte_and_ends_with_the_next() {
        let (now, idle) = (Instant::now(), Duration::from_secs(60));
        let later = |seconds| now + Duration::from_secs(seconds);
        let first = Pause::after(None, true, 10, now, idle);
        assert_eq!(first.map(|p| p.until), Some(later(60)));
        let same = Pause::after(first, true, 10, later(30), idle);
        assert_eq!(same.map(|p| p.until), Some(later(60)), "nothing came");
        let anew = Pause::after(same, true, 11, later(30), idle);
        assert_eq!(anew.map(|p| p.until), Some(later(90)), "a byte came");
        assert!(
            Pause::after(anew, false, 12, later(31), idle).is_none(),
            "the request is whole"
        );
    }
}
