//! What a request is to the gate: an ordinary one, an exempt one, or a question to the gate itself.

use bytes::Bytes;
use weir_tds::{
    error::WireError,
    packet::PacketType,
    request::{
        RequestOptions,
        all_headers::AllHeaders,
        rpc::{Call, ProcId, RpcReader},
        sql_batch::{self, SqlBatch},
        transaction::TransactionRequest,
    },
    version::TdsVersion,
};

use super::{command::Command, exempt::all_exempt, lexer::lex};

/// Names under which drivers pass the statement of `sp_executesql`: mostly none.
const STATEMENT_NAMES: &[&str] = &["", "@stmt", "@statement"];

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
    if all_exempt(&lexemes) {
        Verdict::Exempt
    } else {
        Verdict::Normal
    }
}

fn judge_transaction(body: &[u8], version: TdsVersion) -> Verdict {
    let parsed =
        AllHeaders::parse(body, version).and_then(|headers| TransactionRequest::parse(body, &headers));
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
    match judge_calls(body, options) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Malformed(error.to_string()),
    }
}

/// One call is what it is; several are exempt only together, and never a command.
fn judge_calls(body: &[u8], options: RequestOptions) -> Result<Verdict, WireError> {
    let mut reader = RpcReader::new(body, options)?;
    let mut verdict = None;
    while let Some(call) = reader.next_call()? {
        let this = judge_call(&call, &mut reader)?;
        verdict = match verdict {
            None => Some(this),
            Some(Verdict::Exempt) if this == Verdict::Exempt => Some(Verdict::Exempt),
            Some(_) => Some(Verdict::Normal),
        };
    }
    Ok(verdict.unwrap_or(Verdict::Normal))
}

fn judge_call(call: &Call<'_>, reader: &mut RpcReader<'_>) -> Result<Verdict, WireError> {
    if let Some(command) = Command::of_rpc_name(&call.procedure.name()) {
        return Ok(Verdict::Command(command));
    }
    Ok(match call.procedure.id() {
        Some(id) if id.gives_back() => Verdict::Exempt,
        // Its statement is judged like a batch.
        Some(ProcId::ExecuteSql) => match reader.next_parameter()? {
            // A first parameter that is named otherwise may not be the statement that the server runs.
            Some(first)
                if STATEMENT_NAMES
                    .iter()
                    .any(|n| first.name().eq_ignore_ascii_case(n)) =>
            {
                first.text().map_or(Verdict::Normal, |text| judge_text(&text))
            }
            _ => Verdict::Normal,
        },
        _ => Verdict::Normal,
    })
}

/// An empty batch under the headers of another request: carries its reset bit upstream (facts 10.6).
#[must_use]
pub fn empty_batch(body: &[u8], version: TdsVersion) -> Bytes {
    let options = RequestOptions::new(version);
    let transaction = AllHeaders::parse(body, version)
        .map(|h| h.transaction)
        .unwrap_or_default();
    sql_batch::encode("", transaction, options).into()
}
