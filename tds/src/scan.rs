//! Finds the length of every token but the row tokens. Resumable: it goes on at the item (column, feature, label) where the
//! bytes ended, so a token that arrives byte by byte costs no more than its number of fields.

use crate::col_metadata::{FLAG_ENCRYPTED, NO_METADATA, Origin, read_alt_column, read_cek_entry};
use crate::col_metadata::{read_column, read_crypto, read_user_type};
use crate::error::WireErrorKind;
use crate::layout::Op;
use crate::read::{Fail, Reader};
use crate::token::TokenKind;
use crate::type_info::{Framing, Place, TypeInfo};
use crate::walker::WalkerOptions;

/// ENVCHANGE type whose Length field lies [MS-TDS 2.2.7.9, promote transaction].
const ENV_PROMOTE: u8 = 15;
/// FEATUREEXTACK terminator.
const FEATURE_END: u8 = 0xFF;

/// What is known of a token's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// It ends here. With an `Op`: a value follows that is to be stepped over (RETURNVALUE of any size).
    Whole(usize, Option<Op>),
    /// It has at least this many bytes; no more can be said before they are there.
    AtLeast(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Cek,
    Column,
    AltColumn,
    Feature,
    Label,
    InformationType,
    ClassifiedColumn,
}

/// The scan of one token.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    kind: TokenKind,
    /// Everything before this is understood.
    at: usize,
    /// What is being read: the head, or `left` more of an item.
    item: Option<Item>,
    left: u16,
    /// Columns that follow the CekTable.
    columns: u16,
}

impl Scan {
    pub(crate) const fn new(kind: TokenKind) -> Self {
        Self {
            kind,
            at: 1,
            item: None,
            left: 0,
            columns: 0,
        }
    }

    pub(crate) const fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Goes on with `bytes`, which begin with the token byte.
    pub(crate) fn run(
        &mut self,
        bytes: &[u8],
        options: &WalkerOptions,
    ) -> Result<Length, (usize, WireErrorKind)> {
        loop {
            let mut r = Reader::new(bytes, self.at);
            let step = match self.item {
                None => self.head(&mut r, options),
                Some(item) => self.item(item, &mut r, options),
            };
            match step {
                Ok(Some(then)) => return Ok(Length::Whole(r.at(), then)),
                Ok(None) => self.at = r.at(),
                Err(Fail::Short(needed)) => return Ok(Length::AtLeast(needed)),
                Err(Fail::Bad(at, kind)) => return Err((at, kind)),
            }
        }
    }

    /// `Some` when the token is over (with the value that follows), `None` when items follow.
    fn head(&mut self, r: &mut Reader<'_>, options: &WalkerOptions) -> Result<Option<Option<Op>>, Fail> {
        match self.kind {
            TokenKind::Offset | TokenKind::ReturnStatus => r.take(4).map(|_| Some(None)),
            TokenKind::Done | TokenKind::DoneProc | TokenKind::DoneInProc => r
                .take(if options.version.has_wide_counts() { 12 } else { 8 })
                .map(|_| Some(None)),
            TokenKind::TabName
            | TokenKind::ColInfo
            | TokenKind::Order
            | TokenKind::Error
            | TokenKind::Info
            | TokenKind::LoginAck
            | TokenKind::Sspi => r.us_varbyte().map(|_| Some(None)),
            TokenKind::SessionState | TokenKind::FedAuthInfo => r.l_varbyte().map(|_| Some(None)),
            TokenKind::EnvChange => env_change(r).map(|()| Some(None)),
            TokenKind::ReturnValue => return_value(r, options).map(Some),
            TokenKind::ColMetadata => {
                self.columns = r.u16()?;
                if self.columns == NO_METADATA {
                    return Ok(Some(None));
                }
                if options.column_encryption {
                    let entries = r.u16()?;
                    self.begin(Item::Cek, entries);
                } else {
                    self.begin(Item::Column, self.columns);
                }
                Ok(None)
            }
            TokenKind::AltMetadata => {
                let count = r.u16()?;
                r.u16()?;
                let by_columns = r.u8()?;
                r.take(usize::from(by_columns).saturating_mul(2))?;
                self.begin(Item::AltColumn, count);
                Ok(None)
            }
            TokenKind::FeatureExtAck => {
                self.begin(Item::Feature, 1);
                Ok(None)
            }
            TokenKind::DataClassification => {
                let labels = r.u16()?;
                self.begin(Item::Label, labels);
                Ok(None)
            }
            TokenKind::Row | TokenKind::NbcRow | TokenKind::AltRow => {
                Err(r.bad(1, WireErrorKind::Token(self.kind.byte())))
            }
        }
    }

