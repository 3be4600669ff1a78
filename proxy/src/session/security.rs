//! Integrated (SSPI) and federated logins, relayed: the server asks, the client answers, the gate bounds and checks.
//!
//! The gate cannot read these tokens and need not. What a gate in the middle cannot do is said with its reason: extended
//! protection binds a token to the client's own TLS channel (RFC 5929); a token is for one server, so an integrated login
//! cannot be routed.

use weir_tds::{
    login7::{Login7, feature},
    message::FIRST_PACKET_ID,
    packet::{PacketStatus, PacketType},
    token::TokenKind,
};
use zeroize::Zeroizing;

use super::{
    engine::{Session, SessionEnd},
    leg::Message,
    login_response::LoginResponse,
    tokens,
};
use crate::{
    auth::{AuthSettings, tenants::Authentication},
    gate::Cause,
};

/// Most answers of a client to what the server asks: NTLM takes one, Kerberos one or two, SPNEGO's fallback one more.
pub(super) const ROUNDS_MAX: u8 = 8;
/// Most bytes of one answer. Kerberos tickets reach 64 KiB where a user is in many groups (MaxTokenSize is 65 535).
pub(super) const ANSWER_MAX: usize = 128 * 1024 - 1;

/// Library of a FEDAUTH request, in the upper seven bits of its options [MS-TDS 2.2.6.4].
const SECURITY_TOKEN: u8 = 1;
/// The client fetches the token itself, with what FEDAUTHINFO tells it.
const ADAL: u8 = 2;
/// fFedAuthEcho: what the server said to FEDAUTHREQUIRED.
const ECHO: u8 = 0x01;

/// Why a federated login goes no further.
pub(super) const SERVER_IN_CLEAR: &str = "a federated login needs a connection to the server that is encrypted to the end: \
     the operator sets upstream_encryption to full";

/// Errors of SQL Server to an integrated login that it cannot verify: 18452 (untrusted domain; also extended protection),
/// 17806 and 17807 (SSPI handshake failed).
const INTEGRATED_ERRORS: [i32; 3] = [18452, 17806, 17807];

/// What has been relayed of a login's security tokens.
#[derive(Debug, Default)]
pub(super) struct Security {
    kind: Option<Authentication>,
    rounds: u8,
    /// What the server asked with, for the same question of a server that the login is routed to.
    asked: Vec<u8>,
    /// The client's answer to it.
    answer: Zeroizing<Vec<u8>>,
    /// The server said 1 to FEDAUTHREQUIRED.
    pub(super) fed_auth_required: bool,
}

impl Security {
    /// How this client shows who it is.
    pub(super) fn begin(&mut self, kind: Authentication) {
        self.kind = Some(kind);
    }

    pub(super) fn is_federated(&self) -> bool {
        self.kind == Some(Authentication::Federated)
    }

    fn is_integrated(&self) -> bool {
        self.kind == Some(Authentication::Integrated)
    }

    /// What the client is asked for next.
    pub(super) fn expected(&self) -> PacketType {
        if self.is_federated() {
            PacketType::FedAuthToken
        } else {
            PacketType::Sspi
        }
    }

    /// A token of the client's is for one server.
    pub(super) fn may_be_routed(&self) -> Result<(), &'static str> {
        if self.is_integrated() {
            return Err("routing of an integrated login, whose tokens are for one server only");
        }
        Ok(())
    }

    /// True if the server's question of this kind may be passed on.
    fn may_ask(&mut self, kind: TokenKind) -> Result<(), Cause> {
        let fits = match kind {
            TokenKind::FedAuthInfo => self.is_federated(),
            _ => self.is_integrated(),
        };
        if !fits {
            return Err(Cause::NotAllowed(
                "the server asks for integrated or federated authentication, which this login did not offer",
            ));
        }
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Err(Cause::NotAllowed(
                "the server asks for more security tokens than a login takes",
            ));
        }
        Ok(())
    }
}

/// Why an integrated or federated login cannot even begin.
pub(super) fn refusal(login: &Login7, encrypted: bool, auth: &AuthSettings) -> Option<Cause> {
    let integrated = login.is_integrated() || !login.sspi.is_empty();
    let Some(request) = login.feature(feature::FED_AUTH) else {
        let why = "integrated (Windows) authentication does not pass this gateway: use a SQL login, or have the operator \
                   set integrated_login to relay";
        return (integrated && !auth.integrated).then_some(Cause::NotAllowed(why));
    };
    let library = request.first().map(|options| options >> 1);
    let why = if !auth.federated {
        "federated (Entra) authentication does not pass this gateway: use a SQL login, or have the operator set \
         federated_login to relay"
    } else if integrated {
        "a login is either integrated or federated"
    } else if !matches!(library, Some(SECURITY_TOKEN | ADAL)) {
        "this kind of federated authentication is bound to a nonce of the server and cannot pass a gateway: use an access token"
    } else if !encrypted {
        // Only the first packet of a login-only LOGIN7 is encrypted: the token would travel in clear [MS-TDS 3.2.5.3].
        "a federated login carries its token beyond the first packet: it needs a connection that is encrypted to the end \
         (Encrypt=yes in the connection string)"
    } else {
        return None;
    };
    Some(Cause::NotAllowed(why))
}

