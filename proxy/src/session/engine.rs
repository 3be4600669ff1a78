//! The session: bytes, facts and `now` come in; bytes, actions and journal states go out. No socket, no clock, no file.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_contracts::entry::{Outcome, UsageRecord};
use weir_tds::{
    password::Password,
    prelogin::{Encryption, EncryptionPolicy},
};

use super::{
    blocks::Blocks,
    encryption::{ClientTls, Renewable, UpstreamTls},
    leg::{Leg, LegError},
    login::Login,
    mux::Mux,
    mux_offer::MarsOffer,
    pause::{Pause, REST_OF_REQUEST},
    purse::{LeaseGuard, Purse},
    relay::Relay,
};
use crate::{
    auth::{AuthSettings, Mapped, Target},
    credit::More,
    gate::Cause,
    journal::{SlotHead, SlotState},
    ports::billing::{Login as LoginFacts, Terms},
};

/// Most bytes that wait inward from the client while nothing can be done with them.
pub const CLIENT_IN_MAX: usize = 64 * 1024;
/// Most bytes that wait for the server's socket.
pub const SERVER_OUT_MAX: usize = 64 * 1024;

/// Least bytes that are read ahead from the server, however small the chunk: below the largest packet (32 767 bytes, or a
/// packet and a TLS record of 18 437 bytes in pieces) a packet could never become whole.
const SERVER_IN_MIN: usize = 64 * 1024;

/// Most bytes of a chunk where they are held more than once: under TLS as they came, decrypted, and encrypted again; under
/// MARS in each session's buffers and in those of the connection.
const CHUNK_HELD_TWICE_MAX: usize = 64 * 1024;

/// What every session of one proxy shares.
pub struct Settings {
    /// What clients are answered in PRELOGIN.
    pub client_policy: EncryptionPolicy,
    /// Certificate for clients; without it the policy must be NOT_SUP. With it a client may always come by TDS 8.0.
    pub client_tls: Option<Arc<Renewable<ClientTls>>>,
    /// What the server is asked for; `Strict` is TDS 8.0.
    pub upstream_encryption: Encryption,
    /// How the server's certificate is verified, and under which name.
    pub upstream_tls: Option<Arc<Renewable<UpstreamTls>>>,
    /// What the operator decided about logins; the server's address too.
    pub auth: AuthSettings,
    /// Packet size that the server is asked for; none for what the client asks for.
    pub upstream_packet_size: Option<u16>,
    /// Whether clients are offered MARS.
    pub mars: MarsOffer,
    /// Token-stream bytes that are paid and journaled together before the first of them is written.
    pub chunk_bytes: usize,
    /// From accept to the end of the login.
    pub login_deadline: Duration,
    /// From the gate's ATTENTION to the server's acknowledgement.
    pub cut_deadline: Duration,
    /// Longest rest of a client inside a request, from the last byte that came.
    pub upload_idle: Duration,
    /// Server name in the gate's own errors.
    pub gate_name: String,
    /// Product version in the PRELOGIN answer.
    pub product_version: [u8; 6],
    /// What sockets are read into.
    pub blocks: Blocks,
    /// What could not be read, counted over all sessions.
    pub tally: Arc<super::tally::Tally>,
    /// False while the journal cannot take more usage: nothing that costs is let through then.
    pub journal_ready: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Work that the core asks the driver for. At most one is under way at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Check a password at the gate, off the runtime: answered by [`Event::Verified`] or [`Event::Refused`].
    Verify {
        /// Canonical login.
        login: String,
        /// What it is checked against.
        mapped: Arc<Mapped>,
        /// What the client sent.
        password: Password,
    },
    /// Find the account behind a login: answered by [`Event::Admitted`] or [`Event::Refused`].
    Admit(LoginFacts),
    /// Leave the server's socket, if there is one, and connect to this server: answered by [`Event::Connected`] or [`Event::Refused`].
    Connect(Target),
    /// Write the session record, the server has let the client in: answered by [`Event::Begun`] or [`Event::Refused`].
    Begin {
        /// Login at the gate.
        principal: String,
        /// Tariff version in force.
        tariff: String,
        /// The server that let the client in.
        upstream: Target,
    },
    /// Get at least this much into the purse: answered by [`Event::Credit`].
    MoreCredit(i64),
}

