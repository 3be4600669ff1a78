//! Kinds of requests: RPCs, transactions, ATTENTION, resets, ignored messages, long streams.

use weir_tds::build::{Collation, ColumnDef, ColumnType, RpcBuf, TokenBuf, Value};
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::rpc::ProcId;
use weir_tds::request::sql_batch;
use weir_tds::request::transaction::{Begin, TransactionRequest};
use weir_tds::token::TokenKind;
use weir_tds::version::TdsVersion;

use crate::client::Client;
use crate::reading::{Event, Response};
use crate::{NONE, sandbox};

const TEXT: ColumnType = ColumnType::NVarChar(8000, Collation::LATIN1);
const INT: ColumnType = ColumnType::IntN(4);

impl Client {
    pub(crate) async fn rpc(&mut self, build: impl FnOnce(&mut RpcBuf)) -> Response {
        let mut rpc = RpcBuf::new(self.options(), 0);
        build(&mut rpc);
        let body = rpc.finish();
        self.send(PacketType::Rpc, PacketStatus::NORMAL, &body).await;
        self.response().await
    }

    async fn tm(&mut self, request: &TransactionRequest<'_>) -> Response {
        self.send(
            PacketType::TransactionManager,
            PacketStatus::NORMAL,
            &request.encode(0),
        )
        .await;
        self.response().await
    }
}

fn begin() -> Begin {
    Begin {
        isolation: 0,
        name: String::new(),
    }
}

fn handle(response: &Response) -> i64 {
    let value = response.events.iter().find_map(|e| {
        if let Event::Value(_, Some(v)) = e {
            Some(v.clone())
        } else {
            None
        }
    });
    i64::from(i32::from_le_bytes(value.expect("a handle").try_into().unwrap()))
}

#[tokio::test]
async fn sp_executesql_with_parameters_and_outputs() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let response = client
        .rpc(|rpc| {
            rpc.call(ProcId::ExecuteSql, 0);
            rpc.parameter(
                "",
                0,
                &TEXT,
                &Value::Str("SELECT @a AS a, @b AS b; SET @c = @a + 1"),
            )
            .unwrap();
            rpc.parameter(
                "",
                0,
                &TEXT,
                &Value::Str("@a int, @b nvarchar(20), @c int OUTPUT"),
            )
            .unwrap();
            rpc.parameter("@a", 0, &INT, &Value::Int(41)).unwrap();
            rpc.parameter("@b", 0, &TEXT, &Value::Str("x")).unwrap();
            rpc.parameter("@c", 1, &INT, &Value::Null).unwrap();
        })
        .await;
    assert_eq!(response.rows, 1);
    let shape: Vec<_> = response.events.iter().map(std::mem::discriminant).collect();
    assert_eq!(shape.len(), 6, "{:?}", response.events);
    assert!(
        matches!(
            &response.events[..],
            [
                Event::Columns(2),
                Event::Rows(1),
                Event::Done { kind: TokenKind::DoneInProc, status: 0x11, rows: 1 },
                Event::Status(0),
                Event::Value(name, Some(value)),
                Event::Done { kind: TokenKind::DoneProc, status: 0, .. },
            ] if name == "@c" && *value == 42_i32.to_le_bytes()
        ),
        "{:?}",
        response.events
    );
    running.stop().await;
}

#[tokio::test]
async fn prepare_execute_unprepare_and_prepexec() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let prepared = client
        .rpc(|rpc| {
            rpc.call(ProcId::Prepare, 0);
            rpc.parameter("", 1, &INT, &Value::Null).unwrap();
            rpc.parameter("", 0, &TEXT, &Value::Str("@n int")).unwrap();
            rpc.parameter("", 0, &TEXT, &Value::Str("SELECT TOP (@n) id FROM orders"))
                .unwrap();
        })
        .await;
    let first = handle(&prepared);
    for n in [3, 9] {
        let response = client
            .rpc(|rpc| {
                rpc.call(ProcId::Execute, 2);
                rpc.parameter("", 0, &INT, &Value::Int(first)).unwrap();
                rpc.parameter("", 0, &INT, &Value::Int(n)).unwrap();
            })
            .await;
        assert_eq!(response.rows, n as u64);
        assert!(
            matches!(response.events[0], Event::Columns(1)),
            "metadata in full even when not wanted"
        );
    }
    let unprepare = |handle: i64| {
        move |rpc: &mut RpcBuf| {
            rpc.call(ProcId::Unprepare, 0);
            rpc.parameter("", 0, &INT, &Value::Int(handle)).unwrap();
        }
    };
    let gone = client.rpc(unprepare(first)).await;
    assert!(
        !gone.events.iter().any(|e| matches!(e, Event::Columns(_))),
        "{:?}",
        gone.events
    );
    assert_eq!(gone.errors(), NONE);
    assert_eq!(client.rpc(unprepare(first)).await.errors(), [8179]);
    let both = client
        .rpc(|rpc| {
            rpc.call(ProcId::PrepExec, 0);
            rpc.parameter("", 1, &INT, &Value::Null).unwrap();
            rpc.parameter("", 0, &TEXT, &Value::Str("@P1 tinyint")).unwrap();
            rpc.parameter("", 0, &TEXT, &Value::Str("SELECT @P1")).unwrap();
            rpc.parameter("", 0, &ColumnType::IntN(1), &Value::Int(7))
                .unwrap();
        })
        .await;
    assert_eq!(both.rows, 1);
    let rows_at = both
        .events
        .iter()
        .position(|e| matches!(e, Event::Rows(_)))
        .unwrap();
    let handle_at = both
        .events
        .iter()
        .position(|e| matches!(e, Event::Value(..)))
        .unwrap();
    assert!(handle_at > rows_at, "the handle comes after the rows");
    running.stop().await;
}

