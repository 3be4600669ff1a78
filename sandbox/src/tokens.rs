//! The response tokens that the sandbox sends, written out apart from `weir_tds::build`: two writers check each other.

use bytes::{BufMut, BytesMut};
use weir_tds::version::TdsVersion;

/// Most characters of a message: ERROR's length is a u16 of bytes.
const MESSAGE_CHARS_MAX: usize = 2000;
/// SQL_Latin1_General_CP1_CI_AS, the collation of a default installation [MS-TDS 2.2.5.1.2].
pub(crate) const COLLATION: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];

/// Status bits of the DONE family [MS-TDS 2.2.7.6].
pub(crate) mod status {
    pub(crate) const FINAL: u16 = 0;
    pub(crate) const MORE: u16 = 0x0001;
    pub(crate) const ERROR: u16 = 0x0002;
    pub(crate) const COUNT: u16 = 0x0010;
    pub(crate) const ATTENTION: u16 = 0x0020;
    pub(crate) const RPC_IN_BATCH: u16 = 0x0080;
}

/// CurCmd values that servers were seen to send.
pub(crate) mod command {
    pub(crate) const NONE: u16 = 0xFD;
    pub(crate) const SELECT: u16 = 0xC1;
    pub(crate) const INSERT: u16 = 0xC3;
    pub(crate) const DELETE: u16 = 0xC4;
    pub(crate) const UPDATE: u16 = 0xC5;
    pub(crate) const BEGIN: u16 = 0xD4;
    pub(crate) const COMMIT: u16 = 0xD5;
    pub(crate) const ROLLBACK: u16 = 0xD2;
    pub(crate) const EXECUTE: u16 = 0xE0;
    pub(crate) const BULK: u16 = 0xF0;
}

/// The three tokens of the DONE family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DoneKind {
    /// End of a statement of a batch.
    Done,
    /// End of a procedure.
    Proc,
    /// End of a statement inside a procedure.
    InProc,
}

/// What a server says about an error or as information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) number: i32,
    pub(crate) state: u8,
    /// 0..=10 is INFO, above is ERROR.
    pub(crate) class: u8,
    pub(crate) text: String,
    pub(crate) procedure: String,
    pub(crate) line: u32,
}

/// ENVCHANGE kinds that are sent [MS-TDS 2.2.7.9].
#[derive(Debug, Clone)]
pub(crate) enum EnvChange<'a> {
    Database { new: &'a str, old: &'a str },
    Language { new: &'a str, old: &'a str },
    PacketSize { new: u16, old: u16 },
    Collation,
    Begin(u64),
    Commit(u64),
    Rollback(u64),
    ResetDone,
}

/// Token bytes of one version.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) buf: BytesMut,
    pub(crate) version: TdsVersion,
}

impl Tokens {
    pub(crate) fn new(version: TdsVersion) -> Self {
        Self { buf: BytesMut::new(), version }
    }

