//! Every vector of the client's side (and PRELOGIN of both) through its parser, against what the vector says is in it.

use serde_json::Value as Json;
use weir_protocol_tests::vectors::{Vector, unhex};
use weir_tds::login7::Login7;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::prelogin::{Field, Prelogin};
use weir_tds::request::RequestOptions;
use weir_tds::request::all_headers::AllHeaders;
use weir_tds::request::bulk_load::{BulkKind, BulkWalker};
use weir_tds::request::fed_auth::FedAuthToken;
use weir_tds::request::parameter::{Parameter, ParameterValue, value_bytes};
use weir_tds::request::rpc::{Procedure, RpcReader, Separator};
use weir_tds::request::rpc_walk::RpcWalker;
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::request::transaction::TransactionRequest;
use weir_tds::walker::WalkerOptions;

use crate::messages::{Message, client_messages};

/// The decoded body in the vector.
pub(crate) fn expected(vector: &Vector) -> Json {
    match vector.expected.get("messages") {
        Some(messages) => messages[0]["body"].clone(),
        None => vector.expected.clone(),
    }
}

fn each(kind: PacketType, least: usize, mut check: impl FnMut(&Vector, &Message, &Json)) {
    let mut seen = 0;
    for (vector, message) in client_messages() {
        if message.kind == kind {
            check(&vector, &message, &expected(&vector));
            seen += 1;
        }
    }
    assert!(seen >= least, "only {seen} vectors of {kind:?}");
}

#[test]
fn prelogin() {
    each(PacketType::Prelogin, 9, |vector, message, expected| {
        let name = &vector.name;
        if name == "client-prelogin-tls-clienthello-wrapped" {
            assert!(
                Prelogin::parse(&message.body).is_err(),
                "{name}: TLS in a PRELOGIN packet is no PRELOGIN"
            );
            return;
        }
        let prelogin = Prelogin::parse(&message.body).unwrap_or_else(|e| panic!("{name}: {e}"));
        for option in expected["options"].as_array().unwrap() {
            let data = unhex(option["data"].as_str().unwrap());
            let found = match option["token"].as_u64().unwrap() {
                0 => Some(prelogin.version.to_vec()),
                1 => prelogin.encryption.map(|e| vec![e.byte()]),
                2 => prelogin.instance.clone(),
                3 => field(prelogin.thread_id, |id| id.to_le_bytes().to_vec()),
                4 => prelogin.mars.map(|m| vec![u8::from(m)]),
                5 => field(prelogin.trace_id, |id| id.to_vec()),
                6 => prelogin.fed_auth_required.map(|f| vec![f]),
                7 => prelogin.nonce.map(|n| n.to_vec()),
                _ => continue,
            };
            assert_eq!(found, Some(data), "{name}: option {}", option["token"]);
        }
        assert_eq!(Prelogin::parse(&prelogin.encode()), Ok(prelogin), "{name}");
    });
}

fn field<T>(field: Field<T>, bytes: impl FnOnce(T) -> Vec<u8>) -> Option<Vec<u8>> {
    match field {
        Field::Absent => None,
        Field::Empty => Some(Vec::new()),
        Field::Value(value) => Some(bytes(value)),
    }
}

