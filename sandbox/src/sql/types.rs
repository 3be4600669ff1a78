//! T-SQL's data types: read from declarations, remembered in SQLite as declared types, and how each is told on the wire.

use bytes::{BufMut, BytesMut};
use sqlparser::ast::{CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};
use weir_tds::version::TdsVersion;

use crate::tokens::{COLLATION, put_b};

/// Declared length that stands for MAX in SQLite's schema, whose grammar knows numbers only.
const MAX_DECLARED: u64 = 2_147_483_647;

/// Length of a string or binary type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Characters, or bytes of a binary.
    Of(u16),
    /// MAX.
    Max,
}

/// A T-SQL data type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SqlType {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Real,
    Float,
    Decimal { precision: u8, scale: u8 },
    Money,
    SmallMoney,
    Date,
    Time(u8),
    DateTime2(u8),
    DateTimeOffset(u8),
    DateTime,
    SmallDateTime,
    Guid,
    NVarChar(Length),
    NChar(u16),
    VarChar(Length),
    Char(u16),
    VarBinary(Length),
    Binary(u16),
    Text,
    NText,
    Image,
    Xml,
    Variant,
    RowVersion,
}

/// A column of a result or table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: SqlType,
    pub(crate) nullable: bool,
    pub(crate) identity: bool,
}

impl SqlType {
    /// NVARCHAR(4000), what T-SQL gives to strings of unknown length.
    pub(crate) const TEXT: Self = Self::NVarChar(Length::Of(4000));

    /// From `sqlparser`'s type; `None` if T-SQL has no such type.
    pub(crate) fn from_ast(kind: &DataType) -> Option<Self> {
        let text = match kind {
            DataType::Custom(name, args) => {
                let args = if args.is_empty() { String::new() } else { format!("({})", args.join(",")) };
                let last = name.0.last()?.as_ident()?.value.clone();
                format!("{last}{args}")
            }
            DataType::Varchar(Some(CharacterLength::Max)) => "varchar(max)".to_owned(),
            DataType::Nvarchar(Some(CharacterLength::Max)) => "nvarchar(max)".to_owned(),
            DataType::Decimal(ExactNumberInfo::None) | DataType::Numeric(ExactNumberInfo::None) => "decimal".to_owned(),
            DataType::Time(scale, TimezoneInfo::None) => format!("time({})", scale.unwrap_or(7)),
            other => other.to_string(),
        };
        Self::from_declared(&text)
    }

    /// From the text of a declaration: `decimal(10,2)`, `NVARCHAR(max)`; quotes of SQLite's schema are ignored.
    pub(crate) fn from_declared(text: &str) -> Option<Self> {
        let text = text.trim_matches(['"', '[', ']', ' ']);
        let (name, args) = text.split_once('(').unwrap_or((text, ""));
        let exact = name.trim();
        let name = exact.to_ascii_lowercase();
        let mut numbers = args.trim_end_matches([')', ' ']).split(',').map(str::trim).filter(|a| !a.is_empty());
        let first = numbers.next();
        let second = numbers.next().and_then(|n| n.parse::<u8>().ok());
        let max = first.is_some_and(|a| a.eq_ignore_ascii_case("max"));
        let number = first.and_then(|n| n.parse::<u64>().ok());
        let scale = number.map_or(7, |n| u8::try_from(n.min(7)).unwrap_or(7));
        let length = |most: u64| match number {
            _ if max => Length::Max,
            Some(n) if n > most => Length::Max,
            n => Length::Of(u16::try_from(n.unwrap_or(1).max(1)).unwrap_or(u16::MAX)),
        };
        let fixed = |most: u64| u16::try_from(number.unwrap_or(1).clamp(1, most)).unwrap_or(1);
        Some(match name.as_str() {
            // SQLite takes only INTEGER as an alias of its row id; the second spelling marks a bigint (see `ddl`).
            "integer" if exact == "Integer" => Self::BigInt,
            "int" | "integer" => Self::Int,
            "bit" | "boolean" => Self::Bit,
            "tinyint" => Self::TinyInt,
            "smallint" => Self::SmallInt,
            "bigint" => Self::BigInt,
            "real" => Self::Real,
            "float" | "double precision" | "double" => match number {
                Some(n) if n <= 24 => Self::Real,
                _ => Self::Float,
            },
            "decimal" | "numeric" | "dec" => {
                let precision = number.map_or(18, |n| u8::try_from(n.clamp(1, 38)).unwrap_or(38));
                Self::Decimal { precision, scale: second.unwrap_or(0).min(precision) }
            }
            "money" => Self::Money,
            "smallmoney" => Self::SmallMoney,
            "date" => Self::Date,
            "time" => Self::Time(scale),
            "datetime2" => Self::DateTime2(scale),
            "datetimeoffset" => Self::DateTimeOffset(scale),
            "datetime" => Self::DateTime,
            "smalldatetime" => Self::SmallDateTime,
            "uniqueidentifier" | "uuid" => Self::Guid,
            "nvarchar" | "national character varying" | "sysname" => match name.as_str() {
                "sysname" => Self::NVarChar(Length::Of(128)),
                _ => Self::NVarChar(length(4000)),
            },
            "nchar" => Self::NChar(fixed(4000)),
            "varchar" | "character varying" | "char varying" => Self::VarChar(length(8000)),
            "char" | "character" => Self::Char(fixed(8000)),
            "varbinary" => Self::VarBinary(length(8000)),
            "binary" => Self::Binary(fixed(8000)),
            "text" => Self::Text,
            "ntext" => Self::NText,
            "image" | "blob" => Self::Image,
            "xml" => Self::Xml,
            "sql_variant" => Self::Variant,
            "rowversion" | "timestamp" => Self::RowVersion,
            _ => return None,
        })
    }