#[tokio::test]
async fn several_calls_in_one_message_and_unknown_procedures() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let response = client
        .rpc(|rpc| {
            for n in 1..=3 {
                rpc.call(ProcId::ExecuteSql, 0);
                let text = if n == 2 { "SELECT * FROM nope" } else { "SELECT 1" };
                rpc.parameter("", 0, &TEXT, &Value::Str(text)).unwrap();
            }
            rpc.call_name("sp_nothing", 0);
        })
        .await;
    assert_eq!(response.rows, 2);
    assert_eq!(response.errors(), [208, 2812]);
    let procs: Vec<u16> = response
        .dones()
        .iter()
        .filter(|d| d.0 == TokenKind::DoneProc)
        .map(|d| d.1)
        .collect();
    assert_eq!(procs.len(), 4);
    assert!(procs[..3].iter().all(|s| s & 0x81 == 0x81), "{procs:x?}");
    assert_eq!(procs[3], 2);
    running.stop().await;
}

#[tokio::test]
async fn transactions_by_request_hold_and_release_the_lock() {
    let running = sandbox().await;
    let (mut a, mut b) = (
        Client::connect(running.addr).await,
        Client::connect(running.addr).await,
    );
    assert_eq!(
        a.batch("CREATE TABLE t (id int PRIMARY KEY, x int)")
            .await
            .errors(),
        NONE
    );
    assert_eq!(a.tm(&TransactionRequest::Begin(begin())).await.envs(), [8]);
    assert_eq!(
        b.batch("INSERT INTO t VALUES (1, 1)").await.errors(),
        NONE,
        "an empty transaction holds no lock"
    );
    assert_eq!(a.batch("INSERT INTO t VALUES (2, 2)").await.errors(), NONE);
    let blocked = b.batch("SET LOCK_TIMEOUT 50; INSERT INTO t VALUES (3, 3)").await;
    assert_eq!(blocked.errors(), [1222]);
    assert_eq!(a.tm(&TransactionRequest::Save("s".into())).await.errors(), NONE);
    assert_eq!(a.batch("INSERT INTO t VALUES (4, 4)").await.errors(), NONE);
    let to_save = a
        .tm(&TransactionRequest::Rollback {
            name: "s".into(),
            then: None,
        })
        .await;
    assert_eq!(
        to_save.envs(),
        Vec::<u8>::new(),
        "back to a savepoint ends nothing"
    );
    let ended = a
        .tm(&TransactionRequest::Commit {
            name: String::new(),
            then: Some(begin()),
        })
        .await;
    assert_eq!(ended.envs(), [9, 8], "commit and begin again");
    assert_eq!(b.batch("INSERT INTO t VALUES (3, 3)").await.errors(), NONE);
    assert_eq!(
        a.tm(&TransactionRequest::Rollback {
            name: String::new(),
            then: None
        })
        .await
        .envs(),
        [10]
    );
    assert_eq!(b.batch("SELECT * FROM t").await.rows, 3);
    assert_eq!(
        a.tm(&TransactionRequest::Commit {
            name: String::new(),
            then: None
        })
        .await
        .errors(),
        [3902]
    );
    running.stop().await;
}

#[tokio::test]
async fn an_idle_attention_is_acknowledged_each_time() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    for _ in 0..2 {
        client.attention().await;
        let ack = client.response().await;
        assert_eq!(ack.dones(), [(TokenKind::Done, 0x20, 0)]);
        assert_eq!(ack.events.len(), 1);
    }
    assert_eq!(client.batch("SELECT 1").await.rows, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_running_stream_is_cancelled_with_two_messages() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    client.send_batch("SELECT * FROM events").await;
    let reading = client.some_rows().await;
    client.attention().await;
    client.send_batch("SELECT 1").await;
    let response = client.rest(reading).await;
    assert!(response.rows < 1_000_000, "{} rows", response.rows);
    assert_eq!(response.last_status(), 2);
    assert_eq!(
        response.errors(),
        NONE,
        "no ERROR token before the DONE of a cancelled request"
    );
    assert_eq!(client.response().await.last_status(), 0x20);
    assert_eq!(
        client.response().await.rows,
        1,
        "the next request is answered after the acknowledgement"
    );
    running.stop().await;
}

