//! From the first byte to LOGINACK: PRELOGIN, TLS as agreed, LOGIN7, and the answer in SQL Server's order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use weir_tds::build::{Collation, TokenBuf};
use weir_tds::login7::{LOGIN7_MAX, Login7, feature};
use weir_tds::message::{FIRST_PACKET_ID, MessageBuf, write_message};
use weir_tds::packet::{DEFAULT_PACKET_SIZE, PACKET_SIZE_MAX, PACKET_SIZE_MIN, PacketStatus, PacketType};
use weir_tds::prelogin::{self, Encryption, EncryptionOption, Field, PRELOGIN_MAX, Prelogin, TlsScope};
use weir_tds::version::TdsVersion;

use super::ConnError;
use super::session::Shared;
use super::transport::Transport;
use crate::backend::LoginAnswer;
use crate::config::{Config, EncryptionPolicy, Login};
use crate::tokens::{Message, command, status};

/// Product version that PRELOGIN and LOGINACK tell: SQL Server 2022, so that drivers take 8-byte counts.
const PRODUCT: [u8; 4] = [16, 0, 0x0F, 0xA6];
/// With TLS a packet must fit one record of 16 384 bytes (RFC 5246, 6.2.1): SqlClient and JDBC fail above this size.
const PACKET_SIZE_MAX_TLS: u16 = 16383;
/// The same with SMP's header inside the record [MC-SMP 2.2.1].
const PACKET_SIZE_MAX_TLS_MARS: u16 = PACKET_SIZE_MAX_TLS - 15;
/// First byte of a TLS ClientHello.
const TLS_FIRST_BYTE: u8 = 0x16;

/// What a logged-in connection is.
#[derive(Debug, Clone)]
pub(crate) struct LoginInfo {
    pub(crate) spid: u16,
    pub(crate) version: TdsVersion,
    pub(crate) packet_size: u16,
    pub(crate) login: String,
    pub(crate) database: String,
    pub(crate) host: String,
    pub(crate) application: String,
    /// UTF-8 was asked for and acknowledged.
    pub(crate) utf8: bool,
    /// SMP begins behind the login response.
    pub(crate) mars: bool,
}

/// Runs the login conversation.
pub(crate) async fn login(
    transport: &mut Transport,
    spid: u16,
    shared: &Arc<Shared>,
) -> Result<LoginInfo, ConnError> {
    let begun = begin(transport, spid, shared).await?;
    let body = read_message(transport, "LOGIN7", LOGIN7_MAX, PacketType::Login7).await?;
    let login7 = Login7::parse(&body)?;
    let version = match login7.version() {
        // 8.0 is the order of TLS and login, not a stream: without it, 7.4 is spoken.
        Some(TdsVersion::V8_0) if !begun.strict => TdsVersion::V7_4,
        Some(version) => version,
        None => return Err(ConnError::Refused),
    };
    let version = shared
        .backends
        .version()
        .map_or(version, |most| version.min(most));
    let most = match (transport.is_encrypted(), begun.mars) {
        (false, _) => PACKET_SIZE_MAX,
        (true, false) => PACKET_SIZE_MAX_TLS,
        (true, true) => PACKET_SIZE_MAX_TLS_MARS,
    };
    let mut info = info(&login7, version, spid, most, &shared.config);
    info.mars = begun.mars;
    let (extra, any_password) = match shared.backends.login_answer(&info, &shared.config.server_name) {
        LoginAnswer::Usual {
            extra,
            rounds,
            any_password,
        } => {
            for (tokens, kind) in rounds {
                send(transport, spid, &tokens).await?;
                read_message(transport, "a message of the login", LOGIN7_MAX, kind).await?;
            }
            (extra, any_password)
        }
        LoginAnswer::Tokens { tokens, close } => {
            send(transport, spid, &tokens).await?;
            return if close { refuse(transport).await } else { Ok(info) };
        }
        LoginAnswer::Never => {
            // The client's deadline or its close ends this.
            loop {
                transport.packet().await?;
            }
        }
    };
    let mut tokens = TokenBuf::new(version);
    let accepted = match decide(&login7, info, &shared.config, any_password) {
        Ok(info) => {
            let acks = shared.backends.feature_acks();
            let behind_ack = Behind {
                features: &acks,
                tokens: &extra,
            };
            answer(&mut tokens, &login7, &info, &shared.config, &behind_ack);
            Some(info)
        }
        Err(messages) => {
            messages
                .iter()
                .for_each(|m| m.put(&mut tokens, &shared.config.server_name));
            tokens.done(status::ERROR, 0, 0);
            None
        }
    };
    send(transport, spid, tokens.as_bytes()).await?;
    match accepted {
        Some(info) => Ok(info),
        None => refuse(transport).await,
    }
}

