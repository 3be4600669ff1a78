//! The login, both legs: PRELOGIN → TLS → LOGIN7 → tenant → server's PRELOGIN → TLS → LOGIN7 → login response.
//!
//! Nothing reaches the server before a valid LOGIN7 of a known tenant. What would lead a client around the gate is
//! refused or not offered: session recovery, DNS caching, routing, the mirroring partner [MS-TDS 2.2.6.4, 2.2.7.9].

use std::{sync::Arc, time::Instant};

use weir_tds::{
    login7::{LOGIN7_MAX, Login7},
    message::{FIRST_PACKET_ID, MessageBuf},
    packet::{DEFAULT_PACKET_SIZE, PacketStatus, PacketType},
    prelogin::{self, Encryption, Field, Negotiated, PRELOGIN_MAX, Prelogin, TlsScope},
    version::TdsVersion,
};

use zeroize::{Zeroize, Zeroizing};

use super::{
    engine::{Action, Event, Phase, Session, SessionEnd},
    leg::{Message, READ_MOST},
    login_response::{self, LoginResponse},
    login_tls,
    login7_policy::{self, Rewrite},
    mux::{Mux, Seed},
    packet_size::{self, PacketSizes},
    purse::{Payer, Purse},
    relay::Relay,
    routing::Way,
    security::{self, Security},
    tokens,
};
use crate::{
    auth::{Mapped, tenants::NoTenant},
    gate::Cause,
    ports::billing::{Login as TenantFacts, Terms},
};

/// Largest login response: real ones are below 2 KiB.
pub(super) const LOGIN_RESPONSE_MAX: usize = 64 * 1024;

/// How far the login is.
#[derive(Default)]
pub(super) enum Stage {
    #[default]
    ExpectPrelogin,
    ExpectLogin7,
    AwaitVerification,
    AwaitAdmission,
    AwaitConnection,
    /// TDS 8.0: TLS comes before PRELOGIN.
    StrictHandshake,
    ExpectServerPrelogin,
    ServerHandshake,
    ExpectLoginResponse,
    ExpectAnswer,
    AwaitSession,
}

/// A successful login response on its way to the client.
struct Granted {
    response: LoginResponse,
    spid: u16,
}

/// Everything that is gathered until the session is ready.
#[derive(Default)]
pub(super) struct Login {
    pub(super) stage: Stage,
    /// What the client's message in hand has so far; wiped when dropped.
    collected: Zeroizing<Vec<u8>>,
    message: Option<MessageBuf>,
    client_prelogin: Option<Prelogin>,
    /// The client was promised MARS.
    mars: bool,
    login7: Option<Login7>,
    /// Whose account pays, as the operator's rules say; canonical.
    principal: String,
    /// Another login at the server.
    mapped: Option<Arc<Mapped>>,
    /// Features that the server was asked for: no other may be acknowledged to the client.
    features: Vec<u8>,
    pub(super) way: Way,
    pub(super) security: Security,
    purse: Option<Arc<dyn Purse>>,
    terms: Option<Terms>,
    /// The server let the client in: what the client gets once the session is in the journal.
    granted: Option<Granted>,
}

impl Login {
    pub(super) fn version(&self) -> TdsVersion {
        self.login7
            .as_ref()
            .and_then(Login7::version)
            .unwrap_or(TdsVersion::V7_4)
    }

    pub(super) fn await_connection(&mut self) {
        self.message = None;
        self.stage = Stage::AwaitConnection;
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.stage, Stage::AwaitConnection)
    }

    pub(super) fn await_login_response(&mut self) {
        self.stage = Stage::ExpectLoginResponse;
    }

    pub(super) fn await_answer(&mut self) {
        self.stage = Stage::ExpectAnswer;
    }
}

pub(super) fn client_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Client(error.to_string())
}

pub(super) fn server_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Server(error.to_string())
}

impl Session {
    pub(super) fn login(&mut self) -> Option<&mut Login> {
        match &mut self.phase {
            Phase::Login(login) => Some(login),
            _ => None,
        }
    }

