//! An oracle for the walker: decodes a whole response at once, slowly, into owned values. Written from MS-TDS alone and sharing no code
//! with `weir-tds` but the options; every choice is spelled out where the walker has tables and state.

use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

/// What was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NaiveToken {
    /// The token byte.
    pub token: u8,
    /// Offset of the token byte.
    pub offset: usize,
    /// Offset just behind the token.
    pub end: usize,
    /// Values of a row or RETURNVALUE; `None` is NULL.
    pub values: Vec<Option<Vec<u8>>>,
}

/// Why decoding stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NaiveError {
    /// The stream ends inside a token.
    Short,
    /// The stream breaks a rule.
    Broken(String),
}

/// 2.2.5.5: the lengths of the types that have a u8 length, but for the character and binary types of old, which have any.
const INTEGERS: &[usize] = &[1, 2, 4, 8];
const BITS: &[usize] = &[1];
const FLOATS_MONEY_DATETIMES: &[usize] = &[4, 8];
const GUIDS: &[usize] = &[16];
const DECIMALS: &[usize] = &[5, 9, 13, 17];
/// A client's bulk load has decimals of any length up to the longest: FreeTDS writes what the precision needs.
const BULK_DECIMALS: &[usize] = &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
const DATES: &[usize] = &[3];
/// TIME, DATETIME2 and DATETIMEOFFSET by their scale.
const TIMES: [[&[usize]; 8]; 3] = [
    [&[3], &[3], &[3], &[4], &[4], &[5], &[5], &[5]],
    [&[6], &[6], &[6], &[7], &[7], &[8], &[8], &[8]],
    [&[8], &[8], &[8], &[9], &[9], &[10], &[10], &[10]],
];
const ANY: &[usize] = &[];

type Result<T> = std::result::Result<T, NaiveError>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed(usize),
    /// Only values of these many bytes, beside NULL.
    ByteLen(&'static [usize]),
    UShortLen,
    Variant,
    Text,
    Plp,
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    options: WalkerOptions,
    columns: Option<Vec<Kind>>,
    alt: Vec<(u16, Vec<Kind>)>,
    /// A client's bulk load, where the table of a TEXT column is one string in every version.
    bulk: bool,
}

/// Decodes a response's token stream. What was decoded before an error is in the first part of the answer.
#[must_use]
pub fn decode(bytes: &[u8], options: WalkerOptions) -> (Vec<NaiveToken>, Option<NaiveError>) {
    decode_from(bytes, options, false)
}

/// The same for the body of a client's bulk load.
#[must_use]
pub fn decode_bulk(bytes: &[u8], options: WalkerOptions) -> (Vec<NaiveToken>, Option<NaiveError>) {
    decode_from(bytes, options, true)
}

fn decode_from(bytes: &[u8], options: WalkerOptions, bulk: bool) -> (Vec<NaiveToken>, Option<NaiveError>) {
    let mut decoder = Decoder {
        bytes,
        at: 0,
        options,
        columns: None,
        alt: Vec::new(),
        bulk,
    };
    let mut tokens = Vec::new();
    while decoder.at < bytes.len() {
        let offset = decoder.at;
        match decoder.token() {
            Ok((token, values)) => tokens.push(NaiveToken {
                token,
                offset,
                end: decoder.at,
                values,
            }),
            Err(error) => return (tokens, Some(error)),
        }
    }
    (tokens, None)
}

