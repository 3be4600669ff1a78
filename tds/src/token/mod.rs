//! The response tokens [MS-TDS 2.2.7]: their kinds, and a parser per small token, each from a whole token's bytes.

mod done;
mod env_change;
mod feature_ext_ack;
mod fed_auth_info;
mod login_ack;
mod return_status;
mod return_value;
mod server_message;
mod session_state;

use nom::Parser;
use nom::multi::length_data;
use nom::number::complete::{le_u8, le_u16};

pub use self::done::{Done, DoneStatus};
pub use self::env_change::{EnvChange, Routing, env};
pub use self::feature_ext_ack::{FeatureAck, FeatureExtAck, feature};
pub use self::fed_auth_info::FedAuthInfo;
pub use self::login_ack::LoginAck;
pub use self::return_status::ReturnStatus;
pub use self::return_value::ReturnValue;
pub use self::server_message::ServerMessage;
pub use self::session_state::SessionState;
pub use crate::col_metadata::{AltMetadata, ColMetadata};

use crate::error::{WireError, WireErrorKind};

/// A token of a server's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of MS-TDS 2.2.7")]
pub enum TokenKind {
    Offset = 0x78,
    ReturnStatus = 0x79,
    ColMetadata = 0x81,
    AltMetadata = 0x88,
    DataClassification = 0xA3,
    TabName = 0xA4,
    ColInfo = 0xA5,
    Order = 0xA9,
    Error = 0xAA,
    Info = 0xAB,
    ReturnValue = 0xAC,
    LoginAck = 0xAD,
    FeatureExtAck = 0xAE,
    Row = 0xD1,
    NbcRow = 0xD2,
    AltRow = 0xD3,
    EnvChange = 0xE3,
    SessionState = 0xE4,
    Sspi = 0xED,
    FedAuthInfo = 0xEE,
    Done = 0xFD,
    DoneProc = 0xFE,
    DoneInProc = 0xFF,
}

impl TokenKind {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The kind of a token byte, if MS-TDS defines it for responses.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x78 => Self::Offset,
            0x79 => Self::ReturnStatus,
            0x81 => Self::ColMetadata,
            0x88 => Self::AltMetadata,
            0xA3 => Self::DataClassification,
            0xA4 => Self::TabName,
            0xA5 => Self::ColInfo,
            0xA9 => Self::Order,
            0xAA => Self::Error,
            0xAB => Self::Info,
            0xAC => Self::ReturnValue,
            0xAD => Self::LoginAck,
            0xAE => Self::FeatureExtAck,
            0xD1 => Self::Row,
            0xD2 => Self::NbcRow,
            0xD3 => Self::AltRow,
            0xE3 => Self::EnvChange,
            0xE4 => Self::SessionState,
            0xED => Self::Sspi,
            0xEE => Self::FedAuthInfo,
            0xFD => Self::Done,
            0xFE => Self::DoneProc,
            0xFF => Self::DoneInProc,
            _ => return None,
        })
    }

    /// True for ROW, NBCROW and ALTROW: what is counted as a row.
    #[must_use]
    pub const fn is_row(self) -> bool {
        matches!(self, Self::Row | Self::NbcRow | Self::AltRow)
    }

    /// True for DONE, DONEPROC and DONEINPROC.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::DoneProc | Self::DoneInProc)
    }

    /// The token's name in MS-TDS.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offset => "OFFSET",
            Self::ReturnStatus => "RETURNSTATUS",
            Self::ColMetadata => "COLMETADATA",
            Self::AltMetadata => "ALTMETADATA",
            Self::DataClassification => "DATACLASSIFICATION",
            Self::TabName => "TABNAME",
            Self::ColInfo => "COLINFO",
            Self::Order => "ORDER",
            Self::Error => "ERROR",
            Self::Info => "INFO",
            Self::ReturnValue => "RETURNVALUE",
            Self::LoginAck => "LOGINACK",
            Self::FeatureExtAck => "FEATUREEXTACK",
            Self::Row => "ROW",
            Self::NbcRow => "NBCROW",
            Self::AltRow => "ALTROW",
            Self::EnvChange => "ENVCHANGE",
            Self::SessionState => "SESSIONSTATE",
            Self::Sspi => "SSPI",
            Self::FedAuthInfo => "FEDAUTHINFO",
            Self::Done => "DONE",
            Self::DoneProc => "DONEPROC",
            Self::DoneInProc => "DONEINPROC",
        }
    }
}

/// nom's result; the cause of a failure is always "too short", so none is kept.
type Parsed<'a, T> = nom::IResult<&'a [u8], T, ()>;

/// B_VARCHAR: the text's bytes.
fn b_varchar(input: &[u8]) -> Parsed<'_, &[u8]> {
    length_data(le_u8.map(|chars: u8| usize::from(chars).saturating_mul(2))).parse(input)
}

/// US_VARCHAR: the text's bytes.
fn us_varchar(input: &[u8]) -> Parsed<'_, &[u8]> {
    length_data(le_u16.map(|chars: u16| usize::from(chars).saturating_mul(2))).parse(input)
}

/// B_VARBYTE.
fn b_varbyte(input: &[u8]) -> Parsed<'_, &[u8]> {
    length_data(le_u8).parse(input)
}

/// US_VARBYTE.
fn us_varbyte(input: &[u8]) -> Parsed<'_, &[u8]> {
    length_data(le_u16).parse(input)
}

/// The parsed value, or the error that `name` was cut short. Bytes behind what is known are ignored, as MS-TDS asks.
fn finish<T>(parsed: Parsed<'_, T>, name: &'static str) -> Result<T, WireError> {
    match parsed {
        Ok((_rest, value)) => Ok(value),
        Err(_) => Err(WireError::at(0, WireErrorKind::Truncated(name))),
    }
}
