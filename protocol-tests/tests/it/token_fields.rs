//! The fields of the small tokens, against what a vector expects.

use serde_json::Value;
use weir_protocol_tests::trace::Found;
use weir_protocol_tests::vectors::unhex;
use weir_tds::token::{
    ColMetadata, Done, EnvChange, FeatureExtAck, FedAuthInfo, LoginAck, ReturnStatus, ReturnValue,
    ServerMessage, SessionState, TokenKind,
};
use weir_tds::walker::WalkerOptions;

/// Parses a token and compares it field by field.
pub(crate) fn check(name: &str, found: &Found, expected: &Value, options: &WalkerOptions) {
    let bytes = found.bytes.as_slice();
    match found.kind {
        TokenKind::Done | TokenKind::DoneProc | TokenKind::DoneInProc => {
            let done = Done::parse(bytes, options.version).expect(name);
            assert_eq!(u64::from(done.status.0), number(expected, "status"), "{name}");
            assert_eq!(u64::from(done.cur_cmd), number(expected, "cur_cmd"), "{name}");
            assert_eq!(done.row_count, number(expected, "row_count"), "{name}");
        }
        TokenKind::Error | TokenKind::Info => {
            let said = ServerMessage::parse(bytes, options.version).expect(name);
            assert_eq!(
                Some(i64::from(said.number)),
                expected["number"].as_i64(),
                "{name}"
            );
            assert_eq!(u64::from(said.state), number(expected, "state"), "{name}");
            assert_eq!(u64::from(said.class), number(expected, "class"), "{name}");
            assert_eq!(said.message, text(expected, "message"), "{name}");
            assert_eq!(said.server, text(expected, "server"), "{name}");
            assert_eq!(said.procedure, text(expected, "proc"), "{name}");
            assert_eq!(u64::from(said.line), number(expected, "line"), "{name}");
        }
        TokenKind::EnvChange => env_change(name, bytes, expected),
        TokenKind::LoginAck => {
            let ack = LoginAck::parse(bytes).expect(name);
            assert_eq!(u64::from(ack.interface), number(expected, "interface"), "{name}");
            assert_eq!(
                format!("0x{:08x}", ack.raw_version),
                text(expected, "tds_version"),
                "{name}"
            );
            assert_eq!(
                ack.program,
                text(expected, "prog_name").trim_end_matches('\0'),
                "{name}"
            );
            assert!(ack.version.is_some(), "{name}: {:08x}", ack.raw_version);
        }
        TokenKind::FeatureExtAck => {
            let ack = FeatureExtAck::parse(bytes).expect(name);
            let features: Vec<_> = ack
                .features
                .iter()
                .map(|f| (u64::from(f.id), f.data.to_vec()))
                .collect();
            let list = expected["features"].as_array().expect(name);
            let wanted: Vec<_> = list
                .iter()
                .map(|f| (number(f, "feature_id"), unhex(text(f, "data"))))
                .collect();
            assert_eq!(features, wanted, "{name}");
        }
        TokenKind::ReturnStatus => {
            let status = ReturnStatus::parse(bytes).expect(name);
            assert_eq!(Some(i64::from(status.0)), expected["value"].as_i64(), "{name}");
        }
        TokenKind::ReturnValue => {
            let value = ReturnValue::parse(bytes, options).expect(name);
            assert_eq!(u64::from(value.ordinal), number(expected, "ordinal"), "{name}");
            assert_eq!(value.name, text(expected, "name"), "{name}");
            assert_eq!(u64::from(value.status), number(expected, "status"), "{name}");
            let data_type = u64::from(value.type_info.data_type.byte());
            assert_eq!(data_type, number(&expected["type_info"], "type"), "{name}");
        }
        TokenKind::SessionState => session_state(name, bytes, expected),
        TokenKind::FedAuthInfo => fed_auth_info(name, bytes, expected),
        TokenKind::ColMetadata => col_metadata(name, bytes, expected, options),
        _ => {}
    }
}

fn number(json: &Value, field: &str) -> u64 {
    json[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {field} in {json}"))
}

fn text<'a>(json: &'a Value, field: &str) -> &'a str {
    json[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field} in {json}"))
}

fn env_change(name: &str, bytes: &[u8], expected: &Value) {
    let change = EnvChange::parse(bytes).expect(name);
    assert_eq!(u64::from(change.kind), number(expected, "type"), "{name}");
    match change.kind {
        1..=6 | 13 | 19 => {
            assert_eq!(change.new_text(), text(expected, "new"), "{name}");
            assert_eq!(change.old_text(), text(expected, "old"), "{name}");
        }
        7..=12 | 15..=18 => {
            assert_eq!(change.new, unhex(text(expected, "new")), "{name}");
            assert_eq!(change.old, unhex(text(expected, "old")), "{name}");
        }
        20 | 21 => {
            let routing = change.routing().expect(name);
            assert_eq!(
                u64::from(routing.protocol),
                number(expected, "protocol"),
                "{name}"
            );
            assert_eq!(u64::from(routing.port), number(expected, "port"), "{name}");
            assert_eq!(routing.server, text(expected, "server"), "{name}");
            assert_eq!(
                routing.database.as_deref(),
                expected["database"].as_str(),
                "{name}"
            );
        }
        _ => {}
    }
}

fn session_state(name: &str, bytes: &[u8], expected: &Value) {
    let state = SessionState::parse(bytes).expect(name);
    assert_eq!(u64::from(state.sequence), number(expected, "seq_no"), "{name}");
    assert_eq!(
        u64::from(state.recoverable),
        number(expected, "recoverable"),
        "{name}"
    );
    let list = expected["states"].as_array().expect(name);
    let wanted: Vec<_> = list
        .iter()
        .map(|s| (number(s, "state_id"), unhex(text(s, "value"))))
        .collect();
    let values: Vec<_> = state
        .values
        .iter()
        .map(|(id, value)| (u64::from(*id), value.to_vec()))
        .collect();
    assert_eq!(values, wanted, "{name}");
}

fn fed_auth_info(name: &str, bytes: &[u8], expected: &Value) {
    let info = FedAuthInfo::parse(bytes).expect(name);
    for option in expected["options"].as_array().expect(name) {
        let found = match number(option, "id") {
            1 => &info.sts_url,
            2 => &info.spn,
            _ => continue,
        };
        assert_eq!(found.as_deref(), Some(text(option, "value")), "{name}");
    }
}

fn col_metadata(name: &str, bytes: &[u8], expected: &Value, options: &WalkerOptions) {
    let metadata = ColMetadata::parse(bytes, options).expect(name);
    assert_eq!(
        metadata.no_metadata,
        expected["no_metadata"].as_bool().unwrap_or(false),
        "{name}"
    );
    let Some(columns) = expected["columns"].as_array() else {
        return;
    };
    assert_eq!(metadata.columns.len(), columns.len(), "{name}");
    for (column, wanted) in metadata.columns.iter().zip(columns) {
        assert_eq!(column.name(), text(wanted, "col_name"), "{name}");
        assert_eq!(u64::from(column.user_type), number(wanted, "user_type"), "{name}");
        assert_eq!(u64::from(column.flags), number(&wanted["flags"], "raw"), "{name}");
        let data_type = u64::from(column.type_info.data_type.byte());
        assert_eq!(data_type, number(&wanted["type_info"], "type"), "{name}");
    }
}