    /// Takes as many steps of the login as the buffered bytes allow.
    pub(super) fn run_login(&mut self, now: Instant) -> Result<(), SessionEnd> {
        loop {
            let Some(login) = self.login() else {
                return Ok(());
            };
            let progressed = match login.stage {
                Stage::ExpectPrelogin => self.expect_prelogin(now)?,
                Stage::ExpectLogin7 => self.expect_login7(now)?,
                Stage::AwaitVerification
                | Stage::AwaitAdmission
                | Stage::AwaitConnection
                | Stage::AwaitSession => false,
                Stage::ExpectAnswer => self.expect_answer()?,
                Stage::StrictHandshake => self.greet_inside_tls()?,
                Stage::ExpectServerPrelogin => self.expect_server_prelogin(now)?,
                Stage::ServerHandshake => self.server_handshake(now)?,
                Stage::ExpectLoginResponse => self.expect_login_response(now)?,
            };
            if !progressed {
                return Ok(());
            }
        }
    }

    pub(super) fn on_login_event(&mut self, event: Event, now: Instant) -> Result<(), SessionEnd> {
        match event {
            Event::Admitted { purse, terms } => {
                if let Some(login) = self.login() {
                    login.purse = Some(purse);
                    login.terms = Some(terms);
                }
                self.connect_first();
                Ok(())
            }
            Event::Verified => {
                self.admit();
                Ok(())
            }
            Event::Connected => self.greet_server(),
            Event::Begun { session } => self.become_ready(session),
            Event::Refused(cause) => {
                if !self.connect_elsewhere(&cause) {
                    self.refuse_login(&cause, now);
                }
                Ok(())
            }
            Event::Credit(_) => Ok(()),
        }?;
        self.run_login(now)
    }

