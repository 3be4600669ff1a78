//! Columns: data types with what their TYPE_INFO needs, and the rest of a COLMETADATA entry [MS-TDS 2.2.7.4].

/// A collation of 5 bytes [MS-TDS 2.2.5.1.2].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Collation(pub [u8; 5]);

impl Collation {
    /// SQL_Latin1_General_CP1_CI_AS: Windows-1252.
    pub const LATIN1: Self = Self([0x09, 0x04, 0xD0, 0x00, 0x34]);
    /// Latin1_General_100_CI_AS_SC_UTF8: (var)char bytes are UTF-8.
    pub const UTF8: Self = Self([0x09, 0x04, 0xD0, 0x24, 0x00]);

    /// True if (var)char bytes are UTF-8.
    #[must_use]
    pub const fn is_utf8(self) -> bool {
        let [_, _, _, flags, _] = self.0;
        flags & 0x04 != 0
    }
}

/// Names of an XML schema collection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct XmlSchema {
    /// Database.
    pub database: String,
    /// Owning schema.
    pub schema: String,
    /// Collection.
    pub collection: String,
}

/// A data type with what its TYPE_INFO carries [MS-TDS 2.2.5.6]. Lengths count bytes, also for nchar and nvarchar.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnType {
    /// 0x30, one unsigned byte.
    TinyInt,
    /// 0x32.
    Bit,
    /// 0x34.
    SmallInt,
    /// 0x38.
    Int,
    /// 0x7F.
    BigInt,
    /// 0x3B.
    Real,
    /// 0x3E.
    Float,
    /// 0x3C.
    Money,
    /// 0x7A.
    SmallMoney,
    /// 0x3D.
    DateTime,
    /// 0x3A.
    SmallDateTime,
    /// 0x26 of 1, 2, 4 or 8 bytes.
    IntN(u8),
    /// 0x6D of 4 or 8 bytes.
    FloatN(u8),
    /// 0x68.
    BitN,
    /// 0x6E of 4 or 8 bytes.
    MoneyN(u8),
    /// 0x6F of 4 or 8 bytes.
    DateTimeN(u8),
    /// 0x6A.
    DecimalN {
        /// 1..=38.
        precision: u8,
        /// 0..=precision.
        scale: u8,
    },
    /// 0x6C.
    NumericN {
        /// 1..=38.
        precision: u8,
        /// 0..=precision.
        scale: u8,
    },
    /// 0x24.
    Guid,
    /// 0x28.
    Date,
    /// 0x29 with a scale of 0..=7.
    Time(u8),
    /// 0x2A with a scale.
    DateTime2(u8),
    /// 0x2B with a scale.
    DateTimeOffset(u8),
    /// 0xAF.
    Char(u16, Collation),
    /// 0xA7.
    VarChar(u16, Collation),
    /// 0xEF.
    NChar(u16, Collation),
    /// 0xE7.
    NVarChar(u16, Collation),
    /// 0xAD.
    Binary(u16),
    /// 0xA5.
    VarBinary(u16),
    /// 0xA7 with PLP values.
    VarCharMax(Collation),
    /// 0xE7 with PLP values.
    NVarCharMax(Collation),
    /// 0xA5 with PLP values.
    VarBinaryMax,
    /// 0x23.
    Text(Collation),
    /// 0x63.
    NText(Collation),
    /// 0x22.
    Image,
    /// 0x62.
    Variant,
    /// 0xF1.
    Xml(Option<XmlSchema>),
    /// 0xF0.
    Udt {
        /// Most bytes; 0xFFFF for large ones.
        max: u16,
        /// Database.
        database: String,
        /// Schema.
        schema: String,
        /// Type name.
        name: String,
        /// Assembly-qualified name.
        assembly: String,
    },
    /// 0xF4.
    Json,
    /// 0xF5.
    Vector {
        /// Most bytes: 8 + 4 per dimension of float32.
        max: u16,
        /// Dimension type; 0 = float32.
        element: u8,
    },
    /// 0x2F. [MS-TDS 2.2.5.6], go-mssqldb and FreeTDS have no collation behind the length, SqlClient reads one: so it
    /// is optional.
    LegacyChar(u8, Option<Collation>),
    /// 0x27.
    LegacyVarChar(u8, Option<Collation>),
    /// 0x2D.
    LegacyBinary(u8),
    /// 0x25.
    LegacyVarBinary(u8),
    /// 0x37.
    LegacyDecimal {
        /// 1..=38.
        precision: u8,
        /// 0..=precision.
        scale: u8,
    },
    /// 0x3F.
    LegacyNumeric {
        /// 1..=38.
        precision: u8,
        /// 0..=precision.
        scale: u8,
    },
}

impl ColumnType {
    /// nvarchar of `units` characters with the usual collation.
    #[must_use]
    pub const fn nvarchar(units: u16) -> Self {
        Self::NVarChar(units.saturating_mul(2), Collation::LATIN1)
    }

    /// varchar of `bytes` with the usual collation.
    #[must_use]
    pub const fn varchar(bytes: u16) -> Self {
        Self::VarChar(bytes, Collation::LATIN1)
    }

