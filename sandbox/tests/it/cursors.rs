//! Server cursors, and parameters that are tables.

use weir_tds::build::{Collation, ColumnDef, ColumnType, RpcBuf, Value};
use weir_tds::request::rpc::ProcId;

use crate::client::Client;
use crate::reading::{Event, Response};
use crate::{NONE, sandbox};

const TEXT: ColumnType = ColumnType::NVarChar(8000, Collation::LATIN1);
const INT: ColumnType = ColumnType::IntN(4);

fn number(rpc: &mut RpcBuf, status: u8, value: i64) {
    rpc.parameter("", status, &INT, &Value::Int(value)).unwrap();
}

/// The output parameters, in order.
fn outputs(response: &Response) -> Vec<i32> {
    let one = |event: &Event| match event {
        Event::Value(_, Some(value)) => Some(i32::from_le_bytes(value.clone().try_into().unwrap())),
        _ => None,
    };
    response.events.iter().filter_map(one).collect()
}

async fn open(client: &mut Client, text: &str, scroll: i64, rows: i64) -> Response {
    client
        .rpc(|rpc| {
            rpc.call(ProcId::CursorOpen, 0);
            number(rpc, 1, 0);
            rpc.parameter("", 0, &TEXT, &Value::Str(text)).unwrap();
            number(rpc, 1, scroll);
            number(rpc, 1, 1);
            number(rpc, 1, rows);
        })
        .await
}

async fn fetch(client: &mut Client, cursor: i32, kind: i64, row: i64, rows: i64) -> Response {
    client
        .rpc(|rpc| {
            rpc.call(ProcId::CursorFetch, 0);
            for value in [i64::from(cursor), kind, row, rows] {
                number(rpc, 0, value);
            }
        })
        .await
}

#[tokio::test]
async fn a_static_cursor_is_opened_scrolled_and_closed() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let opened = open(
        &mut client,
        "SELECT TOP 100 id, note FROM orders ORDER BY id",
        8,
        0,
    )
    .await;
    let [cursor, 8, 1, 100] = outputs(&opened)[..] else {
        panic!("{:?}", opened.events);
    };
    assert!(
        matches!(opened.events[0], Event::Columns(3)),
        "ROWSTAT stands behind: {:?}",
        opened.events
    );
    assert_eq!(opened.rows, 0);
    for (kind, row, rows, want) in [(2, 0, 30, 30), (2, 0, 90, 70), (8, 0, 10, 10), (16, 91, 20, 10)] {
        let fetched = fetch(&mut client, cursor, kind, row, rows).await;
        assert_eq!(fetched.rows, want, "{kind} {row} {rows}");
    }
    let close = |rpc: &mut RpcBuf| {
        rpc.call(ProcId::CursorClose, 0);
        number(rpc, 0, i64::from(cursor));
    };
    assert_eq!(client.rpc(close).await.errors(), NONE);
    assert_eq!(client.rpc(close).await.errors(), [16909]);
    assert_eq!(fetch(&mut client, cursor, 2, 0, 1).await.errors(), [16909]);
    running.stop().await;
}

#[tokio::test]
async fn a_forward_cursor_gives_its_first_rows_at_once_and_closes_itself() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let fast_forward_auto = 0x10 | 0x2000 | 0x4000;
    let opened = open(&mut client, "SELECT TOP 5 id FROM orders", fast_forward_auto, 3).await;
    assert_eq!(opened.rows, 3);
    let [cursor, 0x10, 1, -1] = outputs(&opened)[..] else {
        panic!("{:?}", opened.events);
    };
    assert_eq!(fetch(&mut client, cursor, 1, 0, 3).await.errors(), [16911]);
    assert_eq!(fetch(&mut client, cursor, 2, 0, 3).await.rows, 2);
    assert_eq!(
        fetch(&mut client, cursor, 2, 0, 3).await.errors(),
        [16909],
        "closed at its end"
    );
    let all = open(&mut client, "SELECT TOP 2 id FROM orders", fast_forward_auto, 10).await;
    assert_eq!((all.rows, outputs(&all)[0]), (2, 0), "nothing is left to fetch");
    running.stop().await;
}