/// What was agreed before LOGIN7.
struct Begun {
    /// TLS came first: TDS 8.0.
    strict: bool,
    /// SMP was asked for and granted.
    mars: bool,
}

/// Up to LOGIN7: TLS first (TDS 8.0), PRELOGIN, or neither.
async fn begin(transport: &mut Transport, spid: u16, shared: &Shared) -> Result<Begun, ConnError> {
    let policy = shared.encryption();
    let first = transport.first_byte().await?;
    if first == TLS_FIRST_BYTE {
        let (Some(tls), false) = (&shared.tls, policy == EncryptionPolicy::None) else {
            return Err(ConnError::Refused);
        };
        transport.bare_handshake(tls.strict()?).await?;
        let mars = exchange_prelogin(transport, spid, shared, true).await?;
        return Ok(Begun { strict: true, mars });
    }
    // 7.0 and 7.1 clients may begin with LOGIN7 in clear; servers take it, though they need not [MS-TDS 3.3.5.1].
    let bare_login = first == PacketType::Login7.byte();
    match policy {
        EncryptionPolicy::Strict => return Err(ConnError::Refused),
        EncryptionPolicy::On | EncryptionPolicy::Required if bare_login => return Err(ConnError::Refused),
        _ => {}
    }
    let mars = !bare_login && exchange_prelogin(transport, spid, shared, false).await?;
    Ok(Begun { strict: false, mars })
}

async fn refuse<T>(transport: &mut Transport) -> Result<T, ConnError> {
    transport.shutdown().await;
    Err(ConnError::Refused)
}

/// True if SMP was granted.
async fn exchange_prelogin(
    transport: &mut Transport,
    spid: u16,
    shared: &Shared,
    strict: bool,
) -> Result<bool, ConnError> {
    let body = read_message(transport, "PRELOGIN", PRELOGIN_MAX, PacketType::Prelogin).await?;
    let asked = Prelogin::parse(&body)?;
    let policy = match shared.encryption() {
        EncryptionPolicy::None => prelogin::EncryptionPolicy::NotSup,
        EncryptionPolicy::LoginOnly => prelogin::EncryptionPolicy::Off,
        EncryptionPolicy::On | EncryptionPolicy::Required | EncryptionPolicy::Strict => {
            prelogin::EncryptionPolicy::On
        }
    };
    let mut agreed = prelogin::negotiate(asked.encryption, policy);
    if strict {
        agreed.answer = Encryption::NotSup;
        agreed.scope = Some(TlsScope::None);
    } else if shared.encryption() == EncryptionPolicy::Required {
        agreed.answer = Encryption::Req;
    }
    let (fed_auth_required, nonce) = shared.backends.fed_auth();
    let answer = Prelogin {
        version: [PRODUCT[0], PRODUCT[1], PRODUCT[2], PRODUCT[3], 0, 0],
        encryption: Some(EncryptionOption::plain(agreed.answer)),
        instance: asked.instance.as_ref().map(|_| vec![0]),
        thread_id: if asked.thread_id.is_present() {
            Field::Empty
        } else {
            Field::Absent
        },
        mars: asked.mars.map(|wanted| wanted && shared.config.mars),
        trace_id: if asked.trace_id.is_present() {
            Field::Empty
        } else {
            Field::Absent
        },
        fed_auth_required: asked.fed_auth_required.and(fed_auth_required),
        nonce: asked.nonce.and(nonce),
    };
    send(transport, spid, &answer.encode()).await?;
    match (agreed.scope, &shared.tls) {
        (None, _) => return refuse(transport).await,
        (Some(TlsScope::None), _) | (_, None) => {}
        (Some(scope), Some(tls)) => {
            transport
                .wrapped_handshake(tls.wrapped()?, scope == TlsScope::All)
                .await?;
        }
    }
    Ok(answer.mars == Some(true))
}

async fn read_message(
    transport: &mut Transport,
    what: &'static str,
    limit: usize,
    kind: PacketType,
) -> Result<Bytes, ConnError> {
    let mut message = MessageBuf::new(what, limit);
    loop {
        let (header, body) = transport.packet().await?;
        if header.kind != kind {
            let kind = weir_tds::error::WireErrorKind::PacketType(header.kind.byte());
            return Err(weir_tds::error::WireError::at(0, kind).into());
        }
        if message.push(&header, &body)? {
            return Ok(message.take());
        }
    }
}