    /// As SQLite's schema keeps it; [`from_declared`](Self::from_declared) reads it back.
    pub(crate) fn declared(self) -> String {
        let length = |l: Length| match l {
            Length::Of(n) => u64::from(n),
            Length::Max => MAX_DECLARED,
        };
        match self {
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Self::Time(s) => format!("time({s})"),
            Self::DateTime2(s) => format!("datetime2({s})"),
            Self::DateTimeOffset(s) => format!("datetimeoffset({s})"),
            Self::NVarChar(l) => format!("nvarchar({})", length(l)),
            Self::VarChar(l) => format!("varchar({})", length(l)),
            Self::VarBinary(l) => format!("varbinary({})", length(l)),
            Self::NChar(n) => format!("nchar({n})"),
            Self::Char(n) => format!("char({n})"),
            Self::Binary(n) => format!("binary({n})"),
            other => other.name().to_owned(),
        }
    }

    /// The bare name, as `sys.types` and INFORMATION_SCHEMA have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bit => "bit",
            Self::TinyInt => "tinyint",
            Self::SmallInt => "smallint",
            Self::Int => "int",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Float => "float",
            Self::Decimal { .. } => "decimal",
            Self::Money => "money",
            Self::SmallMoney => "smallmoney",
            Self::Date => "date",
            Self::Time(_) => "time",
            Self::DateTime2(_) => "datetime2",
            Self::DateTimeOffset(_) => "datetimeoffset",
            Self::DateTime => "datetime",
            Self::SmallDateTime => "smalldatetime",
            Self::Guid => "uniqueidentifier",
            Self::NVarChar(_) => "nvarchar",
            Self::NChar(_) => "nchar",
            Self::VarChar(_) => "varchar",
            Self::Char(_) => "char",
            Self::VarBinary(_) => "varbinary",
            Self::Binary(_) => "binary",
            Self::Text => "text",
            Self::NText => "ntext",
            Self::Image => "image",
            Self::Xml => "xml",
            Self::Variant => "sql_variant",
            Self::RowVersion => "rowversion",
        }
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(
            self,
            Self::NVarChar(_) | Self::NChar(_) | Self::VarChar(_) | Self::Char(_) | Self::Text | Self::NText | Self::Xml
        )
    }

    pub(crate) fn is_number(self) -> bool {
        self.is_integer()
            || matches!(self, Self::Real | Self::Float | Self::Decimal { .. } | Self::Money | Self::SmallMoney | Self::Bit)
    }

    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt)
    }

    pub(crate) fn is_moment(self) -> bool {
        matches!(
            self,
            Self::Date
                | Self::Time(_)
                | Self::DateTime2(_)
                | Self::DateTimeOffset(_)
                | Self::DateTime
                | Self::SmallDateTime
        )
    }

    /// The type a server sends to a client of an older version in its place [MS-TDS A<17>].
    pub(crate) fn for_version(self, version: TdsVersion) -> Self {
        let text = |n| Self::NVarChar(Length::Of(n));
        match self {
            Self::Date | Self::Time(_) | Self::DateTime2(_) | Self::DateTimeOffset(_) if version < TdsVersion::V7_3A => {
                text(34)
            }
            Self::NVarChar(Length::Max) | Self::Xml if version < TdsVersion::V7_2 => Self::NText,
            Self::VarChar(Length::Max) if version < TdsVersion::V7_2 => Self::Text,
            Self::VarBinary(Length::Max) if version < TdsVersion::V7_2 => Self::Image,
            Self::BigInt if version < TdsVersion::V7_1 => Self::Decimal { precision: 19, scale: 0 },
            Self::Variant if version < TdsVersion::V7_1 => text(4000),
            other => other,
        }
    }
}

/// How the columns of one result go onto the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) version: TdsVersion,
}

impl Wire {
    /// COLMETADATA.
    pub(crate) fn col_metadata(self, buf: &mut BytesMut, columns: &[Column]) {
        buf.put_u8(0x81);
        buf.put_u16_le(u16::try_from(columns.len()).unwrap_or(u16::MAX));
        for column in columns {
            self.user_type(buf, column.kind);
            let mut flags = 0x0008_u16 | u16::from(column.nullable);
            if column.identity {
                flags = (flags & !0x000C) | 0x0010;
            }
            buf.put_u16_le(flags);
            self.type_info(buf, column.kind, column.nullable);
            if matches!(column.kind.for_version(self.version), SqlType::Text | SqlType::NText | SqlType::Image) {
                if self.version.has_wide_counts() {
                    buf.put_u8(1);
                }
                buf.put_u16_le(1);
                buf.put_u16_le(u16::from(b't'));
            }
            put_b(buf, &column.name);
        }
    }

