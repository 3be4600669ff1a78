//! One session of a MARS connection: a relay between two virtual legs, whose bytes travel in SMP packets (RFD 15).

use std::{collections::VecDeque, time::Instant};

use weir_contracts::entry::Outcome;
use weir_tds::smp::Sessions;

use super::{
    blocks::Blocks,
    engine::LaneId,
    leg::Leg,
    relay::{Context, Relay},
};
use crate::{
    gate::{Cause, command::Facts},
    journal::{SlotHead, SlotState},
};

/// Most bytes of one session that wait for the server; beyond them its client's window stays shut.
pub(super) const LANE_OUT_MAX: usize = 64 * 1024;

/// What sessions of one connection share although each has a relay of its own.
#[derive(Default)]
pub(super) struct Counters {
    /// Numbers the requests of the connection, in its records.
    pub(super) requests: u32,
    /// What `weir.usage` and `weir.why` tell.
    pub(super) totals: Facts,
    /// Who asked for the credit that is still to be answered, in the order of the answers.
    pub(super) asked: VecDeque<LaneId>,
}

/// One SMP session.
pub(super) struct Lane {
    /// Never used twice on a connection, as SIDs are: late answers about credit name it.
    pub(super) id: LaneId,
    pub(super) sid: u16,
    pub(super) relay: Relay,
    /// Legs in the clear without sockets: SMP feeds and drains them.
    pub(super) client: Leg,
    pub(super) server: Leg,
    pub(super) deadline: Option<(Instant, &'static str)>,
    pub(super) chunk: Option<(SlotHead, SlotState)>,
    /// Where its last byte stands in the queue of the client's socket.
    pub(super) sent_up_to: u64,
    /// The client or the server said FIN: nothing more comes from it.
    pub(super) client_done: bool,
    pub(super) server_done: bool,
    /// The relay has ended; what is queued still goes out, then FIN.
    pub(super) left: bool,
}

impl Lane {
    pub(super) fn new(id: LaneId, sid: u16, relay: Relay, sizes: (u16, u16)) -> Self {
        let (mut client, mut server) = (Leg::new(), Leg::new());
        client.set_packet_size(sizes.0);
        server.set_packet_size(sizes.1);
        Self {
            id,
            sid,
            relay,
            client,
            server,
            deadline: None,
            chunk: None,
            sent_up_to: 0,
            client_done: false,
            server_done: false,
            left: false,
        }
    }

    /// Lets the relay see how much of its answer the client's socket has not taken. What stands between its bytes there
    /// counts with them: a socket that takes nothing stops every session alike.
    pub(super) fn note_moved(&mut self, taken: u64) {
        let waiting = self.sent_up_to.saturating_sub(taken);
        self.client
            .out
            .set_moved(usize::try_from(waiting).unwrap_or(usize::MAX));
    }

    /// Runs `step` of the relay as on a connection of its own.
    pub(super) fn with_relay<T>(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut Counters,
        step: impl FnOnce(&mut Relay, &mut Context<'_>) -> T,
    ) -> T {
        let Self {
            relay,
            client,
            server,
            deadline,
            chunk,
            ..
        } = self;
        let mut own = Context {
            client,
            server,
            settings: cx.settings,
            actions: &mut *cx.actions,
            deadline,
            chunk,
            closings: &mut *cx.closings,
            now: cx.now,
            unix_nanos: cx.unix_nanos,
            lane: self.id,
            server_out_max: LANE_OUT_MAX,
            chunk_bytes: cx.chunk_bytes,
        };
        relay.requests = shared.requests;
        std::mem::swap(&mut relay.session_totals, &mut shared.totals);
        let asked_before = own.actions.len();
        let answer = step(relay, &mut own);
        for _ in asked_before..own.actions.len() {
            shared.asked.push_back(own.lane);
        }
        std::mem::swap(&mut relay.session_totals, &mut shared.totals);
        shared.requests = relay.requests;
        answer
    }

    /// Opens both windows by what the relay has taken, and gives back buffers that hold nothing. Answers the bytes of SMP
    /// that are due to the client and to the server.
    pub(super) fn open_windows(
        &mut self,
        client: &mut Sessions,
        server: &mut Sessions,
        blocks: &Blocks,
    ) -> [Option<[u8; 16]>; 2] {
        let due = |sessions: &mut Sessions, leg: &mut Leg, sid: u16| {
            // Bytes of a packet that is not whole count as taken, or it would never become whole.
            let waiting = match leg.peek_packet() {
                Ok(Some(_)) => leg.plain().len(),
                Ok(None) | Err(_) => 0,
            };
            leg.release_idle(blocks);
            let window = sessions.window(sid)?;
            window.taken(waiting);
            Some(window.acknowledge()?.encode())
        };
        [
            due(client, &mut self.client, self.sid),
            due(server, &mut self.server, self.sid),
        ]
    }

    /// The client's FIN: what it asked for and was passed on goes to the server, everything else is forgotten.
    pub(super) fn client_left(&mut self, cx: &mut Context<'_>, shared: &mut Counters) {
        self.leave(cx, shared);
        self.client.out = super::out::Out::default();
        self.deadline = (!self.server_done).then(|| {
            let closing = "closing of a MARS session at the server";
            (cx.now + cx.settings.cut_deadline, closing)
        });
    }

    /// The server's FIN: once all that it had said is with the client, the session ends there as well.
    pub(super) fn server_left(&mut self, cx: &mut Context<'_>, shared: &mut Counters) {
        let said = self.relay.finished.is_some()
            || self.relay.open.is_some() && matches!(self.server.peek_packet(), Ok(Some(_)));
        if said {
            return;
        }
        let cause = Cause::Upstream("it closed the MARS session during the answer".to_owned());
        self.with_relay(cx, shared, |relay, cx| relay.fail_fatally(&cause, cx));
        self.leave(cx, shared);
        self.deadline = None;
    }

    fn leave(&mut self, cx: &mut Context<'_>, shared: &mut Counters) {
        self.with_relay(cx, shared, |relay, cx| relay.abandon(Outcome::Interrupted, cx));
        // Its record is closed: a slot written behind it would be a second one.
        self.chunk = None;
        self.left = true;
        self.client.clear_input();
        self.server.clear_input();
    }

    /// True if another run would get the relay on without anything from outside.
    pub(super) fn is_runnable(&self, chunk_bytes: usize) -> bool {
        !self.left
            && self
                .relay
                .is_runnable(&self.client, &self.server, chunk_bytes, LANE_OUT_MAX)
    }
}
