//! Plays a script against a session as the driver would: journal first, then the sockets.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use weir_contracts::entry::UsageRecord;
use weir_contracts::tariff::Quantity;
use weir_proxy::auth::AuthSettings;
use weir_proxy::credit::More;
use weir_proxy::ports::billing::{Denial, DenialReason, Terms};
use weir_proxy::session::leg::Leg;
use weir_proxy::session::mux_offer::MarsOffer;
use weir_proxy::session::out::{Out, PIECES_PER_WRITE};
use weir_proxy::session::{Action, Event, Session, Settings};
use weir_tds::build::TokenBuf;
use weir_tds::login7::{Feature, Login7, feature};
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::{Encryption, EncryptionOption, EncryptionPolicy, Prelogin};
use weir_tds::smp::End;
use weir_tds::walker::WalkerOptions;

use super::peer::Peer;
use super::purse::{KnownPurse, terms};
use super::script::{Opening, Script, Step};
use crate::allocation::peak;
use crate::fuzz::oracle;

/// Turns of one pump at most: a core that is runnable for ever hangs its driver.
const TURNS_MAX: usize = 10_000;
/// Bytes that a session may take beyond what its peers sent: two read buffers of 64 KiB, and its own structures.
const SESSION_BYTES: usize = 256 * 1024;

/// The two sides of a session.
pub(super) const CLIENT: usize = 0;
/// As above.
pub(super) const SERVER: usize = 1;

/// A session and everything around it.
pub(in crate::fuzz) struct Rig {
    core: Session,
    purse: Arc<KnownPurse>,
    terms: Terms,
    now: Instant,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    records: Vec<UsageRecord>,
    /// Credit is asked for and not answered.
    asked: VecDeque<i64>,
    granted_nanos: i64,
    connected: bool,
    pub(super) begun: bool,
    pub(super) ended: Option<String>,
    client_reads: bool,
    /// Most bytes that the core allocated in one turn's work, and bytes that the client had sent by then.
    received: usize,
    in_pieces: bool,
    /// Both sides' SMP, under MARS, from the login on.
    mars: Option<[Peer; 2]>,
}

impl Rig {
    /// Plays a whole script, closes, and answers what is left.
    pub(in crate::fuzz) fn play(script: &Script<'_>, in_pieces: bool) -> Self {
        let mut rig = Self::new(script);
        if script.opening == Opening::LoggedIn {
            rig.log_in(WalkerOptions::new(script.version), script.mars);
        }
        rig.in_pieces = in_pieces;
        for step in &script.steps {
            if rig.ended.is_some() {
                break;
            }
            rig.step(*step);
            rig.answer_smp();
        }
        rig.client_reads = true;
        rig.pump();
        rig.answer_smp();
        rig.leave();
        rig
    }

    pub(super) fn new(script: &Script<'_>) -> Self {
        let terms = terms(script.policy, script.prices);
        let purse = Arc::new(KnownPurse::new(script.credit_nanos, Arc::clone(&terms.tariff)));
        let now = start();
        Self {
            core: Session::new(settings(script.small_chunks, script.mars), now),
            purse,
            terms,
            now,
            to_client: Vec::new(),
            to_server: Vec::new(),
            records: Vec::new(),
            asked: VecDeque::new(),
            granted_nanos: script.credit_nanos,
            connected: false,
            begun: false,
            ended: None,
            client_reads: true,
            received: 0,
            in_pieces: false,
            mars: None,
        }
    }

