//! ALL_HEADERS [MS-TDS 2.2.5.3]: what stands before batches, RPCs and transaction requests from 7.2 on.

use crate::body::Body;
use crate::error::WireError;
use crate::version::TdsVersion;

const NOTIFICATION: u16 = 1;
const TRANSACTION: u16 = 2;
const TRACE: u16 = 3;

/// Bytes of ALL_HEADERS with the transaction header alone, as nearly every client sends it.
pub const USUAL_LEN: usize = 22;

/// The headers of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllHeaders {
    /// Bytes that they take; 0 before 7.2.
    pub len: usize,
    /// Descriptor of the transaction the request runs in; 0 = none.
    pub transaction: u64,
    /// Requests outstanding, this one included; 0 if the header was missing.
    pub outstanding: u32,
    /// The request asks for a query notification.
    pub notification: bool,
    /// Activity GUID (16 bytes, wire order) and sequence of the client's trace.
    pub trace: Option<([u8; 16], u32)>,
}

impl AllHeaders {
    /// Reads the head of a request; before 7.2 there is nothing to read.
    ///
    /// # Errors
    /// The client's fault: a total outside the body, a header that is too short or twice there. Some home-made clients
    /// leave the headers out; their text then almost always fails here.
    pub fn parse(body: &[u8], version: TdsVersion) -> Result<Self, WireError> {
        if !version.has_wide_counts() {
            return Ok(Self::default());
        }
        let mut start = Body::new(body, "ALL_HEADERS");
        let total = start.u32()? as usize;
        if total < 4 {
            return Err(start.invalid("ALL_HEADERS with a total below 4"));
        }
        let mut list = Body::new(start.take(total - 4)?, "ALL_HEADERS");
        let mut headers = Self {
            len: total,
            ..Self::default()
        };
        let mut seen = 0u8;
        while !list.is_empty() {
            let length = list.u32()? as usize;
            let kind = list.u16()?;
            let data = list.take(
                length
                    .checked_sub(6)
                    .ok_or(list.invalid("a header shorter than its head"))?,
            )?;
            if let bit @ 1..=3 = kind {
                if seen & (1 << bit) != 0 {
                    return Err(list.invalid("a header of ALL_HEADERS twice"));
                }
                seen |= 1 << bit;
            }
            headers.take(kind, data)?;
        }
        Ok(headers)
    }

    fn take(&mut self, kind: u16, data: &[u8]) -> Result<(), WireError> {
        let mut data = Body::new(data, "a header of ALL_HEADERS");
        match kind {
            NOTIFICATION => self.notification = true,
            TRANSACTION => {
                self.transaction = data.u64()?;
                self.outstanding = data.u32()?;
            }
            TRACE => self.trace = Some((data.array()?, data.u32()?)),
            _ => {}
        }
        Ok(())
    }

    /// The usual headers on the wire: a transaction descriptor (0 = none) and one outstanding request.
    #[must_use]
    pub fn encode(transaction: u64) -> [u8; USUAL_LEN] {
        let mut out = [0; USUAL_LEN];
        let fields: [&[u8]; 5] = [
            &22u32.to_le_bytes(),
            &18u32.to_le_bytes(),
            &TRANSACTION.to_le_bytes(),
            &transaction.to_le_bytes(),
            &1u32.to_le_bytes(),
        ];
        for (place, byte) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_headers_survive_the_way_there_and_back() {
        let bytes = AllHeaders::encode(0x0807_0605_0403_0201);
        let headers = AllHeaders::parse(&bytes, TdsVersion::V7_4).unwrap();
        assert_eq!(
            (headers.len, headers.transaction, headers.outstanding),
            (22, 0x0807_0605_0403_0201, 1)
        );
        assert_eq!(
            AllHeaders::parse(&bytes, TdsVersion::V7_1),
            Ok(AllHeaders::default())
        );
    }

    #[test]
    fn text_without_headers_and_hostile_lengths_are_refused() {
        let bad: [&[u8]; 6] = [
            b"S\0E\0L\0E\0C\0T\0 \x001\0",
            &[3, 0, 0, 0],
            &[8, 0, 0, 0, 5, 0, 0, 0],
            &[10, 0, 0, 0, 5, 0, 0, 0, 2, 0],
            &[0xFF, 0xFF, 0xFF, 0xFF, 1],
            &[16, 0, 0, 0, 6, 0, 0, 0, 1, 0, 6, 0, 0, 0, 1, 0],
        ];
        for body in bad {
            assert!(AllHeaders::parse(body, TdsVersion::V7_4).is_err(), "{body:02x?}");
        }
    }
}
