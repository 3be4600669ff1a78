//! PRELOGIN [MS-TDS 2.2.6.5]: the option list, and what the two ENCRYPTION values mean together.

use bytes::{BufMut, BytesMut};

use crate::body::Body;
use crate::error::{WireError, WireErrorKind};

/// Most bytes of a PRELOGIN body that are looked at: SqlClient limits itself to as many, real ones are below 128.
pub const PRELOGIN_MAX: usize = 1024;

const VERSION: u8 = 0x00;
const ENCRYPTION: u8 = 0x01;
const INSTOPT: u8 = 0x02;
const THREADID: u8 = 0x03;
const MARS: u8 = 0x04;
const TRACEID: u8 = 0x05;
const FEDAUTHREQUIRED: u8 = 0x06;
const NONCEOPT: u8 = 0x07;
const TERMINATOR: u8 = 0xFF;

/// An option that may be absent, or be there with no data: servers echo THREADID and TRACEID with length 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Field<T> {
    /// Not in the list.
    #[default]
    Absent,
    /// In the list with length 0.
    Empty,
    /// With data.
    Value(T),
}

impl<T> Field<T> {
    /// True if the option is in the list at all.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// The ENCRYPTION modes, without the certificate bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// 0x00: available, used for the login only.
    Off,
    /// 0x01: wanted for all.
    On,
    /// 0x02: not available.
    NotSup,
    /// 0x03: demanded for all.
    Req,
    /// 0x04: inside TDS 8.0, where nobody looks at it. MS-TDS does not list it; go-mssqldb sends it.
    Strict,
}

impl Encryption {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::On => 1,
            Self::NotSup => 2,
            Self::Req => 3,
            Self::Strict => 4,
        }
    }
}

/// The ENCRYPTION option: a mode and the CLIENT_CERT bit 0x80 (loopback on Linux only [MS-TDS A<37>]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionOption {
    /// The mode.
    pub mode: Encryption,
    /// Client certificate authentication is asked for.
    pub client_cert: bool,
}

impl EncryptionOption {
    /// A mode without the certificate bit.
    #[must_use]
    pub const fn plain(mode: Encryption) -> Self {
        Self {
            mode,
            client_cert: false,
        }
    }

    /// From the wire; the EXT bit 0x20 is reserved and ignored. `None` for a mode that nobody defines.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        let mode = match byte & 0x1F {
            0 => Encryption::Off,
            1 => Encryption::On,
            2 => Encryption::NotSup,
            3 => Encryption::Req,
            4 => Encryption::Strict,
            _ => return None,
        };
        Some(Self {
            mode,
            client_cert: byte & 0x80 != 0,
        })
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self.mode.byte() | if self.client_cert { 0x80 } else { 0 }
    }
}

/// A PRELOGIN message of either direction. `Default` is an answer with nothing but a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prelogin {
    /// Major, minor, build (big-endian u16), sub-build (u16). The server's tells drivers its product version.
    pub version: [u8; 6],
    /// ENCRYPTION.
    pub encryption: Option<EncryptionOption>,
    /// INSTOPT: from the client a NUL-terminated name, from the server one byte (0 = match).
    pub instance: Option<Vec<u8>>,
    /// THREADID; a server answers with length 0.
    pub thread_id: Field<u32>,
    /// MARS wanted, or granted.
    pub mars: Option<bool>,
    /// TRACEID: connection GUID, activity GUID, sequence; a server answers with length 0.
    pub trace_id: Field<[u8; 36]>,
    /// FEDAUTHREQUIRED.
    pub fed_auth_required: Option<u8>,
    /// NONCEOPT.
    pub nonce: Option<[u8; 32]>,
}

