//! The encryption of a login: TLS begun on each leg, what a client's leg must have, and what a server's failure means.

use rustls::{CertificateError, Error as TlsError};
use weir_tds::{
    prelogin::{Encryption, EncryptionPolicy, TlsScope},
    version::TdsVersion,
};

use super::{
    engine::{Phase, Session, SessionEnd},
    leg::LegError,
    login::{Stage, client_fault, server_fault},
};
use crate::gate::Cause;

impl Session {
    /// Takes the client's TLS in: wrapped with a scope, TDS 8.0 without.
    pub(super) fn start_client_tls(&mut self, scope: Option<TlsScope>) -> Result<(), SessionEnd> {
        let Some(tls) = &self.settings.client_tls else {
            return Err(client_fault(
                "a client came by TLS, and no certificate is configured: set tls_cert and tls_key",
            ));
        };
        let tls = tls.get().accept(scope.is_none());
        let tls = tls.map_err(|e| SessionEnd::Gate(e.to_string()))?;
        self.client.start_tls(tls, scope).map_err(client_fault)
    }

    /// Begins TLS towards the server: wrapped with a scope, TDS 8.0 without.
    pub(super) fn start_upstream_tls(&mut self, scope: Option<TlsScope>) -> Result<(), SessionEnd> {
        let Some(tls) = &self.settings.upstream_tls else {
            return Err(SessionEnd::Gate(
                "the server wants encryption, but no upstream TLS is configured".to_owned(),
            ));
        };
        let tls = tls.get();
        // A server that the login was led to shows a certificate for its own name.
        let name = self.other_host().unwrap_or_else(|| tls.name.clone());
        let tls = tls.connect(scope.is_none(), name);
        let tls = tls.map_err(|e| SessionEnd::Gate(e.to_string()))?;
        self.server.start_tls(tls, scope).map_err(server_fault)
    }

    /// What a client lacks that came less encrypted than `client_encryption` demands: by LOGIN7 without PRELOGIN, or by
    /// TDS 7 where only 8.0 is taken. It is told in the encryption that it has.
    pub(super) fn too_clear(&self) -> Option<Cause> {
        match self.settings.client_policy {
            EncryptionPolicy::Strict if !self.client.is_strict() => Some(Cause::NotAllowed(
                "this gateway takes TDS 8.0 only: set the driver's encryption to strict",
            )),
            EncryptionPolicy::On if !self.client.is_encrypted() => Some(Cause::NotAllowed(
                "this gateway takes encrypted connections only: switch the driver's encryption on",
            )),
            _ => None,
        }
    }

    /// What to tell a client whose server broke TLS or TDS.
    pub(super) fn upstream_broke(&self, error: &LegError) -> Cause {
        match error {
            LegError::NotTls if self.server.is_handshaking() => Cause::UpstreamEncryption(
                "the server does not speak TDS 8.0, which SQL Server 2022 and later do; set upstream_encryption to full"
                    .to_owned(),
            ),
            LegError::Tls(TlsError::InvalidCertificate(why)) => {
                let remedy = certificate_remedy(why);
                // A client learns no address from us, and a certificate's names are addresses; the log has the whole.
                let why = match why {
                    CertificateError::NotValidForNameContext { .. } => &CertificateError::NotValidForName,
                    other => other,
                };
                Cause::UpstreamEncryption(format!("the server's certificate is not accepted ({why}); {remedy}"))
            }
            LegError::Tls(_) if self.server.is_handshaking() => Cause::UpstreamEncryption(format!(
                "{error}; the server must offer TLS 1.2 or 1.3 with ECDHE and an AEAD cipher"
            )),
            other => Cause::Upstream(other.to_string()),
        }
    }

    /// What to tell a client whose server closed its connection during the login.
    pub(super) fn upstream_left(&self) -> Cause {
        let stage = match &self.phase {
            Phase::Login(login) => Some(&login.stage),
            _ => None,
        };
        match stage {
            Some(Stage::StrictHandshake) => Cause::UpstreamEncryption(
                "the server closed the connection in the TLS handshake; if it is older than SQL Server 2022 it does not \
                 speak TDS 8.0: set upstream_encryption to full"
                    .to_owned(),
            ),
            Some(Stage::ExpectServerPrelogin) if self.settings.upstream_encryption != Encryption::Strict => {
                Cause::UpstreamEncryption(
                    "the server closed the connection without an answer to PRELOGIN; if it takes TDS 8.0 only (Force \
                     Strict Encryption), set upstream_encryption to strict"
                        .to_owned(),
                )
            }
            _ => Cause::Upstream("it closed the connection during the login".to_owned()),
        }
    }
}

/// What the operator does about a certificate that cannot be verified.
fn certificate_remedy(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "set upstream_host_name to the name that stands in it, or upstream_ca to the certificate itself"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "renew it at the server, or correct the clock",
        _ => "set upstream_ca to the authority's PEM file, or to the certificate itself",
    }
}

/// LOGIN7's version towards a server: 8.0 is said inside TDS 8.0 and nowhere else. What is older than 7.4 is asked for as it is.
pub(super) fn version_to_server(client: TdsVersion, strict: bool) -> TdsVersion {
    if strict && client.stream() == TdsVersion::V7_4 {
        TdsVersion::V8_0
    } else {
        client.stream()
    }
}

/// LOGINACK's version towards a client that asked for `asked`, when the server answered `answered`. `None`: the server
/// speaks newer than the client reads. 7.4 reads as 7.3B where no feature was asked for: it adds no token then.
pub(super) fn version_to_client(asked: TdsVersion, answered: TdsVersion) -> Option<TdsVersion> {
    let stream = answered.stream();
    match asked {
        TdsVersion::V8_0 if stream == TdsVersion::V7_4 => Some(TdsVersion::V8_0),
        TdsVersion::V8_0 => Some(stream),
        _ if stream <= asked => Some(stream),
        TdsVersion::V7_3B if stream == TdsVersion::V7_4 => Some(TdsVersion::V7_3B),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TdsVersion as V;

    #[test]
    fn each_leg_is_told_the_version_that_it_knows() {
        assert_eq!(version_to_server(V::V7_4, true), V::V8_0);
        assert_eq!(version_to_server(V::V8_0, false), V::V7_4);
        assert_eq!(version_to_server(V::V7_3B, true), V::V7_3B);
        assert_eq!(version_to_server(V::V7_2, false), V::V7_2);
        assert_eq!(version_to_client(V::V8_0, V::V7_4), Some(V::V8_0));
        assert_eq!(version_to_client(V::V7_4, V::V8_0), Some(V::V7_4));
        assert_eq!(version_to_client(V::V7_3B, V::V8_0), Some(V::V7_3B));
        assert_eq!(version_to_client(V::V7_4, V::V7_2), Some(V::V7_2));
        assert_eq!(version_to_client(V::V8_0, V::V7_3B), Some(V::V7_3B));
        assert_eq!(
            version_to_client(V::V7_3A, V::V8_0),
            None,
            "it does not know NBCROW"
        );
        assert_eq!(version_to_client(V::V7_2, V::V7_4), None);
    }
}
