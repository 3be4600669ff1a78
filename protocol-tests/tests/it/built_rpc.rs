//! RPC requests built and read back: every call, name and value again, and byte for byte where a vector has the same.

use weir_protocol_tests::vectors::load;
use weir_tds::build::{Collation, ColumnDef, ColumnFlags, ColumnType, Decimal, RpcBuf, Value};
use weir_tds::packet::HEADER_LEN;
use weir_tds::request::RequestOptions;
use weir_tds::request::parameter::ParameterValue;
use weir_tds::request::rpc::{ProcId, RpcReader, Separator};
use weir_tds::version::TdsVersion;

fn body(name: &str) -> Vec<u8> {
    let vector = load()
        .into_iter()
        .find(|v| v.name == name)
        .unwrap_or_else(|| panic!("no vector {name}"));
    vector.bytes[HEADER_LEN..].to_vec()
}

const NEW: RequestOptions = RequestOptions::new(TdsVersion::V7_4);

#[test]
fn two_calls_are_those_of_the_vector() {
    let text = ColumnType::nvarchar(4000);
    let mut rpc = RpcBuf::new(NEW, 0);
    rpc.call(ProcId::ExecuteSql, 0)
        .parameter("", 0, &text, &Value::Str("SELECT @a"))
        .unwrap();
    rpc.parameter("", 0, &text, &Value::Str("@a int")).unwrap();
    rpc.parameter("@a", 0, &ColumnType::IntN(4), &Value::Int(5))
        .unwrap();
    rpc.call_name("dbo.p", 0)
        .parameter("@o", 1, &ColumnType::IntN(4), &Value::Null)
        .unwrap();
    assert_eq!(rpc.finish(), body("client-rpc-batch-two-procs"));
}

#[test]
fn a_null_table_is_that_of_the_vector() {
    let mut rpc = RpcBuf::new(NEW, 0);
    rpc.call_name("dbo.p", 0)
        .table("@t", ("dbo", "tt"), None)
        .unwrap();
    assert_eq!(rpc.finish(), body("client-rpc-tvp-null"));
}

/// A parameter of every type that RPCs take.
fn every_type() -> Vec<(ColumnType, Value<'static>)> {
    let c = Collation::LATIN1;
    let udt = ColumnType::Udt {
        max: 0xFFFF,
        database: "d".into(),
        schema: "sys".into(),
        name: "geometry".into(),
        assembly: String::new(),
    };
    vec![
        (ColumnType::IntN(4), Value::Int(-7)),
        (ColumnType::BitN, Value::Bool(true)),
        (ColumnType::FloatN(8), Value::Float(1.5)),
        (ColumnType::MoneyN(8), Value::Money(12_345)),
        (ColumnType::DateTimeN(8), Value::DateTime { days: 1, ticks: 2 }),
        (
            ColumnType::DecimalN {
                precision: 38,
                scale: 9,
            },
            Value::Decimal(Decimal::from(-5)),
        ),
        (ColumnType::Guid, Value::Guid([7; 16])),
        (ColumnType::Date, Value::Date(1)),
        (ColumnType::Time(7), Value::Time(1)),
        (
            ColumnType::DateTimeOffset(3),
            Value::DateTimeOffset {
                days: 1,
                ticks: 2,
                minutes: -300,
            },
        ),
        (ColumnType::NVarChar(80, c), Value::Str("ü")),
        (ColumnType::VarChar(80, c), Value::Str("")),
        (ColumnType::NVarCharMax(c), Value::Str("a long text")),
        (ColumnType::VarBinaryMax, Value::Bytes(&[1, 2, 3])),
        (ColumnType::Text(c), Value::Str("old text")),
        (ColumnType::NText(c), Value::Null),
        (ColumnType::Image, Value::Bytes(&[9])),
        (
            ColumnType::Variant,
            Value::Variant(&ColumnType::Int, &Value::Int(1)),
        ),
        (ColumnType::Xml(None), Value::Str("<a/>")),
        (ColumnType::Json, Value::Str("{}")),
        (
            ColumnType::Vector { max: 16, element: 0 },
            Value::Vector(&[1.0, 2.0]),
        ),
        (udt, Value::Bytes(&[1])),
    ]
}