impl Prelogin {
    /// Reads a PRELOGIN body. Unknown options are skipped, data may stand in any order and with gaps.
    ///
    /// # Errors
    /// The peer's fault: VERSION is not the first option [MS-TDS 3.3.5.1], no terminator, data outside the body, a
    /// value of the wrong length, an option twice, a body above [`PRELOGIN_MAX`].
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        if body.len() > PRELOGIN_MAX {
            let kind = WireErrorKind::TooLarge {
                what: "PRELOGIN",
                limit: PRELOGIN_MAX as u64,
            };
            return Err(WireError::at(0, kind));
        }
        let mut list = Body::new(body, "PRELOGIN");
        let mut seen: u8 = 0;
        let mut prelogin = Self::default();
        let mut first = true;
        loop {
            let token = list.u8()?;
            if first && token != VERSION {
                return Err(list.invalid("VERSION is not the first PRELOGIN option"));
            }
            first = false;
            if token == TERMINATOR {
                return Ok(prelogin);
            }
            let offset = list.u16_be()?;
            let length = list.u16_be()?;
            let data = slice(body, offset, length)
                .ok_or(list.fail(WireErrorKind::Truncated("data of a PRELOGIN option")))?;
            if token <= NONCEOPT {
                let bit = 1u8 << token;
                if seen & bit != 0 {
                    return Err(list.invalid("a PRELOGIN option twice"));
                }
                seen |= bit;
            }
            prelogin
                .take(token, data)
                .ok_or(list.invalid("a PRELOGIN option of the wrong length or value"))?;
        }
    }

    fn take(&mut self, token: u8, data: &[u8]) -> Option<()> {
        match token {
            VERSION => self.version = data.try_into().ok()?,
            // Length 0 is legal for every option but VERSION, and says no more than its absence.
            ENCRYPTION => {
                if let Some(byte) = one(data)? {
                    self.encryption = Some(EncryptionOption::from_byte(byte)?);
                }
            }
            INSTOPT => self.instance = Some(data.to_vec()),
            THREADID if data.is_empty() => self.thread_id = Field::Empty,
            THREADID => self.thread_id = Field::Value(u32::from_le_bytes(data.try_into().ok()?)),
            MARS => self.mars = one(data)?.map(|b| b != 0),
            TRACEID if data.is_empty() => self.trace_id = Field::Empty,
            TRACEID => self.trace_id = Field::Value(data.try_into().ok()?),
            FEDAUTHREQUIRED => self.fed_auth_required = one(data)?,
            NONCEOPT if data.is_empty() => {}
            NONCEOPT => self.nonce = Some(data.try_into().ok()?),
            _ => {}
        }
        Some(())
    }

    /// The body on the wire: options in the order of their numbers, data behind the list in the same order.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut data = BytesMut::new();
        let mut entries: Vec<(u8, u16)> = Vec::with_capacity(8);
        let mut add = |token: u8, bytes: &[u8]| {
            // An instance name is at most as long as a PRELOGIN body; anything longer is clipped.
            let bytes = bytes.get(..bytes.len().min(PRELOGIN_MAX)).unwrap_or_default();
            entries.push((token, u16::try_from(bytes.len()).unwrap_or(0)));
            data.put_slice(bytes);
        };
        add(VERSION, &self.version);
        if let Some(encryption) = self.encryption {
            add(ENCRYPTION, &[encryption.byte()]);
        }
        if let Some(instance) = &self.instance {
            add(INSTOPT, instance);
        }
        match self.thread_id {
            Field::Absent => {}
            Field::Empty => add(THREADID, &[]),
            Field::Value(id) => add(THREADID, &id.to_le_bytes()),
        }
        if let Some(mars) = self.mars {
            add(MARS, &[u8::from(mars)]);
        }
        match &self.trace_id {
            Field::Absent => {}
            Field::Empty => add(TRACEID, &[]),
            Field::Value(id) => add(TRACEID, id),
        }
        if let Some(required) = self.fed_auth_required {
            add(FEDAUTHREQUIRED, &[required]);
        }
        if let Some(nonce) = &self.nonce {
            add(NONCEOPT, nonce);
        }
        let mut out = BytesMut::with_capacity(entries.len() * 5 + 1 + data.len());
        let mut offset = entries.len() * 5 + 1;
        for (token, length) in entries {
            out.put_u8(token);
            out.put_u16(u16::try_from(offset).unwrap_or(u16::MAX));
            out.put_u16(length);
            offset += usize::from(length);
        }
        out.put_u8(TERMINATOR);
        out.put_slice(&data);
        out.to_vec()
    }

    /// The connection GUID of TRACEID: the ClientConnectionId in drivers' errors. Worth a place in the log.
    #[must_use]
    pub fn connection_guid(&self) -> Option<[u8; 16]> {
        match &self.trace_id {
            Field::Value(id) => id.first_chunk::<16>().copied(),
            _ => None,
        }
    }
}

