//! Scripts: what they match, what they send, how they break off.

use serde_json::json;
use weir_sandbox::scenario::{FeatureAck, LoginScript, RequestKind, Rule, Scenario, Step};
use weir_sandbox::{Backend, Config, Running};
use weir_tds::build::RpcBuf;
use weir_tds::login7::Feature;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::rpc::ProcId;
use weir_tds::token::TokenKind;

use crate::client::{Client, Wish};
use crate::reading::Event;

async fn play(scenario: Scenario) -> Running {
    let config = Config {
        backend: Backend::Scenario(scenario),
        ..Config::default()
    };
    weir_sandbox::start(config).await.unwrap()
}

#[tokio::test]
async fn rules_match_in_order_and_are_used_up() {
    let row = |n: i64| {
        [
            Step::columns(&[("n", "int")]),
            Step::rows(1, [json!(n)]),
            Step::done(0x10, 0xC1, 1),
        ]
    };
    let running = play(
        Scenario::new()
            .rule(Rule::text_is("a").times(1).steps(row(1)))
            .rule(Rule::text_contains("a").steps([Step::error(50000, "second"), Step::done(2, 0, 0)]))
            .rule(Rule::procedure("sp_executesql").steps([Step::Done {
                kind: weir_sandbox::scenario::DoneToken::Proc,
                status: 0,
                command: 0xE0,
                rows: 0,
            }]))
            .rule(Rule::nth(5).steps([Step::error(50005, "fifth"), Step::done(2, 0, 0)]))
            .otherwise([Step::done(0, 0xFD, 0)]),
    )
    .await;
    let mut client = Client::connect(running.addr).await;
    assert_eq!(client.batch("a").await.rows, 1);
    assert_eq!(client.batch("a").await.errors(), [50000]);
    let mut rpc = RpcBuf::new(client.options(), 0);
    rpc.call(ProcId::ExecuteSql, 0);
    client
        .send(PacketType::Rpc, PacketStatus::NORMAL, &rpc.finish())
        .await;
    assert_eq!(client.response().await.dones()[0].0, TokenKind::DoneProc);
    assert_eq!(client.batch("other").await.last_status(), 0);
    assert_eq!(client.batch("other").await.errors(), [50005]);
    running.stop().await;
}

#[tokio::test]
async fn every_type_of_a_script_reaches_the_walker() {
    let types = [
        ("bit", json!(true)),
        ("tinyint", json!(1)),
        ("int", json!(-1)),
        ("bigint", json!(1_i64 << 40)),
        ("real", json!(1.5)),
        ("float", json!(2.5)),
        ("decimal(38,4)", json!("12345678901234567890.1234")),
        ("money", json!("1.5")),
        ("date", json!("2024-02-29")),
        ("time(3)", json!("12:34:56.789")),
        ("datetime2(7)", json!("2024-02-29 12:34:56")),
        ("datetimeoffset(0)", json!("2024-02-29 12:00 +02:00")),
        ("datetime", json!("2024-02-29")),
        ("smalldatetime", json!("2024-02-29")),
        ("uniqueidentifier", json!("6F9619FF-8B86-D011-B42D-00C04FC964FF")),
        ("nvarchar(10)", json!("é😀")),
        ("nvarchar(max)", json!("x")),
        ("varchar(10)", json!("é")),
        ("char(3)", json!("a")),
        ("varbinary(4)", json!("0x0102")),
        ("varbinary(max)", json!("0x")),
        ("text", json!("t")),
        ("ntext", json!("n")),
        ("image", json!("0x00")),
        ("xml", json!("<a/>")),
    ];
    let columns: Vec<(&str, &str)> = types.iter().map(|(t, _)| (*t, *t)).collect();
    let nulls = vec![serde_json::Value::Null; types.len()];
    let values: Vec<_> = types.iter().map(|(_, v)| v.clone()).collect();
    let steps = [
        Step::columns(&columns),
        Step::rows(100, values),
        Step::rows(50, nulls),
        Step::done(0x10, 0xC1, 150),
    ];
    let split = [Step::Split(vec![1, 2, 3, 5, 7])]
        .into_iter()
        .chain(steps.clone());
    let running = play(
        Scenario::new()
            .rule(Rule::text_is("whole").steps(steps))
            .rule(Rule::text_is("split").steps(split)),
    )
    .await;
    let mut client = Client::connect(running.addr).await;
    let (whole, split) = (client.batch("whole").await, client.batch("split").await);
    assert_eq!((whole.rows, split.rows), (150, 150));
    assert_eq!(whole.bytes, split.bytes);
    assert!(split.packets > split.bytes / 8, "{} packets", split.packets);
    running.stop().await;
}