    /// A plain login with the features that `options` come of, told nobody of.
    pub(super) fn log_in(&mut self, options: WalkerOptions, mars: bool) {
        let version = options.version;
        let features = features(options);
        let hello = prelogin(mars).encode();
        self.client(&packet(PacketType::Prelogin, PacketStatus::EOM.0, &hello));
        let login = Login7 {
            tds_version: version.to_login7(),
            packet_size: 4096,
            user_name: "acme".into(),
            password: Password::from_text("secret"),
            server_name: "gate".into(),
            features: features.iter().map(|(asked, _)| asked.clone()).collect(),
            ..Login7::default()
        };
        let login = login.encode().expect("a short login");
        self.client(&packet(PacketType::Login7, PacketStatus::EOM.0, &login));
        self.server(&packet(PacketType::TabularResult, PacketStatus::EOM.0, &hello));
        let mut tokens = TokenBuf::new(version);
        tokens
            .login_ack("test", [16, 0, 3, 232])
            .env_packet_size(4096, 4096);
        if !features.is_empty() {
            let acks: Vec<_> = features.iter().map(|(asked, ack)| (asked.id, ack)).collect();
            tokens.feature_ext_ack(&acks);
        }
        tokens.done(0, 0, 0);
        self.server(&packet(
            PacketType::TabularResult,
            PacketStatus::EOM.0,
            tokens.as_bytes(),
        ));
        assert!(
            self.begun && self.ended.is_none(),
            "a plain login fails: {:?}",
            self.ended
        );
        self.to_client.clear();
        self.to_server.clear();
        self.mars = mars.then(|| [Peer::new(End::Client), Peer::new(End::Server)]);
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Client(bytes) => self.past_smp(CLIENT, bytes),
            Step::ClientPacket(kind, status, body) => self.packet(CLIENT, kind, status, body),
            Step::Server(bytes) => self.past_smp(SERVER, bytes),
            Step::ServerPacket(status, body) => {
                self.packet(SERVER, PacketType::TabularResult.byte(), status, body);
            }
            Step::Fin(sid) => {
                if let Some(peers) = &mut self.mars {
                    let fin = peers[CLIENT].fin(u16::from(sid & 3));
                    self.client(&fin);
                }
            }
            Step::Grant(n) => self.answer_credit(Some(i64::from(n) * 1_000)),
            Step::Deny => self.answer_credit(None),
            Step::ClientReads(reads) => {
                self.client_reads = reads;
                self.pump();
            }
            Step::Deadline => {
                if let Some(at) = self.core.deadline() {
                    self.now = self.now.max(at);
                    self.core.on_deadline(self.now);
                    self.pump();
                }
            }
            Step::ClientCloses => self.leave(),
            Step::ServerCloses => {
                self.core.server_closed(self.now);
                self.pump();
            }
            Step::Stop => {
                self.core.stop(self.now);
                self.pump();
            }
            Step::Wait(n) => {
                self.now += Duration::from_millis(n.into());
                self.pump();
            }
        }
    }

    fn past_smp(&mut self, side: usize, bytes: &[u8]) {
        if let Some(peers) = &mut self.mars {
            peers.iter_mut().for_each(Peer::bypass);
        }
        self.say(side, bytes);
    }

    /// One packet; under MARS in the session that the two high bits of its status name.
    fn packet(&mut self, side: usize, kind: u8, status: u8, body: &[u8]) {
        let Some(peers) = &mut self.mars else {
            return self.say(side, &packet_of(kind, status, body));
        };
        let wrapped = peers[side].wrap(u16::from(status >> 6), &packet_of(kind, status & 0x3F, body));
        self.say(side, &wrapped);
    }

    fn say(&mut self, side: usize, bytes: &[u8]) {
        if side == CLIENT {
            self.client(bytes);
        } else {
            self.server(bytes);
        }
    }

    /// The SMP packets that carry TDS packets in session `sid`; without MARS the packets as they are.
    pub(super) fn in_session(&mut self, side: usize, sid: u16, mut packets: &[u8]) -> Vec<u8> {
        let Some(peers) = &mut self.mars else {
            return packets.to_vec();
        };
        let mut out = Vec::new();
        while let Ok(Some(header)) = PacketHeader::parse(packets) {
            let (packet, rest) = packets.split_at(usize::from(header.length).min(packets.len()));
            out.extend(peers[side].wrap(sid, packet));
            packets = rest;
        }
        out
    }

    /// What SMP itself has to say to what the gate wrote: windows and FINs, until both sides rest.
    pub(super) fn answer_smp(&mut self) {
        loop {
            let Some([client, server]) = &mut self.mars else {
                return;
            };
            let (of_client, of_server) = (client.absorb(&self.to_client), server.absorb(&self.to_server));
            if of_client.is_empty() && of_server.is_empty() {
                return;
            }
            self.client(&of_client);
            self.server(&of_server);
        }
    }

    pub(super) fn client(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        self.feed(bytes, Session::client, Session::wants_client);
    }

    /// Bytes of a server that is not connected do not exist.
    pub(super) fn server(&mut self, bytes: &[u8]) {
        if self.connected {
            self.received += bytes.len();
            self.feed(bytes, Session::server, Session::wants_server);
        }
    }

    /// A side that is not wanted to be read is not read: its bytes wait in its socket, and here are not sent at all.
    fn feed(&mut self, bytes: &[u8], leg: fn(&mut Session) -> &mut Leg, wanted: fn(&Session) -> bool) {
        if bytes.is_empty() || !wanted(&self.core) {
            return;
        }
        if !self.in_pieces {
            return self.bounded(|rig| {
                read(leg(&mut rig.core), bytes);
                rig.pump();
            });
        }
        for piece in oracle::pieces(bytes) {
            self.bounded(|rig| {
                read(leg(&mut rig.core), piece);
                rig.pump();
            });
        }
    }

    /// What one read may cost. What the rig itself collects grows by doubling and is counted, so it stands in the bound.
    fn bounded(&mut self, work: impl FnOnce(&mut Self)) {
        let known = self.connected;
        let collected = self.to_client.capacity() + self.to_server.capacity();
        let ((), most) = peak(|| work(self));
        let collects = 3 * (self.to_client.capacity() + self.to_server.capacity() - collected) + collected;
        let free = if known { SESSION_BYTES } else { oracle::FREE_BYTES };
        let limit = free + oracle::BYTES_PER_BYTE * self.received + collects;
        assert!(
            most <= limit,
            "{most} bytes for {} received, known {known}",
            self.received
        );
    }

    fn answer_credit(&mut self, nanos: Option<i64>) {
        if self.asked.pop_front().is_none() {
            return;
        }
        let more = match nanos {
            Some(nanos) => {
                self.purse.grant(nanos);
                self.granted_nanos += nanos;
                More::Enough
            }
            None => More::Denied(Denial {
                reason: DenialReason::CreditSpent,
                message: String::new(),
                balance: "0.00".into(),
                available: "0.00".into(),
                currency: "USD".into(),
            }),
        };
        self.core.on_event(Event::Credit(more), self.now);
        self.pump();
    }

    /// The client closes.
    pub(super) fn leave(&mut self) {
        self.core.client_closed(self.now);
        self.pump();
    }

    /// Runs the core until nothing moves.
    fn pump(&mut self) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "the core does not come to rest");
            self.core.run(self.now, 1);
            self.act();
            self.records.extend(
                self.core
                    .take_closings()
                    .into_iter()
                    .map(|closing| closing.record),
            );
            while self.core.take_chunk().is_some() {}
            if self.client_reads {
                drain(&mut self.core.client().out, &mut self.to_client);
            }
            if self.connected {
                drain(&mut self.core.server().out, &mut self.to_server);
            } else {
                assert!(
                    self.core.server().out.is_empty(),
                    "bytes for a server that is not connected"
                );
            }
            if let Some(end) = self.core.take_end() {
                self.ended.get_or_insert_with(|| end.to_string());
                return;
            }
            if !self.core.is_runnable(self.now) {
                self.core.release_idle();
                return;
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.next_action() {
            let event = match action {
                Action::Verify { .. } => Event::Verified,
                Action::Admit(_) => Event::Admitted {
                    purse: Arc::<KnownPurse>::clone(&self.purse),
                    terms: self.terms.clone(),
                },
                Action::Connect(_) => {
                    self.connected = true;
                    Event::Connected
                }
                Action::Begin { .. } => {
                    self.begun = true;
                    Event::Begun { session: 7 }
                }
                Action::MoreCredit(need) => {
                    self.asked.push_back(need);
                    continue;
                }
            };
            self.core.on_event(event, self.now);
        }
    }

    /// What both sides got, and why it ended.
    pub(super) fn told(&self) -> ([Vec<Vec<u8>>; 2], Option<&str>) {
        (
            [CLIENT, SERVER].map(|side| self.messages_to(side)),
            self.ended.as_deref(),
        )
    }

    /// True if all that was written to both sides is in [`Rig::messages_to`].
    pub(super) fn sees_all(&self) -> bool {
        self.mars
            .as_ref()
            .is_none_or(|peers| !peers.iter().any(Peer::is_bypassed))
    }

    /// Bodies of the messages to one side, under MARS session by session.
    pub(super) fn messages_to(&self, side: usize) -> Vec<Vec<u8>> {
        match &self.mars {
            None => super::messages([&self.to_client, &self.to_server][side]),
            Some(peers) => peers[side]
                .data()
                .values()
                .flat_map(|stream| super::messages(stream))
                .collect(),
        }
    }

    /// What the records say, in an order of their own: sessions of one connection end in any.
    pub(super) fn usage(&self) -> Vec<String> {
        let one = |r: &UsageRecord| {
            let (kind, outcome) = (r.kind, r.outcome);
            let counts = (
                r.requests,
                r.rows,
                r.bytes_out,
                r.bytes_in,
                r.bulk_rows,
                r.cost_nanos,
            );
            format!("{kind:?} {outcome:?} {counts:?}")
        };
        let mut all: Vec<String> = self.records.iter().map(one).collect();
        all.sort_unstable();
        all
    }

    pub(super) fn records(&self) -> &[UsageRecord] {
        &self.records
    }

    /// What was granted is left or in the records, and each record costs what its counts come to.
    ///
    /// # Panics
    /// When not.
    pub(super) fn money_adds_up(&self) {
        let mut paid = 0;
        for record in &self.records {
            let quantity = Quantity {
                requests: record.requests,
                rows: record.rows,
                bytes_out: record.bytes_out,
                bytes_in: record.bytes_in,
                bulk_rows: record.bulk_rows,
                server_nanos: record.server_nanos,
            };
            assert_eq!(
                record.cost_nanos,
                self.terms.tariff.cost_nanos(&quantity),
                "{record:?}"
            );
            if record.lease.is_some() {
                paid += record.cost_nanos;
            }
        }
        let (left, out) = self.purse.content();
        assert_eq!(out, 0, "a slice is still out");
        assert_eq!(
            left + paid,
            self.granted_nanos,
            "money lost or made: {:?}",
            self.records
        );
    }
}

