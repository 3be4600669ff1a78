//! COLMETADATA and ALTMETADATA [MS-TDS 2.2.7.4, 2.2.7.1]: their columns, and the row layout compiled from them.

use crate::error::WireError;
use crate::read::{Fail, Reader};
use crate::token::TokenKind;
use crate::type_info::{Framing, Place, TypeInfo};
use crate::utf16::decode as utf16;
use crate::walker::WalkerOptions;

/// COLMETADATA count that says "no metadata: what was sent before stays in force".
pub const NO_METADATA: u16 = 0xFFFF;
/// Column flag: values are ciphertext [MS-TDS 2.2.7.4, fEncrypted].
pub const FLAG_ENCRYPTED: u16 = 0x0800;

/// Who wrote the metadata: a client's bulk load names the table of a TEXT column in another form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A server's result set.
    Server,
    /// A client's bulk load.
    BulkLoad,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// User type; 0x50 is rowversion.
    pub user_type: u32,
    /// Flags [MS-TDS 2.2.7.4].
    pub flags: u16,
    /// Type and framing; of an encrypted column the outer (varbinary) type.
    pub type_info: TypeInfo,
    name: &'a [u8],
}

impl Column<'_> {
    /// The column's name.
    #[must_use]
    pub fn name(&self) -> String {
        utf16(self.name)
    }

    /// True if NULL is allowed.
    #[must_use]
    pub const fn nullable(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// UserType: u32 from 7.2 on, u16 before.
pub(crate) fn read_user_type(r: &mut Reader<'_>, options: &WalkerOptions) -> Result<u32, Fail> {
    if options.version.has_wide_counts() {
        r.u32()
    } else {
        r.u16().map(u32::from)
    }
}

/// CryptoMetaData after its Ordinal, which RETURNVALUE leaves out [MS-TDS 2.2.7.4].
pub(crate) fn read_crypto(r: &mut Reader<'_>, options: &WalkerOptions) -> Result<(), Fail> {
    read_user_type(r, options)?;
    TypeInfo::read(r, options.version, Place::ReturnValue)?;
    if r.u8()? == 0 {
        r.b_varchar()?;
    }
    r.array::<2>()?;
    Ok(())
}

fn skip_table_name(r: &mut Reader<'_>, options: &WalkerOptions, origin: Origin) -> Result<(), Fail> {
    let parts = if options.version.has_wide_counts() && origin == Origin::Server {
        r.u8()?
    } else {
        1
    };
    for _part in 0..parts {
        r.us_varchar()?;
    }
    Ok(())
}

/// Reads one column of COLMETADATA.
pub(crate) fn read_column<'a>(
    r: &mut Reader<'a>,
    options: &WalkerOptions,
    origin: Origin,
) -> Result<Column<'a>, Fail> {
    let user_type = read_user_type(r, options)?;
    let flags = r.u16()?;
    let type_info = TypeInfo::read(r, options.version, Place::Column)?;
    if type_info.data_type.is_long_lob() {
        skip_table_name(r, options, origin)?;
    }
    if options.column_encryption && flags & FLAG_ENCRYPTED != 0 {
        r.u16()?;
        read_crypto(r, options)?;
    }
    let name = r.b_varchar()?;
    Ok(Column {
        user_type,
        flags,
        type_info,
        name,
    })
}

/// Reads one column of ALTMETADATA: operator and operand stand before what COLMETADATA has, and nothing is encrypted.
pub(crate) fn read_alt_column<'a>(r: &mut Reader<'a>, options: &WalkerOptions) -> Result<Column<'a>, Fail> {
    r.array::<3>()?;
    let plain = WalkerOptions {
        column_encryption: false,
        ..*options
    };
    read_column(r, &plain, Origin::Server)
}

/// Reads one EK_INFO of the CekTable [MS-TDS 2.2.5.7].
pub(crate) fn read_cek_entry(r: &mut Reader<'_>) -> Result<(), Fail> {
    r.array::<20>()?;
    let values = r.u8()?;
    for _value in 0..values {
        r.us_varbyte()?;
        r.b_varchar()?;
        r.us_varchar()?;
        r.b_varchar()?;
    }
    Ok(())
}