#[tokio::test]
async fn cursors_of_prepared_statements() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let prepared = client
        .rpc(|rpc| {
            rpc.call(ProcId::CursorPrepExec, 0);
            number(rpc, 1, 0);
            number(rpc, 1, 0);
            for text in ["@n int", "SELECT id FROM orders WHERE id <= @n"] {
                rpc.parameter("", 0, &TEXT, &Value::Str(text)).unwrap();
            }
            for value in [8, 1, 0] {
                number(rpc, 1, value);
            }
            number(rpc, 0, 7);
        })
        .await;
    let [handle, cursor, 8, 1, 7] = outputs(&prepared)[..] else {
        panic!("{:?}", prepared.events);
    };
    assert_eq!(fetch(&mut client, cursor, 2, 0, 100).await.rows, 7);
    let again = client
        .rpc(|rpc| {
            rpc.call(ProcId::CursorExecute, 0);
            number(rpc, 0, i64::from(handle));
            for value in [0, 8, 1, 0] {
                number(rpc, 1, value);
            }
            number(rpc, 0, 9);
        })
        .await;
    assert_eq!(outputs(&again)[3], 9);
    let unprepare = client
        .rpc(|rpc| {
            rpc.call(ProcId::CursorUnprepare, 0);
            number(rpc, 0, i64::from(handle));
        })
        .await;
    assert_eq!(unprepare.errors(), NONE);
    running.stop().await;
}

/// Tables and the tokens inside them [MS-TDS 2.2.5.5.5, 2.2.5.5.5.3].
#[tokio::test]
async fn a_table_is_a_parameter_of_a_statement_and_of_a_procedure() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    for text in [
        "CREATE TYPE dbo.Pairs AS TABLE (id int NOT NULL PRIMARY KEY, name nvarchar(20) NULL)",
        "CREATE PROCEDURE take @t dbo.Pairs READONLY AS SELECT id FROM @t WHERE name IS NULL",
        "CREATE TABLE kept (id int, name nvarchar(20))",
    ] {
        assert_eq!(client.batch(text).await.errors(), NONE, "{text}");
    }
    let columns = [
        ColumnDef::new("", INT),
        ColumnDef::new("", ColumnType::nvarchar(20)),
    ];
    let rows: [&[Value<'_>]; 3] = [
        &[Value::Int(1), Value::Str("a")],
        &[Value::Int(2), Value::Null],
        &[Value::Int(3), Value::Null],
    ];
    let inserted = client
        .rpc(|rpc| {
            rpc.call(ProcId::ExecuteSql, 0);
            for text in [
                "INSERT INTO kept SELECT id, name FROM @t",
                "@t dbo.Pairs READONLY",
            ] {
                rpc.parameter("", 0, &TEXT, &Value::Str(text)).unwrap();
            }
            rpc.table("@t", ("dbo", "Pairs"), Some((&columns, &rows)))
                .unwrap();
        })
        .await;
    assert_eq!(inserted.errors(), NONE);
    assert_eq!(client.batch("SELECT * FROM kept").await.rows, 3);
    for (table, want) in [(Some((&columns[..], &rows[..])), 2), (None, 0)] {
        let called = client
            .rpc(|rpc| {
                rpc.call_name("take", 0);
                rpc.table("@t", ("dbo", "Pairs"), table).unwrap();
            })
            .await;
        assert_eq!((called.rows, called.errors()), (want, NONE.to_vec()));
    }
    assert_eq!(
        client.batch("CREATE TYPE Pairs AS TABLE (a int)").await.errors(),
        [219]
    );
    assert_eq!(client.batch("DROP TYPE dbo.Pairs").await.errors(), NONE);
    assert_eq!(client.batch("DROP TYPE dbo.Pairs").await.errors(), [3701]);
    running.stop().await;
}