fn slice(body: &[u8], offset: u16, length: u16) -> Option<&[u8]> {
    let start = usize::from(offset);
    match length {
        0 => Some(&[]),
        n => body.get(start..start.checked_add(usize::from(n))?),
    }
}

/// A one-byte value, or none; `None` outside if it is longer.
fn one(data: &[u8]) -> Option<Option<u8>> {
    match data {
        [] => Some(None),
        [byte] => Some(Some(*byte)),
        _ => None,
    }
}

/// What the answering side is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionPolicy {
    /// Has a certificate and forces nobody.
    Off,
    /// Has a certificate and forces TLS for all.
    On,
    /// Takes TDS 8.0 only. A TDS 7 client is led into TLS as by [`EncryptionPolicy::On`], to be told so in its login.
    Strict,
    /// Has no certificate.
    NotSup,
}

/// Which part of a connection runs in TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsScope {
    /// Nothing, the login in clear included.
    None,
    /// The first packet of LOGIN7 only [MS-TDS 3.2.5.3].
    LoginOnly,
    /// Everything after PRELOGIN.
    All,
}

/// The answering side's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// ENCRYPTION of the answer.
    pub answer: Encryption,
    /// What then happens; `None`: send the answer and close, the two sides cannot agree.
    pub scope: Option<TlsScope>,
}

/// What a server with `policy` answers to a client's ENCRYPTION [MS-TDS 2.2.6.5], and what follows.
///
/// A client that sent no ENCRYPTION (7.0, or a 7.1 client without it) counts as NOT_SUP. Never answers ON to OFF:
/// SqlClient then starts no TLS at all (so its source has it) and both sides wait.
#[must_use]
pub fn negotiate(client: Option<EncryptionOption>, policy: EncryptionPolicy) -> Negotiated {
    use Encryption as E;
    use EncryptionPolicy as P;
    let client = client.unwrap_or(EncryptionOption::plain(E::NotSup));
    let (answer, scope) = match (client.mode, client.client_cert, policy) {
        (E::NotSup, true, _) => (E::Req, None),
        (E::Off, false, P::NotSup) | (E::NotSup, false, P::Off | P::NotSup) => {
            (E::NotSup, Some(TlsScope::None))
        }
        (_, _, P::NotSup) => (E::NotSup, None),
        (E::Off, _, P::Off) => (E::Off, Some(TlsScope::LoginOnly)),
        (E::Off, _, P::On | P::Strict) => (E::Req, Some(TlsScope::All)),
        (E::On | E::Req | E::Strict, _, P::Off | P::On | P::Strict) => (E::On, Some(TlsScope::All)),
        (E::NotSup, false, P::On | P::Strict) => (E::Req, None),
    };
    Negotiated { answer, scope }
}

/// What a TDS 8.0 server answers: TLS is there already, both sides ignore the value [MS-TDS 2.2.6.5]. Drivers that look
/// all the same accept what they sent, or ON for a demand.
#[must_use]
pub fn strict_answer(client: Option<EncryptionOption>) -> Encryption {
    match client.map_or(Encryption::NotSup, |option| option.mode) {
        same @ (Encryption::Off | Encryption::On | Encryption::NotSup) => same,
        Encryption::Req | Encryption::Strict => Encryption::On,
    }
}

