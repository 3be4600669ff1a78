//! The response as statements write it: the DONE of one is held back until it is known whether another follows.

use weir_tds::build::{DoneKind, TokenBuf};
use weir_tds::version::TdsVersion;

use crate::conn::reply::{Reply, Stopped};
use crate::tokens::{Message, command, status};

/// Token bytes gathered before they are cut into packets.
const GATHER: usize = 16 * 1024;

#[derive(Debug, Clone, Copy)]
struct Done {
    kind: DoneKind,
    status: u16,
    command: u16,
    rows: u64,
}

/// The response to one request.
pub(crate) struct Answer<'r> {
    reply: &'r mut Reply,
    tokens: TokenBuf,
    pending: Option<Done>,
    server: &'r str,
    /// Calls entered: above 0, statements end with DONEINPROC.
    depth: u32,
}

impl<'r> Answer<'r> {
    pub(crate) fn new(reply: &'r mut Reply, version: TdsVersion, server: &'r str) -> Self {
        reply.begin();
        Self {
            reply,
            tokens: TokenBuf::with_capacity(version, GATHER * 2),
            pending: None,
            server,
            depth: 0,
        }
    }

    pub(crate) fn reply(&mut self) -> &mut Reply {
        self.reply
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.reply.cancel().is_cancelled()
    }

    pub(crate) fn version(&self) -> TdsVersion {
        self.tokens.version()
    }

    /// Where to write the next token.
    pub(crate) fn tokens(&mut self) -> &mut TokenBuf {
        if let Some(done) = self.pending.take() {
            self.tokens
                .done_of(done.kind, done.status | status::MORE, done.command, done.rows);
        }
        &mut self.tokens
    }

    /// After each row: hands on what has gathered, stops on ATTENTION.
    pub(crate) fn row_written(&mut self) -> Result<(), Stopped> {
        if self.tokens.len() >= GATHER {
            self.reply.stream(&mut self.tokens)
        } else {
            Ok(())
        }
    }

    /// A message, ERROR or INFO by its class.
    pub(crate) fn message(&mut self, message: &Message) {
        let server = self.server;
        message.put(self.tokens(), server);
    }

    /// The end of a statement.
    pub(crate) fn done(&mut self, status: u16, command: u16, rows: u64) {
        let kind = if self.depth > 0 {
            DoneKind::InProc
        } else {
            DoneKind::Done
        };
        self.done_as(kind, status, command, rows);
    }

    /// The end of a procedure, behind its status.
    pub(crate) fn done_proc(&mut self, status: u16) {
        self.done_as(DoneKind::Proc, status, command::EXECUTE, 0);
    }

    fn done_as(&mut self, kind: DoneKind, status: u16, command: u16, rows: u64) {
        self.tokens();
        self.pending = Some(Done {
            kind,
            status,
            command,
            rows,
        });
    }

    pub(crate) fn enter(&mut self) {
        self.depth += 1;
    }

    pub(crate) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Ends the message: a DONE-family token is last, always.
    pub(crate) fn finish(mut self) -> Result<(), Stopped> {
        let last = Done {
            kind: DoneKind::Done,
            status: status::FINAL,
            command: command::NONE,
            rows: 0,
        };
        let done = self.pending.take().unwrap_or(last);
        self.tokens
            .done_of(done.kind, done.status & !status::MORE, done.command, done.rows);
        self.reply.push(&mut self.tokens)?;
        self.reply.finish()
    }

    /// Ends the message of a cancelled request: DONE(ERROR) without an ERROR token, as SQL Server does (vector
    /// real-sql2025-attention-active-response).
    pub(crate) fn finish_cancelled(mut self) -> Result<(), Stopped> {
        self.pending = None;
        self.tokens.done(status::ERROR, command::NONE, 0);
        self.reply.push(&mut self.tokens)?;
        self.reply.finish()
    }
}
