//! The login, both legs: PRELOGIN → TLS → LOGIN7 → tenant → server's PRELOGIN → TLS → LOGIN7 → login response.
//!
//! Nothing reaches the server before a valid LOGIN7 of a known tenant. What would lead a client around the gate is
//! refused or not offered: session recovery, DNS caching, routing, the mirroring partner (facts 12).

use std::{sync::Arc, time::Instant};

use weir_tds::{
    login7::{LOGIN7_MAX, Login7, feature},
    message::{FIRST_PACKET_ID, MessageBuf},
    packet::{DEFAULT_PACKET_SIZE, PacketStatus, PacketType},
    prelogin::{self, Encryption, Field, Negotiated, PRELOGIN_MAX, Prelogin, TlsScope},
    version::TdsVersion,
};

use zeroize::{Zeroize, Zeroizing};

use super::{
    engine::{Action, Event, Phase, Session, SessionEnd},
    leg::Message,
    login_response::{self, LoginResponse},
    login_tls,
    mux::{Mux, Seed},
    packet_size::{self, PacketSizes},
    purse::{Payer, Purse},
    relay::Relay,
    tokens,
};
use crate::{
    gate::Cause,
    ports::billing::{Login as TenantFacts, Terms},
};

/// Largest login response: real ones are below 2 KiB.
pub(super) const LOGIN_RESPONSE_MAX: usize = 64 * 1024;

/// Told to a client that was promised MARS before the server was asked.
const NO_MARS: &str =
    "it does not speak MARS, which this login asked for: log in again, MARS will not be offered then";

/// Features that may pass: each keeps the stream walkable, and none tells the client another address (facts 4.4).
const FEATURES_PASSED: &[u8] = &[
    feature::COLUMN_ENCRYPTION,
    feature::GLOBAL_TRANSACTIONS,
    feature::AZURE_SQL_SUPPORT,
    feature::DATA_CLASSIFICATION,
    feature::UTF8_SUPPORT,
    feature::JSON_SUPPORT,
    feature::VECTOR_SUPPORT,
    feature::USER_AGENT,
];

/// How far the login is.
#[derive(Default)]
pub(super) enum Stage {
    #[default]
    ExpectPrelogin,
    ExpectLogin7,
    AwaitAdmission,
    AwaitConnection,
    /// TDS 8.0: TLS comes before PRELOGIN.
    StrictHandshake,
    ExpectServerPrelogin,
    ServerHandshake,
    ExpectLoginResponse,
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
    purse: Option<Arc<dyn Purse>>,
    terms: Option<Terms>,
    /// The server let the client in: what the client gets once the session is in the journal.
    granted: Option<Granted>,
}

impl Login {
    fn version(&self) -> TdsVersion {
        self.login7
            .as_ref()
            .and_then(Login7::version)
            .unwrap_or(TdsVersion::V7_4)
    }
}

pub(super) fn client_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Client(error.to_string())
}

pub(super) fn server_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Server(error.to_string())
}

