//! What the sandbox says beside rows: messages it owns, the CurCmd values servers send, the acknowledgement of ATTENTION.

use bytes::BytesMut;
use weir_tds::build::{DoneKind, ServerText, TokenBuf};
use weir_tds::version::TdsVersion;

/// Status bits of the DONE family [MS-TDS 2.2.7.6].
pub(crate) mod status {
    pub(crate) const FINAL: u16 = 0;
    pub(crate) const MORE: u16 = 0x0001;
    pub(crate) const ERROR: u16 = 0x0002;
    pub(crate) const COUNT: u16 = 0x0010;
    pub(crate) const ATTENTION: u16 = 0x0020;
    pub(crate) const RPC_IN_BATCH: u16 = 0x0080;
}

/// CurCmd values that servers were seen to send; the protocol leaves them open [MS-TDS 2.2.7.6].
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

/// Class up to which a message is INFO.
const INFO_CLASS_MAX: u8 = 10;

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

impl Message {
    pub(crate) fn new(number: i32, class: u8, state: u8, text: impl Into<String>) -> Self {
        Self {
            number,
            state,
            class,
            text: text.into(),
            procedure: String::new(),
            line: 1,
        }
    }

    /// An error of class 16, state 1.
    pub(crate) fn error(number: i32, text: impl Into<String>) -> Self {
        Self::new(number, 16, 1, text)
    }

    pub(crate) fn is_error(&self) -> bool {
        self.class > INFO_CLASS_MAX
    }

    /// Appends ERROR or INFO.
    pub(crate) fn put(&self, tokens: &mut TokenBuf, server: &str) {
        let text = ServerText {
            number: self.number,
            state: self.state,
            class: self.class,
            text: &self.text,
            server,
            procedure: &self.procedure,
            line: self.line,
        };
        if self.is_error() {
            tokens.error(&text)
        } else {
            tokens.info(&text)
        };
    }
}

/// The acknowledgement of an ATTENTION: a message of its own [MS-TDS 2.2.1.7].
pub(crate) fn attention_ack(version: TdsVersion) -> BytesMut {
    let mut tokens = TokenBuf::new(version);
    tokens.done_of(DoneKind::Done, status::ATTENTION, command::NONE, 0);
    tokens.take()
}