/// Sets fFedAuthEcho to what this server said: the client heard the gate's answer, which came before the server's.
pub(super) fn echo(request: &mut [u8], required: bool) {
    if let Some(options) = request.first_mut() {
        *options = (*options & !ECHO) | u8::from(required);
    }
}

/// What a FEDAUTH message is: total length, token length, token; no nonce, since NONCEOPT is offered on neither leg.
fn is_fed_auth_message(body: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = body.get(at..at + 4)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    };
    number(0) == Some(body.len().saturating_sub(4)) && number(4) == Some(body.len().saturating_sub(8))
}

/// The gate's words to an integrated login that the server could not verify, by the errors that it answered.
pub(super) fn explanation(security: &Security, errors: &[i32]) -> Option<Cause> {
    let is_ours = security.is_integrated() && errors.iter().any(|n| INTEGRATED_ERRORS.contains(n));
    is_ours.then_some(Cause::IntegratedUnverified)
}

impl Session {
    /// The server asks for a security token: the client is asked, or has answered this very question before.
    pub(super) fn relay_question(
        &mut self,
        kind: TokenKind,
        response: &LoginResponse,
        spid: u16,
    ) -> Result<Result<(), Cause>, SessionEnd> {
        let Some(login) = self.login() else {
            return Ok(Ok(()));
        };
        if let Err(cause) = login.security.may_ask(kind) {
            return Ok(Err(cause));
        }
        if login.way.is_routed() && login.security.rounds > 1 {
            if login.security.asked != response.tokens {
                return Ok(Err(Cause::Routed(
                    "routing of a federated login to a server that wants a token of another issuer",
                )));
            }
            let answer = login.security.answer.clone();
            login.await_login_response();
            self.send_server_message(PacketType::FedAuthToken, &answer)?;
            return Ok(Ok(()));
        }
        login.security.asked = response.tokens.to_vec();
        login.await_answer();
        let message = Message {
            kind: PacketType::TabularResult,
            first_status: PacketStatus::NORMAL,
            spid,
            first_packet_id: FIRST_PACKET_ID,
            body: &response.tokens,
        };
        self.client.send_message(&message)?;
        Ok(Ok(()))
    }

    /// Adds the gate's words to a failed integrated login that the server could not verify.
    pub(super) fn explain(&mut self, response: &mut LoginResponse) {
        let name = self.settings.gate_name.clone();
        let Some(login) = self.login() else {
            return;
        };
        let Some(cause) = explanation(&login.security, &response.errors) else {
            return;
        };
        let words = tokens::login_denial(login.version(), &cause.refusal(None), &name);
        let before = response
            .tokens
            .slice(..response.before_done.min(response.tokens.len()));
        response.tokens = [before, words].concat().into();
    }

    /// Takes the client's answer and passes it on.
    pub(super) fn expect_answer(&mut self) -> Result<bool, SessionEnd> {
        let Some(login) = self.login() else {
            return Ok(false);
        };
        let kind = login.security.expected();
        let Some(body) = self.client_message(kind, ANSWER_MAX)? else {
            return Ok(false);
        };
        if kind == PacketType::FedAuthToken && !is_fed_auth_message(&body) {
            return Err(SessionEnd::Client(
                "a FEDAUTH message whose lengths are wrong".to_owned(),
            ));
        }
        self.send_server_message(kind, &body)?;
        if let Some(login) = self.login() {
            if kind == PacketType::FedAuthToken {
                login.security.answer = body;
            }
            login.await_login_response();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fed_auth_message_of_one_token_is_one() {
        let good = [&9u32.to_le_bytes()[..], &5u32.to_le_bytes(), b"token"].concat();
        assert!(is_fed_auth_message(&good));
        for wrong in [
            &good[..good.len() - 1],
            &[good.as_slice(), &[0; 32]].concat(),
            &[],
            &[0; 7],
        ] {
            assert!(!is_fed_auth_message(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn the_echo_is_what_the_server_said() {
        for (options, required, expected) in [(0x04, true, 0x05), (0x05, false, 0x04), (0x02, false, 0x02)] {
            let mut request = vec![options, 9];
            echo(&mut request, required);
            assert_eq!(request, [expected, 9]);
        }
        echo(&mut [], true);
    }
}
