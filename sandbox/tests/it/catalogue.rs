//! What drivers ask the catalogue before a bulk load and for metadata, in their own words.

use weir_tds::build::{Collation, ColumnDef, ColumnType, RpcBuf, TokenBuf, Value};
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::rpc::ProcId;

use crate::client::Client;
use crate::reading::{Event, Response};
use crate::{NONE, sandbox};

const TEXT: ColumnType = ColumnType::NVarChar(8000, Collation::LATIN1);

fn sets(response: &Response) -> Vec<usize> {
    let one = |event: &Event| match event {
        Event::Columns(n) => Some(*n),
        _ => None,
    };
    response.events.iter().filter_map(one).collect()
}

async fn with_table() -> (weir_sandbox::Running, Client) {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let made = "CREATE TABLE tab (a int NOT NULL, b nvarchar(30), c decimal(10,2), d varbinary(max), PRIMARY KEY (a, b))";
    assert_eq!(client.batch(made).await.errors(), NONE);
    (running, client)
}

#[tokio::test]
async fn sql_bulk_copy_finds_its_columns_and_their_collations() {
    let (running, mut client) = with_table().await;
    let asked = "select @@trancount;
        DECLARE @Object_ID INT = OBJECT_ID('[dbo].[tab]');
        DECLARE @Column_Name_Query NVARCHAR(MAX);
        DECLARE @Column_Names NVARCHAR(MAX) = NULL;
        IF EXISTS (SELECT TOP 1 * FROM [demo].[sys].[all_columns] WHERE [object_id] = OBJECT_ID('sys.all_columns') AND [name] = 'graph_type')
        BEGIN SET @Column_Name_Query = N'SELECT 1'; END
        ELSE
        BEGIN
            SET @Column_Name_Query = N'SELECT @Column_Names = COALESCE(@Column_Names + '', '', '''') + QUOTENAME([name]) FROM [demo].[sys].[all_columns] WHERE [object_id] = @Object_ID ORDER BY [column_id] ASC;';
        END
        EXEC sp_executesql @Column_Name_Query, N'@Object_ID INT, @Column_Names NVARCHAR(MAX) OUTPUT', @Object_ID = @Object_ID, @Column_Names = @Column_Names OUTPUT;
        SELECT @Column_Names = COALESCE(@Column_Names, '*');
        SET FMTONLY ON; EXEC(N'SELECT ' + @Column_Names + N' FROM [tab]'); SET FMTONLY OFF;
        EXEC [demo]..sp_tablecollations_100 N'.[tab]'";
    let answer = client.batch(asked).await;
    assert_eq!(answer.errors(), NONE);
    assert_eq!(sets(&answer), [1, 4, 4], "the count, the columns, the collations");
    assert_eq!(
        answer.rows,
        1 + 4,
        "a collation for each column, and no row under FMTONLY"
    );
    running.stop().await;
}

#[tokio::test]
async fn what_a_procedure_sets_holds_until_it_returns() {
    let (running, mut client) = with_table().await;
    let jdbc = client
        .batch("sp_executesql N'SET FMTONLY ON SELECT * FROM tab '")
        .await;
    assert_eq!(sets(&jdbc), [4]);
    let mut rpc = RpcBuf::new(client.options(), 0);
    rpc.call(ProcId::ExecuteSql, 0);
    rpc.parameter("", 0, &TEXT, &Value::Str("SET ROWCOUNT 1"))
        .unwrap();
    client
        .send(PacketType::Rpc, PacketStatus::NORMAL, &rpc.finish())
        .await;
    assert_eq!(client.response().await.errors(), NONE);
    assert_eq!(client.batch("EXEC ('SET FMTONLY ON')").await.errors(), NONE);
    assert_eq!(client.batch("SELECT TOP 5 * FROM orders").await.rows, 5);
    running.stop().await;
}

#[tokio::test]
async fn metadata_of_tables_types_and_keys() {
    let (running, mut client) = with_table().await;
    for (text, columns, rows) in [
        ("EXEC sp_columns 'tab'", 19, 4),
        (
            "EXEC sp_columns_100 N'tab', NULL, NULL, N'b', @ODBCVer = 3",
            29,
            1,
        ),
        ("EXEC sp_tables 'tab'", 5, 1),
        ("EXEC sp_tables @table_type = '''VIEW'''", 5, 0),
        ("EXEC sp_pkeys 'tab'", 6, 2),
        ("SELECT name FROM sys.foreign_keys", 1, 0),
        ("EXEC sp_fkeys 'tab'", 14, 0),
        ("EXEC sp_statistics 'tab'", 13, 0),
        ("EXEC sp_datatype_info 4", 20, 1),
        ("EXEC sp_datatype_info_100 @ODBCVer = 3", 20, 31),
        (
            "SELECT collation_name FROM sys.columns WHERE object_id = OBJECT_ID('tab')",
            1,
            4,
        ),
        (
            "SELECT TYPE_NAME(system_type_id) FROM sys.columns WHERE object_id = OBJECT_ID(N'tab')",
            1,
            4,
        ),
        (
            "SELECT CAST(7 AS sql_variant), SQL_VARIANT_PROPERTY(7, 'BaseType')",
            2,
            1,
        ),
    ] {
        let answer = client.batch(text).await;
        assert_eq!(answer.errors(), NONE, "{text}: {:?}", answer.events);
        assert_eq!((sets(&answer), answer.rows), (vec![columns], rows), "{text}");
    }
    assert_eq!(client.batch("SELECT FROM tab").await.errors(), [156]);
    let described = "EXEC sp_describe_undeclared_parameters N'SELECT @a'";
    assert_eq!(client.batch(described).await.errors(), [2812], "a clean refusal");
    running.stop().await;
}

#[tokio::test]
async fn the_answer_of_a_call_goes_into_a_table() {
    let (running, mut client) = with_table().await;
    let asked = "DECLARE @t TABLE (q sysname, o sysname, n sysname, k varchar(20), r varchar(254));
        INSERT INTO @t EXEC sp_tables N'tab';
        SELECT n FROM @t";
    let answer = client.batch(asked).await;
    assert_eq!(
        (answer.errors(), sets(&answer), answer.rows),
        (NONE.to_vec(), vec![1], 1)
    );
    let made = "CREATE TABLE kept (n int); INSERT kept (n) EXEC ('SELECT TOP 3 id FROM orders')";
    assert_eq!(client.batch(made).await.errors(), NONE);
    assert_eq!(client.batch("SELECT * FROM kept").await.rows, 3);
    let misfit = "INSERT INTO kept EXEC ('SELECT 1, 2')";
    assert_eq!(client.batch(misfit).await.errors(), [213]);
    running.stop().await;
}

#[tokio::test]
async fn an_identity_of_bigint_is_told_as_one() {
    let (running, mut client) = with_table().await;
    let made = "CREATE TABLE wide (id bigint IDENTITY, x int); CREATE TABLE narrow (id int IDENTITY, x int)";
    assert_eq!(client.batch(made).await.errors(), NONE);
    let asked = "SELECT CAST(c.name AS nvarchar(20)) FROM sys.columns c WHERE c.type_name = 'bigint' AND c.is_identity = 1";
    assert_eq!(client.batch(asked).await.rows, 1);
    for (table, width) in [("wide", 8), ("narrow", 4)] {
        client.batch(&format!("INSERT INTO {table} (x) VALUES (1)")).await;
        let row = client.batch(&format!("SELECT * FROM {table}")).await;
        // COLMETADATA and DONE are of one size for both: only the first column's value differs.
        let bytes = 3 + 2 * (4 + 2 + 2) + (1 + 2 * 2) + (1 + 2) + 1 + (1 + width) + 5 + 13;
        assert_eq!(row.bytes, bytes, "{table}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_load_that_ends_with_its_message_is_taken_as_free_tds_sends_it() {
    let (running, mut client) = with_table().await;
    let columns = [
        ColumnDef::new("a", ColumnType::IntN(4)),
        ColumnDef::new("b", ColumnType::nvarchar(30)),
    ];
    let announced = client.batch("insert bulk tab ([a] INT, [b] NVARCHAR(30))").await;
    assert_eq!(announced.errors(), NONE);
    let mut data = TokenBuf::new(client.version);
    data.bulk_metadata(&columns).unwrap();
    for n in 1..=3 {
        data.row(&columns, &[Value::Int(n), Value::Str("x")]).unwrap();
    }
    let bytes = data.take();
    client
        .send(PacketType::BulkLoad, PacketStatus::NORMAL, &bytes)
        .await;
    assert_eq!(client.response().await.dones().last().unwrap().2, 3);
    running.stop().await;
}
