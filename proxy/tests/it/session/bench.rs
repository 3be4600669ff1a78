//! A session core between a scripted client and a scripted server, in virtual time, with a purse of known content.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IoSlice,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;
use weir_contracts::{
    entry::UsageRecord,
    ids::{LeaseId, ProxyId},
    money::Currency,
    tariff::Tariff,
};
use weir_proxy::{
    auth::AuthSettings,
    credit::{AccountState, LeaseView, More, Slice},
    gate::Cause,
    ports::billing::{Cut, Denial, DenialReason, Mode, Terms},
    session::{
        Action, Event, MarsOffer, Session, Settings,
        engine::SessionEnd,
        leg::Leg,
        out::{Out, PIECES_PER_WRITE},
        purse::{LeaseGuard, Purse},
    },
};
use weir_tds::{
    build::TokenBuf,
    login7::Login7,
    message::write_message,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    password::Password,
    prelogin::{Encryption, EncryptionOption, EncryptionPolicy, Prelogin},
    version::TdsVersion,
};

pub(crate) const V: TdsVersion = TdsVersion::V7_4;
/// Price of a row, nano-units.
pub(crate) const ROW: i64 = 10_000;

pub(crate) fn tariff() -> Arc<Tariff> {
    Arc::new(Tariff {
        version: "test@1".into(),
        per_request_nanos: 0,
        per_row_nanos: ROW,
        per_kib_out_nanos: 0,
        per_kib_in_nanos: 0,
        per_bulk_row_nanos: 0,
        per_server_second_nanos: 0,
    })
}

pub(crate) fn terms(mode: Mode) -> Terms {
    Terms {
        account: "acme".parse().unwrap(),
        currency: Currency::USD,
        mode,
        cut: Cut::AtRow,
        tariff: tariff(),
        row_credit_bytes: 1 << 20,
    }
}

/// Credit that is simply there; `frozen` is for the test to set.
#[derive(Default)]
pub(crate) struct FakePurse {
    pub(crate) nanos: AtomicI64,
    pub(crate) out: AtomicI64,
    pub(crate) lease: AtomicI64,
    pub(crate) prices: OnceLock<Arc<Tariff>>,
}

impl FakePurse {
    fn tariff(&self) -> Arc<Tariff> {
        self.prices.get().map_or_else(tariff, Arc::clone)
    }
}

impl Purse for FakePurse {
    fn take(&self, least: i64, want: i64) -> Option<Slice> {
        let there = self.nanos.load(Ordering::SeqCst);
        if there < least.max(1) {
            return None;
        }
        let nanos = want.min(there);
        self.nanos.fetch_sub(nanos, Ordering::SeqCst);
        self.out.fetch_add(nanos, Ordering::SeqCst);
        let number = 1 + u32::try_from(self.lease.load(Ordering::SeqCst)).unwrap();
        let id = LeaseId {
            proxy: ProxyId(Uuid::nil()),
            epoch: 1,
            number,
        };
        Some(Slice {
            nanos,
            lease: LeaseView {
                number,
                id,
                tariff: self.tariff(),
            },
        })
    }

    fn spent(&self, _lease: u32, nanos: i64) {
        self.out.fetch_sub(nanos, Ordering::SeqCst);
    }

    fn give_back(&self, _lease: u32, nanos: i64) {
        self.out.fetch_sub(nanos, Ordering::SeqCst);
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }

    fn overdraw(&self, _lease: u32, nanos: i64) {
        self.nanos.fetch_sub(nanos, Ordering::SeqCst);
    }

    fn attach(&self, _lease: u32) -> LeaseGuard {
        Box::new(())
    }

    fn is_closing(&self, lease: u32) -> bool {
        i64::from(lease) <= self.lease.load(Ordering::SeqCst)
    }

