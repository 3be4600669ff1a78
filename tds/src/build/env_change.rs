//! ENVCHANGE of every type [MS-TDS 2.2.7.9].

use bytes::{BufMut, BytesMut};

use super::column::Collation;
use super::{TokenBuf, put_at, put_b_varbyte, put_b_varchar, put_us_varchar};
use crate::version::TdsVersion;

const ENVCHANGE: u8 = 0xE3;

/// Most units of a server or database name in a routing ENVCHANGE: 128 for the database [MS-TDS 2.2.7.9], a host name
/// has at most 253, and an instance name may follow it.
const ROUTE_UNITS_MAX: usize = 512;

/// A descriptor of a transaction.
type Descriptor = u64;

impl TokenBuf {
    fn env(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut, TdsVersion)) -> &mut Self {
        self.sized(ENVCHANGE, |out, version| {
            out.put_u8(kind);
            body(out, version);
        })
    }

    /// Both values as text: types 1 to 6, 13 and 19.
    pub fn env_text(&mut self, kind: u8, new: &str, old: &str) -> &mut Self {
        self.env(kind, |out, _| {
            put_b_varchar(out, new);
            put_b_varchar(out, old);
        })
    }

    /// Both values as bytes (clipped to 255): types 7 to 12, 16, 17 and 18.
    pub fn env_bytes(&mut self, kind: u8, new: &[u8], old: &[u8]) -> &mut Self {
        self.env(kind, |out, _| {
            put_b_varbyte(out, new);
            put_b_varbyte(out, old);
        })
    }

    /// Type 1: the database.
    pub fn env_database(&mut self, new: &str, old: &str) -> &mut Self {
        self.env_text(1, new, old)
    }

    /// Type 2: the language.
    pub fn env_language(&mut self, new: &str, old: &str) -> &mut Self {
        self.env_text(2, new, old)
    }

    /// Type 3: the character set; to clients of 7.0 and before.
    pub fn env_charset(&mut self, new: &str, old: &str) -> &mut Self {
        self.env_text(3, new, old)
    }

    /// Type 4: the packet size; holds from the message after the login response.
    pub fn env_packet_size(&mut self, new: u16, old: u16) -> &mut Self {
        self.env_text(4, &new.to_string(), &old.to_string())
    }

    /// Type 5: the sort locale; to clients of 7.0 and before.
    pub fn env_sort_locale(&mut self, new: &str) -> &mut Self {
        self.env_text(5, new, "")
    }

    /// Type 6: sort flags; to clients of 7.0 and before.
    pub fn env_sort_flags(&mut self, new: &str) -> &mut Self {
        self.env_text(6, new, "")
    }

    /// Type 7: the collation.
    pub fn env_collation(&mut self, new: Collation, old: Option<Collation>) -> &mut Self {
        self.env(7, |out, _| {
            put_b_varbyte(out, &new.0);
            put_b_varbyte(out, old.as_ref().map_or(&[], |c| &c.0));
        })
    }

    /// Type 8: a transaction began.
    pub fn env_begin_transaction(&mut self, new: Descriptor) -> &mut Self {
        self.env_bytes(8, &new.to_le_bytes(), &[])
    }

    /// Type 9: it was committed.
    pub fn env_commit(&mut self, old: Descriptor) -> &mut Self {
        self.env_bytes(9, &[], &old.to_le_bytes())
    }

    /// Type 10: it was rolled back.
    pub fn env_rollback(&mut self, old: Descriptor) -> &mut Self {
        self.env_bytes(10, &[], &old.to_le_bytes())
    }

    /// Type 11: enlisted in a distributed transaction; the descriptor as new value, where SqlClient looks.
    pub fn env_enlist(&mut self, new: Descriptor) -> &mut Self {
        self.env_bytes(11, &new.to_le_bytes(), &[])
    }

    /// Type 12: left a distributed transaction; the descriptor as old value.
    pub fn env_defect(&mut self, old: Descriptor) -> &mut Self {
        self.env_bytes(12, &[], &old.to_le_bytes())
    }

    /// Type 13: the mirroring partner.
    pub fn env_mirror_partner(&mut self, partner: &str) -> &mut Self {
        self.env_text(13, partner, "")
    }

    /// Type 15: promoted to a distributed transaction. Its Length says 1; what follows lies outside [MS-TDS 2.2.7.9].
    pub fn env_promote(&mut self, token: &[u8]) -> &mut Self {
        self.out.put_slice(&[ENVCHANGE, 1, 0, 15]);
        self.out
            .put_u32_le(u32::try_from(token.len()).unwrap_or(u32::MAX));
        self.out.put_slice(token);
        self.out.put_u8(0);
        self
    }

    /// Type 16: address of the transaction manager.
    pub fn env_manager_address(&mut self, address: &[u8]) -> &mut Self {
        self.env_bytes(16, address, &[])
    }

    /// Type 17: a bound transaction ended; the descriptor as new value.
    pub fn env_transaction_ended(&mut self, new: Descriptor) -> &mut Self {
        self.env_bytes(17, &new.to_le_bytes(), &[])
    }

    /// Type 18: a reset was done; first token of the answer.
    pub fn env_reset_ack(&mut self) -> &mut Self {
        self.env_bytes(18, &[], &[])
    }

    /// Type 19: name of the user instance.
    pub fn env_user_instance(&mut self, name: &str) -> &mut Self {
        self.env_text(19, name, "")
    }

    /// Type 20: go to another server.
    pub fn env_routing(&mut self, port: u16, server: &str) -> &mut Self {
        self.route(20, port, server, None)
    }

    /// Type 21: go to another server and database.
    pub fn env_enhanced_routing(&mut self, port: u16, server: &str, database: &str) -> &mut Self {
        self.route(21, port, server, Some(database))
    }

    fn route(&mut self, kind: u8, port: u16, server: &str, database: Option<&str>) -> &mut Self {
        self.env(kind, |out, _| {
            let at = out.len();
            out.put_u16_le(0);
            out.put_u8(0);
            out.put_u16_le(port);
            put_us_varchar(out, server, ROUTE_UNITS_MAX);
            if let Some(database) = database {
                put_us_varchar(out, database, ROUTE_UNITS_MAX);
            }
            let len = u16::try_from(out.len() - at - 2).unwrap_or(u16::MAX);
            put_at(out, at, &len.to_le_bytes());
            out.put_u16_le(0);
        })
    }
}