async fn send(transport: &mut Transport, spid: u16, body: &[u8]) -> Result<(), ConnError> {
    let mut out = BytesMut::new();
    let (kind, status) = (PacketType::TabularResult, PacketStatus::NORMAL);
    write_message(
        &mut out,
        kind,
        status,
        DEFAULT_PACKET_SIZE,
        spid,
        FIRST_PACKET_ID,
        body,
    );
    transport.queue(out.freeze())?;
    transport.flush().await
}

fn info(login7: &Login7, version: TdsVersion, spid: u16, most: u16, config: &Config) -> LoginInfo {
    let most = config.packet_size.unwrap_or(most).clamp(PACKET_SIZE_MIN, most);
    let packet_size = match login7.packet_size {
        0 => config.packet_size.map_or(DEFAULT_PACKET_SIZE, |_| most),
        asked => u16::try_from(asked)
            .unwrap_or(u16::MAX)
            .clamp(PACKET_SIZE_MIN, most),
    };
    LoginInfo {
        spid,
        version,
        packet_size,
        login: login7.user_name.clone(),
        database: login7.database.clone(),
        host: login7.host_name.clone(),
        application: login7.app_name.clone(),
        utf8: login7.feature(feature::UTF8_SUPPORT).is_some(),
        mars: false,
    }
}

/// What to tell a client whose login is refused.
type Refusal = Vec<Message>;

fn decide(
    login7: &Login7,
    mut info: LoginInfo,
    config: &Config,
    any_password: bool,
) -> Result<LoginInfo, Refusal> {
    let failed =
        |info: &LoginInfo| Message::new(18456, 14, 1, format!("Login failed for user '{}'.", info.login));
    if login7.is_integrated() && !any_password {
        let text = "Login failed. This server takes SQL logins only.".to_owned();
        return Err(vec![Message::new(18452, 14, 1, text)]);
    }
    let password = login7.password.to_text();
    let known = |login: &&Login| {
        any_password || (login.name.eq_ignore_ascii_case(&info.login) && login.password == *password)
    };
    let Some(login) = config.logins.iter().find(known) else {
        let failed = failed(&info);
        return Err(vec![failed]);
    };
    if info.database.is_empty() {
        info.database.clone_from(&login.database);
    }
    let name = info.database.trim_matches(['[', ']']).to_owned();
    match crate::sql::database_name(&name) {
        Some(database) => {
            info.database = database;
            Ok(info)
        }
        None => {
            let text = format!("Cannot open database \"{name}\" requested by the login. The login failed.");
            let messages = vec![Message::new(4060, 11, 1, text), failed(&info)];
            Err(messages)
        }
    }
}

/// What stands behind LOGINACK beside the usual.
struct Behind<'a> {
    features: &'a [(u8, Vec<u8>)],
    tokens: &'a [u8],
}

/// SQL Server's order: 1, 5701, 7, 2, 5703, LOGINACK, 4, FEATUREEXTACK, DONE (vector real-sql2025-login-response-tokens).
fn answer(tokens: &mut TokenBuf, login7: &Login7, info: &LoginInfo, config: &Config, extra: &Behind<'_>) {
    let server = &config.server_name;
    tokens.env_database(&info.database, "master");
    Message::new(
        5701,
        0,
        2,
        format!("Changed database context to '{}'.", info.database),
    )
    .put(tokens, server);
    if info.version > TdsVersion::V7_0 {
        tokens.env_collation(Collation::LATIN1, None);
    }
    tokens.env_language("us_english", "");
    Message::new(5703, 0, 1, "Changed language setting to us_english.").put(tokens, server);
    tokens.login_ack("Microsoft SQL Server", PRODUCT);
    tokens.env_packet_size(info.packet_size, DEFAULT_PACKET_SIZE);
    let mut acks: Vec<(u8, Vec<u8>)> = Vec::new();
    if info.utf8 {
        acks.push((feature::UTF8_SUPPORT, vec![1]));
    }
    acks.extend(
        extra
            .features
            .iter()
            .filter(|(id, _)| login7.feature(*id).is_some())
            .cloned(),
    );
    tokens.raw(extra.tokens);
    if !acks.is_empty() && info.version >= TdsVersion::V7_4 {
        tokens.feature_ext_ack(&acks);
    }
    tokens.done(status::FINAL, command::NONE, 0);
}