/// A parsed COLMETADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColMetadata<'a> {
    /// True when the token says that earlier metadata stays in force.
    pub no_metadata: bool,
    /// The columns.
    pub columns: Vec<Column<'a>>,
}

impl<'a> ColMetadata<'a> {
    /// Parses a whole token, token byte included.
    ///
    /// # Errors
    /// A token that is cut short, or an unknown data type.
    pub fn parse(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, WireError> {
        Self::parse_from(bytes, options, Origin::Server)
    }

    /// The same for the metadata of `origin`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_from(bytes: &'a [u8], options: &WalkerOptions, origin: Origin) -> Result<Self, WireError> {
        Self::read(bytes, options, origin).map_err(|fail| fail.into_error("COLMETADATA", 0))
    }

    fn read(bytes: &'a [u8], options: &WalkerOptions, origin: Origin) -> Result<Self, Fail> {
        let mut r = Reader::new(bytes, 1);
        let count = r.u16()?;
        if count == NO_METADATA {
            return Ok(Self {
                no_metadata: true,
                columns: Vec::new(),
            });
        }
        if options.column_encryption {
            for _entry in 0..r.u16()? {
                read_cek_entry(&mut r)?;
            }
        }
        let mut columns = Vec::new();
        for _column in 0..count {
            columns.push(read_column(&mut r, options, origin)?);
        }
        Ok(Self {
            no_metadata: false,
            columns,
        })
    }
}

/// A parsed ALTMETADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltMetadata<'a> {
    /// Its id, which ALTROWs name.
    pub id: u16,
    /// The columns.
    pub columns: Vec<Column<'a>>,
}

impl<'a> AltMetadata<'a> {
    /// Parses a whole token, token byte included.
    ///
    /// # Errors
    /// A token that is cut short, or an unknown data type.
    pub fn parse(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, WireError> {
        Self::read(bytes, options).map_err(|fail| fail.into_error("ALTMETADATA", 0))
    }

    fn read(bytes: &'a [u8], options: &WalkerOptions) -> Result<Self, Fail> {
        let mut r = Reader::new(bytes, 1);
        let count = r.u16()?;
        let id = r.u16()?;
        let by_columns = r.u8()?;
        r.take(usize::from(by_columns).saturating_mul(2))?;
        let mut columns = Vec::new();
        for _column in 0..count {
            columns.push(read_alt_column(&mut r, options)?);
        }
        Ok(Self { id, columns })
    }
}

/// One step over a row: a value, or a run of fixed-length values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// This many bytes.
    Fixed(u32),
    /// u8 length.
    Byte,
    /// u16 length, 0xFFFF is none.
    UShort,
    /// u32 length.
    Long,
    /// Text pointer, timestamp, i32 length.
    TextPtr,
    /// i32 length, -1 is none.
    LongText,
    /// Chunks.
    Plp,
}

impl From<Framing> for Op {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Fixed(n) => Self::Fixed(u32::from(n)),
            Framing::Byte => Self::Byte,
            Framing::UShort => Self::UShort,
            Framing::Long => Self::Long,
            Framing::TextPtr => Self::TextPtr,
            Framing::LongText => Self::LongText,
            Framing::Plp => Self::Plp,
        }
    }
}

const ROW: u8 = TokenKind::Row.byte();
const NBC_ROW: u8 = TokenKind::NbcRow.byte();

/// Which rows may be passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBounds {
    /// A row may begin before this position.
    pub(crate) begin_before: usize,
    /// So many rows may begin.
    pub(crate) rows: u64,
    /// NBCROW is legal here.
    pub(crate) nbc: bool,
}

/// How the rows of one result set are laid out: compiled once per COLMETADATA, read per row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// One per column, for NBCROW.
    pub(crate) columns: Box<[Op]>,
    /// Neighbouring fixed columns merged, for ROW and ALTROW.
    pub(crate) row: Box<[Op]>,
    /// Bytes of a ROW after its token byte, when every column is fixed.
    pub(crate) fixed_row: Option<usize>,
}

