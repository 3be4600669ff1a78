//! SQL Server Browser answers [MC-SQLR 2.2]: which instances there are and at which ports. Pure; one datagram in, one out.

use bytes::BufMut;

use crate::error::{WireError, WireErrorKind};

/// Most bytes of an instance name on the wire, its NUL not counted [MC-SQLR 2.2.3].
pub const INSTANCE_MAX: usize = 32;
/// Most bytes of RESP_DATA in the answer to CLNT_UCAST_INST [MC-SQLR 2.2.5]. Kept for every answer: no larger than this
/// makes an amplifier.
pub const DATA_MAX: usize = 1024;
/// Most bytes of a request: type, name, NUL.
pub const REQUEST_MAX: usize = 1 + INSTANCE_MAX + 1;

const BROADCAST: u8 = 0x02;
const ALL: u8 = 0x03;
const INSTANCE: u8 = 0x04;
const RESPONSE: u8 = 0x05;
const DAC: u8 = 0x0F;
/// Version byte of a DAC request, and the only one [MC-SQLR 2.2.4].
const DAC_VERSION: u8 = 0x01;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// CLNT_BCAST_EX: every instance, asked of everybody on the network [MC-SQLR 2.2.1].
    Broadcast,
    /// CLNT_UCAST_EX: every instance of this machine [MC-SQLR 2.2.2].
    All,
    /// CLNT_UCAST_INST: one instance [MC-SQLR 2.2.3].
    Instance(String),
    /// CLNT_UCAST_DAC: the dedicated administrator connection of an instance [MC-SQLR 2.2.4]. A gate has none.
    Dac(String),
}

impl Request {
    /// Reads a datagram.
    ///
    /// # Errors
    /// It is no request of MC-SQLR: an unknown type, bytes behind it, a name that is empty, too long, not ended by NUL, or not
    /// of ASCII (a name is of the sender's code page; ours are ASCII).
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        let wrong = |what: &'static str| WireError::at(0, WireErrorKind::Invalid(what));
        match datagram {
            [BROADCAST] => Ok(Self::Broadcast),
            [ALL] => Ok(Self::All),
            [INSTANCE, name @ ..] => Ok(Self::Instance(instance_name(name)?)),
            [DAC, DAC_VERSION, name @ ..] => Ok(Self::Dac(instance_name(name)?)),
            [BROADCAST | ALL, ..] => Err(wrong("bytes behind a SQL Server Browser request")),
            _ => Err(wrong("not a SQL Server Browser request")),
        }
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let named = |head: &[u8], name: &str| [head, name.as_bytes(), &[0]].concat();
        match self {
            Self::Broadcast => vec![BROADCAST],
            Self::All => vec![ALL],
            Self::Instance(name) => named(&[INSTANCE], name),
            Self::Dac(name) => named(&[DAC, DAC_VERSION], name),
        }
    }
}

fn instance_name(bytes: &[u8]) -> Result<String, WireError> {
    let wrong = |what: &'static str| WireError::at(1, WireErrorKind::Invalid(what));
    let Some((0, name)) = bytes.split_last() else {
        return Err(wrong("an instance name without its NUL"));
    };
    if !(1..=INSTANCE_MAX).contains(&name.len()) {
        return Err(wrong("an instance name of the wrong length"));
    }
    if !name.iter().all(|b| b.is_ascii_graphic() && *b != b';') {
        return Err(wrong("an instance name with other characters than ASCII"));
    }
    Ok(name.iter().map(|b| char::from(*b)).collect())
}

/// One instance, as an answer names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Machine's name: what a client takes for the server's name.
    pub server: String,
    /// Instance name; `MSSQLSERVER` is the one without a name.
    pub name: String,
    /// Product version, as `16.0.1000.6`.
    pub version: String,
    /// TCP port.
    pub port: u16,
}