    fn state(&self) -> AccountState {
        AccountState {
            frozen: false,
            broke: None,
            terms: None,
            balance: Some("1.00".into()),
            available: Some("1.00".into()),
            leftover_nanos: self.nanos.load(Ordering::SeqCst),
            outstanding_nanos: self.out.load(Ordering::SeqCst),
        }
    }
}

/// A session and everything around it.
pub(crate) struct Bench {
    pub(crate) core: Session,
    pub(crate) purse: Arc<FakePurse>,
    pub(crate) now: Instant,
    /// Bytes that the client and the server were sent and have not read.
    pub(crate) to_client: Vec<u8>,
    pub(crate) to_server: Vec<u8>,
    /// Every byte that the client was ever sent.
    pub(crate) told: Vec<u8>,
    pub(crate) records: Vec<UsageRecord>,
    pub(crate) actions: VecDeque<Action>,
    /// Sessions that the journal was told of.
    pub(crate) begun: Vec<String>,
    /// Rows that the last journal state counts.
    pub(crate) journaled_rows: u64,
    /// The same for each session of a MARS connection.
    pub(crate) journaled: BTreeMap<u32, u64>,
    /// The client asks for MARS, gets it, and the server speaks it.
    pub(crate) mars: bool,
    pub(crate) end: Option<SessionEnd>,
    pub(crate) unread_limit: usize,
    /// What the client asks for at login, and what the server agrees to.
    pub(crate) asked_packet_size: u32,
    pub(crate) packet_size: u16,
    /// How the account's responses are cut.
    pub(crate) cut: Cut,
}

pub(crate) fn settings() -> Settings {
    Settings {
        client_policy: EncryptionPolicy::NotSup,
        client_tls: None,
        upstream_encryption: Encryption::NotSup,
        upstream_tls: None,
        auth: AuthSettings {
            upstream: "db:1433".parse().unwrap(),
            ..AuthSettings::default()
        },
        upstream_packet_size: None,
        mars: MarsOffer::new(false),
        chunk_bytes: 64 * 1024,
        login_deadline: Duration::from_secs(15),
        cut_deadline: Duration::from_secs(5),
        upload_idle: Duration::from_secs(60),
        gate_name: "weir".into(),
        product_version: [16, 0, 3, 232, 0, 0],
        blocks: weir_proxy::session::Blocks::default(),
        tally: Arc::default(),
        journal_ready: Box::new(|| true),
    }
}

impl Bench {
    pub(crate) fn new(credit_nanos: i64) -> Self {
        Self::with(settings(), credit_nanos)
    }

    pub(crate) fn with(settings: Settings, credit_nanos: i64) -> Self {
        Self::sharing(Arc::new(settings), credit_nanos)
    }

    /// One of several sessions of a proxy.
    pub(crate) fn sharing(settings: Arc<Settings>, credit_nanos: i64) -> Self {
        let now = Instant::now();
        let purse = Arc::new(FakePurse::default());
        purse.nanos.store(credit_nanos, Ordering::SeqCst);
        Self {
            core: Session::new(settings, now),
            purse,
            now,
            to_client: Vec::new(),
            to_server: Vec::new(),
            told: Vec::new(),
            records: Vec::new(),
            actions: VecDeque::new(),
            begun: Vec::new(),
            journaled_rows: 0,
            journaled: BTreeMap::new(),
            mars: false,
            end: None,
            unread_limit: usize::MAX,
            asked_packet_size: 4096,
            packet_size: 4096,
            cut: Cut::AtRow,
        }
    }

    /// Logged in, with this much credit.
    pub(crate) fn ready(credit_nanos: i64) -> Self {
        Self::ready_in(credit_nanos, Mode::Enforce)
    }

    /// Logged in under these prices.
    pub(crate) fn priced(credit_nanos: i64, tariff: Tariff) -> Self {
        let mut bench = Self::new(credit_nanos);
        bench.purse.prices.set(Arc::new(tariff)).unwrap();
        bench.log_in(Mode::Enforce);
        bench
    }