    fn begin(&mut self, item: Item, left: u16) {
        (self.item, self.left) = (Some(item), left);
    }

    fn item(
        &mut self,
        item: Item,
        r: &mut Reader<'_>,
        options: &WalkerOptions,
    ) -> Result<Option<Option<Op>>, Fail> {
        if self.left == 0 {
            return self.after(item, r, options);
        }
        match item {
            Item::Cek => read_cek_entry(r)?,
            Item::Column => read_column(r, options, Origin::Server).map(|_column| ())?,
            Item::AltColumn => read_alt_column(r, options).map(|_column| ())?,
            Item::Feature => {
                if r.u8()? == FEATURE_END {
                    return Ok(Some(None));
                }
                r.l_varbyte()?;
                return Ok(None);
            }
            Item::Label | Item::InformationType => {
                r.b_varchar()?;
                r.b_varchar()?;
            }
            Item::ClassifiedColumn => {
                let properties = usize::from(r.u16()?);
                let width = if options.data_classification >= 2 { 8 } else { 4 };
                r.take(properties.saturating_mul(width))?;
            }
        }
        self.left = self.left.saturating_sub(1);
        Ok(None)
    }

    /// The last of `item` was read: the end of the token, or what comes next.
    fn after(
        &mut self,
        item: Item,
        r: &mut Reader<'_>,
        options: &WalkerOptions,
    ) -> Result<Option<Option<Op>>, Fail> {
        match item {
            Item::Cek => self.begin(Item::Column, self.columns),
            Item::Label => {
                let types = r.u16()?;
                self.begin(Item::InformationType, types);
            }
            Item::InformationType => {
                if options.data_classification >= 2 {
                    r.u32()?;
                }
                let columns = r.u16()?;
                self.begin(Item::ClassifiedColumn, columns);
            }
            Item::Column | Item::AltColumn | Item::Feature | Item::ClassifiedColumn => {
                return Ok(Some(None));
            }
        }
        Ok(None)
    }
}

/// ENVCHANGE: u16 length, but that of type 15 does not cover its u32-counted token [MS-TDS 2.2.7.9].
fn env_change(r: &mut Reader<'_>) -> Result<(), Fail> {
    let length = usize::from(r.u16()?);
    if length == 0 {
        return Ok(());
    }
    if r.u8()? == ENV_PROMOTE {
        r.l_varbyte()?;
        let old = r.u8()?;
        r.take(usize::from(old))?;
    } else {
        r.take(length.saturating_sub(1))?;
    }
    Ok(())
}

/// RETURNVALUE: the head, and the value if it is short by its framing. Else the value is left to be stepped over.
fn return_value(r: &mut Reader<'_>, options: &WalkerOptions) -> Result<Option<Op>, Fail> {
    let framing = return_value_head(r, options)?;
    match framing {
        Framing::Fixed(_) | Framing::Byte(_) | Framing::UShort => {
            framing.read_value(r)?;
            Ok(None)
        }
        Framing::Long | Framing::Variant | Framing::TextPtr | Framing::LongText | Framing::Plp => {
            Ok(Some(Op::from(framing)))
        }
    }
}

/// RETURNVALUE up to its value; the framing of the value.
pub(crate) fn return_value_head(r: &mut Reader<'_>, options: &WalkerOptions) -> Result<Framing, Fail> {
    r.u16()?;
    r.b_varchar()?;
    r.u8()?;
    read_user_type(r, options)?;
    let flags = r.u16()?;
    let info = TypeInfo::read(r, options.version, Place::ReturnValue)?;
    if options.column_encryption && flags & FLAG_ENCRYPTED != 0 {
        read_crypto(r, options, Place::ReturnValue)?;
    }
    Ok(info.framing)
}