impl Instance {
    /// Its part of RESP_DATA; `tcp` is the only protocol there is.
    fn data(&self) -> String {
        let Self {
            server,
            name,
            version,
            port,
        } = self;
        format!("ServerName;{server};InstanceName;{name};IsClustered;No;Version;{version};tcp;{port};;")
    }
}

/// SVR_RESP [MC-SQLR 2.2.5]: type, length, the instances. As many of them as [`DATA_MAX`] holds; `None` if there is none.
#[must_use]
pub fn response<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Option<Vec<u8>> {
    let mut data = String::new();
    for instance in instances {
        let part = instance.data();
        if data.len() + part.len() > DATA_MAX {
            break;
        }
        data.push_str(&part);
    }
    let size = u16::try_from(data.len()).ok().filter(|size| *size > 0)?;
    let mut out = Vec::with_capacity(3 + data.len());
    out.put_u8(RESPONSE);
    out.put_u16_le(size);
    out.put_slice(data.as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, port: u16) -> Instance {
        Instance {
            server: "ILSUNG1".into(),
            name: name.into(),
            version: "9.00.1399.06".into(),
            port,
        }
    }

    /// The datagrams of MC-SQLR's examples (section 4), theirs with more protocols in the answer.
    #[test]
    fn the_examples_of_the_specification_are_read_and_written() {
        assert_eq!(Request::parse(&[0x02]).unwrap(), Request::Broadcast);
        assert_eq!(Request::parse(&[0x03]).unwrap(), Request::All);
        let one = b"\x04YUKONSTD\0";
        assert_eq!(Request::parse(one).unwrap(), Request::Instance("YUKONSTD".into()));
        let dac = b"\x0f\x01YUKONSTD\0";
        assert_eq!(Request::parse(dac).unwrap(), Request::Dac("YUKONSTD".into()));
        let answer = response([&instance("YUKONSTD", 57137)]).unwrap();
        let text = "ServerName;ILSUNG1;InstanceName;YUKONSTD;IsClustered;No;Version;9.00.1399.06;tcp;57137;;";
        assert_eq!(
            answer,
            [&[0x05, text.len() as u8, 0][..], text.as_bytes()].concat()
        );
    }

    /// CLNT_BCAST_EX [MC-SQLR 2.2.1], CLNT_UCAST_EX [2.2.2], CLNT_UCAST_INST [2.2.3], CLNT_UCAST_DAC [2.2.4].
    #[test]
    fn requests_survive_the_way_there_and_back() {
        for request in [
            Request::Broadcast,
            Request::All,
            Request::Instance("a".repeat(INSTANCE_MAX)),
            Request::Dac("B".into()),
        ] {
            let datagram = request.encode();
            assert!(datagram.len() <= REQUEST_MAX + 1);
            assert_eq!(Request::parse(&datagram).unwrap(), request);
        }
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        for wrong in [
            &b""[..],
            b"\x00",
            b"\x01",
            b"\x05",
            b"\x02\x00",
            b"\x03x",
            b"\x04",
            b"\x04\0",
            b"\x04name",
            b"\x04na\0me\0",
            b"\x04na;me\0",
            b"\x04n\xe4me\0",
            b"\x0f",
            b"\x0f\x02name\0",
        ] {
            assert!(Request::parse(wrong).is_err(), "{wrong:?}");
        }
        let long = [&[0x04][..], &[b'a'; INSTANCE_MAX + 1], &[0]].concat();
        assert!(Request::parse(&long).is_err());
    }

    /// SVR_RESP [MC-SQLR 2.2.5].
    #[test]
    fn an_answer_is_bounded() {
        assert_eq!(response([]), None);
        let many: Vec<Instance> = (0..1000).map(|n| instance(&format!("I{n}"), 1433)).collect();
        let answer = response(&many).unwrap();
        assert!(answer.len() <= 3 + DATA_MAX && answer.ends_with(b";;"));
        let size = answer.get(1..3).and_then(|b| b.first_chunk::<2>()).unwrap();
        assert_eq!(usize::from(u16::from_le_bytes(*size)), answer.len() - 3);
    }
}