/// Answers to actions.
pub enum Event {
    /// The tenant is known.
    Admitted {
        /// Its credit.
        purse: Arc<dyn Purse>,
        /// Its terms.
        terms: Terms,
    },
    /// The password at the gate is right.
    Verified,
    /// The server's socket is open.
    Connected,
    /// The session has a number in the journal.
    Begun {
        /// Number within (proxy, epoch).
        session: u32,
    },
    /// The login cannot go on.
    Refused(Cause),
    /// More credit came, or not.
    Credit(More),
}

/// Names one of the sessions that share a connection (MARS): each has a journal slot of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneId(pub u32);

impl LaneId {
    /// The one session of a connection without MARS.
    pub const PLAIN: Self = Self(0);
}

/// A journal state that must be written before anything that waits for the client's socket.
pub struct Chunk {
    /// Whose slot.
    pub lane: LaneId,
    /// The slot, if none was opened yet.
    pub head: SlotHead,
    /// What it must hold.
    pub state: SlotState,
}

/// A record to append to the journal now.
pub struct Closing {
    /// Whose slot it closes.
    pub lane: LaneId,
    /// Its slot, if none was opened yet.
    pub head: SlotHead,
    /// The record.
    pub record: UsageRecord,
    /// To be dropped after the append.
    pub guard: Option<LeaseGuard>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// One side closed in an orderly way, or a refusal was delivered.
    #[error("closed")]
    Closed,
    /// The client broke the protocol.
    #[error("client: {0}")]
    Client(String),
    /// The server broke the protocol, or went away.
    #[error("server: {0}")]
    Server(String),
    /// A deadline passed.
    #[error("deadline passed: {0}")]
    Deadline(&'static str),
    /// Our own fault: the journal cannot be written.
    #[error("gate: {0}")]
    Gate(String),
}

pub(super) enum Phase {
    Login(Box<Login>),
    Ready(Box<Relay>),
    Mars(Box<Mux>),
    /// What is queued for the client is still written, then both sockets are closed.
    Closing(SessionEnd),
}

/// The core of one connection.
pub struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) client: Leg,
    pub(super) server: Leg,
    pub(super) phase: Phase,
    pub(super) actions: VecDeque<Action>,
    pub(super) deadline: Option<(Instant, &'static str)>,
    pub(super) unix_nanos: u64,
    pub(super) client_address: Option<IpAddr>,
    /// The client rests inside a request.
    pub(super) pause: Option<Pause>,
    server_gone: bool,
    pub(super) chunk: Option<(SlotHead, SlotState)>,
    pub(super) closings: Vec<Closing>,
}

impl Session {
    /// A session whose client has just connected.
    #[must_use]
    pub fn new(settings: Arc<Settings>, now: Instant) -> Self {
        let deadline = Some((now + settings.login_deadline, "login"));
        let server = Leg::read_up_to(settings.chunk_bytes);
        Self {
            settings,
            client: Leg::new(),
            server,
            phase: Phase::Login(Box::default()),
            actions: VecDeque::new(),
            deadline,
            unix_nanos: 0,
            client_address: None,
            pause: None,
            server_gone: false,
            chunk: None,
            closings: Vec::new(),
        }
    }

    /// The same, for a client at this address: the server may be told of it.
    #[must_use]
    pub fn with_client(mut self, address: Option<IpAddr>) -> Self {
        self.client_address = address;
        self
    }

    /// Drops the server's leg as it stands, and asks for a connection to another server.
    pub(super) fn leave_for(&mut self, target: Target) {
        self.server = Leg::read_up_to(self.settings.chunk_bytes);
        self.server_gone = false;
        self.actions.push_back(Action::Connect(target));
    }

    /// The client's side: its buffers and what waits for its socket.
    pub fn client(&mut self) -> &mut Leg {
        &mut self.client
    }

    /// The server's side.
    pub fn server(&mut self) -> &mut Leg {
        &mut self.server
    }

