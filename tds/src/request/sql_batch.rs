//! SQL batches [MS-TDS 2.2.6.7]: the text, and the way to send one.

use super::RequestOptions;
use super::all_headers::AllHeaders;
use crate::body::Body;
use crate::error::WireError;
use crate::utf16;

/// A SQL batch. Borrowed from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlBatch<'a> {
    /// Its headers.
    pub headers: AllHeaders,
    /// Package for the enclave; empty without column encryption.
    pub enclave: &'a [u8],
    /// Its text as UTF-16LE, without terminator.
    pub text: &'a [u8],
}

impl<'a> SqlBatch<'a> {
    /// Reads a batch, or the head of one: the text then is as much as there is.
    ///
    /// # Errors
    /// The client's fault: bad headers, an enclave package that ends too early.
    pub fn parse(body: &'a [u8], options: RequestOptions) -> Result<Self, WireError> {
        let headers = AllHeaders::parse(body, options.version)?;
        let mut rest = Body::new(body, "SQL batch");
        rest.take(headers.len)?;
        let enclave = if options.enclave { rest.us_varbyte()? } else { &[] };
        Ok(Self {
            headers,
            enclave,
            text: rest.rest(),
        })
    }

    /// The text. What is not UTF-16 becomes U+FFFD; allocates at most 1.5 × its bytes.
    #[must_use]
    pub fn text(&self) -> String {
        utf16::decode(self.text)
    }
}

/// A batch's body on the wire; an empty text serves to carry a reset alone.
#[must_use]
pub fn encode(text: &str, transaction: u64, options: RequestOptions) -> Vec<u8> {
    let mut body = Vec::with_capacity(super::all_headers::USUAL_LEN + 2 + text.len() * 2);
    if options.version.has_wide_counts() {
        body.extend_from_slice(&AllHeaders::encode(transaction));
    }
    if options.enclave {
        body.extend_from_slice(&[0, 0]);
    }
    body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::TdsVersion;

    #[test]
    fn a_batch_survives_the_way_there_and_back_in_every_layout() {
        for version in [TdsVersion::V7_1, TdsVersion::V7_4] {
            for enclave in [false, true] {
                let options = RequestOptions { version, enclave };
                let body = encode("SELECT N'ü'", 7, options);
                let batch = SqlBatch::parse(&body, options).unwrap();
                assert_eq!(batch.text(), "SELECT N'ü'");
                assert_eq!(
                    batch.headers.transaction,
                    if version.has_wide_counts() { 7 } else { 0 }
                );
            }
        }
    }
}
