//! Packet sizes of the two legs: what the client asked for, what the server granted, what a TLS record holds (RFD 18).
//!
//! A size holds from the message behind the login response on, for both directions of its leg [MS-TDS 2.2.7.9]. The
//! client's is never above what it asked for, and the server's own where that allows it: then packets pass as they came.

use weir_tds::packet::{DEFAULT_PACKET_SIZE, PACKET_SIZE_MAX, PACKET_SIZE_MIN};

/// Largest packet on a leg that is encrypted to the end: one TLS record, of 16 384 bytes at most (RFC 5246, 6.2.1), holds
/// it whole. Servers close where a packet spans records, SqlClient and JDBC fail above this size.
pub(super) const ENCRYPTED_PACKET_MAX: u16 = 16383;

/// The same where an SMP header of 16 bytes stands before it in the record [MC-SMP 2.2.1].
pub(super) const ENCRYPTED_MARS_PACKET_MAX: u16 = 16368;

/// What decides on the sizes of one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketSizes {
    /// LOGIN7's value as the client sent it; 0 for "the server's default".
    pub(super) asked: u32,
    /// What the server is asked for instead, if the operator says so.
    pub(super) upstream: Option<u16>,
    /// Largest packet that each leg may carry.
    pub(super) client_most: u16,
    pub(super) server_most: u16,
}

/// Largest packet on a leg.
pub(super) const fn largest(encrypted: bool, mars: bool) -> u16 {
    match (encrypted, mars) {
        (false, _) => PACKET_SIZE_MAX,
        (true, false) => ENCRYPTED_PACKET_MAX,
        (true, true) => ENCRYPTED_MARS_PACKET_MAX,
    }
}

impl PacketSizes {
    /// What LOGIN7 asks the server for. The server's default may be above what a TLS record holds, so an encrypted leg
    /// always asks for a number.
    pub(super) fn ask_server(&self) -> u32 {
        let wanted = self.upstream.map_or(self.asked, u32::from);
        match wanted {
            0 if self.server_most == PACKET_SIZE_MAX => 0,
            0 => u32::from(DEFAULT_PACKET_SIZE),
            _ => wanted.clamp(u32::from(PACKET_SIZE_MIN), u32::from(self.server_most)),
        }
    }

    /// The client's size when the server has granted `granted`; what ENVCHANGE 4 tells the client.
    pub(super) fn for_client(&self, granted: u16) -> u16 {
        let asked = match u16::try_from(self.asked) {
            Ok(0) | Err(_) => PACKET_SIZE_MAX,
            Ok(asked) => asked,
        };
        granted
            .min(asked)
            .min(self.client_most)
            .clamp(PACKET_SIZE_MIN, PACKET_SIZE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(asked: u32, client_encrypted: bool, server_encrypted: bool) -> PacketSizes {
        PacketSizes {
            asked,
            upstream: None,
            client_most: largest(client_encrypted, false),
            server_most: largest(server_encrypted, false),
        }
    }

    #[test]
    fn the_server_is_asked_for_what_the_client_asked_for_as_far_as_a_record_holds_it() {
        for (asked, encrypted, wanted) in [
            (0, false, 0),
            (0, true, 4096),
            (4096, true, 4096),
            (32_767, false, 32_767),
            (32_767, true, 16_383),
            (100, false, 512),
            (u32::MAX, false, 32_767),
        ] {
            assert_eq!(sizes(asked, false, encrypted).ask_server(), wanted, "{asked}");
        }
        let upstream = PacketSizes {
            upstream: Some(32_000),
            ..sizes(512, false, false)
        };
        assert_eq!(
            (upstream.ask_server(), upstream.for_client(32_000)),
            (32_000, 512)
        );
    }

    #[test]
    fn the_client_never_gets_more_than_it_asked_for_or_its_leg_carries() {
        for (asked, encrypted, granted, client) in [
            (0, false, 8000, 8000),
            (0, true, 32_767, 16_383),
            (4096, false, 8000, 4096),
            (8000, false, 4096, 4096),
            (32_767, true, 32_767, 16_383),
            (100, false, 512, 512),
        ] {
            assert_eq!(
                sizes(asked, encrypted, false).for_client(granted),
                client,
                "{asked} {granted}"
            );
        }
    }
}