fn read(leg: &mut Leg, bytes: &[u8]) {
    leg.read_buf().extend_from_slice(bytes);
}

fn drain(out: &mut Out, to: &mut Vec<u8>) {
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let used = out.slices(&mut slices);
        let before = to.len();
        for slice in &slices[..used] {
            to.extend_from_slice(slice);
        }
        let written = to.len() - before;
        out.advance(written);
    }
}

/// Features of a login and their acknowledgements: those that change how a response reads.
fn features(options: WalkerOptions) -> Vec<(Feature, Vec<u8>)> {
    let mut features = Vec::new();
    if options.column_encryption {
        let id = feature::COLUMN_ENCRYPTION;
        features.push((Feature { id, data: vec![1] }, vec![1]));
    }
    if options.data_classification > 0 {
        let (id, version) = (feature::DATA_CLASSIFICATION, options.data_classification);
        let data = vec![version];
        features.push((Feature { id, data }, vec![version, 1]));
    }
    features
}

pub(super) fn packet(kind: PacketType, status: u8, body: &[u8]) -> Vec<u8> {
    packet_of(kind.byte(), status, body)
}

/// One packet, whatever stands in its header; a body too long for it is cut.
fn packet_of(kind: u8, status: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_LEN + body.len()).min(usize::from(u16::MAX));
    let mut out = vec![kind, status];
    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    out.extend([0, 51, 1, 0]);
    out.extend_from_slice(&body[..length - HEADER_LEN]);
    out
}