#[test]
fn parameters_of_every_type_are_read_back_in_every_layout() {
    for version in [
        TdsVersion::V7_0,
        TdsVersion::V7_1,
        TdsVersion::V7_2,
        TdsVersion::V7_4,
    ] {
        for enclave in [false, true] {
            let options = RequestOptions { version, enclave };
            let mut built = RpcBuf::new(options, 9);
            for round in 0..3 {
                built.call_name(&format!("p{round}"), 2);
                for (ty, value) in every_type() {
                    built.parameter("@x", round, &ty, &value).unwrap();
                }
            }
            let body = built.finish();
            let mut rpc = RpcReader::new(&body, options).unwrap();
            for round in 0..3 {
                let call = rpc.next_call().unwrap().unwrap();
                assert_eq!(call.procedure.name(), format!("p{round}"));
                assert!(call.flags.no_metadata());
                for (ty, value) in every_type() {
                    let parameter = rpc.next_parameter().unwrap().unwrap();
                    assert_eq!((parameter.name().as_str(), parameter.status.0), ("@x", round));
                    let ParameterValue::Scalar(info, raw) = parameter.value else {
                        panic!("{ty:?}")
                    };
                    assert_eq!(info.data_type.byte(), ty.byte());
                    assert_eq!(raw.null, value == Value::Null, "{ty:?}");
                    if let Value::Str(text) = value {
                        // An empty text of a short type is a value of no bytes, not NULL.
                        assert_eq!(parameter.text().as_deref(), Some(text), "{ty:?}");
                    }
                }
                assert_eq!(rpc.next_parameter(), Ok(None));
                assert_eq!(rpc.separator(), (round < 2).then_some(Separator::Next));
            }
            assert_eq!(rpc.next_call(), Ok(None));
        }
    }
}

#[test]
fn a_table_is_counted_and_stepped_over() {
    let flags = ColumnFlags::NULLABLE;
    let columns = [
        ColumnDef::new("", ColumnType::IntN(4)).with_flags(flags),
        ColumnDef::new("", ColumnType::nvarchar(50)).with_flags(flags),
    ];
    let rows: [&[Value<'_>]; 3] = [
        &[Value::Int(1), Value::Str("a")],
        &[Value::Null, Value::Null],
        &[Value::Int(3), Value::Str("")],
    ];
    let mut built = RpcBuf::new(NEW, 0);
    built
        .call_name("dbo.p", 0)
        .table("@t", ("dbo", "tt"), Some((&columns, &rows)))
        .unwrap();
    built
        .parameter("@n", 0, &ColumnType::IntN(8), &Value::Int(-1))
        .unwrap();
    let body = built.finish();
    let mut rpc = RpcReader::new(&body, NEW).unwrap();
    rpc.next_call().unwrap().unwrap();
    let ParameterValue::Table(table) = rpc.next_parameter().unwrap().unwrap().value else {
        panic!("no table")
    };
    assert_eq!((table.columns, table.rows, table.null), (2, 3, false));
    assert_eq!(rpc.next_parameter().unwrap().unwrap().integer(), Some(-1));
}

#[test]
fn a_name_of_128_characters_is_no_separator_from_72_on() {
    let name = "@".repeat(128);
    let mut built = RpcBuf::new(NEW, 0);
    built
        .call(ProcId::Execute, 0)
        .parameter(&name, 0, &ColumnType::IntN(4), &Value::Int(1))
        .unwrap();
    let body = built.finish();
    let mut rpc = RpcReader::new(&body, NEW).unwrap();
    assert_eq!(
        rpc.next_call().unwrap().unwrap().procedure.id(),
        Some(ProcId::Execute)
    );
    assert_eq!(rpc.next_parameter().unwrap().unwrap().name(), name);
}