    pub(crate) fn ready_in(credit_nanos: i64, mode: Mode) -> Self {
        let mut bench = Self::new(credit_nanos);
        bench.log_in(mode);
        assert!(bench.end.is_none());
        bench
    }

    pub(crate) fn log_in(&mut self, mode: Mode) {
        let asks = Login7 {
            packet_size: self.asked_packet_size,
            ..login7("acme")
        };
        assert_eq!(self.client_opens(&asks).mars, Some(self.mars));
        assert!(matches!(self.actions.pop_front(), Some(Action::Admit(facts)) if facts.login == "acme"));
        assert!(
            self.to_server.is_empty(),
            "nothing reaches the server before the tenant is known"
        );
        self.admit(mode);
        let hello = Prelogin::parse(&self.server_message()).unwrap();
        assert_eq!(hello.mars, Some(self.mars), "asked for what was promised");
        self.server_says(&prelogin(Encryption::NotSup).encode());
        let login = Login7::parse(&self.server_message()).unwrap();
        assert_eq!(
            (login.user_name.as_str(), login.server_name.as_str()),
            ("acme", "db")
        );
        let mut tokens = TokenBuf::new(V);
        tokens
            .login_ack("test", [16, 0, 3, 232])
            .env_packet_size(self.packet_size, 4096)
            .done(0, 0, 0);
        self.server_says(tokens.as_bytes());
        self.client_message();
    }

    pub(crate) fn admit(&mut self, mode: Mode) {
        self.admit_only(mode);
        assert!(matches!(self.actions.pop_front(), Some(Action::Connect(_))));
        self.event(Event::Connected);
    }

    /// The tenant is known; nobody has connected yet.
    pub(crate) fn admit_only(&mut self, mode: Mode) {
        let purse: Arc<dyn Purse> = Arc::<FakePurse>::clone(&self.purse);
        self.event(Event::Admitted {
            purse,
            terms: Terms {
                tariff: self.purse.tariff(),
                cut: self.cut,
                ..terms(mode)
            },
        });
    }

    /// Another core in this one's place.
    pub(crate) fn with_core(&mut self, change: impl FnOnce(Session) -> Session) {
        let settings = Arc::new(settings());
        let core = std::mem::replace(&mut self.core, Session::new(settings, self.now));
        self.core = change(core);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.core.on_event(event, self.now);
        self.pump();
    }

    /// The answer of a billing that has nothing more.
    pub(crate) fn deny(&mut self) {
        assert!(
            matches!(self.actions.pop_front(), Some(Action::MoreCredit(_))),
            "no credit was asked for"
        );
        self.event(Event::Credit(More::Denied(Denial {
            reason: DenialReason::CreditSpent,
            message: String::new(),
            balance: "0.00".into(),
            available: "0.00".into(),
            currency: "USD".into(),
        })));
    }

    pub(crate) fn grant(&mut self, nanos: i64) {
        assert!(
            matches!(self.actions.pop_front(), Some(Action::MoreCredit(_))),
            "no credit was asked for"
        );
        self.purse.nanos.fetch_add(nanos, Ordering::SeqCst);
        self.event(Event::Credit(More::Enough));
    }

    /// Runs the core until nothing moves, as the driver does: journal first, then the sockets.
    pub(crate) fn pump(&mut self) {
        loop {
            self.core.run(self.now, 1);
            while let Some(action) = self.core.next_action() {
                if let Action::Begin { principal, .. } = action {
                    self.begun.push(principal);
                    self.core.on_event(Event::Begun { session: 7 }, self.now);
                } else {
                    self.actions.push_back(action);
                }
            }
            self.records
                .extend(self.core.take_closings().into_iter().map(|c| c.record));
            while let Some(chunk) = self.core.take_chunk() {
                self.journaled_rows = chunk.state.rows;
                self.journaled.insert(chunk.lane.0, chunk.state.rows);
            }
            let room = self.unread_limit.saturating_sub(self.to_client.len());
            let before = self.to_client.len();
            drain(&mut self.core.client().out, &mut self.to_client, room);
            self.told.extend_from_slice(&self.to_client[before..]);
            drain(&mut self.core.server().out, &mut self.to_server, usize::MAX);
            if let Some(end) = self.core.take_end() {
                self.end.get_or_insert(end);
                return;
            }
            if !self.core.is_runnable(self.now) {
                return;
            }
        }
    }

