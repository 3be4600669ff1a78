//! T-SQL's data types: read from declarations, remembered in SQLite as declared types, and how each is told on the wire.

use sqlparser::ast::{CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};
use weir_tds::build::{Collation, ColumnDef, ColumnFlags, ColumnType};
use weir_tds::version::TdsVersion;

/// Declared length that stands for MAX in SQLite's schema, whose grammar knows numbers only.
const MAX_DECLARED: u64 = 2_147_483_647;

/// Decimal digits that a double keeps exactly.
const DOUBLE_DIGITS: u8 = 15;
/// The declared type of decimals with more digits.
const EXACT: &str = "blob_decimal";
/// The declared type of variants: values stay as they come.
const VARIANT: &str = "blob_variant";

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
    RowVersion,
    Variant,
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
                let args = if args.is_empty() {
                    String::new()
                } else {
                    format!("({})", args.join(","))
                };
                let last = name.0.last()?.as_ident()?.value.clone();
                format!("{last}{args}")
            }
            DataType::Varchar(Some(CharacterLength::Max)) => "varchar(max)".to_owned(),
            DataType::Nvarchar(Some(CharacterLength::Max)) => "nvarchar(max)".to_owned(),
            DataType::Decimal(ExactNumberInfo::None) | DataType::Numeric(ExactNumberInfo::None) => {
                "decimal".to_owned()
            }
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
        let mut numbers = args
            .trim_end_matches([')', ' '])
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty());
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
            "decimal" | "numeric" | "dec" | EXACT => {
                let precision = number.map_or(18, |n| u8::try_from(n.clamp(1, 38)).unwrap_or(38));
                Self::Decimal {
                    precision,
                    scale: second.unwrap_or(0).min(precision),
                }
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
            "sql_variant" | VARIANT => Self::Variant,
            "rowversion" | "timestamp" => Self::RowVersion,
            _ => return None,
        })
    }

    /// The type of a column in SQLite's schema. A decimal of more digits than a double keeps gets a name whose columns SQLite
    /// leaves as they come (affinity BLOB): under any other it would turn the text of such a number into a double.
    pub(crate) fn stored(self) -> String {
        match self {
            Self::Decimal { precision, scale } if precision > DOUBLE_DIGITS => {
                format!("{EXACT}({precision},{scale})")
            }
            Self::Variant => VARIANT.to_owned(),
            other => other.declared(),
        }
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
            Self::RowVersion => "rowversion",
            Self::Variant => "sql_variant",
        }
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(
            self,
            Self::NVarChar(_)
                | Self::NChar(_)
                | Self::VarChar(_)
                | Self::Char(_)
                | Self::Text
                | Self::NText
                | Self::Xml
        )
    }

    pub(crate) fn is_number(self) -> bool {
        self.is_integer()
            || matches!(
                self,
                Self::Real | Self::Float | Self::Decimal { .. } | Self::Money | Self::SmallMoney | Self::Bit
            )
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
            Self::Date | Self::Time(_) | Self::DateTime2(_) | Self::DateTimeOffset(_)
                if version < TdsVersion::V7_3A =>
            {
                text(34)
            }
            Self::NVarChar(Length::Max) | Self::Xml if version < TdsVersion::V7_2 => Self::NText,
            Self::VarChar(Length::Max) if version < TdsVersion::V7_2 => Self::Text,
            Self::VarBinary(Length::Max) if version < TdsVersion::V7_2 => Self::Image,
            Self::BigInt if version < TdsVersion::V7_1 => Self::Decimal {
                precision: 19,
                scale: 0,
            },
            other => other,
        }
    }
}

