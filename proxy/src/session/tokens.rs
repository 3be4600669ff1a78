//! The gate's own answers as token bytes: `weir_tds::answer` with this session's version and names.

use bytes::Bytes;
use weir_contracts::entry::RequestKind;
use weir_tds::{
    answer::{self, Refusal, ResultSet, Stage},
    build::TokenBuf,
    version::TdsVersion,
};

use crate::gate::refusal::{CLASS, CLASS_FATAL, CLASS_SECURITY, LOGIN_FAILED, Refused};

fn kind_of(kind: RequestKind) -> answer::RequestKind {
    match kind {
        RequestKind::Batch => answer::RequestKind::Batch,
        RequestKind::Rpc => answer::RequestKind::Rpc,
        RequestKind::BulkLoad => answer::RequestKind::Bulk,
        RequestKind::TransactionManager => answer::RequestKind::Transaction,
    }
}

fn refusal_of<'a>(refused: &'a Refused, class: u8, server_name: &'a str) -> Refusal<'a> {
    let number = i32::try_from(refused.number).unwrap_or(i32::MAX);
    Refusal {
        number,
        state: refused.state,
        class,
        message: &refused.message,
        server_name,
    }
}

fn tokens(version: TdsVersion, write: impl FnOnce(&mut TokenBuf)) -> Bytes {
    let mut out = TokenBuf::new(version);
    write(&mut out);
    out.take().freeze()
}

/// ERROR and the right DONE for a request that was not passed on.
pub(super) fn refusal(version: TdsVersion, kind: RequestKind, refused: &Refused, server: &str) -> Bytes {
    let refusal = refusal_of(refused, CLASS, server);
    tokens(version, |out| {
        answer::refuse(out, &refusal, kind_of(kind), Stage::NotStarted)
    })
}

/// ERROR and the right DONE behind a response that was cut.
pub(super) fn cut(version: TdsVersion, kind: RequestKind, refused: &Refused, server: &str) -> Bytes {
    let refusal = refusal_of(refused, CLASS, server);
    tokens(version, |out| {
        answer::refuse(out, &refusal, kind_of(kind), Stage::Cut)
    })
}

/// The same with class 20: the connection ends behind it.
pub(super) fn fatal(version: TdsVersion, kind: RequestKind, refused: &Refused, server: &str) -> Bytes {
    let refusal = refusal_of(refused, CLASS_FATAL, server);
    tokens(version, |out| {
        answer::refuse(out, &refusal, kind_of(kind), Stage::Cut)
    })
}

/// Login denial: ERROR and DONE(ERROR); the connection is closed behind it.
pub(super) fn login_denial(version: TdsVersion, refused: &Refused, server: &str) -> Bytes {
    let class = if refused.number == LOGIN_FAILED {
        CLASS_SECURITY
    } else {
        CLASS
    };
    let refusal = refusal_of(refused, class, server);
    tokens(version, |out| answer::deny_login(out, &refusal))
}

/// What a server says to a request that was cancelled: no ERROR token (vector real-sql2025-attention-active-response).
pub(super) fn cancelled(version: TdsVersion) -> Bytes {
    tokens(version, answer::acknowledge_ignored)
}

/// The acknowledgement of an ATTENTION: a message of its own.
pub(super) fn attention_ack(version: TdsVersion) -> Bytes {
    tokens(version, answer::acknowledge_attention)
}

/// A result set of text columns, in the form that a request of this kind expects.
pub(super) fn table(
    version: TdsVersion,
    kind: RequestKind,
    columns: &[&str],
    rows: Vec<Vec<Option<String>>>,
) -> Bytes {
    tokens(version, |out| {
        let built = answer::result_set(out, &ResultSet { columns, rows }, kind_of(kind));
        debug_assert!(built.is_ok(), "every row has as many cells as there are columns");
    })
}
