//! RETURNVALUE [MS-TDS 2.2.7.19]: an output parameter, or the result of a function.

use crate::col_metadata::{FLAG_ENCRYPTED, read_crypto, read_user_type};
use crate::error::WireError;
use crate::read::{Fail, Reader};
use crate::type_info::{Framing, Place, RawValue, TypeInfo};
use crate::utf16::decode as utf16;
use crate::walker::WalkerOptions;

/// A RETURNVALUE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnValue<'a> {
    /// Ordinal of the parameter; before 7.2 it may be a length.
    pub ordinal: u16,
    /// The parameter's name.
    pub name: String,
    /// 1 = output parameter, 2 = result of a function.
    pub status: u8,
    /// Type of the value.
    pub type_info: TypeInfo,
    /// The value, when its framing is a short one (fixed, u8 or u16 length). `None` for sql_variant, the TEXT family and PLP:
    /// the walker steps over those without keeping them, so that a value of any size costs no memory.
    pub value: Option<RawValue<'a>>,
}

impl<'a> ReturnValue<'a> {
    /// Parses a token as the walker gives it.
    ///
    /// # Errors
    /// A token that is cut short, or an unknown data type.
    pub fn parse(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, WireError> {
        Self::read(bytes, options).map_err(|fail| fail.into_error("RETURNVALUE", 0))
    }

    fn read(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, Fail> {
        let mut r = Reader::new(bytes, 1);
        let ordinal = r.u16()?;
        let name = utf16(r.b_varchar()?);
        let status = r.u8()?;
        read_user_type(&mut r, options)?;
        let flags = r.u16()?;
        let type_info = TypeInfo::read(&mut r, options.version, Place::ReturnValue)?;
        if options.column_encryption && flags & FLAG_ENCRYPTED != 0 {
            read_crypto(&mut r, options, Place::ReturnValue)?;
        }
        let value = match type_info.framing {
            Framing::Fixed(_) | Framing::Byte(_) | Framing::UShort => {
                Some(type_info.framing.read_value(&mut r)?)
            }
            Framing::Long | Framing::Variant | Framing::TextPtr | Framing::LongText | Framing::Plp => None,
        };
        Ok(Self {
            ordinal,
            name,
            status,
            type_info,
            value,
        })
    }
}
