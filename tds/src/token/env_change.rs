//! ENVCHANGE [MS-TDS 2.2.7.9]: what changed in the session's environment.

use nom::Parser;
use nom::bytes::complete::take;
use nom::combinator::opt;
use nom::multi::length_data;
use nom::number::complete::{le_u8, le_u16, le_u32};

use super::{Parsed, b_varbyte, b_varchar, finish, us_varbyte, us_varchar};
use crate::error::WireError;
use crate::utf16::decode as utf16;

/// The types of ENVCHANGE.
#[allow(missing_docs, reason = "the names are those of MS-TDS 2.2.7.9")]
pub mod env {
    pub const DATABASE: u8 = 1;
    pub const LANGUAGE: u8 = 2;
    pub const CHARSET: u8 = 3;
    pub const PACKET_SIZE: u8 = 4;
    pub const SORT_LOCALE: u8 = 5;
    pub const SORT_FLAGS: u8 = 6;
    pub const COLLATION: u8 = 7;
    pub const BEGIN_TRANSACTION: u8 = 8;
    pub const COMMIT_TRANSACTION: u8 = 9;
    pub const ROLLBACK_TRANSACTION: u8 = 10;
    pub const ENLIST_DTC: u8 = 11;
    pub const DEFECT_TRANSACTION: u8 = 12;
    pub const MIRRORING_PARTNER: u8 = 13;
    pub const PROMOTE_TRANSACTION: u8 = 15;
    pub const TM_ADDRESS: u8 = 16;
    pub const TRANSACTION_ENDED: u8 = 17;
    pub const RESET_ACK: u8 = 18;
    pub const USER_INSTANCE: u8 = 19;
    pub const ROUTING: u8 = 20;
    pub const ENHANCED_ROUTING: u8 = 21;
}

/// An ENVCHANGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvChange<'a> {
    /// Its type; constants in [`mod@env`].
    pub kind: u8,
    /// New value without its length: UTF-16LE text or bytes, by type.
    pub new: &'a [u8],
    /// Old value, likewise; empty when the server left it out.
    pub old: &'a [u8],
}

/// Where a server sends a client (types 20 and 21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// 0 = TCP.
    pub protocol: u8,
    /// TCP port; 0 is illegal.
    pub port: u16,
    /// Host, perhaps `host\instance`.
    pub server: String,
    /// Database, with type 21.
    pub database: Option<String>,
}

impl<'a> EnvChange<'a> {
    /// Parses a whole token.
    ///
    /// # Errors
    /// A token that is cut short.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        finish(parse(bytes), "ENVCHANGE")
    }

    /// The new value as text.
    #[must_use]
    pub fn new_text(&self) -> String {
        utf16(self.new)
    }

    /// The old value as text.
    #[must_use]
    pub fn old_text(&self) -> String {
        utf16(self.old)
    }

    /// Type 4: the packet size.
    #[must_use]
    pub fn packet_size(&self) -> Option<u16> {
        if self.kind == env::PACKET_SIZE {
            self.new_text().parse().ok()
        } else {
            None
        }
    }

    /// Types 8 to 12 and 17: the transaction descriptor, from whichever value is 8 bytes long.
    #[must_use]
    pub fn transaction(&self) -> Option<u64> {
        if !matches!(self.kind, 8..=12 | 17) {
            return None;
        }
        let bytes = <[u8; 8]>::try_from(self.new)
            .or_else(|_| <[u8; 8]>::try_from(self.old))
            .ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Types 20 and 21: where to.
    #[must_use]
    pub fn routing(&self) -> Option<Routing> {
        if !matches!(self.kind, env::ROUTING | env::ENHANCED_ROUTING) {
            return None;
        }
        let parsed: Parsed<'_, _> = (le_u8, le_u16, us_varchar, opt(us_varchar)).parse(self.new);
        let (_rest, (protocol, port, server, database)) = parsed.ok()?;
        let database = if self.kind == env::ENHANCED_ROUTING {
            database.map(utf16)
        } else {
            None
        };
        Some(Routing {
            protocol,
            port,
            server: utf16(server),
            database,
        })
    }
}

fn parse(bytes: &[u8]) -> Parsed<'_, EnvChange<'_>> {
    let (rest, (_token, length)) = (le_u8, le_u16).parse(bytes)?;
    let (rest, kind) = le_u8.parse(rest)?;
    if kind == env::PROMOTE_TRANSACTION {
        // Length says 1 and does not cover the u32-counted token that follows it.
        let (rest, (new, old)) = (length_data(le_u32), b_varbyte).parse(rest)?;
        return Ok((rest, EnvChange { kind, new, old }));
    }
    let (after, values) = take(usize::from(length).saturating_sub(1)).parse(rest)?;
    let none: &[u8] = &[];
    let (_, (new, old)) = match kind {
        1..=6 | 13 | 19 => (b_varchar, opt(b_varchar)).parse(values)?,
        7..=12 | 16..=18 => (b_varbyte, opt(b_varbyte)).parse(values)?,
        20 | 21 => (us_varbyte, opt(us_varbyte)).parse(values)?,
        _ => (none, (values, None)),
    };
    Ok((
        after,
        EnvChange {
            kind,
            new,
            old: old.unwrap_or(none),
        },
    ))
}
