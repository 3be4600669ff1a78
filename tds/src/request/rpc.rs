//! RPC requests [MS-TDS 2.2.6.6]: calls and parameters one by one, borrowed from the message, nothing collected.
//!
//! ```text
//! let mut rpc = RpcReader::new(body, options)?;
//! while let Some(call) = rpc.next_call()? {
//!     while let Some(parameter) = rpc.next_parameter()? { … }
//! }
//! ```
//! Parameters that the caller does not ask for are stepped over. Work and memory are bounded by the body's length.

use super::RequestOptions;
use super::all_headers::AllHeaders;
use super::parameter::{Parameter, read_parameter};
use crate::error::{WireError, WireErrorKind};
use crate::read::{Fail, Reader};
use crate::utf16;
use crate::version::TdsVersion;

/// Most UTF-16 units of a procedure name: 1046 bytes [MS-TDS 2.2.6.6].
pub const NAME_UNITS_MAX: u16 = 523;
/// Most UTF-16 units of a parameter name; larger first bytes are separators or nonsense.
pub const PARAMETER_NAME_UNITS_MAX: u8 = 128;

/// Says that a procedure number follows instead of a name.
pub(super) const BY_NUMBER: u16 = 0xFFFF;

/// A byte that is neither a name's length nor a separator.
pub(super) const NO_PARAMETER: WireErrorKind =
    WireErrorKind::Invalid("neither a parameter nor a separator in an RPC request");

/// The procedures that have numbers [MS-TDS 2.2.6.6].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProcId {
    /// 1.
    Cursor,
    /// 2.
    CursorOpen,
    /// 3.
    CursorPrepare,
    /// 4.
    CursorExecute,
    /// 5.
    CursorPrepExec,
    /// 6.
    CursorUnprepare,
    /// 7.
    CursorFetch,
    /// 8.
    CursorOption,
    /// 9.
    CursorClose,
    /// 10.
    ExecuteSql,
    /// 11.
    Prepare,
    /// 12.
    Execute,
    /// 13.
    PrepExec,
    /// 14.
    PrepExecRpc,
    /// 15.
    Unprepare,
}

impl ProcId {
    const ALL: [(Self, &'static str); 15] = [
        (Self::Cursor, "sp_cursor"),
        (Self::CursorOpen, "sp_cursoropen"),
        (Self::CursorPrepare, "sp_cursorprepare"),
        (Self::CursorExecute, "sp_cursorexecute"),
        (Self::CursorPrepExec, "sp_cursorprepexec"),
        (Self::CursorUnprepare, "sp_cursorunprepare"),
        (Self::CursorFetch, "sp_cursorfetch"),
        (Self::CursorOption, "sp_cursoroption"),
        (Self::CursorClose, "sp_cursorclose"),
        (Self::ExecuteSql, "sp_executesql"),
        (Self::Prepare, "sp_prepare"),
        (Self::Execute, "sp_execute"),
        (Self::PrepExec, "sp_prepexec"),
        (Self::PrepExecRpc, "sp_prepexecrpc"),
        (Self::Unprepare, "sp_unprepare"),
    ];

    /// The procedure of a number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        let index = usize::from(number).checked_sub(1)?;
        Self::ALL.get(index).map(|(id, _)| *id)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u16 {
        Self::ALL
            .iter()
            .zip(1u16..)
            .find(|((id, _), _)| *id == self)
            .map_or(0, |(_, n)| n)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(id, _)| *id == self)
            .map_or("", |(_, name)| name)
    }

    /// Which parameter holds SQL text, from 0: as the procedures are documented [MS-TDS 2.2.6.6].
    #[must_use]
    pub const fn text_parameter(self) -> Option<usize> {
        match self {
            Self::ExecuteSql => Some(0),
            Self::CursorOpen | Self::PrepExecRpc => Some(1),
            Self::CursorPrepare | Self::Prepare | Self::PrepExec => Some(2),
            Self::CursorPrepExec => Some(3),
            _ => None,
        }
    }