    /// Collects one message of `kind` from the client; `Ok(None)` while it is not whole. The read buffer is wiped behind
    /// it: LOGIN7 carries a password.
    pub(super) fn client_message(
        &mut self,
        kind: PacketType,
        limit: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, SessionEnd> {
        while let Some(header) = self.client.peek_packet().map_err(client_fault)? {
            if header.kind != kind {
                return Err(client_fault(format!(
                    "packet type 0x{:02x} before login",
                    header.kind.byte()
                )));
            }
            let Phase::Login(login) = &mut self.phase else {
                return Ok(None);
            };
            let body = self.client.body_mut(&header);
            if login.collected.len() + body.len() > limit {
                return Err(client_fault(format!("a login message larger than {limit} bytes")));
            }
            append_wiped(&mut login.collected, body);
            let _wiped = self.client.take_packet(&header);
            if header.status.is_eom() {
                return Ok(Some(std::mem::take(&mut login.collected)));
            }
        }
        Ok(None)
    }

    fn expect_prelogin(&mut self, now: Instant) -> Result<bool, SessionEnd> {
        match self.client.plain().first() {
            None => return Ok(false),
            Some(0x12) => {}
            // LOGIN7 without PRELOGIN: clients of before 7.1, jTDS. Servers take it, though they need not
            // [MS-TDS 3.3.5.1].
            Some(0x10) => {
                if let Some(login) = self.login() {
                    login.stage = Stage::ExpectLogin7;
                }
                return Ok(true);
            }
            // TDS 8.0: TLS first, all the rest inside it [MS-TDS 1.7].
            Some(0x16) if !self.client.is_strict() => {
                self.start_client_tls(None)?;
                return Ok(true);
            }
            Some(byte) => return Err(client_fault(format!("first byte 0x{byte:02x} is not TDS"))),
        }
        let Some(body) = self.client_message(PacketType::Prelogin, PRELOGIN_MAX)? else {
            return Ok(false);
        };
        let asked = Prelogin::parse(&body).map_err(client_fault)?;
        self.answer_prelogin(asked, now)?;
        Ok(true)
    }

    fn answer_prelogin(&mut self, asked: Prelogin, now: Instant) -> Result<(), SessionEnd> {
        let negotiated = if self.client.is_strict() {
            Negotiated {
                answer: prelogin::strict_answer(asked.encryption),
                scope: Some(TlsScope::None),
            }
        } else {
            prelogin::negotiate(asked.encryption, self.settings.client_policy)
        };
        let mars = asked.mars == Some(true) && self.settings.mars.stands(now);
        let answer = Prelogin {
            version: self.settings.product_version,
            encryption: Some(prelogin::EncryptionOption::plain(negotiated.answer)),
            instance: asked.instance.is_some().then(|| vec![0]),
            thread_id: if asked.thread_id.is_present() {
                Field::Empty
            } else {
                Field::Absent
            },
            mars: asked.mars.map(|_| mars),
            trace_id: if asked.trace_id.is_present() {
                Field::Empty
            } else {
                Field::Absent
            },
            // The answer precedes the server's connection: it says what the operator says of the server (RFD 17).
            fed_auth_required: asked.fed_auth_required.filter(|_| self.settings.auth.federated),
            // A nonce would have to be the server's own; without the option no token carries one.
            nonce: None,
        };
        self.send_client_message(PacketType::TabularResult, &answer.encode())?;
        let Some(scope) = negotiated.scope else {
            return Err(client_fault("client and gate agree on no encryption"));
        };
        if scope != TlsScope::None {
            self.start_client_tls(Some(scope))?;
        }
        if let Some(login) = self.login() {
            login.client_prelogin = Some(asked);
            login.mars = mars;
            login.stage = Stage::ExpectLogin7;
        }
        Ok(())
    }

    fn expect_login7(&mut self, now: Instant) -> Result<bool, SessionEnd> {
        if self.client.is_handshaking() {
            return Ok(false);
        }
        let Some(body) = self.client_message(PacketType::Login7, LOGIN7_MAX)? else {
            return Ok(false);
        };
        let login7 = Login7::parse(&body).map_err(client_fault)?;
        let refusal = self.too_clear();
        let refusal = refusal
            .or_else(|| login7_policy::refusal(&login7, self.client.is_encrypted(), &self.settings.auth));
        if let Some(login) = self.login() {
            login.security.begin(login7_policy::authentication(&login7));
            login.login7 = Some(login7);
        }
        if let Some(cause) = refusal.or_else(|| self.find_tenant().err()) {
            self.refuse_login(&cause, now);
        }
        Ok(true)
    }

    /// Whose login it is; then its password is checked here, if this login is another one at the server.
    fn find_tenant(&mut self) -> Result<(), Cause> {
        let settings = Arc::clone(&self.settings);
        let Some(login) = self.login() else {
            return Ok(());
        };
        let Some(login7) = &login.login7 else {
            return Ok(());
        };
        let how = login7_policy::authentication(login7);
        let principal = settings.auth.tenants.principal(&tenant_facts(login7), how);
        login.principal = principal.map_err(|no| nobody(&no))?;
        login.mapped = login7_policy::mapped(login7, &settings.auth);
        let Some(mapped) = login.mapped.clone() else {
            self.admit();
            return Ok(());
        };
        if login7.wants_password_change() {
            return Err(Cause::NotAllowed(
                "the password of this login is kept by the gateway: its operator changes it",
            ));
        }
        let verify = Action::Verify {
            login: login7_policy::canonical(&login7.user_name),
            mapped,
            password: login7.password.clone(),
        };
        login.stage = Stage::AwaitVerification;
        self.actions.push_back(verify);
        Ok(())
    }

    /// Asks billing for the account behind the principal.
    fn admit(&mut self) {
        let Some(login) = self.login() else {
            return;
        };
        let Some(login7) = &login.login7 else {
            return;
        };
        let facts = TenantFacts {
            login: login.principal.clone(),
            ..tenant_facts(login7)
        };
        login.stage = Stage::AwaitAdmission;
        self.actions.push_back(Action::Admit(facts));
    }

    /// The server's socket is open: says PRELOGIN to it, after TLS where that is TDS 8.0.
    fn greet_server(&mut self) -> Result<(), SessionEnd> {
        if self.settings.upstream_encryption != Encryption::Strict {
            return self.say_prelogin(self.settings.upstream_encryption);
        }
        if let Some(login) = self.login() {
            login.stage = Stage::StrictHandshake;
        }
        self.start_upstream_tls(None)
    }

    /// As SqlClient says it: nobody looks at ENCRYPTION inside TDS 8.0, and NOT_SUP asks for no second TLS.
    fn greet_inside_tls(&mut self) -> Result<bool, SessionEnd> {
        if self.server.is_handshaking() {
            return Ok(false);
        }
        self.say_prelogin(Encryption::NotSup)?;
        Ok(true)
    }

    fn say_prelogin(&mut self, encryption: Encryption) -> Result<(), SessionEnd> {
        let encryption = prelogin::EncryptionOption::plain(encryption);
        let Some(login) = self.login() else {
            return Ok(());
        };
        login.stage = Stage::ExpectServerPrelogin;
        let client = login.client_prelogin.as_ref();
        let hello = Prelogin {
            version: client.map_or([0x11, 0, 0, 0, 0, 0], |p| p.version),
            encryption: Some(encryption),
            instance: Some(vec![0]),
            thread_id: Field::Value(0),
            mars: Some(login.mars),
            trace_id: client.map_or(Field::Absent, |p| p.trace_id),
            fed_auth_required: login.security.is_federated().then_some(1),
            nonce: None,
        };
        let body = hello.encode();
        self.send_server_message(PacketType::Prelogin, &body)
    }

    fn expect_server_prelogin(&mut self, now: Instant) -> Result<bool, SessionEnd> {
        let Some(header) = self.server.peek_packet().map_err(server_fault)? else {
            return Ok(false);
        };
        let packet = self.server.take_packet(&header);
        let body = packet.get(weir_tds::packet::HEADER_LEN..).unwrap_or_default();
        if header.kind != PacketType::TabularResult || !header.status.is_eom() {
            return self.upstream_refused("it did not answer PRELOGIN", now);
        }
        let answer = Prelogin::parse(body).map_err(server_fault)?;
        if let Some(login) = self.login() {
            login.security.fed_auth_required = answer.fed_auth_required == Some(1);
        }
        if self.login().is_some_and(|login| login.mars) {
            let speaks = answer.mars == Some(true);
            self.settings.mars.answered(speaks, now);
            if !speaks {
                self.refuse_login(&Cause::NoMars, now);
                return Ok(false);
            }
        }
        let asked = self.settings.upstream_encryption;
        if asked != Encryption::Strict {
            let why = match prelogin::accept(asked, answer.encryption) {
                None if asked == Encryption::NotSup => {
                    "it demands encryption; set upstream_encryption to full"
                }
                None => "it offers no encryption, and upstream_encryption asks for it",
                Some(TlsScope::None) if asked != Encryption::NotSup => {
                    "it offers no encryption, and upstream_encryption asks for it"
                }
                Some(TlsScope::None) => "",
                Some(scope) => {
                    self.start_upstream_tls(Some(scope))?;
                    ""
                }
            };
            if !why.is_empty() {
                self.refuse_login(&Cause::UpstreamEncryption(why.to_owned()), now);
                return Ok(false);
            }
        }
        if let Some(login) = self.login() {
            login.stage = Stage::ServerHandshake;
        }
        Ok(true)
    }

    fn upstream_refused(&mut self, why: &str, now: Instant) -> Result<bool, SessionEnd> {
        self.refuse_login(&Cause::Upstream(why.to_owned()), now);
        Ok(false)
    }

    fn server_handshake(&mut self, now: Instant) -> Result<bool, SessionEnd> {
        if self.server.is_handshaking() {
            return Ok(false);
        }
        let sizes = self.packet_sizes();
        let (settings, client) = (Arc::clone(&self.settings), self.client_address);
        let encrypted = self.server.is_encrypted();
        let Some(login) = self.login() else {
            return Ok(false);
        };
        if login.security.is_federated() && !encrypted {
            self.refuse_login(&Cause::NotAllowed(security::SERVER_IN_CLEAR), now);
            return Ok(false);
        }
        let Some(mut login7) = login.login7.clone() else {
            return Err(SessionEnd::Gate("login without LOGIN7".to_owned()));
        };
        let rewrite = Rewrite {
            packet_size: sizes.ask_server(),
            target: login.target(&settings.auth),
            database: login.way.database(),
            mapped: login.mapped.as_deref(),
            tell: settings.auth.tell_client,
            client,
            fed_auth_required: login.security.fed_auth_required,
        };
        rewrite.apply(&mut login7);
        login.features = login7.features.iter().map(|f| f.id).collect();
        login.stage = Stage::ExpectLoginResponse;
        let asked = login7.version().unwrap_or(TdsVersion::V7_4);
        login7.tds_version = login_tls::version_to_server(asked, self.server.is_strict()).to_login7();
        let body = login7.encode().map_err(client_fault)?;
        self.send_server_message(PacketType::Login7, &body)?;
        Ok(true)
    }

    fn expect_login_response(&mut self, now: Instant) -> Result<bool, SessionEnd> {
        while let Some(header) = self.server.peek_packet().map_err(server_fault)? {
            let packet = self.server.take_packet(&header);
            let body = packet.get(weir_tds::packet::HEADER_LEN..).unwrap_or_default();
            let Some(login) = self.login() else {
                return Ok(false);
            };
            let message = login
                .message
                .get_or_insert_with(|| MessageBuf::new("login response", LOGIN_RESPONSE_MAX));
            if message.push(&header, body).map_err(server_fault)? {
                let body = message.take();
                login.message = None;
                self.login_answered(&body, header.spid, now)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn login_answered(&mut self, body: &[u8], spid: u16, now: Instant) -> Result<(), SessionEnd> {
        let Some(login) = self.login() else {
            return Ok(());
        };
        let (version, asked) = (login.version(), login.features.clone());
        let mut response = match login_response::read(body, version, &asked, self.packet_sizes()) {
            Ok(response) => response,
            Err(cause) => {
                self.refuse_login(&cause, now);
                return Ok(());
            }
        };
        if let Some(route) = &response.route {
            self.follow(route, now);
            return Ok(());
        }
        if let Some(kind) = response.question {
            if let Err(cause) = self.relay_question(kind, &response, spid)? {
                self.refuse_login(&cause, now);
            }
            return Ok(());
        }
        let most = self.packet_sizes().server_most;
        if response.packet_sizes.is_some_and(|(_, granted)| granted > most) {
            let why = format!("it grants packets of more than {most} bytes, which no TLS record holds");
            self.refuse_login(&Cause::UpstreamEncryption(why), now);
            return Ok(());
        }
        if !response.logged_in {
            self.explain(&mut response);
            self.send_login_response(&response, spid)?;
            self.close(SessionEnd::Closed, now);
            return Ok(());
        }
        let settings = Arc::clone(&self.settings);
        // Only now does the journal learn of the session: a stranger who knows a login's name cannot make it grow.
        if let Some(login) = self.login() {
            let (principal, upstream) = (login.principal.clone(), login.target(&settings.auth).clone());
            let tariff = login.terms.as_ref().map(|t| t.tariff.version.clone());
            login.granted = Some(Granted { response, spid });
            login.stage = Stage::AwaitSession;
            self.actions.push_back(Action::Begin {
                principal,
                tariff: tariff.unwrap_or_default(),
                upstream,
            });
        }
        Ok(())
    }

    fn send_login_response(&mut self, response: &LoginResponse, spid: u16) -> Result<(), SessionEnd> {
        let message = Message {
            kind: PacketType::TabularResult,
            first_status: PacketStatus::NORMAL,
            spid,
            first_packet_id: FIRST_PACKET_ID,
            body: &response.tokens,
        };
        Ok(self.client.send_message(&message).map(drop)?)
    }

    fn become_ready(&mut self, session: u32) -> Result<(), SessionEnd> {
        let Some(login) = self.login() else {
            return Ok(());
        };
        let login = std::mem::take(login);
        let (Some(purse), Some(terms)) = (login.purse, login.terms) else {
            return Err(SessionEnd::Gate("login without a tenant".to_owned()));
        };
        let Some(Granted { response, spid }) = login.granted else {
            return Err(SessionEnd::Gate("a session before its login".to_owned()));
        };
        self.send_login_response(&response, spid)?;
        let (client_size, server_size) = response
            .packet_sizes
            .unwrap_or((DEFAULT_PACKET_SIZE, DEFAULT_PACKET_SIZE));
        self.client.set_packet_size(client_size);
        self.server.set_packet_size(server_size);
        let payer = Payer {
            terms,
            principal: login.principal,
            session,
        };
        self.deadline = None;
        self.phase = if login.mars {
            let seed = Seed {
                purse,
                payer,
                options: response.walker,
                spid,
            };
            self.server.read_less(READ_MOST);
            Phase::Mars(Box::new(Mux::new(seed, client_size, server_size)))
        } else {
            Phase::Ready(Box::new(Relay::new(purse, payer, response.walker, spid)))
        };
        Ok(())
    }

    /// What the packet sizes of both legs follow from, once both are as encrypted as they will be.
    fn packet_sizes(&self) -> PacketSizes {
        let (asked, mars) = match &self.phase {
            Phase::Login(login) => (login.login7.as_ref().map_or(0, |l| l.packet_size), login.mars),
            _ => (0, false),
        };
        PacketSizes {
            asked,
            upstream: self.settings.upstream_packet_size,
            client_most: packet_size::largest(self.client.is_encrypted(), mars),
            server_most: packet_size::largest(self.server.is_encrypted(), mars),
        }
    }

    /// Ends the login with an ERROR, in the encryption state in force, and closes.
    pub(super) fn refuse_login(&mut self, cause: &Cause, now: Instant) {
        let settings = Arc::clone(&self.settings);
        let Some(login) = self.login() else {
            return;
        };
        let (version, account) = (login.version(), login.terms.as_ref().map(|t| t.account.clone()));
        let shown = match cause {
            Cause::Upstream(why) => Cause::Upstream(login.way.without_addresses(why, &settings.auth)),
            Cause::UpstreamEncryption(why) => {
                Cause::UpstreamEncryption(login.way.without_addresses(why, &settings.auth))
            }
            other => other.clone(),
        };
        // Before LOGIN7 nobody could read an ERROR: a clean close is the answer.
        if login.login7.is_some() {
            let refused = shown.refusal(account.as_ref());
            let denial = tokens::login_denial(version, &refused, &self.settings.gate_name);
            // The close that follows says the rest if this cannot be sent.
            let _sent = self.send_client_message(PacketType::TabularResult, &denial);
        }
        self.close(SessionEnd::Closed, now);
    }

    fn send_client_message(&mut self, kind: PacketType, body: &[u8]) -> Result<(), SessionEnd> {
        Ok(self.client.send_message(&Message::first(kind, body)).map(drop)?)
    }

    pub(super) fn send_server_message(&mut self, kind: PacketType, body: &[u8]) -> Result<(), SessionEnd> {
        Ok(self.server.send_message(&Message::first(kind, body)).map(drop)?)
    }
}

impl<'a> Message<'a> {
    /// A message of the login, outside any session: SPID 0.
    fn first(kind: PacketType, body: &'a [u8]) -> Self {
        Self {
            kind,
            first_status: PacketStatus::NORMAL,
            spid: 0,
            first_packet_id: FIRST_PACKET_ID,
            body,
        }
    }
}

/// Moves `from` to the end of `to`: no copy of it stays behind, neither in `from` nor in a vector that was outgrown.
fn append_wiped(to: &mut Zeroizing<Vec<u8>>, from: &mut [u8]) {
    if to.capacity() < to.len() + from.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * (to.len() + from.len())));
        larger.extend_from_slice(to);
        *to = larger;
    }
    to.extend_from_slice(from);
    from.zeroize();
}

fn tenant_facts(login7: &Login7) -> TenantFacts {
    TenantFacts {
        login: login7.user_name.clone(),
        database: login7.database.clone(),
        application: login7.app_name.clone(),
        server: login7.server_name.clone(),
    }
}

fn nobody(no: &NoTenant) -> Cause {
    match no {
        NoTenant::Refused => Cause::UnknownTenant,
        NoTenant::Login(error) => Cause::NotAllowed(login7_policy::unreadable(*error)),
        NoTenant::NoRule => Cause::NotAllowed(
            "no rule of this gateway says whose integrated or federated login this is: ask its operator to name it by \
             database, application or server name",
        ),
    }
}
