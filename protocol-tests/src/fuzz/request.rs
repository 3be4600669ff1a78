//! Requests: batch, RPC with TVPs, transaction manager, bulk load, FEDAUTH token; whole against pieces, and bulk rows
//! against the naive decoder.

use weir_tds::error::WireError;
use weir_tds::request::RequestOptions;
use weir_tds::request::all_headers::AllHeaders;
use weir_tds::request::bulk_load::{BulkKind, BulkWalker};
use weir_tds::request::fed_auth::FedAuthToken;
use weir_tds::request::rpc::RpcReader;
use weir_tds::request::rpc_walk::RpcWalker;
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::request::transaction::TransactionRequest;
use weir_tds::walker::WalkerOptions;

use super::oracle;
use super::source::Source;
use crate::naive_decoder::decode_bulk;

/// Bytes that each byte of a request may cost: the head of a request is read with its parameters, a bulk load's columns
/// as in [`super::walker`].
const BYTES_PER_BYTE: usize = 32;

/// What the third byte chooses.
pub(super) const BATCH: u8 = 0;
/// As above.
pub(super) const RPC: u8 = 1;
/// As above.
pub(super) const TRANSACTION: u8 = 2;
/// As above.
pub(super) const BULK: u8 = 3;
/// As above.
pub(super) const BULK_TEXT: u8 = 4;
/// As above.
pub(super) const FED_AUTH: u8 = 5;

/// First two bytes: options (bit 7 of the second: enclaves); third: which; the rest: the body of a message.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let enclave = input.get(1).is_some_and(|b| b & 0x80 != 0);
    let walker_options = source.options();
    let options = RequestOptions {
        version: walker_options.version,
        enclave,
    };
    let which = source.byte() % 6;
    let body = source.rest();
    let limit = oracle::FREE_BYTES + BYTES_PER_BYTE * body.len();
    match which {
        BATCH => oracle::bounded(limit, body.len(), || {
            if let Ok(batch) = SqlBatch::parse(body, options) {
                let _ = batch.text();
            }
        }),
        RPC => rpc(body, options, limit),
        TRANSACTION => oracle::bounded(limit, body.len(), || {
            if let Ok(headers) = AllHeaders::parse(body, options.version)
                && let Ok(request) = TransactionRequest::parse(body, &headers)
            {
                let _ = request.ends_transaction();
            }
        }),
        BULK => bulk(body, walker_options, BulkKind::Rows, limit),
        BULK_TEXT => bulk(body, walker_options, BulkKind::Text, limit),
        _ => oracle::bounded(limit, body.len(), || drop(FedAuthToken::parse(body))),
    }
}

/// What the reader of whole messages accepts, the walker accepts too, with as many calls; the walker says the same at any
/// split and clears the same bytes.
fn rpc(body: &[u8], options: RequestOptions, limit: usize) {
    let read = oracle::bounded(limit, body.len(), || read_calls(body, options));
    let walk = |pieces: &mut dyn Iterator<Item = &mut [u8]>| {
        let mut walker = RpcWalker::new(options);
        let end = pieces
            .map(|piece| walker.walk(piece))
            .find(Result::is_err)
            .unwrap_or(Ok(()))
            .and_then(|()| walker.end_message());
        (end, walker.calls(), walker.cleared())
    };
    let mut whole_body = body.to_vec();
    let whole = oracle::bounded(limit, body.len(), || {
        walk(&mut std::iter::once(&mut whole_body[..]))
    });
    let mut pieced_body = body.to_vec();
    let mut rest = &mut pieced_body[..];
    let mut pieces = Vec::new();
    for piece in oracle::pieces(body) {
        let (head, tail) = rest.split_at_mut(piece.len());
        pieces.push(head);
        rest = tail;
    }
    let pieced = walk(&mut pieces.into_iter());
    assert_eq!(pieced.0, whole.0, "cut at {:?}", oracle::cuts(body));
    if whole.0.is_ok() {
        assert_eq!(pieced, whole, "cut at {:?}", oracle::cuts(body));
        assert_eq!(
            pieced_body,
            whole_body,
            "flags cleared, cut at {:?}",
            oracle::cuts(body)
        );
    }
    if let Ok(calls) = read {
        assert_eq!(
            (&whole.0, whole.1),
            (&Ok(()), calls),
            "one reader accepts, the other does not"
        );
    }
}

fn read_calls(body: &[u8], options: RequestOptions) -> Result<u32, WireError> {
    let mut reader = RpcReader::new(body, options)?;
    let mut calls = 0;
    while let Some(call) = reader.next_call()? {
        let _ = (call.procedure.id(), call.procedure.name());
        while let Some(parameter) = reader.next_parameter()? {
            let _ = (parameter.name(), parameter.text(), parameter.integer());
        }
        calls += 1;
    }
    Ok(calls)
}

/// The same rows at any split, and those that the naive decoder sees.
fn bulk(body: &[u8], options: WalkerOptions, kind: BulkKind, limit: usize) {
    let walk = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut walker = BulkWalker::new(options, kind);
        let end = pieces
            .map(|piece| walker.walk(piece))
            .find(Result::is_err)
            .unwrap_or(Ok(()))
            .and_then(|()| walker.end_message());
        (end, walker.rows())
    };
    let whole = oracle::bounded(limit, body.len(), || walk(&mut std::iter::once(body)));
    let pieced = walk(&mut oracle::pieces(body));
    assert_eq!(pieced, whole, "cut at {:?}", oracle::cuts(body));
    if kind == BulkKind::Rows && whole.0.is_ok() {
        let (mut tokens, mut error) = decode_bulk(body, options);
        if error.is_some() {
            // A last DONE whose count has 4 bytes is taken, too: with the other 4 it must be one that can be read.
            (tokens, error) = decode_bulk(&[body, &[0; 4]].concat(), options);
        }
        assert_eq!(error, None, "the naive decoder cannot read what was accepted");
        assert_eq!(oracle::rows(&tokens), whole.1, "rows counted, and rows there");
    }
}