    /// Does what can be done with what is buffered. `unix_nanos` is the wall clock, for people who read records.
    pub fn run(&mut self, now: Instant, unix_nanos: u64) {
        self.unix_nanos = unix_nanos;
        if let Err(error) = self.client.ingest() {
            return self.close(SessionEnd::Client(error.to_string()), now);
        }
        if let Err(error) = self.server.ingest() {
            let cause = self.upstream_broke(&error);
            return self.end_by(SessionEnd::Server(error.to_string()), &cause, now);
        }
        let step = match self.phase {
            Phase::Login(_) => self.run_login(now),
            Phase::Ready(_) | Phase::Mars(_) => self.run_relay(now),
            Phase::Closing(_) => Ok(()),
        };
        if let Err(end) = step {
            self.end_by_fault(end, now);
        }
        // Inside TLS a peer says that it has ended before its socket does.
        if self.client.is_closed() {
            self.client_closed(now);
        }
        if self.server.is_closed() && !self.server_gone {
            self.server_closed(now);
        }
        self.end_without_server(now);
        self.watch_upload(now);
    }

    /// Takes an answer in.
    pub fn on_event(&mut self, event: Event, now: Instant) {
        let step = match self.phase {
            Phase::Login(_) => self.on_login_event(event, now),
            Phase::Ready(_) | Phase::Mars(_) => self.on_relay_event(event, now),
            Phase::Closing(_) => Ok(()),
        };
        if let Err(end) = step {
            self.end_by_fault(end, now);
        }
    }

