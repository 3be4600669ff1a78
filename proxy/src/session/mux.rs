//! MARS: several sessions on one client connection and one server connection. SMP [MC-SMP] is terminated on both sides,
//! each with windows of its own, so the gate may refuse, cut and answer within one session while the others go on.
//!
//! Bytes of a session are bounded on each side: what its window allows inward ([`WINDOW`](weir_tds::smp::WINDOW) packets
//! and one that is not whole), a chunk towards the client, [`LANE_OUT_MAX`] towards the server. A client that does not
//! read one session stops that session only (RFD 15).

use std::{sync::Arc, time::Instant};

use bytes::{Buf, BytesMut};
use weir_tds::{
    smp::{End, Received, SMP_HEADER_LEN, Sessions, SmpHeader},
    walker::WalkerOptions,
};

use super::{
    engine::{Chunk, LaneId, SERVER_OUT_MAX, SessionEnd},
    leg::Leg,
    mux_lane::{Counters, LANE_OUT_MAX, Lane},
    out::Out,
    purse::{Payer, Purse},
    relay::{Context, Relay},
};
use crate::credit::More;

/// Bytes of SMP headers that are allocated at once.
const HEADERS_BLOCK: usize = 1024;
/// Packets without data that may wait for either side's socket beyond its data, in bytes: a peer that makes us write
/// such packets and reads none is not read itself until it does.
const CONTROL_OUT_MAX: usize = 64 * 1024;

/// What each new session's relay begins with.
pub(super) struct Seed {
    pub(super) purse: Arc<dyn Purse>,
    pub(super) payer: Payer,
    pub(super) options: WalkerOptions,
    pub(super) spid: u16,
}

/// The sessions of one connection.
pub(super) struct Mux {
    seed: Seed,
    /// The gate is the server's end towards the client, and the client's end towards the server.
    client_end: Sessions,
    server_end: Sessions,
    lanes: Vec<Lane>,
    shared: Counters,
    last_id: u32,
    /// Which lane goes first: another one each time, so that none is always last.
    turn: usize,
    /// Where headers are written, and whole packets on their way to TLS.
    room: BytesMut,
    stopping: bool,
}

/// Which of the two peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

fn client_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Client(error.to_string())
}

fn server_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Server(error.to_string())
}

/// Takes the SMP packet at the head of what came, if it is whole.
fn next_packet(
    sessions: &Sessions,
    leg: &mut Leg,
) -> Result<Option<(SmpHeader, BytesMut)>, weir_tds::smp::SmpError> {
    let Some(header) = sessions.peek(leg.plain())? else {
        return Ok(None);
    };
    let length = SMP_HEADER_LEN + header.data_len();
    if leg.plain().len() < length {
        return Ok(None);
    }
    let mut packet = leg.take(length);
    packet.advance(SMP_HEADER_LEN);
    Ok(Some((header, packet)))
}

fn has_packet(sessions: &Sessions, leg: &Leg) -> bool {
    matches!(sessions.peek(leg.plain()), Ok(Some(header)) if leg.plain().len() >= SMP_HEADER_LEN + header.data_len())
}

/// Sends one SMP packet, with the first `len` bytes of `data` in it: one TLS record where the leg is encrypted.
fn send(
    leg: &mut Leg,
    room: &mut BytesMut,
    header: [u8; SMP_HEADER_LEN],
    data: Option<(&mut Out, usize)>,
) -> Result<(), SessionEnd> {
    let whole = leg.is_encrypted();
    let len = data.as_ref().map_or(0, |(_, len)| *len);
    let needed = SMP_HEADER_LEN + if whole { len } else { 0 };
    if room.capacity() < needed {
        room.reserve(needed.max(HEADERS_BLOCK));
    }
    room.extend_from_slice(&header);
    if whole {
        if let Some((from, len)) = data {
            from.move_front(len, |piece| room.extend_from_slice(&piece));
        }
        return Ok(leg.send(room.split().freeze())?);
    }
    leg.out.push(room.split().freeze());
    if let Some((from, len)) = data {
        from.move_front(len, |piece| leg.out.push(piece));
    }
    Ok(())
}

impl Mux {
    /// No session yet: the client opens each. The packet sizes are those of the client's and of the server's leg.
    pub(super) fn new(seed: Seed, client_packet: u16, server_packet: u16) -> Self {
        Self {
            seed,
            client_end: Sessions::new(End::Server, client_packet),
            server_end: Sessions::new(End::Client, server_packet),
            lanes: Vec::new(),
            shared: Counters::default(),
            last_id: LaneId::PLAIN.0,
            turn: 0,
            room: BytesMut::new(),
            stopping: false,
        }
    }

    /// Takes in what came, lets every relay get on, and gives each leg what its windows allow.
    pub(super) fn run(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.take_from_client(cx)?;
        self.take_from_server(cx)?;
        self.run_lanes(cx)?;
        self.give(Side::Server, cx.server, SERVER_OUT_MAX)?;
        self.give(Side::Client, cx.client, cx.chunk_bytes)?;
        self.close_lanes(cx)?;
        self.turn = self.turn.wrapping_add(1);
        if self.stopping && !self.is_busy() {
            return Err(SessionEnd::Closed);
        }
        Ok(())
    }

