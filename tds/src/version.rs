//! Protocol versions [MS-TDS 2.2.7.14]: an enum, because 8.0 (0x08000000) is numerically below every 7.x.

/// A TDS version, in the order of what it added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TdsVersion {
    /// SQL Server 7.0.
    V7_0,
    /// SQL Server 2000.
    V7_1,
    /// SQL Server 2000 SP1.
    V7_1Rev1,
    /// SQL Server 2005: ALL_HEADERS, u64 counts, PLP.
    V7_2,
    /// SQL Server 2008.
    V7_3A,
    /// SQL Server 2008 R2: NBCROW.
    V7_3B,
    /// SQL Server 2012 and later: FeatureExt.
    V7_4,
    /// SQL Server 2022 and later: TLS first; the token stream is that of 7.4.
    V8_0,
}

impl std::fmt::Display for TdsVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V7_0 => "7.0",
            Self::V7_1 => "7.1",
            Self::V7_1Rev1 => "7.1 revision 1",
            Self::V7_2 => "7.2",
            Self::V7_3A => "7.3A",
            Self::V7_3B => "7.3B",
            Self::V7_4 => "7.4",
            Self::V8_0 => "8.0",
        })
    }
}

impl TdsVersion {
    /// From LOGIN7.TDSVersion, read little-endian. Unknown 7.x values count as the next lower version.
    #[must_use]
    pub const fn from_login7(value: u32) -> Option<Self> {
        Some(match value {
            0x0800_0000 => Self::V8_0,
            0x7000_0000..=0x70FF_FFFF => Self::V7_0,
            0x7100_0000 => Self::V7_1,
            0x7100_0001..=0x71FF_FFFF => Self::V7_1Rev1,
            0x7200_0000..=0x72FF_FFFF => Self::V7_2,
            0x7300_0000..=0x730A_FFFF => Self::V7_3A,
            0x730B_0000..=0x73FF_FFFF => Self::V7_3B,
            0x7400_0000..=0x7FFF_FFFF => Self::V7_4,
            _ => return None,
        })
    }

    /// To LOGIN7.TDSVersion, written little-endian.
    #[must_use]
    pub const fn to_login7(self) -> u32 {
        match self {
            Self::V7_0 => 0x7000_0000,
            Self::V7_1 => 0x7100_0000,
            Self::V7_1Rev1 => 0x7100_0001,
            Self::V7_2 => 0x7209_0002,
            Self::V7_3A => 0x730A_0003,
            Self::V7_3B => 0x730B_0003,
            Self::V7_4 => 0x7400_0004,
            Self::V8_0 => 0x0800_0000,
        }
    }

    /// From LOGINACK, read big-endian: the same number as LOGIN7's from 7.1 revision 1 on.
    #[must_use]
    pub const fn from_login_ack(value: u32) -> Option<Self> {
        match value {
            0x0700_0000 => Some(Self::V7_0),
            0x0701_0000 => Some(Self::V7_1),
            other => Self::from_login7(other),
        }
    }

    /// To LOGINACK, written big-endian.
    #[must_use]
    pub const fn to_login_ack(self) -> u32 {
        match self {
            Self::V7_0 => 0x0700_0000,
            Self::V7_1 => 0x0701_0000,
            other => other.to_login7(),
        }
    }

    /// The version whose token stream this one's is: 8.0 changes the order of TLS and PRELOGIN, and no token.
    #[must_use]
    pub const fn stream(self) -> Self {
        match self {
            Self::V8_0 => Self::V7_4,
            other => other,
        }
    }

    /// True from 7.2 on: ALL_HEADERS, u32 UserType, u64 row counts, u32 line numbers.
    #[must_use]
    pub fn has_wide_counts(self) -> bool {
        self >= Self::V7_2
    }
}

#[cfg(test)]
mod tests {
    use super::TdsVersion as V;

    /// Numbers of the versions [MS-TDS 2.2.7.14, A<17>].
    #[test]
    fn login_ack_and_login7_carry_the_same_version() {
        for v in [
            V::V7_0,
            V::V7_1,
            V::V7_1Rev1,
            V::V7_2,
            V::V7_3A,
            V::V7_3B,
            V::V7_4,
            V::V8_0,
        ] {
            assert_eq!(V::from_login7(v.to_login7()), Some(v));
            assert_eq!(V::from_login_ack(v.to_login_ack()), Some(v));
        }
        assert!(
            V::V8_0 > V::V7_4,
            "8.0 is the newest though its number is the smallest"
        );
        assert_eq!(V::from_login7(0x0402_0000), None);
    }
}
