//! What a request is to the gate: an ordinary one, an exempt one, or a question to the gate itself.

use bytes::Bytes;
use weir_tds::{
    packet::PacketType,
    request::{
        RequestOptions,
        all_headers::AllHeaders,
        rpc::{Call, ProcId, Procedure, Rpc},
        sql_batch::{self, SqlBatch},
        transaction::TransactionRequest,
    },
    version::TdsVersion,
};

use super::{
    command::Command,
    exempt::all_exempt,
    lexer::lex,
};

/// What the gate makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Needs credit.
    Normal,
    /// Passes without credit.
    Exempt,
    /// Answered by the gate.
    Command(Command),
    /// Cannot be read; the text says where and why.
    Malformed(String),
}

/// Procedures whose calls only give back.
const RETURNING: &[&str] = &["sp_unprepare", "sp_cursorunprepare", "sp_cursorclose", "sp_reset_connection"];

/// Judges a whole request body.
#[must_use]
pub fn judge(kind: PacketType, body: &[u8], version: TdsVersion) -> Verdict {
    let options = RequestOptions::new(version);
    match kind {
        PacketType::SqlBatch => match SqlBatch::parse(body, options) {
            Ok(batch) => judge_text(&batch.text()),
            Err(error) => Verdict::Malformed(error.to_string()),
        },
        PacketType::Rpc => judge_rpc(body, options),
        PacketType::TransactionManager => judge_transaction(body, version),
        _ => Verdict::Normal,
    }
}

fn judge_text(text: &str) -> Verdict {
    let Some(lexemes) = lex(text) else {
        return Verdict::Normal;
    };
    if let Some(command) = Command::of_batch(&lexemes) {
        return Verdict::Command(command);
    }
    if all_exempt(&lexemes) { Verdict::Exempt } else { Verdict::Normal }
}

fn judge_transaction(body: &[u8], version: TdsVersion) -> Verdict {
    let parsed = AllHeaders::parse(body, version).and_then(|headers| TransactionRequest::parse(body, &headers));
    match parsed {
        Ok(
            TransactionRequest::Begin(_)
            | TransactionRequest::Commit { .. }
            | TransactionRequest::Rollback { .. }
            | TransactionRequest::Save { .. },
        ) => Verdict::Exempt,
        Ok(_) => Verdict::Normal,
        Err(error) => Verdict::Malformed(error.to_string()),
    }
}

fn judge_rpc(body: &[u8], options: RequestOptions) -> Verdict {
    let rpc = match Rpc::parse(body, options) {
        Ok(rpc) => rpc,
        Err(error) => return Verdict::Malformed(error.to_string()),
    };
    let mut verdicts = Vec::new();
    for call in rpc.calls() {
        match call {
            Ok(call) => verdicts.push(judge_call(&call)),
            Err(error) => return Verdict::Malformed(error.to_string()),
        }
    }
    match verdicts.as_slice() {
        [one] => one.clone(),
        [] => Verdict::Normal,
        many if many.iter().all(|v| *v == Verdict::Exempt) => Verdict::Exempt,
        _ => Verdict::Normal,
    }
}

fn judge_call(call: &Call<'_>) -> Verdict {
    match &call.procedure {
        Procedure::Id(ProcId::UNPREPARE | ProcId::CURSOR_UNPREPARE | ProcId::CURSOR_CLOSE) => Verdict::Exempt,
        Procedure::Id(ProcId::EXECUTE_SQL) => judge_statement(call),
        Procedure::Id(_) => Verdict::Normal,
        Procedure::Name(name) => {
            let bare = name.strip_prefix("sys.").unwrap_or(name);
            if let Some(command) = Command::of_rpc_name(name) {
                Verdict::Command(command)
            } else if RETURNING.iter().any(|r| r.eq_ignore_ascii_case(bare)) {
                Verdict::Exempt
            } else if bare.eq_ignore_ascii_case("sp_executesql") {
                judge_statement(call)
            } else {
                Verdict::Normal
            }
        }
    }
}

/// The statement of an `sp_executesql` call is judged like a batch.
fn judge_statement(call: &Call<'_>) -> Verdict {
    match call.parameters.first().and_then(|p| p.text()) {
        Some(text) => judge_text(&text),
        None => Verdict::Normal,
    }
}

/// An empty batch under the headers of another request: carries its reset bit upstream (facts 10.6).
#[must_use]
pub fn empty_batch(body: &[u8], version: TdsVersion) -> Bytes {
    let options = RequestOptions::new(version);
    let transaction = AllHeaders::parse(body, version).map(|h| h.transaction).unwrap_or_default();
    sql_batch::encode("", transaction, options).into()
}