/// What a TDS 7 client that sent `asked` does with a server's answer [MS-TDS 2.2.6.5, 3.2.5.3]. `None`: it must close.
#[must_use]
pub fn accept(asked: Encryption, answer: Option<EncryptionOption>) -> Option<TlsScope> {
    use Encryption as E;
    let answer = answer.map_or(E::NotSup, |a| a.mode);
    match (asked, answer) {
        (E::Off, E::Off) => Some(TlsScope::LoginOnly),
        (E::Off, E::NotSup) | (E::NotSup, E::NotSup | E::Off) => Some(TlsScope::None),
        (E::NotSup, E::On | E::Req)
        | (E::On | E::Req, E::NotSup)
        | (E::On, E::Off)
        | (E::Strict, _)
        | (_, E::Strict) => None,
        // REQ answered OFF is taken as ON by SqlClient; the server can encrypt, so it is not refused.
        (E::Off | E::On | E::Req, E::On | E::Req) | (E::Req, E::Off) => Some(TlsScope::All),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLIENT_CERT included [MS-TDS 2.2.6.5, A<37>].
    #[test]
    fn the_servers_answers_are_those_of_the_table() {
        use Encryption::{NotSup, Off, On, Req};
        use EncryptionPolicy as P;
        use TlsScope::{All, LoginOnly, None as Clear};
        // client byte; (answer, scope) for a server set OFF, ON, NOT_SUP
        let table = [
            (
                0x00,
                (Off, Some(LoginOnly)),
                (Req, Some(All)),
                (NotSup, Some(Clear)),
            ),
            (0x01, (On, Some(All)), (On, Some(All)), (NotSup, None)),
            (0x02, (NotSup, Some(Clear)), (Req, None), (NotSup, Some(Clear))),
            (0x03, (On, Some(All)), (On, Some(All)), (NotSup, None)),
            (0x80, (Off, Some(LoginOnly)), (Req, Some(All)), (NotSup, None)),
            (0x81, (On, Some(All)), (On, Some(All)), (NotSup, None)),
            (0x82, (Req, None), (Req, None), (Req, None)),
            (0x83, (On, Some(All)), (On, Some(All)), (NotSup, None)),
        ];
        for (byte, off, on, not_sup) in table {
            let client = EncryptionOption::from_byte(byte);
            for (policy, want) in [(P::Off, off), (P::On, on), (P::NotSup, not_sup)] {
                let got = negotiate(client, policy);
                assert_eq!(
                    (got.answer, got.scope),
                    want,
                    "client {byte:#x} policy {policy:?}"
                );
            }
        }
        assert_eq!(
            negotiate(None, P::Off),
            negotiate(EncryptionOption::from_byte(2), P::Off)
        );
    }

    #[test]
    fn a_client_goes_on_only_where_both_can() {
        use Encryption as E;
        let answer = |m| Some(EncryptionOption::plain(m));
        assert_eq!(accept(E::Off, answer(E::Off)), Some(TlsScope::LoginOnly));
        assert_eq!(accept(E::Off, answer(E::Req)), Some(TlsScope::All));
        assert_eq!(accept(E::On, answer(E::On)), Some(TlsScope::All));
        assert_eq!(accept(E::On, answer(E::Off)), None);
        assert_eq!(accept(E::NotSup, answer(E::Req)), None);
        assert_eq!(accept(E::NotSup, None), Some(TlsScope::None));
        assert_eq!(accept(E::Req, answer(E::NotSup)), None);
    }

    #[test]
    fn an_answer_with_empty_options_survives_the_way_there_and_back() {
        let answer = Prelogin {
            version: [17, 0, 3, 0xe8, 0, 0],
            encryption: Some(EncryptionOption::plain(Encryption::Off)),
            instance: Some(vec![0]),
            thread_id: Field::Empty,
            mars: Some(false),
            trace_id: Field::Empty,
            fed_auth_required: Some(1),
            nonce: Some([7; 32]),
        };
        assert_eq!(Prelogin::parse(&answer.encode()), Ok(answer));
    }

    /// VERSION comes first [MS-TDS 3.3.5.1].
    #[test]
    fn what_points_outside_or_comes_twice_is_refused() {
        let bad: [&[u8]; 6] = [
            &[],
            &[0xFF],
            &[1, 0, 6, 0, 1, 0xFF, 0],
            &[0, 0xFF, 0xFF, 0, 6, 0xFF],
            &[0, 0, 6, 0, 6, 0, 0, 6, 0, 6, 0xFF, 0, 0],
            &[0, 0, 6, 0, 6],
        ];
        for body in bad {
            assert!(Prelogin::parse(body).is_err(), "{body:02x?}");
        }
        assert!(Prelogin::parse(&[0; PRELOGIN_MAX + 1]).is_err());
    }
}