#[test]
fn login7() {
    each(PacketType::Login7, 14, |vector, message, expected| {
        let name = &vector.name;
        let login = Login7::parse(&message.body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let text = |key: &str| expected[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            format!("{:#010x}", login.tds_version),
            text("tds_version"),
            "{name}"
        );
        assert_eq!(
            Some(u64::from(login.packet_size)),
            expected["packet_size"].as_u64(),
            "{name}"
        );
        assert_eq!(
            Some(u64::from(login.client_pid)),
            expected["client_pid"].as_u64(),
            "{name}"
        );
        for (flags, key) in [
            (login.option_flags1, "option_flags1"),
            (login.option_flags2, "option_flags2"),
            (login.type_flags, "type_flags"),
            (login.option_flags3, "option_flags3"),
        ] {
            assert_eq!(Some(u64::from(flags)), expected[key].as_u64(), "{name}: {key}");
        }
        assert_eq!(
            Some(i64::from(login.client_time_zone)),
            expected["client_time_zone"].as_i64(),
            "{name}"
        );
        for (found, key) in [
            (&login.host_name, "host_name"),
            (&login.user_name, "user_name"),
            (&*login.password.to_text(), "password"),
            (&login.app_name, "app_name"),
            (&login.server_name, "server_name"),
            (&login.library_name, "clt_int_name"),
            (&login.language, "language"),
            (&login.database, "database"),
            (&login.attach_db_file, "atch_db_file"),
            (&*login.change_password.to_text(), "change_password"),
        ] {
            assert_eq!(*found, text(key), "{name}: {key}");
        }
        assert_eq!(login.client_id.to_vec(), unhex(&text("client_id")), "{name}");
        assert_eq!(login.sspi, unhex(&text("sspi")), "{name}");
        let none = Vec::new();
        let features = expected["feature_ext"].as_array().unwrap_or(&none);
        let found: Vec<_> = login
            .features
            .iter()
            .map(|f| (u64::from(f.id), f.data.clone()))
            .collect();
        let wanted: Vec<_> = features
            .iter()
            .filter(|f| f["feature_id"].as_u64() != Some(0xFF))
            .map(|f| {
                (
                    f["feature_id"].as_u64().unwrap(),
                    unhex(f["data"].as_str().unwrap_or_default()),
                )
            })
            .collect();
        assert_eq!(found, wanted, "{name}");
        let again = Login7::parse(&login.encode().unwrap_or_else(|e| panic!("{name}: {e}")));
        assert_eq!(again, Ok(login), "{name}");
    });
}

fn options(vector: &Vector) -> RequestOptions {
    RequestOptions::new(vector.version)
}

fn check_headers(name: &str, headers: &AllHeaders, expected: &Json) {
    let all = &expected["all_headers"];
    assert_eq!(
        Some(headers.len as u64),
        all["total_length"].as_u64().or(Some(0)),
        "{name}"
    );
    let none = Vec::new();
    for header in all["headers"].as_array().unwrap_or(&none) {
        match header["type"].as_u64() {
            Some(1) => assert!(headers.notification, "{name}"),
            Some(2) => {
                let descriptor = unhex(header["transaction_descriptor"].as_str().unwrap());
                // The vectors print the descriptor's bytes in wire order or as a number; both readings are accepted.
                let is = |bytes: [u8; 8]| bytes.to_vec() == descriptor;
                let number = headers.transaction;
                assert!(
                    is(number.to_le_bytes()) || is(number.to_be_bytes()),
                    "{name}: {number:x}"
                );
                let outstanding = header["outstanding_request_count"].as_u64();
                assert_eq!(Some(u64::from(headers.outstanding)), outstanding, "{name}");
            }
            Some(3) => {
                let (id, sequence) = headers.trace.unwrap();
                assert_eq!(
                    id.to_vec(),
                    unhex(header["activity_id"].as_str().unwrap()),
                    "{name}"
                );
                assert_eq!(Some(u64::from(sequence)), header["sequence"].as_u64(), "{name}");
            }
            other => panic!("{name}: header {other:?}"),
        }
    }
}

/// ALL_HEADERS and the text behind it [MS-TDS 2.2.5.3, 2.2.6.7].
#[test]
fn sql_batch() {
    each(PacketType::SqlBatch, 9, |vector, message, expected| {
        let name = &vector.name;
        let batch = SqlBatch::parse(&message.body, options(vector)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(Some(batch.text().as_str()), expected["sql"].as_str(), "{name}");
        check_headers(name, &batch.headers, expected);
        assert_eq!(message.ignored, name.contains("ignore"), "{name}");
        assert_eq!(
            message.first.contains(PacketStatus::RESET),
            name.contains("reset-connection"),
            "{name}"
        );
        assert_eq!(
            message.first.contains(PacketStatus::RESET_SKIP_TRAN),
            name.contains("skip-tran"),
            "{name}"
        );
    });
}

#[test]
fn transaction_manager() {
    each(PacketType::TransactionManager, 9, |vector, message, expected| {
        let name = &vector.name;
        let headers =
            AllHeaders::parse(&message.body, vector.version).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_headers(name, &headers, expected);
        let request = TransactionRequest::parse(&message.body, &headers);
        if name.starts_with("spec-4.13") {
            assert!(request.is_err(), "{name}: type 22 does not exist");
            return;
        }
        let request = request.unwrap_or_else(|e| panic!("{name}: {e}"));
        let kind = match &request {
            TransactionRequest::GetDtcAddress => 0,
            TransactionRequest::Propagate(_) => 1,
            TransactionRequest::Begin(_) => 5,
            TransactionRequest::Promote => 6,
            TransactionRequest::Commit { .. } => 7,
            TransactionRequest::Rollback { .. } => 8,
            TransactionRequest::Save(_) => 9,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(Some(kind), expected["request_type"].as_u64(), "{name}");
        if let TransactionRequest::Commit { then, .. } = &request {
            let isolation = then.as_ref().map(|b| u64::from(b.isolation));
            assert_eq!(
                isolation,
                expected.get("isolation_level").and_then(Json::as_u64),
                "{name}"
            );
        }
        assert_eq!(request.encode(headers.transaction), message.body, "{name}");
    });
}

/// Parameters, the metadata and rows of tables among them [MS-TDS 2.2.5.5.5.1, 2.2.7.24].
#[test]
fn rpc() {
    each(PacketType::Rpc, 15, |vector, message, expected| {
        let name = &vector.name;
        let mut rpc =
            RpcReader::new(&message.body, options(vector)).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_headers(name, rpc.headers(), expected);
        for wanted in expected["calls"].as_array().unwrap() {
            let call = rpc.next_call().unwrap_or_else(|e| panic!("{name}: {e}")).unwrap();
            assert_eq!(
                Some(u64::from(call.flags.0)),
                wanted["option_flags"].as_u64(),
                "{name}"
            );
            assert_eq!(
                u16::from_le_bytes([message.body[call.flags_at], message.body[call.flags_at + 1]]),
                call.flags.0
            );
            let wanted_name = wanted["proc_name"].as_str().unwrap_or_default();
            assert!(
                call.procedure.name().eq_ignore_ascii_case(wanted_name),
                "{name}: {}",
                call.procedure.name()
            );
            if let Procedure::Number(number) = call.procedure {
                assert_eq!(Some(u64::from(number)), wanted["proc_id"].as_u64(), "{name}");
            }
            for parameter in wanted["params"].as_array().unwrap() {
                let found = rpc.next_parameter().unwrap_or_else(|e| panic!("{name}: {e}"));
                check_parameter(
                    name,
                    &found.unwrap_or_else(|| panic!("{name}: a parameter is missing")),
                    parameter,
                );
            }
            assert_eq!(rpc.next_parameter(), Ok(None), "{name}");
            let separator = rpc
                .separator()
                .map(|s| if s == Separator::NoExec { 254 } else { 255 });
            let wanted = wanted["separator"]
                .as_u64()
                .map(|s| if s == 0x80 { 255 } else { s });
            assert_eq!(separator, wanted, "{name}");
        }
        assert_eq!(rpc.next_call(), Ok(None), "{name}");
        walk_rpc(vector, &message.body);
        // The same, stepping over all parameters.
        let mut rpc = RpcReader::new(&message.body, options(vector)).unwrap();
        let mut calls = 0;
        while rpc.next_call().unwrap().is_some() {
            calls += 1;
        }
        assert_eq!(calls, expected["calls"].as_array().unwrap().len(), "{name}");
    });
}

/// fNoMetaData is cleared in every call, and nothing else is changed, at every split.
fn walk_rpc(vector: &Vector, body: &[u8]) {
    let mut wanted = body.to_vec();
    let mut rpc = RpcReader::new(body, options(vector)).unwrap();
    while let Some(call) = rpc.next_call().unwrap() {
        wanted[call.flags_at] &= !2;
    }
    for at in 0..=body.len() {
        let mut copy = body.to_vec();
        let mut walker = RpcWalker::new(options(vector));
        let (a, b) = copy.split_at_mut(at);
        walker
            .walk(a)
            .and_then(|()| walker.walk(b))
            .unwrap_or_else(|e| panic!("{} at {at}: {e}", vector.name));
        assert_eq!(walker.end_message(), Ok(()), "{} at {at}", vector.name);
        assert_eq!(copy, wanted, "{} at {at}", vector.name);
    }
}

fn check_parameter(name: &str, found: &Parameter<'_>, wanted: &Json) {
    assert_eq!(Some(found.name().as_str()), wanted["name"].as_str(), "{name}");
    assert_eq!(
        Some(u64::from(found.status.0)),
        wanted["status"].as_u64(),
        "{name}"
    );
    match found.value {
        ParameterValue::Scalar(info, value) => {
            let wanted_type = wanted["type_info"]["type"].as_u64();
            assert_eq!(Some(u64::from(info.data_type.byte())), wanted_type, "{name}");
            let wanted = &wanted["value"]["value"];
            assert_eq!(value.null, wanted.is_null(), "{name}");
            match wanted {
                Json::String(text) => {
                    let found = found.text().unwrap_or_else(|| hex(&value_bytes(info, value)));
                    assert_eq!(&found, text, "{name}");
                }
                Json::Number(number) => assert_eq!(found.integer(), number.as_i64(), "{name}"),
                _ => {}
            }
        }
        ParameterValue::Table(table) => {
            let wanted = &wanted["tvp"];
            assert_eq!(table.null, wanted["null"].as_bool().unwrap_or(false), "{name}");
            assert_eq!(
                usize::from(table.columns),
                wanted["columns"].as_array().unwrap().len(),
                "{name}"
            );
            assert_eq!(
                table.rows,
                wanted["rows"].as_array().unwrap().len() as u64,
                "{name}"
            );
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn bulk_load_at_every_split() {
    each(PacketType::BulkLoad, 8, |vector, message, expected| {
        let name = &vector.name;
        let rows = expected["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|t| t["token"] == "ROW")
            .count() as u64;
        let walk = |pieces: &[&[u8]]| {
            let mut walker = BulkWalker::new(WalkerOptions::new(vector.version), BulkKind::Rows);
            for piece in pieces {
                walker.walk(piece).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            assert_eq!(walker.end_message(), Ok(()), "{name}");
            (walker.rows(), walker.bytes())
        };
        let body = &message.body;
        for at in 0..=body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(walk(&[a, b]), (rows, body.len() as u64), "{name} at {at}");
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(walk(&bytes), (rows, body.len() as u64), "{name}");
    });
}

#[test]
fn fed_auth_token() {
    each(PacketType::FedAuthToken, 2, |vector, message, expected| {
        let name = &vector.name;
        let found = FedAuthToken::parse(&message.body).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            Some(hex(found.token).as_str()),
            expected["token"].as_str(),
            "{name}"
        );
        let nonce = found.nonce.map(|n| hex(&n)).unwrap_or_default();
        assert_eq!(Some(nonce.as_str()), expected["nonce"].as_str(), "{name}");
    });
}

#[test]
fn attention_and_sspi_have_the_bodies_that_they_have() {
    each(PacketType::Attention, 2, |vector, message, _| {
        assert!(message.body.is_empty(), "{}", vector.name)
    });
    each(PacketType::Sspi, 2, |vector, message, expected| {
        assert_eq!(
            Some(hex(&message.body).as_str()),
            expected["sspi"].as_str(),
            "{}",
            vector.name
        );
    });
}