    /// The type byte [MS-TDS 2.2.5.4].
    #[must_use]
    pub const fn byte(&self) -> u8 {
        match self {
            Self::Image => 0x22,
            Self::Text(_) => 0x23,
            Self::Guid => 0x24,
            Self::LegacyVarBinary(_) => 0x25,
            Self::IntN(_) => 0x26,
            Self::LegacyVarChar(..) => 0x27,
            Self::Date => 0x28,
            Self::Time(_) => 0x29,
            Self::DateTime2(_) => 0x2A,
            Self::DateTimeOffset(_) => 0x2B,
            Self::LegacyBinary(_) => 0x2D,
            Self::LegacyChar(..) => 0x2F,
            Self::TinyInt => 0x30,
            Self::Bit => 0x32,
            Self::SmallInt => 0x34,
            Self::LegacyDecimal { .. } => 0x37,
            Self::Int => 0x38,
            Self::SmallDateTime => 0x3A,
            Self::Real => 0x3B,
            Self::Money => 0x3C,
            Self::DateTime => 0x3D,
            Self::Float => 0x3E,
            Self::LegacyNumeric { .. } => 0x3F,
            Self::Variant => 0x62,
            Self::NText(_) => 0x63,
            Self::BitN => 0x68,
            Self::DecimalN { .. } => 0x6A,
            Self::NumericN { .. } => 0x6C,
            Self::FloatN(_) => 0x6D,
            Self::MoneyN(_) => 0x6E,
            Self::DateTimeN(_) => 0x6F,
            Self::SmallMoney => 0x7A,
            Self::BigInt => 0x7F,
            Self::VarBinary(_) | Self::VarBinaryMax => 0xA5,
            Self::VarChar(..) | Self::VarCharMax(_) => 0xA7,
            Self::Binary(_) => 0xAD,
            Self::Char(..) => 0xAF,
            Self::NVarChar(..) | Self::NVarCharMax(_) => 0xE7,
            Self::NChar(..) => 0xEF,
            Self::Udt { .. } => 0xF0,
            Self::Xml(_) => 0xF1,
            Self::Json => 0xF4,
            Self::Vector { .. } => 0xF5,
        }
    }

    /// True for TEXT, NTEXT and IMAGE: COLMETADATA names their table, rows carry a text pointer.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_) | Self::NText(_) | Self::Image)
    }

    /// True if values are PLP [MS-TDS 2.2.5.2.3].
    #[must_use]
    pub const fn is_plp(&self) -> bool {
        matches!(
            self,
            Self::VarCharMax(_)
                | Self::NVarCharMax(_)
                | Self::VarBinaryMax
                | Self::Xml(_)
                | Self::Udt { .. }
                | Self::Json
        )
    }

    /// True if a value has no length of its own and cannot be null.
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        matches!(self.byte(), 0x30 | 0x32 | 0x34 | 0x38 | 0x3A..=0x3E | 0x7A | 0x7F)
    }
}

/// Flags of a column [MS-TDS 2.2.7.4], as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ColumnFlags(pub u16);

impl ColumnFlags {
    /// May be null.
    pub const NULLABLE: Self = Self(0x0001);
    /// Case-sensitive.
    pub const CASE_SENSITIVE: Self = Self(0x0002);
    /// Updatable.
    pub const UPDATABLE: Self = Self(0x0004);
    /// Whether it is updatable is unknown: what SQL Server says of most columns.
    pub const UPDATABLE_UNKNOWN: Self = Self(0x0008);
    /// Identity.
    pub const IDENTITY: Self = Self(0x0010);
    /// Computed.
    pub const COMPUTED: Self = Self(0x0020);
    /// Encrypted; the column has [`CryptoMetadata`].
    pub const ENCRYPTED: Self = Self(0x0800);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What an encrypted column really holds [MS-TDS 2.2.7.4]; its own type is then a VARBINARY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoMetadata {
    /// Index into the CekTable; not written in RETURNVALUE.
    pub ordinal: u16,
    /// UserType of the clear value.
    pub user_type: u32,
    /// Type of the clear value.
    pub base: ColumnType,
    /// Algorithm; 0 = named by `algorithm_name`.
    pub algorithm: u8,
    /// Written when `algorithm` is 0.
    pub algorithm_name: String,
    /// 1 deterministic, 2 randomized.
    pub encryption: u8,
    /// Normalization rule version.
    pub normalization: u8,
}

/// One column of a result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDef {
    /// Name; clipped to 255 UTF-16 units.
    pub name: String,
    /// Type.
    pub ty: ColumnType,
    /// Flags.
    pub flags: ColumnFlags,
    /// 0, or 0x50 for rowversion, or above 0xFF for alias types.
    pub user_type: u32,
    /// Parts of the table's name; written for TEXT, NTEXT and IMAGE only.
    pub table: Vec<String>,
    /// Present on encrypted columns.
    pub crypto: Option<CryptoMetadata>,
}

impl ColumnDef {
    /// A nullable column (not nullable if its type cannot be), updatable unknown, as SQL Server describes most.
    #[must_use]
    pub fn new(name: impl Into<String>, ty: ColumnType) -> Self {
        let unknown = ColumnFlags::UPDATABLE_UNKNOWN;
        let flags = if ty.is_fixed() {
            unknown
        } else {
            unknown.with(ColumnFlags::NULLABLE)
        };
        Self {
            name: name.into(),
            ty,
            flags,
            user_type: 0,
            table: Vec::new(),
            crypto: None,
        }
    }

    /// The same with other flags.
    #[must_use]
    pub fn with_flags(mut self, flags: ColumnFlags) -> Self {
        self.flags = flags;
        self
    }

    /// The same with a table name, in parts.
    #[must_use]
    pub fn with_table(mut self, parts: &[&str]) -> Self {
        self.table = parts.iter().map(|p| (*p).to_owned()).collect();
        self
    }
}