    pub(crate) fn user_type(self, buf: &mut BytesMut, kind: SqlType) {
        let user = if kind == SqlType::RowVersion { 0x50 } else { 0 };
        if self.version.has_wide_counts() { buf.put_u32_le(user) } else { buf.put_u16_le(user as u16) }
    }

    /// TYPE_INFO; fixed types when the column cannot be null.
    pub(crate) fn type_info(self, buf: &mut BytesMut, kind: SqlType, nullable: bool) {
        let kind = kind.for_version(self.version);
        let numeric = |buf: &mut BytesMut, fixed: u8, nullable_type: u8, size: u8| {
            if nullable { buf.put_slice(&[nullable_type, size]) } else { buf.put_u8(fixed) }
        };
        match kind {
            SqlType::Bit => numeric(buf, 0x32, 0x68, 1),
            SqlType::TinyInt => numeric(buf, 0x30, 0x26, 1),
            SqlType::SmallInt => numeric(buf, 0x34, 0x26, 2),
            SqlType::Int => numeric(buf, 0x38, 0x26, 4),
            SqlType::BigInt => numeric(buf, 0x7F, 0x26, 8),
            SqlType::Real => numeric(buf, 0x3B, 0x6D, 4),
            SqlType::Float => numeric(buf, 0x3E, 0x6D, 8),
            SqlType::Money => numeric(buf, 0x3C, 0x6E, 8),
            SqlType::SmallMoney => numeric(buf, 0x7A, 0x6E, 4),
            SqlType::DateTime => numeric(buf, 0x3D, 0x6F, 8),
            SqlType::SmallDateTime => numeric(buf, 0x3A, 0x6F, 4),
            SqlType::Decimal { precision, scale } => {
                buf.put_slice(&[0x6A, decimal_size(precision), precision, scale]);
            }
            SqlType::Date => buf.put_u8(0x28),
            SqlType::Time(scale) => buf.put_slice(&[0x29, scale]),
            SqlType::DateTime2(scale) => buf.put_slice(&[0x2A, scale]),
            SqlType::DateTimeOffset(scale) => buf.put_slice(&[0x2B, scale]),
            SqlType::Guid => buf.put_slice(&[0x24, 16]),
            SqlType::NVarChar(l) => self.string(buf, 0xE7, byte_length(l, 2), true),
            SqlType::NChar(n) => self.string(buf, 0xEF, n * 2, true),
            SqlType::VarChar(l) => self.string(buf, 0xA7, byte_length(l, 1), true),
            SqlType::Char(n) => self.string(buf, 0xAF, n, true),
            SqlType::VarBinary(l) => self.string(buf, 0xA5, byte_length(l, 1), false),
            SqlType::Binary(n) => self.string(buf, 0xAD, n, false),
            SqlType::RowVersion => self.string(buf, 0xAD, 8, false),
            SqlType::Text => self.long(buf, 0x23, 0x7FFF_FFFF, true),
            SqlType::NText => self.long(buf, 0x63, 0x7FFF_FFFE, true),
            SqlType::Image => self.long(buf, 0x22, 0x7FFF_FFFF, false),
            SqlType::Xml => buf.put_slice(&[0xF1, 0]),
            SqlType::Variant => self.long(buf, 0x62, 8009, false),
        }
    }

    fn string(self, buf: &mut BytesMut, token: u8, bytes: u16, collated: bool) {
        buf.put_u8(token);
        buf.put_u16_le(bytes);
        self.collation(buf, collated);
    }

    fn long(self, buf: &mut BytesMut, token: u8, bytes: u32, collated: bool) {
        buf.put_u8(token);
        buf.put_u32_le(bytes);
        self.collation(buf, collated);
    }

    fn collation(self, buf: &mut BytesMut, collated: bool) {
        if collated && self.version > TdsVersion::V7_0 {
            buf.put_slice(&COLLATION);
        }
    }
}

/// Bytes of a decimal value with its sign, by precision [MS-TDS 2.2.5.5.1.6].
pub(crate) fn decimal_size(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

fn byte_length(length: Length, unit: u16) -> u16 {
    match length {
        Length::Of(n) => n.saturating_mul(unit),
        Length::Max => 0xFFFF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_survive_the_way_through_sqlite() {
        for text in ["int", "decimal(10,2)", "nvarchar(max)", "varchar(50)", "datetime2(3)", "varbinary(max)", "money", "bit"] {
            let kind = SqlType::from_declared(text).unwrap();
            assert_eq!(SqlType::from_declared(&kind.declared()), Some(kind), "{text}");
        }
        assert_eq!(SqlType::from_declared("Integer"), Some(SqlType::BigInt));
        assert_eq!(SqlType::from_declared("geometry"), None);
    }
}