impl Column {
    /// As COLMETADATA tells it; types without a length byte where the column cannot be null.
    pub(crate) fn to_def(&self, version: TdsVersion) -> ColumnDef {
        let kind = self.kind.for_version(version);
        let flags = match (self.identity, self.nullable) {
            (true, _) => ColumnFlags::IDENTITY,
            (false, true) => ColumnFlags::UPDATABLE_UNKNOWN.with(ColumnFlags::NULLABLE),
            (false, false) => ColumnFlags::UPDATABLE_UNKNOWN,
        };
        let mut def = ColumnDef::new(self.name.as_str(), kind.to_wire(self.nullable)).with_flags(flags);
        if kind == SqlType::RowVersion {
            def.user_type = 0x50;
        }
        if matches!(kind, SqlType::Text | SqlType::NText | SqlType::Image) {
            def = def.with_table(&["t"]);
        }
        def
    }
}

impl SqlType {
    /// The type on the wire.
    pub(crate) fn to_wire(self, nullable: bool) -> ColumnType {
        let collation = Collation::LATIN1;
        let or = |fixed, with_null| if nullable { with_null } else { fixed };
        match self {
            Self::Bit => or(ColumnType::Bit, ColumnType::BitN),
            Self::TinyInt => or(ColumnType::TinyInt, ColumnType::IntN(1)),
            Self::SmallInt => or(ColumnType::SmallInt, ColumnType::IntN(2)),
            Self::Int => or(ColumnType::Int, ColumnType::IntN(4)),
            Self::BigInt => or(ColumnType::BigInt, ColumnType::IntN(8)),
            Self::Real => or(ColumnType::Real, ColumnType::FloatN(4)),
            Self::Float => or(ColumnType::Float, ColumnType::FloatN(8)),
            Self::Money => or(ColumnType::Money, ColumnType::MoneyN(8)),
            Self::SmallMoney => or(ColumnType::SmallMoney, ColumnType::MoneyN(4)),
            Self::DateTime => or(ColumnType::DateTime, ColumnType::DateTimeN(8)),
            Self::SmallDateTime => or(ColumnType::SmallDateTime, ColumnType::DateTimeN(4)),
            Self::Decimal { precision, scale } => ColumnType::DecimalN { precision, scale },
            Self::Date => ColumnType::Date,
            Self::Time(scale) => ColumnType::Time(scale),
            Self::DateTime2(scale) => ColumnType::DateTime2(scale),
            Self::DateTimeOffset(scale) => ColumnType::DateTimeOffset(scale),
            Self::Guid => ColumnType::Guid,
            Self::NVarChar(Length::Max) => ColumnType::NVarCharMax(collation),
            Self::NVarChar(Length::Of(n)) => ColumnType::NVarChar(n.saturating_mul(2), collation),
            Self::NChar(n) => ColumnType::NChar(n.saturating_mul(2), collation),
            Self::VarChar(Length::Max) => ColumnType::VarCharMax(collation),
            Self::VarChar(Length::Of(n)) => ColumnType::VarChar(n, collation),
            Self::Char(n) => ColumnType::Char(n, collation),
            Self::VarBinary(Length::Max) => ColumnType::VarBinaryMax,
            Self::VarBinary(Length::Of(n)) => ColumnType::VarBinary(n),
            Self::Binary(n) => ColumnType::Binary(n),
            Self::RowVersion => ColumnType::Binary(8),
            Self::Text => ColumnType::Text(collation),
            Self::NText => ColumnType::NText(collation),
            Self::Image => ColumnType::Image,
            Self::Xml => ColumnType::Xml(None),
            Self::Variant => ColumnType::Variant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_survive_the_way_through_sqlite() {
        for text in [
            "int",
            "decimal(10,2)",
            "nvarchar(max)",
            "varchar(50)",
            "datetime2(3)",
            "varbinary(max)",
            "money",
            "bit",
        ] {
            let kind = SqlType::from_declared(text).unwrap();
            assert_eq!(SqlType::from_declared(&kind.declared()), Some(kind), "{text}");
        }
        assert_eq!(SqlType::from_declared("Integer"), Some(SqlType::BigInt));
        assert_eq!(SqlType::from_declared("geometry"), None);
    }
}
