//! What a request is to the gate: an ordinary one, an exempt one, or a question to the gate itself.

use bytes::Bytes;
use weir_tds::{
    error::WireError,
    packet::PacketType,
    request::{
        RequestOptions,
        all_headers::AllHeaders,
        bulk_load::BulkKind,
        rpc::{Call, ProcId, RpcReader},
        sql_batch::{self, SqlBatch},
        transaction::TransactionRequest,
    },
    version::TdsVersion,
};

use super::{
    command::Command,
    exempt::all_exempt,
    glance::may_concern_gate,
    lexer::{Lexeme, lex},
};

/// Names under which drivers pass the statement of `sp_executesql`: mostly none.
const STATEMENT_NAMES: &[&str] = &["", "@stmt", "@statement"];

/// How clients of before TDS 7.1 reset a pooled connection; it does what the reset bit does.
const RESET_PROCEDURE: &str = "sp_reset_connection";

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

/// A verdict, and what a bulk load that may follow belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// What the gate makes of the request.
    pub verdict: Verdict,
    /// What the next bulk message belongs to.
    pub next_bulk: BulkKind,
}

/// Judges a whole request body.
#[must_use]
pub fn judge(kind: PacketType, body: &[u8], version: TdsVersion) -> Judged {
    let options = RequestOptions::new(version);
    let mut next_bulk = BulkKind::Rows;
    let verdict = match kind {
        PacketType::SqlBatch => match SqlBatch::parse(body, options) {
            Ok(batch) if !may_concern_gate(units(batch.text)) => Verdict::Normal,
            Ok(batch) => match lex(&batch.text()) {
                Some(lexemes) => {
                    next_bulk = bulk_after(&lexemes);
                    judge_lexemes(&lexemes)
                }
                None => Verdict::Normal,
            },
            Err(error) => Verdict::Malformed(error.to_string()),
        },
        PacketType::Rpc => judge_rpc(body, options),
        PacketType::TransactionManager => judge_transaction(body, version),
        _ => Verdict::Normal,
    };
    Judged { verdict, next_bulk }
}

/// What the bulk message behind a batch belongs to. A value only if the batch is one WRITETEXT BULK or UPDATETEXT BULK
/// and nothing that could begin a bulk load of rows: rows that were taken for a value would not be counted.
fn bulk_after(lexemes: &[Lexeme<'_>]) -> BulkKind {
    let starts = |words: &[&str]| lexemes.first().is_some_and(|l| words.iter().any(|w| l.is(w)));
    let begins_rows = |l: &Lexeme<'_>| {
        ["INSERT", "EXEC", "EXECUTE", "IF", "WHILE"]
            .iter()
            .any(|w| l.is(w))
    };
    let bulk = lexemes.get(1).is_some_and(|l| l.is("BULK"));
    if starts(&["WRITETEXT", "UPDATETEXT"]) && bulk && !lexemes.iter().any(begins_rows) {
        BulkKind::Text
    } else {
        BulkKind::Rows
    }
}

/// UTF-16LE code units.
fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u16::from_le_bytes(*pair))
}

fn judge_text(text: &str) -> Verdict {
    if !may_concern_gate(text.encode_utf16()) {
        return Verdict::Normal;
    }
    lex(text).map_or(Verdict::Normal, |lexemes| judge_lexemes(&lexemes))
}

fn judge_lexemes(lexemes: &[Lexeme<'_>]) -> Verdict {
    if let Some(command) = Command::of_batch(lexemes) {
        return Verdict::Command(command);
    }
    if all_exempt(lexemes) {
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
    let name = call.procedure.name();
    if let Some(command) = Command::of_rpc_name(&name) {
        return Ok(Verdict::Command(command));
    }
    if name.eq_ignore_ascii_case(RESET_PROCEDURE) {
        return Ok(Verdict::Exempt);
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

/// An empty batch under the headers of another request: carries its reset bit [MS-TDS 2.2.3.1.2] upstream.
#[must_use]
pub fn empty_batch(body: &[u8], version: TdsVersion) -> Bytes {
    let options = RequestOptions::new(version);
    let transaction = AllHeaders::parse(body, version)
        .map(|h| h.transaction)
        .unwrap_or_default();
    sql_batch::encode("", transaction, options).into()
}