pub(super) fn prelogin(mars: bool) -> Prelogin {
    Prelogin {
        version: [16, 0, 0, 0, 0, 0],
        encryption: Some(EncryptionOption::plain(Encryption::NotSup)),
        mars: Some(mars),
        ..Prelogin::default()
    }
}

/// One moment for all runs: nothing depends on when an input is run.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Made once: a server of the rig grants what was asked for, so the offer of MARS stays as it is.
fn settings(small_chunks: bool, mars: bool) -> Arc<Settings> {
    static SETTINGS: OnceLock<[Arc<Settings>; 4]> = OnceLock::new();
    let all = SETTINGS.get_or_init(|| {
        [(64 * 1024, false), (512, false), (64 * 1024, true), (512, true)]
            .map(|(chunk_bytes, mars)| Arc::new(make_settings(chunk_bytes, mars)))
    });
    Arc::clone(&all[usize::from(small_chunks) + 2 * usize::from(mars)])
}

fn make_settings(chunk_bytes: usize, mars: bool) -> Settings {
    Settings {
        client_policy: EncryptionPolicy::NotSup,
        client_tls: None,
        upstream_encryption: Encryption::NotSup,
        upstream_tls: None,
        auth: AuthSettings {
            upstream: "db:1433".parse().expect("a target"),
            ..AuthSettings::default()
        },
        upstream_packet_size: None,
        mars: MarsOffer::new(mars),
        chunk_bytes,
        login_deadline: Duration::from_secs(15),
        cut_deadline: Duration::from_secs(5),
        upload_idle: Duration::from_secs(60),
        gate_name: "weir".into(),
        product_version: [16, 0, 3, 232, 0, 0],
        blocks: weir_proxy::session::Blocks::keeping(0),
        tally: Arc::default(),
        journal_ready: Box::new(|| true),
    }
}
