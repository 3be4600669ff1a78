//! The lengths that values with a u8 length may have, by their type [MS-TDS 2.2.5.5].
//!
//! A value of another length is refused. Where it ends is plain, but what it is worth is not: a reader that goes by the type
//! and one that goes by the length would see other rows behind it, and a meter must count those that the client sees.

use crate::data_type::DataType;

/// A set of lengths; 0, which is NULL, is always in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths(u32);

/// No type with a few lengths only has one of so many bytes: the last bit stands for all from here on.
const MANY: u8 = 31;

impl Lengths {
    /// Any: the character and binary types of TDS 7.0, and what a server judges itself.
    pub const ANY: Self = Self(u32::MAX);
    /// Decimals as a client uploads them: FreeTDS writes as few bytes as the precision needs, and servers take it.
    pub(crate) const UPLOADED_DECIMAL: Self = Self(0b11_1111_1111_1111_1101);

    const NULL: Self = Self(1);

    const fn or(self, len: u8) -> Self {
        Self(self.0 | 1 << len)
    }

    /// Those of a type with a u8 length; of a time type with its scale. `None` for a scale that there is not.
    pub(crate) const fn of(data_type: DataType, scale: u8) -> Option<Self> {
        Some(match data_type {
            DataType::IntN => Self::NULL.or(1).or(2).or(4).or(8),
            DataType::BitN => Self::NULL.or(1),
            DataType::FloatN | DataType::MoneyN | DataType::DateTimeN => Self::NULL.or(4).or(8),
            DataType::Guid => Self::NULL.or(16),
            DataType::Decimal | DataType::Numeric | DataType::DecimalN | DataType::NumericN => {
                Self::NULL.or(5).or(9).or(13).or(17)
            }
            DataType::Date => Self::NULL.or(3),
            DataType::Time | DataType::DateTime2 | DataType::DateTimeOffset => {
                match scaled_len(data_type, scale) {
                    Some(len) => Self::NULL.or(len),
                    None => return None,
                }
            }
            _ => Self::ANY,
        })
    }

    /// True if a value may have `len` bytes.
    #[inline(always)]
    pub(crate) const fn allow(self, len: u8) -> bool {
        let bit = if len < MANY { len } else { MANY };
        self.0 >> bit & 1 == 1
    }
}

/// Bytes of a time type's value by its scale, of which there are 0 to 7 [MS-TDS 2.2.5.4.2].
pub(crate) const fn scaled_len(data_type: DataType, scale: u8) -> Option<u8> {
    let time = match scale {
        0..=2 => 3,
        3 | 4 => 4,
        5..=7 => 5,
        _ => return None,
    };
    match data_type {
        DataType::Time => Some(time),
        DataType::DateTime2 => Some(time + 3),
        DataType::DateTimeOffset => Some(time + 5),
        _ => None,
    }
}

/// The first bytes of a sql_variant: its base type, how many bytes of properties, and what follows.
pub(crate) type VariantHead = [u8; 3];

/// True if a sql_variant of `len` bytes has the properties of its base type, and a value of a length that this type has
/// [MS-TDS 2.2.5.5.4]. None is shorter than its head.
pub(crate) fn variant_holds(len: u64, head: VariantHead) -> bool {
    use DataType as T;
    let [base, properties, first] = head;
    let Some(data) = len.checked_sub(2 + u64::from(properties)) else {
        return false;
    };
    let is = |of_properties, of_data: u8| properties == of_properties && data == u64::from(of_data);
    match DataType::from_byte(base) {
        Some(T::Int1 | T::Bit) => is(0, 1),
        Some(T::Int2) => is(0, 2),
        Some(T::Date) => is(0, 3),
        Some(T::Int4 | T::DateTime4 | T::Float4 | T::Money4) => is(0, 4),
        Some(T::Money | T::DateTime | T::Float8 | T::Int8) => is(0, 8),
        Some(T::Guid) => is(0, 16),
        Some(time @ (T::Time | T::DateTime2 | T::DateTimeOffset)) => {
            scaled_len(time, first).is_some_and(|of_data| is(1, of_data))
        }
        Some(T::DecimalN | T::NumericN) => properties == 2 && matches!(data, 5 | 9 | 13 | 17),
        Some(T::BigVarBinary | T::BigBinary) => properties == 2,
        // TDS 7.0 has no collation before the length.
        Some(T::BigVarChar | T::BigChar | T::NVarChar | T::NChar) => matches!(properties, 2 | 7),
        _ => false,
    }
}