    pub(crate) fn feed_client(&mut self, bytes: &[u8]) {
        feed(self.core.client(), bytes);
        self.pump();
    }

    pub(crate) fn feed_server(&mut self, bytes: &[u8]) {
        feed(self.core.server(), bytes);
        self.pump();
    }

    pub(crate) fn client_says(&mut self, kind: PacketType, status: PacketStatus, body: &[u8]) {
        self.feed_client(&message(kind, status, body));
    }

    pub(crate) fn server_says(&mut self, tokens: &[u8]) {
        self.feed_server(&message(PacketType::TabularResult, PacketStatus::NORMAL, tokens));
    }

    /// The next whole message that the client reads; its body.
    pub(crate) fn client_message(&mut self) -> Vec<u8> {
        take_message(&mut self.to_client)
            .expect("the client waits for a message")
            .1
    }

    /// The next whole message that the server reads; its body.
    pub(crate) fn server_message(&mut self) -> Vec<u8> {
        take_message(&mut self.to_server)
            .expect("the server waits for a message")
            .1
    }

    pub(crate) fn server_message_kind(&mut self) -> PacketType {
        take_message(&mut self.to_server)
            .expect("the server waits for a message")
            .0
    }
}

fn feed(leg: &mut Leg, bytes: &[u8]) {
    leg.read_buf().extend_from_slice(bytes);
}

fn drain(out: &mut Out, to: &mut Vec<u8>, mut room: usize) {
    while !out.is_empty() && room > 0 {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let used = out.slices(&mut slices);
        let before = to.len();
        for slice in &slices[..used] {
            let part = slice.len().min(room);
            to.extend_from_slice(&slice[..part]);
            room -= part;
        }
        let written = to.len() - before;
        out.advance(written);
    }
}

pub(crate) fn message(kind: PacketType, status: PacketStatus, body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    write_message(&mut out, kind, status, 4096, 51, 1, body);
    out.to_vec()
}

/// Takes a whole message off the front: its type and body.
pub(crate) fn take_message(bytes: &mut Vec<u8>) -> Option<(PacketType, Vec<u8>)> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let header = PacketHeader::parse(bytes.get(at..)?).unwrap()?;
        let end = at + usize::from(header.length);
        body.extend_from_slice(bytes.get(at + HEADER_LEN..end)?);
        at = end;
        if header.status.is_eom() {
            bytes.drain(..at);
            return Some((header.kind, body));
        }
    }
}

pub(crate) fn prelogin(mode: Encryption) -> Prelogin {
    Prelogin {
        version: [16, 0, 0, 0, 0, 0],
        encryption: Some(EncryptionOption::plain(mode)),
        instance: Some(vec![0]),
        thread_id: weir_tds::prelogin::Field::Value(1),
        mars: Some(true),
        trace_id: weir_tds::prelogin::Field::Absent,
        fed_auth_required: None,
        nonce: None,
    }
}

pub(crate) fn login7(user: &str) -> Login7 {
    Login7 {
        tds_version: V.to_login7(),
        packet_size: 4096,
        user_name: user.into(),
        password: Password::from_text("secret"),
        server_name: "weir.example".into(),
        ..Login7::default()
    }
}

/// A SQL batch's body.
pub(crate) fn batch(text: &str) -> Vec<u8> {
    weir_tds::request::sql_batch::encode(text, 0, weir_tds::request::RequestOptions::new(V))
}

pub(crate) fn refused(cause: Cause) -> Event {
    Event::Refused(cause)
}