#[tokio::test]
async fn a_long_value_streams_and_an_attention_ends_it_well_formed() {
    let value = |known| {
        [
            Step::columns(&[("v", "varbinary(max)")]),
            Step::RowStart,
            Step::Plp {
                length: 64 << 20,
                known,
                chunk: 60_000,
                fill: 7,
            },
            Step::done(0x10, 0xC1, 1),
        ]
    };
    let running = play(
        Scenario::new()
            .rule(Rule::text_is("known").steps(value(true)))
            .otherwise(value(false)),
    )
    .await;
    let mut client = Client::connect(running.addr).await;
    let known = client.batch("known").await;
    assert!(known.bytes > 64 << 20);
    assert_eq!(known.rows, 1);
    client.send_batch("unknown").await;
    let reading = client.some_rows().await;
    client.attention().await;
    let cut = client.rest(reading).await;
    assert!(cut.bytes < 64 << 20, "{}", cut.bytes);
    assert_eq!(cut.last_status(), 2);
    assert_eq!(client.response().await.last_status(), 0x20);
    running.stop().await;
}

#[tokio::test]
async fn silence_closes_and_resets() {
    let half = || [Step::columns(&[("n", "int")]), Step::Hex("d1 04 01 00".into())];
    let running = play(
        Scenario::new()
            .rule(Rule::text_is("close").steps(half().into_iter().chain([Step::Close])))
            .rule(Rule::text_is("reset").steps(half().into_iter().chain([Step::Flush, Step::Reset])))
            .rule(Rule::text_is("never").steps([Step::Never]))
            .rule(Rule::text_is("wait").steps([
                Step::AwaitAttention,
                Step::error(1, "seen"),
                Step::done(2, 0, 0),
            ])),
    )
    .await;
    for text in ["close", "reset"] {
        let mut client = Client::connect(running.addr).await;
        client.send_batch(text).await;
        while client.packet().await.is_some() {}
    }
    let mut client = Client::connect(running.addr).await;
    client.send_batch("never").await;
    client.attention().await;
    client.send_raw(&[]).await;
    drop(client);
    let mut client = Client::connect(running.addr).await;
    client.send_batch("wait").await;
    client.attention().await;
    assert_eq!(client.response().await.errors(), [1]);
    assert_eq!(client.response().await.last_status(), 0x20);
    running.stop().await;
}

#[tokio::test]
async fn logins_by_script() {
    let login = LoginScript {
        extra: vec![Step::Routing {
            server: "elsewhere".into(),
            port: 1433,
        }],
        feature_acks: vec![FeatureAck {
            id: 1,
            data: "00".into(),
        }],
        ..LoginScript::default()
    };
    let running = play(Scenario::new().login(login)).await;
    let features = vec![Feature { id: 1, data: vec![] }];
    let client = Client::login(
        running.addr,
        Wish {
            features,
            ..Wish::default()
        },
    )
    .await;
    assert!(client.login.envs().contains(&20));
    assert!(
        client
            .login
            .events
            .contains(&Event::Other(TokenKind::FeatureExtAck))
    );
    running.stop().await;
    let refuse = vec![Step::error(18456, "no"), Step::done(2, 0, 0)];
    let login = LoginScript {
        answer: Some(refuse),
        close: true,
        ..LoginScript::default()
    };
    let running = play(Scenario::new().login(login)).await;
    let mut client = Client::connect(running.addr).await;
    assert_eq!(client.login.errors(), [18456]);
    assert!(client.packet().await.is_none());
    running.stop().await;
}

#[tokio::test]
async fn scripts_read_from_toml_and_json() {
    let text = r#"
        ignore_attention = true
        [[rules]]
        when = { kind = "batch", text_contains = "slow" }
        times = 1
        steps = [
            { columns = [{ name = "a", type = "int", not_null = true }] },
            { rows = { values = [1], times = 3 } },
            { delay_ms = 1 },
            "flush",
            { error = { number = 50000, class = 16, text = "late" } },
            { done = { status = 2 } },
        ]
        [[rules]]
        steps = [{ repeat = { times = 2, steps = [{ done = { status = 1 } }] } }, { done = {} }]
    "#;
    let scenario: Scenario = toml::from_str(text).unwrap();
    let again: Scenario = serde_json::from_str(&serde_json::to_string(&scenario).unwrap()).unwrap();
    assert_eq!(again.rules[0].when.kind, Some(RequestKind::Batch));
    let running = play(again).await;
    let mut client = Client::connect(running.addr).await;
    let slow = client.batch("a slow one").await;
    assert_eq!((slow.rows, slow.errors()), (3, vec![50000]));
    assert_eq!(client.batch("a slow one").await.dones().len(), 3);
    running.stop().await;
}
