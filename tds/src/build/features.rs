//! Tokens of the login response and of session state: LOGINACK, FEATUREEXTACK, FEDAUTHINFO, SSPI, SESSIONSTATE, and
//! DATACLASSIFICATION [MS-TDS 2.2.7].

use bytes::BufMut;

use super::{BuildError, TokenBuf, put_at, put_b_varchar};
use crate::login7::feature;
use crate::utf16;

const DATACLASSIFICATION: u8 = 0xA3;
const LOGINACK: u8 = 0xAD;
const FEATUREEXTACK: u8 = 0xAE;
const SESSIONSTATE: u8 = 0xE4;
const SSPI: u8 = 0xED;
const FEDAUTHINFO: u8 = 0xEE;

/// Label or type index that says that there is none.
pub const NO_CLASSIFICATION: u16 = 0xFFFF;

/// One property of a classified column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassifiedProperty {
    /// Index of the label, or [`NO_CLASSIFICATION`].
    pub label: u16,
    /// Index of the information type, or [`NO_CLASSIFICATION`].
    pub information_type: u16,
    /// Sensitivity rank; version 2.
    pub rank: i32,
}

/// DATACLASSIFICATION [MS-TDS 2.2.7.5].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Classification {
    /// Labels: name and id.
    pub labels: Vec<(String, String)>,
    /// Information types: name and id.
    pub information_types: Vec<(String, String)>,
    /// Rank of the query; version 2.
    pub rank: i32,
    /// Properties per column of the result set; or empty.
    pub columns: Vec<Vec<ClassifiedProperty>>,
}

impl TokenBuf {
    /// LOGINACK with this stream's version. `program` gets the two NUL characters that real servers send behind it.
    pub fn login_ack(&mut self, program: &str, program_version: [u8; 4]) -> &mut Self {
        self.sized(LOGINACK, |out, version| {
            out.put_u8(1);
            out.put_u32(version.to_login_ack());
            let name = utf16::clip(program, usize::from(u8::MAX) - 2);
            put_b_varchar(out, &format!("{name}\0\0"));
            out.put_slice(&program_version);
        })
    }

    /// FEATUREEXTACK: ids and data. Only features that the client asked for may stand here.
    pub fn feature_ext_ack<D: AsRef<[u8]>>(&mut self, features: &[(u8, D)]) -> &mut Self {
        self.out.put_u8(FEATUREEXTACK);
        for (id, data) in features {
            let data = data.as_ref();
            self.out.put_u8(*id);
            self.out.put_u32_le(u32::try_from(data.len()).unwrap_or(u32::MAX));
            self.out.put_slice(data);
        }
        self.out.put_u8(feature::TERMINATOR);
        self
    }

    /// FEDAUTHINFO: alone in its message. Options by id (1 STSURL, 2 SPN), in the order given.
    pub fn fed_auth_info(&mut self, options: &[(u8, &str)]) -> &mut Self {
        self.sized32(FEDAUTHINFO, |out| {
            let start = out.len();
            out.put_u32_le(u32::try_from(options.len()).unwrap_or(u32::MAX));
            let places: Vec<usize> = options
                .iter()
                .map(|(id, _)| {
                    out.put_u8(*id);
                    out.put_u64_le(0);
                    out.len() - 8
                })
                .collect();
            for ((_, text), place) in options.iter().zip(places) {
                // Offsets count from the field that counts the options.
                let offset = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
                let len = u32::try_from(utf16::units(text) * 2).unwrap_or(u32::MAX);
                put_at(out, place, &len.to_le_bytes());
                put_at(out, place + 4, &offset.to_le_bytes());
                utf16::put(out, text);
            }
        })
    }

    /// SSPI: a token of the security package.
    ///
    /// # Errors
    /// More bytes than the length can say.
    pub fn sspi(&mut self, token: &[u8]) -> Result<&mut Self, BuildError> {
        if token.len() > usize::from(u16::MAX) {
            return Err(BuildError::TooLarge("SSPI"));
        }
        Ok(self.sized(SSPI, |out, _| out.put_slice(token)))
    }

    /// SESSIONSTATE: just before the final DONE. State ids and values.
    pub fn session_state<D: AsRef<[u8]>>(
        &mut self,
        sequence: u32,
        recoverable: bool,
        states: &[(u8, D)],
    ) -> &mut Self {
        self.sized32(SESSIONSTATE, |out| {
            out.put_u32_le(sequence);
            out.put_u8(u8::from(recoverable));
            for (id, value) in states {
                let value = value.as_ref();
                out.put_u8(*id);
                match u8::try_from(value.len()) {
                    Ok(len) if len < u8::MAX => out.put_u8(len),
                    _ => {
                        out.put_u8(u8::MAX);
                        out.put_u32_le(u32::try_from(value.len()).unwrap_or(u32::MAX));
                    }
                }
                out.put_slice(value);
            }
        })
    }

    /// DATACLASSIFICATION in the version that was acknowledged, 1 or 2; directly behind COLMETADATA.
    ///
    /// # Errors
    /// More entries than the counts can say.
    pub fn data_classification(
        &mut self,
        version: u8,
        what: &Classification,
    ) -> Result<&mut Self, BuildError> {
        let count = |n: usize| u16::try_from(n).map_err(|_| BuildError::TooLarge("DATACLASSIFICATION"));
        self.whole(|out, _| {
            out.put_u8(DATACLASSIFICATION);
            for list in [&what.labels, &what.information_types] {
                out.put_u16_le(count(list.len())?);
                for (name, id) in list {
                    put_b_varchar(out, name);
                    put_b_varchar(out, id);
                }
            }
            if version >= 2 {
                out.put_i32_le(what.rank);
            }
            out.put_u16_le(count(what.columns.len())?);
            for properties in &what.columns {
                out.put_u16_le(count(properties.len())?);
                for property in properties {
                    out.put_u16_le(property.label);
                    out.put_u16_le(property.information_type);
                    if version >= 2 {
                        out.put_i32_le(property.rank);
                    }
                }
            }
            Ok(())
        })
    }
}
