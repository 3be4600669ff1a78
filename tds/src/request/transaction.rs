//! Transaction manager requests [MS-TDS 2.2.6.9].

use bytes::BufMut;

use super::all_headers::AllHeaders;
use crate::body::Body;
use crate::error::WireError;
use crate::utf16;

/// A transaction that a commit or rollback begins next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// 0 keep, 1 read uncommitted, 2 read committed, 3 repeatable read, 4 serializable, 5 snapshot.
    pub isolation: u8,
    /// Name, mostly empty.
    pub name: String,
}

/// What a transaction manager request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionRequest<'a> {
    /// 0: the address of MSDTC. Answered with a row.
    GetDtcAddress,
    /// 1: joins a distributed transaction by its cookie.
    Propagate(&'a [u8]),
    /// 5.
    Begin(Begin),
    /// 6: makes the transaction a distributed one.
    Promote,
    /// 7.
    Commit {
        /// Name, mostly empty.
        name: String,
        /// Begin another at once.
        then: Option<Begin>,
    },
    /// 8.
    Rollback {
        /// Name of a savepoint, or empty for all of it.
        name: String,
        /// Begin another at once.
        then: Option<Begin>,
    },
    /// 9.
    Save(String),
}

impl<'a> TransactionRequest<'a> {
    /// Reads a request behind its headers.
    ///
    /// # Errors
    /// The client's fault: a type that MS-TDS does not define (close the connection), or a payload that ends too early.
    pub fn parse(body: &'a [u8], headers: &AllHeaders) -> Result<Self, WireError> {
        let mut r = Body::new(body, "transaction manager request");
        r.take(headers.len)?;
        Ok(match r.u16()? {
            0 => Self::GetDtcAddress,
            1 => Self::Propagate(r.us_varbyte()?),
            5 => Self::Begin(begin(&mut r)?),
            6 => Self::Promote,
            7 => Self::Commit {
                name: name(&mut r)?,
                then: then(&mut r)?,
            },
            8 => Self::Rollback {
                name: name(&mut r)?,
                then: then(&mut r)?,
            },
            9 => Self::Save(name(&mut r)?),
            _ => return Err(r.invalid("a transaction manager request of unknown type")),
        })
    }

    /// True for what only gives back: a tenant without credit may always do it.
    #[must_use]
    pub const fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit { .. } | Self::Rollback { .. })
    }

    /// The body on the wire, headers included (7.2 and later, where this request exists). Names above 127 units are clipped.
    #[must_use]
    pub fn encode(&self, transaction: u64) -> Vec<u8> {
        let mut body = AllHeaders::encode(transaction).to_vec();
        match self {
            Self::GetDtcAddress => body.put_slice(&[0, 0, 0, 0]),
            Self::Propagate(cookie) => {
                body.put_u16_le(1);
                body.put_u16_le(u16::try_from(cookie.len()).unwrap_or(u16::MAX));
                body.put_slice(cookie);
            }
            Self::Begin(new) => {
                body.put_u16_le(5);
                put_begin(&mut body, new);
            }
            Self::Promote => body.put_u16_le(6),
            Self::Commit { name, then } => put_end(&mut body, 7, name, then.as_ref()),
            Self::Rollback { name, then } => put_end(&mut body, 8, name, then.as_ref()),
            Self::Save(name) => {
                body.put_u16_le(9);
                put_name(&mut body, name);
            }
        }
        body
    }
}

fn begin(r: &mut Body<'_>) -> Result<Begin, WireError> {
    Ok(Begin {
        isolation: r.u8()?,
        name: name(r)?,
    })
}

/// A name: its length counts bytes.
fn name(r: &mut Body<'_>) -> Result<String, WireError> {
    r.b_varbyte().map(utf16::decode)
}

fn then(r: &mut Body<'_>) -> Result<Option<Begin>, WireError> {
    let flags = r.u8()?;
    if flags & 1 == 0 {
        Ok(None)
    } else {
        begin(r).map(Some)
    }
}

fn put_name(body: &mut Vec<u8>, name: &str) {
    let name = utf16::clip(name, usize::from(u8::MAX) / 2);
    body.put_u8(u8::try_from(utf16::units(name) * 2).unwrap_or(0));
    body.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
}

fn put_begin(body: &mut Vec<u8>, new: &Begin) {
    body.put_u8(new.isolation);
    put_name(body, &new.name);
}

fn put_end(body: &mut Vec<u8>, kind: u16, name: &str, then: Option<&Begin>) {
    body.put_u16_le(kind);
    put_name(body, name);
    body.put_u8(u8::from(then.is_some()));
    if let Some(new) = then {
        put_begin(body, new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::TdsVersion;

    #[test]
    fn every_request_survives_the_way_there_and_back() {
        let begin = || Begin {
            isolation: 2,
            name: "t".into(),
        };
        let all = [
            TransactionRequest::GetDtcAddress,
            TransactionRequest::Propagate(&[1, 2, 3]),
            TransactionRequest::Begin(begin()),
            TransactionRequest::Promote,
            TransactionRequest::Commit {
                name: String::new(),
                then: None,
            },
            TransactionRequest::Commit {
                name: "a".into(),
                then: Some(begin()),
            },
            TransactionRequest::Rollback {
                name: "s".into(),
                then: None,
            },
            TransactionRequest::Save("s".into()),
        ];
        for request in all {
            let body = request.encode(42);
            let headers = AllHeaders::parse(&body, TdsVersion::V7_4).unwrap();
            assert_eq!(headers.transaction, 42);
            assert_eq!(TransactionRequest::parse(&body, &headers), Ok(request));
        }
    }

    #[test]
    fn an_unknown_type_is_an_error() {
        let mut body = AllHeaders::encode(0).to_vec();
        body.extend_from_slice(&[22, 0, 0, 0]);
        let headers = AllHeaders::parse(&body, TdsVersion::V7_4).unwrap();
        assert!(TransactionRequest::parse(&body, &headers).is_err());
    }
}
