//! The server's login response: read whole, cleared of what leads a client elsewhere, and turned into walker options.

use bytes::{Bytes, BytesMut};
use weir_tds::{
    packet::{DEFAULT_PACKET_SIZE, PACKET_SIZE_MAX, PACKET_SIZE_MIN},
    token::{EnvChange, FeatureExtAck, LoginAck, Routing, ServerMessage, TokenKind, env},
    version::TdsVersion,
    walker::{Budget, Step, Walker, WalkerOptions},
};

use super::login_tls;
use super::packet_size::PacketSizes;
use crate::gate::Cause;

/// What the login response came to.
pub(super) struct LoginResponse {
    /// The tokens that the client gets.
    pub(super) tokens: Bytes,
    /// Where the server sends the login instead; the rest is then of no use.
    pub(super) route: Option<Routing>,
    /// The server asks for a security token: nothing is decided yet.
    pub(super) question: Option<TokenKind>,
    /// Numbers of its errors.
    pub(super) errors: Vec<i32>,
    /// Bytes of `tokens` before the last DONE.
    pub(super) before_done: usize,
    /// There was a LOGINACK.
    pub(super) logged_in: bool,
    /// Of the client's leg and of the server's, from ENVCHANGE 4; hold from the next message on.
    pub(super) packet_sizes: Option<(u16, u16)>,
    /// How the token stream reads from here on.
    pub(super) walker: WalkerOptions,
}

/// Reads a login response to a LOGIN7 of version `asked_version` with these features.
///
/// # Errors
/// What the client must be told: the response cannot be read.
pub(super) fn read(
    body: &[u8],
    asked_version: TdsVersion,
    asked: &[u8],
    sizes: PacketSizes,
) -> Result<LoginResponse, Cause> {
    let unreadable =
        |e: weir_tds::error::WireError| Cause::Upstream(format!("its login response cannot be read: {e}"));
    let mut walker = Walker::new(WalkerOptions::new(asked_version.stream()));
    let mut read = Reading {
        kept: BytesMut::with_capacity(body.len()),
        logged_in: false,
        route: None,
        question: None,
        errors: Vec::new(),
        done_at: None,
        sizes,
        packet_sizes: None,
        asked: asked_version,
        options: WalkerOptions::new(asked_version.stream()),
    };
    let mut rest = body;
    while !rest.is_empty() {
        let walk = walker
            .walk(
                rest,
                &mut Budget {
                    rows: 0,
                    bytes: u64::MAX,
                },
            )
            .map_err(unreadable)?;
        let consumed = walk.consumed;
        match walk.step {
            Step::NeedMore => break,
            Step::BudgetSpent => {
                return Err(Cause::Upstream(
                    "it sent rows before the login was done".to_owned(),
                ));
            }
            Step::Token(token) => read.token(token.kind, token.bytes, asked)?,
        }
        rest = rest.get(consumed..).unwrap_or_default();
    }
    walker.end_message().map_err(unreadable)?;
    let Reading {
        kept,
        logged_in,
        packet_sizes,
        options,
        route,
        question,
        errors,
        done_at,
        ..
    } = read;
    Ok(LoginResponse {
        route: route.filter(|_| logged_in),
        question: question.filter(|_| done_at.is_none()),
        errors,
        before_done: done_at.unwrap_or(kept.len()),
        tokens: kept.freeze(),
        logged_in,
        packet_sizes,
        walker: options,
    })
}

/// Where LOGINACK has its version: behind type, length and interface [MS-TDS 2.2.7.14].
const LOGIN_ACK_VERSION: usize = 4;

struct Reading {
    asked: TdsVersion,
    kept: BytesMut,
    logged_in: bool,
    route: Option<Routing>,
    question: Option<TokenKind>,
    errors: Vec<i32>,
    done_at: Option<usize>,
    sizes: PacketSizes,
    packet_sizes: Option<(u16, u16)>,
    options: WalkerOptions,
}