    /// The next thing to do outside.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Session::on_deadline`] must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.first_deadline().map(|(at, _)| at)
    }

    fn first_deadline(&self) -> Option<(Instant, &'static str)> {
        let awaited = match &self.phase {
            Phase::Mars(mux) => mux.deadline(),
            _ => self.deadline,
        };
        let pause = self.pause.map(|pause| (pause.until, REST_OF_REQUEST));
        awaited.into_iter().chain(pause).min_by_key(|(at, _)| *at)
    }

    /// A deadline has passed.
    pub fn on_deadline(&mut self, now: Instant) {
        let Some((at, what)) = self.first_deadline() else {
            return;
        };
        if now >= at {
            if what == REST_OF_REQUEST {
                return self.close(SessionEnd::Deadline(what), now);
            }
            self.deadline = None;
            self.fail_fatally(
                &Cause::Upstream(format!("it did not answer in time ({what})")),
                now,
            );
            let cause = Cause::Upstream("the login took too long".to_owned());
            self.end_by(SessionEnd::Deadline(what), &cause, now);
        }
    }

    /// A journal state that must be written before anything that waits for the client's socket; ask until there is none.
    pub fn take_chunk(&mut self) -> Option<Chunk> {
        if let Phase::Mars(mux) = &mut self.phase {
            return mux.take_chunk();
        }
        let (head, state) = self.chunk.take()?;
        let lane = LaneId::PLAIN;
        Some(Chunk { lane, head, state })
    }

    /// Records that must be appended to the journal now.
    pub fn take_closings(&mut self) -> Vec<Closing> {
        std::mem::take(&mut self.closings)
    }

    /// The client closed its side, or its socket failed.
    pub fn client_closed(&mut self, now: Instant) {
        self.close(SessionEnd::Closed, now);
        self.client = Leg::new();
    }

    /// The server closed its side, or its socket failed. What it had said before is still delivered.
    pub fn server_closed(&mut self, now: Instant) {
        self.server_gone = true;
        self.server.out = super::out::Out::default();
        self.end_without_server(now);
    }

    /// Ends the session of a server that is gone, once all that it had said has been taken.
    fn end_without_server(&mut self, now: Instant) {
        let said = match &self.phase {
            Phase::Ready(relay) => {
                relay.finished.is_some()
                    || relay.open.is_some() && matches!(self.server.peek_packet(), Ok(Some(_)))
            }
            Phase::Mars(mux) => mux.has_unread(),
            Phase::Login(_) | Phase::Closing(_) => false,
        };
        if !self.server_gone || said {
            return;
        }
        let cause = self.upstream_left();
        self.upstream_lost(now);
        let end = SessionEnd::Server("it closed the connection".to_owned());
        self.end_by(end, &cause, now);
    }

    /// The journal could not be written: nothing more may be delivered.
    pub fn journal_failed(&mut self, why: &str, now: Instant) {
        self.client.out = super::out::Out::default();
        self.close(SessionEnd::Gate(format!("journal: {why}")), now);
    }

    /// True if the client's socket should be read.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        !matches!(self.phase, Phase::Closing(_)) && self.client.buffered() < CLIENT_IN_MAX
    }

    /// Bytes that are paid and journaled together on this connection.
    pub(super) fn chunk_bytes(&self) -> usize {
        let most = self.settings.chunk_bytes;
        if self.holds_twice() {
            most.min(CHUNK_HELD_TWICE_MAX)
        } else {
            most
        }
    }

    fn holds_twice(&self) -> bool {
        matches!(self.phase, Phase::Mars(_)) || self.client.is_encrypted() || self.server.is_encrypted()
    }

    /// True if the server's socket should be read: not while its client has not taken what came before, so that a response
    /// to a slow client is held once. What is cut is read all the same, the server owes an acknowledgement.
    #[must_use]
    pub fn wants_server(&self) -> bool {
        let limit = self.chunk_bytes().max(SERVER_IN_MIN);
        let waits = match &self.phase {
            Phase::Ready(relay) => !self.client.out.is_empty() && !relay.is_cutting(),
            Phase::Login(_) | Phase::Mars(_) => false,
            Phase::Closing(_) => true,
        };
        !waits && !self.server_gone && self.server.buffered() < limit
    }

    /// Both sides.
    pub fn legs(&mut self) -> (&mut Leg, &mut Leg) {
        (&mut self.client, &mut self.server)
    }

    /// A session between two requests holds no read buffer.
    pub fn release_idle(&mut self) {
        let idle = match &self.phase {
            Phase::Ready(relay) => !relay.is_busy(),
            Phase::Mars(mux) => !mux.is_busy(),
            Phase::Login(_) | Phase::Closing(_) => false,
        };
        if idle {
            let blocks = &self.settings.blocks;
            self.client.release_idle(blocks);
            self.server.release_idle(blocks);
        }
    }

    /// True if another [`Session::run`] would get on without anything from outside.
    #[must_use]
    pub fn is_runnable(&mut self, now: Instant) -> bool {
        match self.phase_and_context(now) {
            (Phase::Ready(relay), cx) => {
                relay.is_runnable(cx.client, cx.server, cx.chunk_bytes, cx.server_out_max)
            }
            (Phase::Mars(mux), cx) => mux.is_runnable(&cx),
            (Phase::Login(_) | Phase::Closing(_), _) => false,
        }
    }

    /// The gateway stops: a session between two requests ends now, any other when its request has ended.
    pub fn stop(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Ready(relay) if relay.is_busy() => relay.ending = true,
            Phase::Mars(mux) if mux.is_busy() => mux.stop(),
            Phase::Ready(_) | Phase::Mars(_) | Phase::Login(_) => self.close(SessionEnd::Closed, now),
            Phase::Closing(_) => {}
        }
    }

    /// Why the session ended, once it has. What is queued for the client is still to be written.
    pub fn take_end(&mut self) -> Option<SessionEnd> {
        match &mut self.phase {
            Phase::Closing(end) => Some(std::mem::replace(end, SessionEnd::Closed)),
            _ => None,
        }
    }

    /// A server that breaks the protocol during a login is the client's to know.
    fn end_by_fault(&mut self, end: SessionEnd, now: Instant) {
        match &end {
            SessionEnd::Server(why) => {
                let cause = Cause::Upstream(why.clone());
                self.end_by(end, &cause, now);
            }
            _ => self.close(end, now),
        }
    }

    /// Ends the session; a login is refused for `cause`, and the log keeps `end`.
    fn end_by(&mut self, end: SessionEnd, cause: &Cause, now: Instant) {
        if matches!(self.phase, Phase::Login(_)) {
            self.refuse_login(cause, now);
            self.phase = Phase::Closing(end);
            return;
        }
        self.close(end, now);
    }

    pub(super) fn close(&mut self, end: SessionEnd, now: Instant) {
        if matches!(self.phase, Phase::Closing(_)) {
            return;
        }
        if let (Phase::Mars(mux), mut cx) = self.phase_and_context(now) {
            mux.flush(&mut cx);
        }
        self.abandon(Outcome::Interrupted, now);
        self.client.say_goodbye();
        (self.deadline, self.pause) = (None, None);
        self.actions.clear();
        self.phase = Phase::Closing(end);
    }
}

impl From<LegError> for SessionEnd {
    /// Only what is sent by us goes through here; what a peer sent is told apart where it is read.
    fn from(error: LegError) -> Self {
        Self::Gate(error.to_string())
    }
}