impl Session {
    fn login(&mut self) -> Option<&mut Login> {
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
                Stage::AwaitAdmission | Stage::AwaitConnection | Stage::AwaitSession => false,
                Stage::StrictHandshake => self.greet_inside_tls()?,
                Stage::ExpectServerPrelogin => self.expect_server_prelogin(now)?,
                Stage::ServerHandshake => self.server_handshake()?,
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
                    login.stage = Stage::AwaitConnection;
                    let target = self.settings.auth.upstream.clone();
                    self.actions.push_back(Action::Connect(target));
                }
                Ok(())
            }
            Event::Connected => self.greet_server(),
            Event::Begun { session } => self.become_ready(session),
            Event::Refused(cause) => {
                self.refuse_login(&cause, now);
                Ok(())
            }
            Event::Credit(_) => Ok(()),
        }?;
        self.run_login(now)
    }

    /// Collects one message of `kind` from the client; `Ok(None)` while it is not whole. The read buffer is wiped behind
    /// it: LOGIN7 carries a password.
    fn client_message(
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
            // LOGIN7 without PRELOGIN: clients of before 7.1, jTDS (facts 2.1).
            Some(0x10) => {
                if let Some(login) = self.login() {
                    login.stage = Stage::ExpectLogin7;
                }
                return Ok(true);
            }
            // TDS 8.0: TLS first, all the rest inside it (facts 2.1).
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
            fed_auth_required: None,
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
        let refusal = self.too_clear().or_else(|| refuse_login7(&login7));
        let facts = TenantFacts {
            login: login7.user_name.clone(),
            database: login7.database.clone(),
            application: login7.app_name.clone(),
            server: login7.server_name.clone(),
        };
        if let Some(login) = self.login() {
            login.login7 = Some(login7);
            login.stage = Stage::AwaitAdmission;
        }
        match refusal {
            Some(cause) => self.refuse_login(&cause, now),
            None => self.actions.push_back(Action::Admit(facts)),
        }
        Ok(true)
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
            fed_auth_required: None,
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
        if self.login().is_some_and(|login| login.mars) {
            let speaks = answer.mars == Some(true);
            self.settings.mars.answered(speaks, now);
            if !speaks {
                return self.upstream_refused(NO_MARS, now);
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

    fn server_handshake(&mut self) -> Result<bool, SessionEnd> {
        if self.server.is_handshaking() {
            return Ok(false);
        }
        let sizes = self.packet_sizes();
        let name = self.settings.auth.upstream.server_name();
        let Some(login) = self.login() else {
            return Ok(false);
        };
        let Some(mut login7) = login.login7.clone() else {
            return Err(SessionEnd::Gate("login without LOGIN7".to_owned()));
        };
        login7.packet_size = sizes.ask_server();
        rewrite_login7(&mut login7, name);
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
        let asked = login
            .login7
            .as_ref()
            .map(|l| l.features.clone())
            .unwrap_or_default();
        let version = login.version();
        let response = match login_response::read(body, version, &asked, self.packet_sizes()) {
            Ok(response) => response,
            Err(cause) => {
                self.refuse_login(&cause, now);
                return Ok(());
            }
        };
        let most = self.packet_sizes().server_most;
        if response.packet_sizes.is_some_and(|(_, granted)| granted > most) {
            let why = format!("it grants packets of more than {most} bytes, which no TLS record holds");
            self.refuse_login(&Cause::UpstreamEncryption(why), now);
            return Ok(());
        }
        if !response.logged_in {
            self.send_login_response(&response, spid)?;
            self.close(SessionEnd::Closed, now);
            return Ok(());
        }
        // Only now does the journal learn of the session: a stranger who knows a login's name cannot make it grow.
        if let Some(login) = self.login() {
            let principal = login.login7.as_ref().map(|l| l.user_name.clone());
            let tariff = login.terms.as_ref().map(|t| t.tariff.version.clone());
            login.granted = Some(Granted { response, spid });
            login.stage = Stage::AwaitSession;
            self.actions.push_back(Action::Begin {
                principal: principal.unwrap_or_default(),
                tariff: tariff.unwrap_or_default(),
                upstream: self.settings.auth.upstream.clone(),
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
        let (Some(purse), Some(terms), Some(login7)) = (login.purse, login.terms, login.login7) else {
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
            principal: login7.user_name.clone(),
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
        let Some(login) = self.login() else {
            return;
        };
        let (version, account) = (login.version(), login.terms.as_ref().map(|t| t.account.clone()));
        // Before LOGIN7 nobody could read an ERROR: a clean close is the answer.
        if login.login7.is_some() {
            let refused = cause.refusal(account.as_ref());
            let denial = tokens::login_denial(version, &refused, &self.settings.gate_name);
            // The close that follows says the rest if this cannot be sent.
            let _sent = self.send_client_message(PacketType::TabularResult, &denial);
        }
        self.close(SessionEnd::Closed, now);
    }

    fn send_client_message(&mut self, kind: PacketType, body: &[u8]) -> Result<(), SessionEnd> {
        Ok(self.client.send_message(&Message::first(kind, body)).map(drop)?)
    }

    fn send_server_message(&mut self, kind: PacketType, body: &[u8]) -> Result<(), SessionEnd> {
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

/// What no tenant may ask for at login (facts 4.7).
fn refuse_login7(login: &Login7) -> Option<Cause> {
    if login.version().is_none_or(|v| v < TdsVersion::V7_1) {
        return Some(Cause::NotAllowed(
            "this TDS version cannot be metered: use a driver that speaks TDS 7.1 or later",
        ));
    }
    if login.is_integrated() || !login.sspi.is_empty() {
        return Some(Cause::NotAllowed(
            "integrated (Windows) authentication does not work through this gateway: use a SQL login",
        ));
    }
    if login.feature(feature::FED_AUTH).is_some() {
        return Some(Cause::NotAllowed(
            "federated authentication does not work through this gateway: use a SQL login",
        ));
    }
    if login.wants_password_change() {
        return Some(Cause::NotAllowed(
            "the password cannot be changed through this gateway",
        ));
    }
    if login.wants_user_instance() || !login.attach_db_file.is_empty() {
        return Some(Cause::NotAllowed(
            "user instances and attached database files are not allowed",
        ));
    }
    None
}

/// Makes the client's LOGIN7 the gate's own towards the server (facts 4.7).
fn rewrite_login7(login: &mut Login7, upstream_name: String) {
    login.server_name = upstream_name;
    login.option_flags2 &= !0x70;
    login.features.retain(|f| FEATURES_PASSED.contains(&f.id));
    for f in &mut login.features {
        // Version 2 and 3 put an unmarked enclave package into every request (facts 8.2).
        if f.id == feature::COLUMN_ENCRYPTION {
            f.data = vec![1];
        }
    }
}
