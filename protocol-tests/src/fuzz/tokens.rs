//! The parsers of single tokens, each on bytes that the walker need not have framed.

use weir_tds::col_metadata::Origin;
use weir_tds::token::{
    AltMetadata, ColMetadata, Done, EnvChange, FeatureExtAck, FedAuthInfo, LoginAck, ReturnStatus,
    ReturnValue, ServerMessage, SessionState, TokenKind,
};

use super::oracle;
use super::source::Source;

/// Bytes that each byte of a token may cost: what [`super::walker`] says of columns.
const BYTES_PER_BYTE: usize = 32;

/// First two bytes: options; third: bit 0 = metadata of a bulk load; the rest: a token from its token byte on.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let options = source.options();
    let origin = if source.byte() & 1 == 1 {
        Origin::BulkLoad
    } else {
        Origin::Server
    };
    let token = source.rest();
    let Some(kind) = token.first().and_then(|byte| TokenKind::from_byte(*byte)) else {
        return;
    };
    let limit = oracle::FREE_BYTES + BYTES_PER_BYTE * token.len();
    oracle::bounded(limit, token.len(), || match kind {
        TokenKind::ColMetadata => {
            if let Ok(metadata) = ColMetadata::parse_from(token, &options, origin) {
                assert!(
                    metadata.columns.len() * 8 <= token.len() + 8,
                    "columns out of nothing"
                );
                metadata.columns.iter().for_each(|column| drop(column.name()));
            }
        }
        TokenKind::AltMetadata => drop(AltMetadata::parse(token, &options)),
        TokenKind::Done | TokenKind::DoneProc | TokenKind::DoneInProc => {
            if let Ok(done) = Done::parse(token, options.version) {
                let _ = (done.is_final(), done.count());
            }
        }
        TokenKind::EnvChange => {
            if let Ok(change) = EnvChange::parse(token) {
                let _ = (change.new_text(), change.old_text(), change.packet_size());
                let _ = (change.transaction(), change.routing());
            }
        }
        TokenKind::FeatureExtAck => {
            if let Ok(ack) = FeatureExtAck::parse(token) {
                let _ = (ack.column_encryption(), ack.data_classification());
                assert!(ack.features.iter().all(|f| ack.get(f.id).is_some()));
            }
        }
        TokenKind::FedAuthInfo => drop(FedAuthInfo::parse(token)),
        TokenKind::LoginAck => drop(LoginAck::parse(token)),
        TokenKind::ReturnStatus => drop(ReturnStatus::parse(token)),
        TokenKind::ReturnValue => drop(ReturnValue::parse(token, &options)),
        TokenKind::Error | TokenKind::Info => drop(ServerMessage::parse(token, options.version)),
        TokenKind::SessionState => drop(SessionState::parse(token)),
        _ => {}
    });
}
