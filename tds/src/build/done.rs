//! How statements end and what a server says: DONE family, ERROR, INFO, RETURNSTATUS, RETURNVALUE [MS-TDS 2.2.7].

use bytes::{BufMut, BytesMut};

use super::column::{ColumnFlags, ColumnType, CryptoMetadata};
use super::metadata::put_crypto;
use super::type_info::put_type_info;
use super::value::{Misfit, Place, Value, put_value};
use super::{BuildError, TokenBuf, put_b_varchar, put_us_varchar, put_user_type};

const RETURNSTATUS: u8 = 0x79;
const ERROR: u8 = 0xAA;
const INFO: u8 = 0xAB;
const RETURNVALUE: u8 = 0xAC;

/// Most UTF-16 units of a message text: SQL Server's own limit is 2 047, and the token counts bytes in a u16
/// [MS-TDS 2.2.7.10].
pub const TEXT_UNITS_MAX: usize = 2000;

/// Which token of the DONE family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoneKind {
    /// 0xFD, ends a statement.
    Done,
    /// 0xFE, ends a procedure.
    Proc,
    /// 0xFF, ends a statement inside a procedure.
    InProc,
}

impl DoneKind {
    /// The token byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Done => 0xFD,
            Self::Proc => 0xFE,
            Self::InProc => 0xFF,
        }
    }
}

/// Text of ERROR and INFO. Names above their limit are clipped, the text to [`TEXT_UNITS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerText<'a> {
    /// Number.
    pub number: i32,
    /// State.
    pub state: u8,
    /// Class: ERROR from 11 on, INFO up to 10; drivers assert it.
    pub class: u8,
    /// Text.
    pub text: &'a str,
    /// Server name.
    pub server: &'a str,
    /// Procedure name, or empty.
    pub procedure: &'a str,
    /// Line, from 1; 0 = none.
    pub line: u32,
}

/// An output parameter or the result of a function.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    /// Ordinal of the parameter.
    pub ordinal: u16,
    /// Name with its `@`, or empty.
    pub name: &'a str,
    /// 1 output parameter, 2 function result.
    pub status: u8,
    /// UserType.
    pub user_type: u32,
    /// Flags.
    pub flags: ColumnFlags,
    /// Type.
    pub ty: &'a ColumnType,
    /// Of an encrypted parameter.
    pub crypto: Option<&'a CryptoMetadata>,
}

impl<'a> Returned<'a> {
    /// An output parameter.
    #[must_use]
    pub const fn output(ordinal: u16, name: &'a str, ty: &'a ColumnType) -> Self {
        Self {
            ordinal,
            name,
            status: 1,
            user_type: 0,
            flags: ColumnFlags(0),
            ty,
            crypto: None,
        }
    }
}

impl TokenBuf {
    /// A token of the DONE family. The count is u64 from 7.2 on, u32 before (then clamped).
    pub fn done_of(&mut self, kind: DoneKind, status: u16, cur_cmd: u16, rows: u64) -> &mut Self {
        self.out.put_u8(kind.byte());
        self.out.put_u16_le(status);
        self.out.put_u16_le(cur_cmd);
        if self.version.has_wide_counts() {
            self.out.put_u64_le(rows);
        } else {
            self.out.put_u32_le(u32::try_from(rows).unwrap_or(u32::MAX));
        }
        self
    }

    /// DONE.
    pub fn done(&mut self, status: u16, cur_cmd: u16, rows: u64) -> &mut Self {
        self.done_of(DoneKind::Done, status, cur_cmd, rows)
    }

    /// DONEPROC.
    pub fn done_proc(&mut self, status: u16, cur_cmd: u16, rows: u64) -> &mut Self {
        self.done_of(DoneKind::Proc, status, cur_cmd, rows)
    }

    /// DONEINPROC.
    pub fn done_in_proc(&mut self, status: u16, cur_cmd: u16, rows: u64) -> &mut Self {
        self.done_of(DoneKind::InProc, status, cur_cmd, rows)
    }

    /// ERROR.
    pub fn error(&mut self, text: &ServerText<'_>) -> &mut Self {
        self.message(ERROR, text)
    }

    /// INFO.
    pub fn info(&mut self, text: &ServerText<'_>) -> &mut Self {
        self.message(INFO, text)
    }

    fn message(&mut self, token: u8, message: &ServerText<'_>) -> &mut Self {
        self.sized(token, |out, version| {
            out.put_i32_le(message.number);
            out.put_slice(&[message.state, message.class]);
            put_us_varchar(out, message.text, TEXT_UNITS_MAX);
            put_b_varchar(out, message.server);
            put_b_varchar(out, message.procedure);
            if version.has_wide_counts() {
                out.put_u32_le(message.line);
            } else {
                out.put_u16_le(u16::try_from(message.line).unwrap_or(u16::MAX));
            }
        })
    }

    /// RETURNSTATUS.
    pub fn return_status(&mut self, status: i32) -> &mut Self {
        self.out.put_u8(RETURNSTATUS);
        self.out.put_i32_le(status);
        self
    }

    /// RETURNVALUE.
    ///
    /// # Errors
    /// The value does not fit the type.
    pub fn return_value(&mut self, head: &Returned<'_>, value: &Value<'_>) -> Result<&mut Self, BuildError> {
        self.whole(|out: &mut BytesMut, version| {
            out.put_u8(RETURNVALUE);
            out.put_u16_le(head.ordinal);
            put_b_varchar(out, head.name);
            out.put_u8(head.status);
            put_user_type(out, version, head.user_type);
            out.put_u16_le(head.flags.0);
            put_type_info(out, version, head.ty);
            if let Some(crypto) = head.crypto {
                put_crypto(out, version, crypto);
            }
            put_value(out, version, head.ty, value, Place::Bare).map_err(|Misfit| BuildError::Value {
                column: usize::from(head.ordinal),
            })
        })
    }
}