    pub(crate) fn done(&mut self, kind: DoneKind, status: u16, command: u16, rows: u64) {
        self.buf.put_u8(match kind {
            DoneKind::Done => 0xFD,
            DoneKind::Proc => 0xFE,
            DoneKind::InProc => 0xFF,
        });
        self.buf.put_u16_le(status);
        self.buf.put_u16_le(command);
        if self.version.has_wide_counts() {
            self.buf.put_u64_le(rows);
        } else {
            self.buf.put_u32_le(u32::try_from(rows).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn message(&mut self, message: &Message, server: &str) {
        let text: String = message.text.chars().take(MESSAGE_CHARS_MAX).collect();
        let token = if message.class > 10 { 0xAA } else { 0xAB };
        let wide = self.version.has_wide_counts();
        self.sized(token, |buf| {
            buf.put_i32_le(message.number);
            buf.put_u8(message.state);
            buf.put_u8(message.class);
            put_us(buf, &text);
            put_b(buf, server);
            put_b(buf, &message.procedure);
            if wide {
                buf.put_u32_le(message.line);
            } else {
                buf.put_u16_le(u16::try_from(message.line).unwrap_or(u16::MAX));
            }
        });
    }

    pub(crate) fn env_change(&mut self, change: &EnvChange<'_>) {
        // Types 8 to 12 and 15 to 18 do not exist before 7.2.
        let modern = matches!(
            change,
            EnvChange::Begin(_) | EnvChange::Commit(_) | EnvChange::Rollback(_) | EnvChange::ResetDone
        );
        if modern && !self.version.has_wide_counts() {
            return;
        }
        self.sized(0xE3, |buf| match change {
            EnvChange::Database { new, old } => {
                buf.put_u8(1);
                put_b(buf, new);
                put_b(buf, old);
            }
            EnvChange::Language { new, old } => {
                buf.put_u8(2);
                put_b(buf, new);
                put_b(buf, old);
            }
            EnvChange::PacketSize { new, old } => {
                buf.put_u8(4);
                put_b(buf, &new.to_string());
                put_b(buf, &old.to_string());
            }
            EnvChange::Collation => {
                buf.put_u8(7);
                buf.put_u8(5);
                buf.put_slice(&COLLATION);
                buf.put_u8(0);
            }
            EnvChange::Begin(id) => put_descriptors(buf, 8, Some(*id), None),
            EnvChange::Commit(id) => put_descriptors(buf, 9, None, Some(*id)),
            EnvChange::Rollback(id) => put_descriptors(buf, 10, None, Some(*id)),
            EnvChange::ResetDone => put_descriptors(buf, 18, None, None),
        });
    }

    /// ENVCHANGE 20: another server to log in to.
    pub(crate) fn routing(&mut self, server: &str, port: u16) {
        self.sized(0xE3, |buf| {
            buf.put_u8(20);
            let units = server.encode_utf16().count();
            buf.put_u16_le(u16::try_from(5 + 2 * units).unwrap_or(u16::MAX));
            buf.put_u8(0);
            buf.put_u16_le(port);
            put_us(buf, server);
            buf.put_u16_le(0);
        });
    }

    pub(crate) fn login_ack(&mut self, program: &str, version: [u8; 4]) {
        let tds = self.version.to_login_ack();
        self.sized(0xAD, |buf| {
            buf.put_u8(1);
            buf.put_u32(tds);
            put_b(buf, program);
            buf.put_slice(&version);
        });
    }

    pub(crate) fn feature_ack(&mut self, acks: &[(u8, Vec<u8>)]) {
        self.buf.put_u8(0xAE);
        for (id, data) in acks {
            self.buf.put_u8(*id);
            self.buf.put_u32_le(u32::try_from(data.len()).unwrap_or(0));
            self.buf.put_slice(data);
        }
        self.buf.put_u8(0xFF);
    }

    pub(crate) fn return_status(&mut self, status: i32) {
        self.buf.put_u8(0x79);
        self.buf.put_i32_le(status);
    }

    /// A token with a u16 length in front of `body`.
    fn sized(&mut self, token: u8, body: impl FnOnce(&mut BytesMut)) {
        self.buf.put_u8(token);
        let at = self.buf.len();
        self.buf.put_u16_le(0);
        body(&mut self.buf);
        let length = u16::try_from(self.buf.len() - at - 2).unwrap_or(u16::MAX);
        if let Some(place) = self.buf.get_mut(at..at + 2) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }
}

fn put_descriptors(buf: &mut BytesMut, kind: u8, new: Option<u64>, old: Option<u64>) {
    buf.put_u8(kind);
    for value in [new, old] {
        match value {
            Some(id) => {
                buf.put_u8(8);
                buf.put_u64_le(id);
            }
            None => buf.put_u8(0),
        }
    }
}

/// A name with its length in UTF-16 units in one byte; cut at 255.
pub(crate) fn put_b(buf: &mut BytesMut, text: &str) {
    let units: Vec<u16> = text.encode_utf16().take(255).collect();
    buf.put_u8(u8::try_from(units.len()).unwrap_or(u8::MAX));
    units.iter().for_each(|u| buf.put_u16_le(*u));
}

fn put_us(buf: &mut BytesMut, text: &str) {
    let units: Vec<u16> = text.encode_utf16().take(usize::from(u16::MAX)).collect();
    buf.put_u16_le(u16::try_from(units.len()).unwrap_or(u16::MAX));
    units.iter().for_each(|u| buf.put_u16_le(*u));
}

/// The acknowledgement of an ATTENTION: a message of its own (facts §9).
pub(crate) fn attention_ack(version: TdsVersion) -> BytesMut {
    let mut tokens = Tokens::new(version);
    tokens.done(DoneKind::Done, status::ATTENTION, command::NONE, 0);
    tokens.buf
}
