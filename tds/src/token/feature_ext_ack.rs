//! FEATUREEXTACK [MS-TDS 2.2.7.11]: what the server agrees to of the features that LOGIN7 asked for.

use nom::Parser;
use nom::multi::length_data;
use nom::number::complete::{le_u8, le_u32};

use super::{Parsed, finish};
use crate::error::WireError;

/// Feature ids, of LOGIN7 and FEATUREEXTACK alike [MS-TDS 2.2.6.4].
#[allow(missing_docs, reason = "the names are those of MS-TDS 2.2.6.4")]
pub mod feature {
    pub const SESSION_RECOVERY: u8 = 0x01;
    pub const FED_AUTH: u8 = 0x02;
    pub const COLUMN_ENCRYPTION: u8 = 0x04;
    pub const GLOBAL_TRANSACTIONS: u8 = 0x05;
    pub const AZURE_SQL_SUPPORT: u8 = 0x08;
    pub const DATA_CLASSIFICATION: u8 = 0x09;
    pub const UTF8_SUPPORT: u8 = 0x0A;
    pub const AZURE_SQL_DNS_CACHING: u8 = 0x0B;
    pub const JSON_SUPPORT: u8 = 0x0D;
    pub const VECTOR_SUPPORT: u8 = 0x0E;
    pub const ENHANCED_ROUTING: u8 = 0x0F;
    pub const USER_AGENT: u8 = 0x10;
    pub const TERMINATOR: u8 = 0xFF;
}

/// The acknowledgement of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureAck<'a> {
    /// Which; constants in [`feature`].
    pub id: u8,
    /// Its data.
    pub data: &'a [u8],
}

/// A FEATUREEXTACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureExtAck<'a> {
    /// In the order sent.
    pub features: Vec<FeatureAck<'a>>,
}

impl<'a> FeatureExtAck<'a> {
    /// Parses a whole token.
    ///
    /// # Errors
    /// A token that is cut short.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        finish(parse(bytes), "FEATUREEXTACK")
    }

    /// The data of a feature, if it was acknowledged.
    #[must_use]
    pub fn get(&self, id: u8) -> Option<&'a [u8]> {
        self.features.iter().find(|ack| ack.id == id).map(|ack| ack.data)
    }

    /// Acknowledged version of column encryption; 0 = not acknowledged.
    #[must_use]
    pub fn column_encryption(&self) -> u8 {
        self.get(feature::COLUMN_ENCRYPTION)
            .and_then(|data| data.first().copied())
            .unwrap_or(0)
    }

    /// Version of data classification, if it is acknowledged and enabled; else 0.
    #[must_use]
    pub fn data_classification(&self) -> u8 {
        match self.get(feature::DATA_CLASSIFICATION) {
            Some(&[version, enabled, ..]) if enabled != 0 => version,
            _ => 0,
        }
    }
}

fn parse(bytes: &[u8]) -> Parsed<'_, FeatureExtAck<'_>> {
    let (mut rest, _token) = le_u8.parse(bytes)?;
    let mut features = Vec::new();
    loop {
        let (after, id) = le_u8.parse(rest)?;
        if id == feature::TERMINATOR {
            return Ok((after, FeatureExtAck { features }));
        }
        let (after, data) = length_data(le_u32).parse(after)?;
        features.push(FeatureAck { id, data });
        rest = after;
    }
}