    /// True for what only gives back: a tenant without credit may always do it.
    #[must_use]
    pub const fn gives_back(self) -> bool {
        matches!(self, Self::CursorUnprepare | Self::CursorClose | Self::Unprepare)
    }

    /// The system procedure that a name calls: bare, or qualified by `sys`, or by `master` and its owner. A procedure
    /// of the same name in another database or schema is another procedure.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut parts = name
            .rsplit('.')
            .map(|p| p.trim().trim_start_matches('[').trim_end_matches(']'));
        let last = parts.next()?;
        let is = |part: &str, names: &[&str]| names.iter().any(|n| part.eq_ignore_ascii_case(n));
        let (schema, database, more) = (parts.next(), parts.next(), parts.next());
        let system = match (schema, database, more) {
            (None, ..) => true,
            (Some(schema), None, _) => is(schema, &["sys"]),
            (Some(schema), Some(database), None) => {
                is(schema, &["sys", "dbo", ""]) && is(database, &["master"])
            }
            (_, _, Some(_)) => false,
        };
        let found = Self::ALL
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(last));
        found.filter(|_| system).map(|(id, _)| *id)
    }
}

/// What a call calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Procedure<'a> {
    /// By number; numbers above 15 are not defined.
    Number(u16),
    /// By name, as UTF-16LE.
    Name(&'a [u8]),
}

impl Procedure<'_> {
    /// The numbered procedure, called either way.
    #[must_use]
    pub fn id(&self) -> Option<ProcId> {
        match self {
            Self::Number(number) => ProcId::from_number(*number),
            Self::Name(name) => ProcId::from_name(&utf16::decode(name)),
        }
    }

    /// Its name as the client wrote it, or that of its number.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Number(number) => ProcId::from_number(*number)
                .map_or_else(|| format!("procedure {number}"), |id| id.name().to_owned()),
            Self::Name(name) => utf16::decode(name),
        }
    }
}

/// OptionFlags of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallFlags(pub u16);

impl CallFlags {
    /// Compile again.
    pub const RECOMPILE: u16 = 0x0001;
    /// Leave the metadata out; a gate clears it.
    pub const NO_METADATA: u16 = 0x0002;
    /// Metadata was sent before.
    pub const REUSE_METADATA: u16 = 0x0004;

    /// True if the client wants no metadata.
    #[must_use]
    pub const fn no_metadata(self) -> bool {
        self.0 & Self::NO_METADATA != 0
    }
}

/// One call of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// What it calls.
    pub procedure: Procedure<'a>,
    /// Its flags.
    pub flags: CallFlags,
    /// Where in the body the flags' low byte stands, so that fNoMetaData can be cleared in place.
    pub flags_at: usize,
    /// Package for the enclave.
    pub enclave: &'a [u8],
}

/// What stood behind a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// BatchFlag: another call, or nothing.
    Next,
    /// NoExecFlag: the call before it is not run.
    NoExec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    InCall,
}

/// Reads an RPC message.
#[derive(Debug, Clone)]
pub struct RpcReader<'a> {
    r: Reader<'a>,
    options: RequestOptions,
    headers: AllHeaders,
    state: State,
    separator: Option<Separator>,
}

impl<'a> RpcReader<'a> {
    /// A reader before the first call.
    ///
    /// # Errors
    /// The client's fault: bad headers.
    pub fn new(body: &'a [u8], options: RequestOptions) -> Result<Self, WireError> {
        let headers = AllHeaders::parse(body, options.version)?;
        let r = Reader::new(body, headers.len);
        Ok(Self {
            r,
            options,
            headers,
            state: State::Between,
            separator: None,
        })
    }

    /// The request's headers.
    #[must_use]
    pub const fn headers(&self) -> &AllHeaders {
        &self.headers
    }

    /// What stood behind the last call whose parameters were all read; `None` at the message's end.
    #[must_use]
    pub const fn separator(&self) -> Option<Separator> {
        self.separator
    }

