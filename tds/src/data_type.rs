//! The data type bytes [MS-TDS 2.2.5.4].

/// A data type of TYPE_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of MS-TDS 2.2.5.4")]
pub enum DataType {
    Null = 0x1F,
    Image = 0x22,
    Text = 0x23,
    Guid = 0x24,
    VarBinary = 0x25,
    IntN = 0x26,
    VarChar = 0x27,
    Date = 0x28,
    Time = 0x29,
    DateTime2 = 0x2A,
    DateTimeOffset = 0x2B,
    Binary = 0x2D,
    Char = 0x2F,
    Int1 = 0x30,
    Bit = 0x32,
    Int2 = 0x34,
    Decimal = 0x37,
    Int4 = 0x38,
    DateTime4 = 0x3A,
    Float4 = 0x3B,
    Money = 0x3C,
    DateTime = 0x3D,
    Float8 = 0x3E,
    Numeric = 0x3F,
    Variant = 0x62,
    NText = 0x63,
    BitN = 0x68,
    DecimalN = 0x6A,
    NumericN = 0x6C,
    FloatN = 0x6D,
    MoneyN = 0x6E,
    DateTimeN = 0x6F,
    Money4 = 0x7A,
    Int8 = 0x7F,
    BigVarBinary = 0xA5,
    BigVarChar = 0xA7,
    BigBinary = 0xAD,
    BigChar = 0xAF,
    NVarChar = 0xE7,
    NChar = 0xEF,
    Udt = 0xF0,
    Xml = 0xF1,
    /// Table-valued parameter: only in an RPC, and not a TYPE_INFO that [`crate::type_info::TypeInfo`] reads.
    Table = 0xF3,
    Json = 0xF4,
    Vector = 0xF5,
}

impl DataType {
    /// Every data type there is.
    pub const ALL: [Self; 45] = [
        Self::Null,
        Self::Image,
        Self::Text,
        Self::Guid,
        Self::VarBinary,
        Self::IntN,
        Self::VarChar,
        Self::Date,
        Self::Time,
        Self::DateTime2,
        Self::DateTimeOffset,
        Self::Binary,
        Self::Char,
        Self::Int1,
        Self::Bit,
        Self::Int2,
        Self::Decimal,
        Self::Int4,
        Self::DateTime4,
        Self::Float4,
        Self::Money,
        Self::DateTime,
        Self::Float8,
        Self::Numeric,
        Self::Variant,
        Self::NText,
        Self::BitN,
        Self::DecimalN,
        Self::NumericN,
        Self::FloatN,
        Self::MoneyN,
        Self::DateTimeN,
        Self::Money4,
        Self::Int8,
        Self::BigVarBinary,
        Self::BigVarChar,
        Self::BigBinary,
        Self::BigChar,
        Self::NVarChar,
        Self::NChar,
        Self::Udt,
        Self::Xml,
        Self::Table,
        Self::Json,
        Self::Vector,
    ];

    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The type of a byte, if MS-TDS defines it.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.byte() == byte)
    }

    /// True for TEXT, NTEXT and IMAGE: COLMETADATA names their table, and their row values have a text pointer.
    #[must_use]
    pub const fn is_long_lob(self) -> bool {
        matches!(self, Self::Text | Self::NText | Self::Image)
    }
}