impl Layout {
    /// Compiles a layout.
    #[must_use]
    pub fn new(framings: impl IntoIterator<Item = Framing>) -> Self {
        let columns: Box<[Op]> = framings.into_iter().map(Op::from).collect();
        let mut row: Vec<Op> = Vec::with_capacity(columns.len());
        for op in &columns {
            match (row.last_mut(), op) {
                (_, Op::Fixed(0)) => {}
                (Some(Op::Fixed(run)), Op::Fixed(n)) => *run = run.saturating_add(*n),
                _ => row.push(*op),
            }
        }
        let fixed_row = match row.as_slice() {
            [] => Some(0),
            [Op::Fixed(n)] => usize::try_from(*n).ok(),
            _ => None,
        };
        Self {
            columns,
            row: row.into_boxed_slice(),
            fixed_row,
        }
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Bytes of an NBCROW's null bitmap.
    #[must_use]
    pub fn bitmap_len(&self) -> usize {
        self.columns.len().div_ceil(8)
    }

    /// Passes the rows from `at` on that are whole in the input, as far as `bounds` allow: how many, and where the last ends.
    pub(crate) fn whole_rows(&self, input: &[u8], mut at: usize, bounds: RowBounds) -> (u64, usize) {
        let mut rows = 0;
        while rows < bounds.rows && at < bounds.begin_before {
            let end = match input.get(at) {
                Some(&ROW) => self.row_end(input, at.saturating_add(1)),
                Some(&NBC_ROW) if bounds.nbc => self.nbc_row_end(input, at.saturating_add(1)),
                _ => None,
            };
            let Some(end) = end else { break };
            at = end;
            rows = rows.saturating_add(1);
        }
        (rows, at)
    }

    /// Where the ROW ends whose values begin at `at`; `None` if it is not all there, or broken.
    #[inline]
    pub(crate) fn row_end(&self, input: &[u8], mut at: usize) -> Option<usize> {
        for op in &self.row {
            at = op.end(input, at)?;
        }
        (at <= input.len()).then_some(at)
    }

    /// Where the NBCROW ends whose bitmap begins at `at`; `None` if it is not all there, or broken.
    #[inline]
    pub(crate) fn nbc_row_end(&self, input: &[u8], at: usize) -> Option<usize> {
        let values = at.checked_add(self.bitmap_len())?;
        let bitmap = input.get(at..values)?;
        let mut at = values;
        for (ops, nulls) in self.columns.chunks(8).zip(bitmap) {
            let mut nulls = *nulls;
            for op in ops {
                if nulls & 1 == 0 {
                    at = op.end(input, at)?;
                }
                nulls >>= 1;
            }
        }
        (at <= input.len()).then_some(at)
    }
}

impl Op {
    /// Where the value ends that begins at `at`; it may be past the input's end. `None` if its length is not all there.
    #[inline(always)]
    fn end(self, input: &[u8], at: usize) -> Option<usize> {
        match self {
            Self::Fixed(n) => Some(at.saturating_add(widen(n))),
            Self::Byte => {
                let n = *input.get(at)?;
                Some(at.saturating_add(1).saturating_add(usize::from(n)))
            }
            Self::UShort => {
                let n = u16::from_le_bytes(*input.get(at..)?.first_chunk::<2>()?);
                let n = if n == 0xFFFF { 0 } else { usize::from(n) };
                Some(at.saturating_add(2).saturating_add(n))
            }
            other => other.long_end(input, at),
        }
    }

    #[inline(never)]
    fn long_end(self, input: &[u8], at: usize) -> Option<usize> {
        let framing = match self {
            Self::Long => Framing::Long,
            Self::TextPtr => Framing::TextPtr,
            Self::LongText => Framing::LongText,
            Self::Plp => Framing::Plp,
            Self::Fixed(_) | Self::Byte | Self::UShort => return None,
        };
        let mut r = Reader::new(input, at);
        framing.read_value(&mut r).ok().map(|_value| r.at())
    }
}

#[inline(always)]
fn widen(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