    /// The next call, over the parameters of the last that were not read. `None` at the end.
    ///
    /// # Errors
    /// The client's fault, or the end of a head that is not the whole message.
    pub fn next_call(&mut self) -> Result<Option<Call<'a>>, WireError> {
        while self.next_parameter()?.is_some() {}
        if self.r.is_empty() {
            return Ok(None);
        }
        let call = self.read_call().map_err(|f| f.into_error("RPC request", 0))?;
        self.state = State::InCall;
        self.separator = None;
        Ok(Some(call))
    }

    fn read_call(&mut self) -> Result<Call<'a>, Fail> {
        let r = &mut self.r;
        let procedure = match r.u16()? {
            BY_NUMBER => Procedure::Number(r.u16()?),
            units if units > NAME_UNITS_MAX => {
                let limit = u64::from(NAME_UNITS_MAX);
                return Err(r.bad(
                    2,
                    WireErrorKind::TooLarge {
                        what: "a procedure name",
                        limit,
                    },
                ));
            }
            units => Procedure::Name(r.take(usize::from(units) * 2)?),
        };
        let flags_at = r.at();
        let flags = CallFlags(r.u16()?);
        let enclave = if self.options.enclave {
            r.us_varbyte()?
        } else {
            &[]
        };
        Ok(Call {
            procedure,
            flags,
            flags_at,
            enclave,
        })
    }

    /// The next parameter of the call in hand; `None` behind its last.
    ///
    /// # Errors
    /// As [`next_call`](Self::next_call).
    pub fn next_parameter(&mut self) -> Result<Option<Parameter<'a>>, WireError> {
        if self.state == State::Between {
            return Ok(None);
        }
        let Some(first) = self.r.peek() else {
            self.state = State::Between;
            return Ok(None);
        };
        if let Some(separator) = separator(first, self.options.version) {
            self.separator = Some(separator);
            self.state = State::Between;
            return self
                .r
                .u8()
                .map(|_| None)
                .map_err(|f| f.into_error("RPC request", 0));
        }
        if first > PARAMETER_NAME_UNITS_MAX {
            return Err(WireError::at(self.r.at() as u64, NO_PARAMETER));
        }
        let parameter = read_parameter(&mut self.r, self.options.version);
        parameter
            .map(Some)
            .map_err(|f| f.into_error("a parameter of an RPC request", 0))
    }
}

/// 0x80 separates before 7.2; from then on it is the length of a name [MS-TDS 2.2.6.6].
pub(super) const fn separator(byte: u8, version: TdsVersion) -> Option<Separator> {
    let old = matches!(
        version,
        TdsVersion::V7_0 | TdsVersion::V7_1 | TdsVersion::V7_1Rev1
    );
    match byte {
        0x80 if old => Some(Separator::Next),
        0xFF if !old => Some(Separator::Next),
        0xFE if !old => Some(Separator::NoExec),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_same_procedures() {
        for number in 1..=15 {
            let id = ProcId::from_number(number).unwrap();
            assert_eq!(id.number(), number);
            assert_eq!(ProcId::from_name(id.name()), Some(id));
        }
        assert_eq!(ProcId::from_number(0), None);
        assert_eq!(ProcId::from_number(16), None);
        for name in [
            "SP_EXECUTESQL",
            "sys.sp_executesql",
            "[sys].[sp_executesql]",
            "master..sp_executesql",
        ] {
            assert_eq!(ProcId::from_name(name), Some(ProcId::ExecuteSql), "{name}");
        }
    }

    #[test]
    fn a_namesake_elsewhere_is_not_the_system_procedure() {
        for name in [
            "dbo.sp_unprepare",
            "demo.dbo.sp_unprepare",
            "srv.master.dbo.sp_unprepare",
            "sp_unprepare2",
            "",
        ] {
            assert_eq!(ProcId::from_name(name), None, "{name}");
        }
    }
}