impl Decoder<'_> {
    fn take(&mut self, n: usize) -> Result<Vec<u8>> {
        let Some(end) = self.at.checked_add(n) else {
            return Err(NaiveError::Short);
        };
        if end > self.bytes.len() {
            return Err(NaiveError::Short);
        }
        let taken = self.bytes[self.at..end].to_vec();
        self.at = end;
        Ok(taken)
    }

    fn int(&mut self, width: usize) -> Result<u64> {
        let bytes = self.take(width)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum * 256 + u64::from(*byte)))
    }

    fn size(&mut self, width: usize) -> Result<usize> {
        Ok(usize::try_from(self.int(width)?).unwrap_or(usize::MAX))
    }

    /// A text counted in characters by an integer of `width` bytes.
    fn text(&mut self, width: usize) -> Result<()> {
        let chars = self.size(width)?;
        self.take(chars * 2).map(|_| ())
    }

    /// Bytes counted by an integer of `width` bytes.
    fn counted(&mut self, width: usize) -> Result<()> {
        let n = self.size(width)?;
        self.take(n).map(|_| ())
    }

    fn modern(&self) -> bool {
        self.options.version >= TdsVersion::V7_2
    }

    fn user_type(&mut self) -> Result<u64> {
        self.int(if self.modern() { 4 } else { 2 })
    }

    fn token(&mut self) -> Result<(u8, Vec<Option<Vec<u8>>>)> {
        let token = self.take(1)?[0];
        let unknown = Err(NaiveError::Broken(format!("token {token:02x}")));
        match token {
            0x78 if self.modern() => return unknown,
            0xD2 if self.options.version < TdsVersion::V7_3B => return unknown,
            0xA3 if self.options.data_classification == 0 => return unknown,
            0x78 | 0x79 => drop(self.take(4)?),
            0xFD..=0xFF => drop(self.take(if self.modern() { 12 } else { 8 })?),
            0xA4 | 0xA5 | 0xA9 | 0xAA | 0xAB | 0xAD | 0xED => self.counted(2)?,
            0xE4 | 0xEE => self.counted(4)?,
            0xE3 => self.env_change()?,
            0xAE => self.feature_ext_ack()?,
            0x81 => self.col_metadata()?,
            0x88 => self.alt_metadata()?,
            0xA3 => self.data_classification()?,
            0xAC => return Ok((token, vec![self.return_value()?])),
            0xD1 => return Ok((token, self.row(&[])?)),
            0xD2 => {
                let Some(columns) = &self.columns else {
                    return Err(no_metadata());
                };
                let bitmap = self.take(columns.len().div_ceil(8))?;
                return Ok((token, self.row(&bitmap)?));
            }
            0xD3 => return Ok((token, self.alt_row()?)),
            _ => return unknown,
        }
        Ok((token, Vec::new()))
    }

    fn env_change(&mut self) -> Result<()> {
        let length = self.size(2)?;
        if length == 0 {
            return Ok(());
        }
        let kind = self.take(1)?[0];
        if kind == 15 {
            self.counted(4)?;
            return self.counted(1);
        }
        self.take(length - 1).map(|_| ())
    }

    fn feature_ext_ack(&mut self) -> Result<()> {
        while self.take(1)?[0] != 0xFF {
            self.counted(4)?;
        }
        Ok(())
    }

    fn col_metadata(&mut self) -> Result<()> {
        let count = self.int(2)?;
        if count == 0xFFFF {
            return Ok(());
        }
        if self.options.column_encryption {
            for _ in 0..self.int(2)? {
                self.take(4 + 4 + 4 + 8)?;
                for _ in 0..self.int(1)? {
                    self.counted(2)?;
                    self.text(1)?;
                    self.text(2)?;
                    self.text(1)?;
                }
            }
        }
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(self.column(self.options.column_encryption)?);
        }
        if count > 0 {
            self.columns = Some(columns);
            self.alt.clear();
        }
        Ok(())
    }

    fn column(&mut self, may_be_encrypted: bool) -> Result<Kind> {
        self.user_type()?;
        let flags = self.int(2)?;
        let (kind, byte) = self.type_info()?;
        if [0x22, 0x23, 0x63].contains(&byte) {
            let parts = if self.modern() && !self.bulk {
                self.int(1)?
            } else {
                1
            };
            for _ in 0..parts {
                self.text(2)?;
            }
        }
        if may_be_encrypted && flags & 0x0800 != 0 {
            self.take(2)?;
            self.crypto_metadata()?;
        }
        self.text(1)?;
        Ok(kind)
    }

    fn crypto_metadata(&mut self) -> Result<()> {
        self.user_type()?;
        self.type_info()?;
        if self.int(1)? == 0 {
            self.text(1)?;
        }
        self.take(2).map(|_| ())
    }

    fn alt_metadata(&mut self) -> Result<()> {
        let count = self.int(2)?;
        let id = u16::try_from(self.int(2)?).unwrap_or(0);
        for _ in 0..self.int(1)? {
            self.take(2)?;
        }
        let mut columns = Vec::new();
        for _ in 0..count {
            self.take(1 + 2)?;
            columns.push(self.column(false)?);
        }
        self.alt.retain(|(known, _)| *known != id);
        self.alt.push((id, columns));
        Ok(())
    }

    fn data_classification(&mut self) -> Result<()> {
        let version_2 = self.options.data_classification >= 2;
        for _kind in ["labels", "information types"] {
            for _ in 0..self.int(2)? {
                self.text(1)?;
                self.text(1)?;
            }
        }
        if version_2 {
            self.take(4)?;
        }
        for _column in 0..self.int(2)? {
            for _property in 0..self.int(2)? {
                self.take(2 + 2)?;
                if version_2 {
                    self.take(4)?;
                }
            }
        }
        Ok(())
    }

    fn return_value(&mut self) -> Result<Option<Vec<u8>>> {
        self.take(2)?;
        self.text(1)?;
        self.take(1)?;
        self.user_type()?;
        let flags = self.int(2)?;
        let (kind, byte) = self.type_info()?;
        if self.options.column_encryption && flags & 0x0800 != 0 {
            self.crypto_metadata()?;
        }
        if [0x22, 0x23, 0x63].contains(&byte) {
            let n = self.int(4)?;
            return if n == 0xFFFF_FFFF {
                Ok(None)
            } else {
                self.signed(n).map(Some)
            };
        }
        self.value(kind)
    }

    fn row(&mut self, bitmap: &[u8]) -> Result<Vec<Option<Vec<u8>>>> {
        let columns = self.columns.clone().ok_or_else(no_metadata)?;
        let mut values = Vec::new();
        for (i, kind) in columns.into_iter().enumerate() {
            let null = !bitmap.is_empty() && bitmap[i / 8] & (1 << (i % 8)) != 0;
            values.push(if null { None } else { self.value(kind)? });
        }
        Ok(values)
    }

    fn alt_row(&mut self) -> Result<Vec<Option<Vec<u8>>>> {
        let id = u16::try_from(self.int(2)?).unwrap_or(0);
        let columns = self
            .alt
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, columns)| columns.clone());
        columns
            .ok_or_else(no_metadata)?
            .into_iter()
            .map(|kind| self.value(kind))
            .collect()
    }

    fn signed(&mut self, n: u64) -> Result<Vec<u8>> {
        if n > 0x7FFF_FFFF {
            return Err(NaiveError::Broken("negative length".to_owned()));
        }
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }

    fn value(&mut self, kind: Kind) -> Result<Option<Vec<u8>>> {
        match kind {
            Kind::Fixed(n) => self.take(n).map(Some),
            Kind::ByteLen(lengths) => match self.size(1)? {
                0 => Ok(None),
                n if !lengths.is_empty() && !lengths.contains(&n) => {
                    Err(NaiveError::Broken(format!("a value of {n} bytes")))
                }
                n => self.take(n).map(Some),
            },
            Kind::UShortLen => match self.size(2)? {
                0xFFFF => Ok(None),
                n => self.take(n).map(Some),
            },
            Kind::Variant => match self.size(4)? {
                0 => Ok(None),
                n => self.variant(n).map(Some),
            },
            Kind::Text => match self.size(1)? {
                0 => Ok(None),
                pointer => {
                    self.take(pointer + 8)?;
                    let n = self.int(4)?;
                    self.signed(n).map(Some)
                }
            },
            Kind::Plp => self.plp(),
        }
    }

    /// 2.2.5.5.4: base type, bytes of properties, properties, value; the value has a length that its type has.
    fn variant(&mut self, n: usize) -> Result<Vec<u8>> {
        let wrong = || NaiveError::Broken(format!("a sql_variant of {n} bytes"));
        if n < 3 {
            return Err(wrong());
        }
        let from = self.at;
        let head = self.take(3)?;
        self.at = from;
        let properties = usize::from(head[1]);
        let lengths = match head[0] {
            0x30 | 0x32 => &[1],
            0x34 => &[2][..],
            0x38 | 0x3A | 0x3B | 0x7A => &[4],
            0x3C | 0x3D | 0x3E | 0x7F => &[8],
            0x24 => GUIDS,
            0x28 => DATES,
            time @ 0x29..=0x2B => TIMES[usize::from(time) - 0x29]
                .get(usize::from(head[2]))
                .ok_or_else(wrong)?,
            0x6A | 0x6C => DECIMALS,
            0xA5 | 0xAD | 0xA7 | 0xAF | 0xE7 | 0xEF => ANY,
            _ => return Err(wrong()),
        };
        let of_type: &[usize] = match head[0] {
            0x29..=0x2B => &[1],
            0x6A | 0x6C | 0xA5 | 0xAD => &[2],
            // Collation and length; before TDS 7.1 the length alone.
            0xA7 | 0xAF | 0xE7 | 0xEF => &[7, 2],
            _ => &[0],
        };
        let holds = |data: usize| lengths.is_empty() || lengths.contains(&data);
        if of_type.contains(&properties) && n.checked_sub(2 + properties).is_some_and(holds) {
            self.take(n)
        } else {
            Err(wrong())
        }
    }

    fn plp(&mut self) -> Result<Option<Vec<u8>>> {
        let total = self.int(8)?;
        if total == u64::MAX {
            return Ok(None);
        }
        let wrong = || NaiveError::Broken("PLP total".to_owned());
        let mut value = Vec::new();
        let mut sum = 0;
        loop {
            let n = self.int(4)?;
            sum += n;
            if total != u64::MAX - 1 && (sum > total || n == 0 && sum != total) {
                return Err(wrong());
            }
            if n == 0 {
                return Ok(Some(value));
            }
            value.extend(self.take(usize::try_from(n).unwrap_or(usize::MAX))?);
        }
    }

    /// TYPE_INFO of a result column: how values are framed, and the type byte.
    fn type_info(&mut self) -> Result<(Kind, u8)> {
        let byte = self.take(1)?[0];
        let collation = if self.options.version >= TdsVersion::V7_1 {
            5
        } else {
            0
        };
        let kind = match byte {
            0x1F => Kind::Fixed(0),
            0x30 | 0x32 => Kind::Fixed(1),
            0x34 => Kind::Fixed(2),
            0x38 | 0x3A | 0x3B | 0x7A => Kind::Fixed(4),
            0x3C | 0x3D | 0x3E | 0x7F => Kind::Fixed(8),
            0x24..=0x2F | 0x37 | 0x3F | 0x68..=0x6F => self.byte_type(byte)?,
            0xA5 | 0xA7 | 0xE7 => {
                let max = self.int(2)?;
                self.take(if byte == 0xA5 { 0 } else { collation })?;
                if max == 0xFFFF { Kind::Plp } else { Kind::UShortLen }
            }
            0xAD => {
                self.take(2)?;
                Kind::UShortLen
            }
            0xAF | 0xEF => {
                self.take(2 + collation)?;
                Kind::UShortLen
            }
            0xF5 => {
                self.take(2 + 1)?;
                Kind::UShortLen
            }
            0x62 => {
                self.take(4)?;
                Kind::Variant
            }
            0x22 => {
                self.take(4)?;
                Kind::Text
            }
            0x23 | 0x63 => {
                self.take(4 + collation)?;
                Kind::Text
            }
            0xF4 => Kind::Plp,
            0xF1 => return self.xml().map(|()| (Kind::Plp, byte)),
            0xF0 => {
                self.take(2)?;
                self.text(1)?;
                self.text(1)?;
                self.text(1)?;
                self.text(2)?;
                Kind::Plp
            }
            _ => return Err(NaiveError::Broken(format!("data type {byte:02x}"))),
        };
        Ok((kind, byte))
    }

    /// The rest of TYPE_INFO of a type with a u8 length.
    fn byte_type(&mut self, byte: u8) -> Result<Kind> {
        match byte {
            0x28 => Ok(Kind::ByteLen(DATES)),
            0x24 => self.one_of(GUIDS, 0),
            0x26 => self.one_of(INTEGERS, 0),
            0x68 => self.one_of(BITS, 0),
            0x6D..=0x6F => self.one_of(FLOATS_MONEY_DATETIMES, 0),
            0x29..=0x2B => {
                let scale = self.size(1)?;
                match TIMES[usize::from(byte) - 0x29].get(scale) {
                    Some(lengths) => Ok(Kind::ByteLen(lengths)),
                    None => Err(NaiveError::Broken(format!("a time of scale {scale}"))),
                }
            }
            0x25 | 0x2D => {
                self.take(1)?;
                Ok(Kind::ByteLen(ANY))
            }
            0x27 | 0x2F if self.options.version == TdsVersion::V7_0 => {
                self.take(1)?;
                Ok(Kind::ByteLen(ANY))
            }
            // What is stated is not looked at: mssql-tds writes the type's byte there.
            0x37 | 0x3F | 0x6A | 0x6C if self.bulk => {
                self.take(3)?;
                Ok(Kind::ByteLen(BULK_DECIMALS))
            }
            0x37 | 0x3F | 0x6A | 0x6C => self.one_of(DECIMALS, 2),
            _ => Err(NaiveError::Broken(format!("data type {byte:02x}"))),
        }
    }

    /// A stated length, which is one that the type has, and so many bytes behind it.
    fn one_of(&mut self, lengths: &'static [usize], behind: usize) -> Result<Kind> {
        let stated = self.take(1 + behind)?[0];
        if lengths.contains(&usize::from(stated)) {
            Ok(Kind::ByteLen(lengths))
        } else {
            Err(NaiveError::Broken(format!("a type of {stated} bytes")))
        }
    }

    fn xml(&mut self) -> Result<()> {
        match self.int(1)? {
            0 => Ok(()),
            1 => {
                self.text(1)?;
                self.text(1)?;
                self.text(2)
            }
            _ => Err(NaiveError::Broken("XML schema flag".to_owned())),
        }
    }
}

fn no_metadata() -> NaiveError {
    NaiveError::Broken("row without metadata".to_owned())
}