    fn takes_from_client(cx: &Context<'_>) -> bool {
        cx.client.out.len() < cx.chunk_bytes + CONTROL_OUT_MAX
            && cx.server.out.len() < SERVER_OUT_MAX + CONTROL_OUT_MAX
    }

    fn take_from_client(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        while Self::takes_from_client(cx) {
            let next = next_packet(&self.client_end, cx.client).map_err(client_fault)?;
            let Some((header, data)) = next else {
                return Ok(());
            };
            match self.client_end.receive(&header).map_err(client_fault)? {
                Received::Opened(sid) => self.open_lane(sid, cx)?,
                Received::Data(sid, _) => {
                    if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.sid == sid) {
                        lane.client.feed(data);
                    }
                }
                Received::Finished(sid) => {
                    if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.sid == sid) {
                        lane.client_done = true;
                    }
                }
                Received::Ignored(..) | Received::Acknowledged(_) => {}
            }
        }
        Ok(())
    }

    fn open_lane(&mut self, sid: u16, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let syn = self.server_end.open(sid).map_err(client_fault)?;
        send(cx.server, &mut self.room, syn.encode(), None)?;
        let Seed {
            purse,
            payer,
            options,
            spid,
        } = &self.seed;
        let mut relay = Relay::new(Arc::clone(purse), payer.clone(), *options, *spid);
        relay.ending = self.stopping;
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let sizes = (cx.client.packet_size, cx.server.packet_size);
        self.lanes
            .push(Lane::new(LaneId(self.last_id), sid, relay, sizes));
        Ok(())
    }

    fn take_from_server(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        loop {
            let next = next_packet(&self.server_end, cx.server).map_err(server_fault)?;
            let Some((header, data)) = next else {
                return Ok(());
            };
            match self.server_end.receive(&header).map_err(server_fault)? {
                Received::Data(sid, _) => {
                    if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.sid == sid && !lane.left) {
                        lane.server.feed(data);
                    }
                }
                Received::Finished(sid) => {
                    if let Some(fin) = self.server_end.fin(sid) {
                        send(cx.server, &mut self.room, fin.encode(), None)?;
                    }
                    if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.sid == sid) {
                        lane.server_done = true;
                        lane.server.out = Out::default();
                    }
                }
                Received::Opened(_) | Received::Ignored(..) | Received::Acknowledged(_) => {}
            }
        }
    }

    fn run_lanes(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let taken = cx.client.out.progress().0;
        let lanes = self.lanes.len();
        for nth in 0..lanes {
            let at = self.turn.wrapping_add(nth) % lanes;
            let Some(lane) = self.lanes.get_mut(at) else {
                continue;
            };
            if lane.left {
                continue;
            }
            lane.note_moved(taken);
            if !self.stopping || lane.relay.is_busy() {
                match lane.with_relay(cx, &mut self.shared, |relay, cx| relay.run(cx)) {
                    Err(SessionEnd::Closed) if self.stopping => {}
                    ran => ran?,
                }
            }
            // Behind the run: what came before a FIN counts, however the bytes were cut.
            if lane.client_done {
                lane.client_left(cx, &mut self.shared);
            } else if lane.server_done {
                lane.server_left(cx, &mut self.shared);
            }
            let [to_client, to_server] =
                lane.open_windows(&mut self.client_end, &mut self.server_end, &cx.settings.blocks);
            if let Some(ack) = to_client {
                send(cx.client, &mut self.room, ack, None)?;
            }
            if let Some(ack) = to_server {
                send(cx.server, &mut self.room, ack, None)?;
            }
        }
        Ok(())
    }

    /// One packet of each session in turn, as far as its window allows and the socket's queue holds fewer than `most`
    /// bytes.
    fn give(&mut self, side: Side, leg: &mut Leg, most: usize) -> Result<(), SessionEnd> {
        let sessions = match side {
            Side::Client => &mut self.client_end,
            Side::Server => &mut self.server_end,
        };
        let mut moved = true;
        while std::mem::take(&mut moved) {
            let lanes = self.lanes.len();
            for nth in 0..lanes {
                let at = self.turn.wrapping_add(nth) % lanes;
                let Some(lane) = self.lanes.get_mut(at) else {
                    continue;
                };
                let out = match side {
                    Side::Client => &mut lane.client.out,
                    Side::Server => &mut lane.server.out,
                };
                let Some(len) = out.packet_len() else {
                    continue;
                };
                if leg.out.len() >= most {
                    return Ok(());
                }
                let Some(header) = sessions.window(lane.sid).and_then(|w| w.data(len)) else {
                    continue;
                };
                send(leg, &mut self.room, header.encode(), Some((out, len)))?;
                moved = true;
                if side == Side::Client {
                    let (taken, end) = leg.out.progress();
                    lane.sent_up_to = end;
                    lane.note_moved(taken);
                }
            }
        }
        Ok(())
    }

    /// Says FIN where a session has ended and everything before it was said, and forgets what is closed on both sides.
    fn close_lanes(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let mut closed = false;
        for lane in self.lanes.iter().filter(|lane| lane.left) {
            let sid = lane.sid;
            if lane.server.out.is_sent()
                && let Some(fin) = self.server_end.fin(sid)
            {
                send(cx.server, &mut self.room, fin.encode(), None)?;
            }
            // The client may use the number again once it is closed: not before the server has closed it.
            if self.server_end.window(sid).is_none()
                && lane.client.out.is_sent()
                && let Some(fin) = self.client_end.fin(sid)
            {
                send(cx.client, &mut self.room, fin.encode(), None)?;
            }
            closed |= self.client_end.window(sid).is_none();
        }
        if closed {
            let (client, server) = (&mut self.client_end, &mut self.server_end);
            self.lanes
                .retain(|lane| client.window(lane.sid).is_some() || server.window(lane.sid).is_some());
        }
        Ok(())
    }

    /// An answer about credit, for the session that asked first; it may have gone meanwhile.
    pub(super) fn on_credit(&mut self, more: More, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let asked = self.shared.asked.pop_front();
        let taken = cx.client.out.progress().0;
        let lane = self
            .lanes
            .iter_mut()
            .find(|lane| Some(lane.id) == asked && !lane.left);
        let Some(lane) = lane else {
            return Ok(());
        };
        lane.note_moved(taken);
        lane.with_relay(cx, &mut self.shared, |relay, cx| relay.on_credit(more, cx))
    }

    /// Calls `each` for every session's relay.
    pub(super) fn each_relay(
        &mut self,
        cx: &mut Context<'_>,
        each: &mut dyn FnMut(&mut Relay, &mut Context<'_>),
    ) {
        let taken = cx.client.out.progress().0;
        for lane in self.lanes.iter_mut().filter(|lane| !lane.left) {
            lane.note_moved(taken);
            lane.with_relay(cx, &mut self.shared, |relay, cx| each(relay, cx));
        }
    }

    /// The connection ends: what the sessions' windows still allow goes to the client's queue, whatever waits there.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        // The close that follows says the rest if this cannot be sent.
        let _sent = self.give(Side::Client, cx.client, usize::MAX);
    }

    /// The journal state of a session that has bytes waiting for the client.
    pub(super) fn take_chunk(&mut self) -> Option<Chunk> {
        self.lanes.iter_mut().find_map(|lane| {
            let (head, state) = lane.chunk.take()?;
            let lane = lane.id;
            Some(Chunk { lane, head, state })
        })
    }

    /// The first deadline of any session.
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.deadline)
            .min_by_key(|(at, _)| *at)
    }

    /// True while the rest of any session's request is to come, and nothing but its client holds that up.
    pub(super) fn is_uploading(&self) -> bool {
        self.lanes.iter().any(|lane| {
            let taken = matches!(lane.client.peek_packet(), Ok(None));
            !lane.left && lane.relay.is_uploading() && taken && lane.server.out.len() < LANE_OUT_MAX
        })
    }

    /// True while any session has a request open, held or not delivered to its end.
    pub(super) fn is_busy(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.left && lane.relay.is_busy())
    }

    /// The gateway stops: no session begins another request.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for lane in &mut self.lanes {
            lane.relay.ending = true;
        }
    }

    /// True if something that the server had said before it went is still to be told to the client.
    pub(super) fn has_unread(&self) -> bool {
        self.lanes.iter().any(|lane| {
            let relay = &lane.relay;
            let answer = relay.open.is_some() && matches!(lane.server.peek_packet(), Ok(Some(_)));
            !lane.left && (relay.finished.is_some() || answer)
        })
    }

    /// True if another run would get on without anything from outside.
    pub(super) fn is_runnable(&mut self, cx: &Context<'_>) -> bool {
        if Self::takes_from_client(cx) && has_packet(&self.client_end, cx.client)
            || has_packet(&self.server_end, cx.server)
        {
            return true;
        }
        let taken = cx.client.out.progress().0;
        let (client_room, server_room) = (
            cx.client.out.len() < cx.chunk_bytes,
            cx.server.out.len() < SERVER_OUT_MAX,
        );
        self.lanes.iter_mut().any(|lane| {
            lane.note_moved(taken);
            let gives = |sessions: &mut Sessions, out: &Out, room: bool| {
                room && out.packet_len().is_some()
                    && sessions.window(lane.sid).is_some_and(|window| window.can_send())
            };
            gives(&mut self.client_end, &lane.client.out, client_room)
                || gives(&mut self.server_end, &lane.server.out, server_room)
                || (!self.stopping || lane.relay.is_busy()) && lane.is_runnable(cx.chunk_bytes)
        })
    }
}