impl Reading {
    fn token(&mut self, kind: TokenKind, bytes: &[u8], asked: &[u8]) -> Result<(), Cause> {
        let broken =
            |e: weir_tds::error::WireError| Cause::Upstream(format!("its login response is broken: {e}"));
        match kind {
            TokenKind::EnvChange => {
                let change = EnvChange::parse(bytes).map_err(broken)?;
                match change.kind {
                    env::ROUTING | env::ENHANCED_ROUTING => {
                        let unreadable = Cause::Routed("a routing answer that cannot be read");
                        self.route = Some(change.routing().ok_or(unreadable)?);
                        return Ok(());
                    }
                    // The client would remember another address for its next failure.
                    env::MIRRORING_PARTNER => return Ok(()),
                    env::PACKET_SIZE => {
                        self.packet_size(&change);
                        return Ok(());
                    }
                    _ => {}
                }
            }
            TokenKind::LoginAck => {
                self.logged_in = true;
                let ack = LoginAck::parse(bytes).map_err(broken)?;
                let Some(version) = ack.version else {
                    let known = format!("its TDS version 0x{:08x} is not known", ack.raw_version);
                    return Err(Cause::Upstream(known));
                };
                self.options.version = version.stream();
                let Some(told) = login_tls::version_to_client(self.asked, version) else {
                    return Err(Cause::UpstreamEncryption(format!(
                        "the server answers in TDS {version}, and the driver reads no newer than {}",
                        self.asked
                    )));
                };
                self.kept.extend_from_slice(bytes);
                if let Some(place) = self.kept.len().checked_sub(bytes.len())
                    && let Some(field) = self
                        .kept
                        .get_mut(place + LOGIN_ACK_VERSION..)
                        .and_then(|b| b.first_chunk_mut())
                {
                    *field = told.to_login_ack().to_be_bytes();
                }
                return Ok(());
            }
            TokenKind::FeatureExtAck => return self.features(bytes, asked),
            TokenKind::Sspi | TokenKind::FedAuthInfo => self.question = Some(kind),
            TokenKind::Error => {
                // Only for the gate's own words behind it: what cannot be read passes as it is.
                let error = ServerMessage::parse(bytes, self.options.version);
                self.errors.extend(error.ok().map(|error| error.number));
            }
            kind if kind.is_done() => self.done_at = Some(self.kept.len()),
            _ => {}
        }
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    /// Tells the client the size of its own leg.
    fn packet_size(&mut self, change: &EnvChange<'_>) {
        let granted = change.packet_size().unwrap_or(DEFAULT_PACKET_SIZE);
        let granted = granted.clamp(PACKET_SIZE_MIN, PACKET_SIZE_MAX);
        let client = self.sizes.for_client(granted);
        self.packet_sizes = Some((client, granted));
        let mut out = weir_tds::build::TokenBuf::new(self.options.version);
        out.env_packet_size(client, DEFAULT_PACKET_SIZE);
        self.kept.extend_from_slice(out.as_bytes());
    }

    /// Passes on the acknowledgements of what was asked for; a client must close on any other [MS-TDS 2.2.7.11].
    fn features(&mut self, bytes: &[u8], asked: &[u8]) -> Result<(), Cause> {
        let ack = FeatureExtAck::parse(bytes)
            .map_err(|e| Cause::Upstream(format!("its login response is broken: {e}")))?;
        self.options.column_encryption = ack.column_encryption() > 0;
        self.options.data_classification = ack.data_classification();
        let passed: Vec<(u8, &[u8])> = ack
            .features
            .iter()
            .filter(|f| asked.contains(&f.id))
            .map(|f| (f.id, f.data))
            .collect();
        if !passed.is_empty() {
            let mut out = weir_tds::build::TokenBuf::new(self.options.version);
            out.feature_ext_ack(&passed);
            self.kept.extend_from_slice(out.as_bytes());
        }
        Ok(())
    }
}