#[tokio::test]
async fn attention_ends_sqlite_waits_and_lock_waits() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let mut holder = Client::connect(running.addr).await;
    holder
        .batch("CREATE TABLE held (x int); BEGIN TRAN; INSERT INTO held VALUES (1)")
        .await;
    let long =
        "WITH n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT MAX(i) FROM n";
    for text in [
        "WAITFOR DELAY '00:01:00'",
        long,
        "INSERT INTO held VALUES (2)",
        "WHILE 1 = 1 SET NOCOUNT ON",
    ] {
        client.send_batch(text).await;
        client.attention().await;
        let response = client.response().await;
        assert_eq!(response.last_status(), 2, "{text}: {:?}", response.events);
        assert_eq!(client.response().await.last_status(), 0x20, "{text}");
    }
    assert_eq!(client.batch("SELECT 1").await.rows, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_reset_comes_first_and_rolls_back() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    client.batch("CREATE TABLE r (x int); CREATE TABLE #t (x int); USE master; BEGIN TRAN; INSERT INTO r VALUES (1)").await;
    let body = sql_batch::encode(
        "SELECT @@TRANCOUNT; SELECT COUNT(*) FROM r; SELECT * FROM #t",
        0,
        client.options(),
    );
    client
        .send(PacketType::SqlBatch, PacketStatus::RESET, &body)
        .await;
    let response = client.response().await;
    assert_eq!(response.events[0], Event::Env(18));
    assert_eq!(response.envs(), [18, 1]);
    assert_eq!(response.errors(), [208], "temporary tables are gone");
    client.batch("BEGIN TRAN").await;
    let body = sql_batch::encode("IF @@TRANCOUNT = 1 SELECT 1", 0, client.options());
    client
        .send(PacketType::SqlBatch, PacketStatus::RESET_SKIP_TRAN, &body)
        .await;
    assert_eq!(client.response().await.rows, 1, "the transaction is kept");
    running.stop().await;
}

#[tokio::test]
async fn an_ignored_message_gets_one_done_with_error() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let body = sql_batch::encode("DROP TABLE nothing", 0, client.options());
    client
        .send(PacketType::SqlBatch, PacketStatus::IGNORE, &body)
        .await;
    assert_eq!(
        client.response().await.events,
        [Event::Done {
            kind: TokenKind::Done,
            status: 2,
            rows: 0
        }]
    );
    assert_eq!(client.batch("SELECT 1").await.rows, 1);
    running.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    for n in 1..=20 {
        client.send_batch(&format!("SELECT TOP {n} id FROM orders")).await;
    }
    for n in 1..=20 {
        assert_eq!(client.response().await.rows, n);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_whole_table_streams_and_is_wide() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let response = client.batch("SELECT * FROM events WHERE id <= 50000").await;
    assert_eq!(response.rows, 50_000);
    assert!(
        response.bytes / response.rows >= 256,
        "{} bytes a row",
        response.bytes / response.rows
    );
    assert_eq!(response.dones(), [(TokenKind::Done, 0x10, 50_000)]);
    running.stop().await;
}

#[tokio::test]
async fn a_bulk_load_inserts_all_or_nothing() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    client
        .batch("CREATE TABLE b (id int PRIMARY KEY, name nvarchar(20), at datetime2(3))")
        .await;
    let columns = [
        ColumnDef::new("id", INT),
        ColumnDef::new("name", TEXT),
        ColumnDef::new("at", ColumnType::DateTime2(3)),
    ];
    let load = |ids: &[i64]| {
        let mut tokens = TokenBuf::new(TdsVersion::V7_4);
        tokens.col_metadata(&columns).unwrap();
        for id in ids {
            let at = Value::DateTime2 {
                days: 738_000,
                ticks: 1_500,
            };
            tokens
                .row(&columns, &[Value::Int(*id), Value::Str("é"), at])
                .unwrap();
        }
        tokens.done(0, 0, 0);
        tokens.take()
    };
    let announce = "INSERT BULK b ([id] int, [name] nvarchar(20) COLLATE Latin1_General_CI_AS, [at] datetime2(3)) WITH (TABLOCK)";
    for (ids, errors) in [(vec![1, 2, 3], vec![]), (vec![4, 1], vec![2627])] {
        let ready = client.batch(announce).await;
        assert_eq!(ready.errors(), NONE, "{:?}", ready.events);
        client
            .send(PacketType::BulkLoad, PacketStatus::NORMAL, &load(&ids))
            .await;
        assert_eq!(client.response().await.errors(), errors);
    }
    assert_eq!(
        client.batch("SELECT * FROM b WHERE at > '2021-01-01'").await.rows,
        3
    );
    assert_eq!(client.batch("INSERT BULK nope (id int)").await.errors(), [208]);
    running.stop().await;
}
