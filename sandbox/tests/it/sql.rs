//! T-SQL as programs write it, and the errors that they look for.

use crate::client::Client;
use crate::reading::Event;
use crate::{NONE, sandbox};

/// Text, rows of its answer, errors of its answer; in order, on one connection.
const CASES: &[(&str, u64, &[i32])] = &[
    ("SELECT 1 SELECT 2", 2, &[]),
    (
        "SELECT @@SPID, @@TRANCOUNT, @@VERSION, @@SERVERNAME, @@ROWCOUNT, @@ERROR, @@IDENTITY",
        1,
        &[],
    ),
    (
        "SELECT CAST(SERVERPROPERTY('EngineEdition') as INT), DB_NAME(), SUSER_SNAME()",
        1,
        &[],
    ),
    (
        "SELECT TOP 5 [id], [customer] AS [who] FROM [demo].[dbo].[orders]",
        5,
        &[],
    ),
    ("SELECT TOP (2) * FROM orders ORDER BY id DESC", 2, &[]),
    (
        "SELECT id FROM orders WHERE id BETWEEN 10 AND 19 AND id < 15",
        5,
        &[],
    ),
    (
        "SELECT id FROM orders ORDER BY id OFFSET 99990 ROWS FETCH NEXT 20 ROWS ONLY",
        10,
        &[],
    ),
    ("SELECT status, COUNT(*) FROM orders GROUP BY status", 5, &[]),
    ("SELECT COUNT(*) AS n FROM events", 1, &[]),
    (
        "SELECT e.id FROM events e JOIN orders o ON o.id = e.order_id WHERE e.id < 100",
        90,
        &[],
    ),
    ("INSERT INTO p (name, d) VALUES (N'a', 1.5), (N'b', NULL)", 0, &[]),
    ("INSERT INTO p (name) OUTPUT inserted.id VALUES (N'c')", 1, &[]),
    ("INSERT INTO p (name) VALUES (N'a')", 0, &[2627]),
    ("INSERT INTO p (name) VALUES (NULL)", 0, &[515]),
    ("SELECT 'a' + name FROM p WHERE name LIKE N'A%'", 1, &[]),
    (
        "SELECT GETDATE(), SYSDATETIME(), ISNULL(NULL, 'x'), LEN('abc'), CONVERT(varchar(10), GETDATE(), 120)",
        1,
        &[],
    ),
    ("SELECT 1 / 0", 0, &[8134]),
    ("SELECT 1 / 0; SELECT 1", 1, &[8134]),
    ("SELECT * FROM nope; SELECT 1", 0, &[208]),
    ("SELECT nope FROM p", 0, &[207]),
    ("EXEC nope; SELECT 1", 1, &[2812]),
    ("SELEC * FROM p", 0, &[102]),
    ("SELECT CAST('x' AS int)", 0, &[245]),
    ("UPDATE orders SET quantity = 1", 0, &[3906]),
    ("USE nowhere", 0, &[911]),
    ("COMMIT", 0, &[3902]),
    ("PRINT 'x' RAISERROR('bad %s', 16, 1, 'thing')", 0, &[50000]),
    ("RAISERROR('warning', 10, 1)", 0, &[]),
    (
        "BEGIN TRY SELECT 1/0 END TRY BEGIN CATCH SELECT ERROR_NUMBER() END CATCH",
        1,
        &[],
    ),
    (
        "DECLARE @i int = 0 WHILE @i < 3 BEGIN SELECT @i SET @i += 1 END",
        3,
        &[],
    ),
    (
        "DECLARE @t TABLE (x int) INSERT @t VALUES (1), (2) SELECT * FROM @t",
        2,
        &[],
    ),
    ("SELECT * INTO #x FROM p; SELECT * FROM #x; DROP TABLE #x", 3, &[]),
    ("SELECT @undeclared", 0, &[137]),
    (
        "IF OBJECT_ID('dbo.p') IS NOT NULL SELECT 1 ELSE SELECT 1, 2",
        1,
        &[],
    ),
    ("EXEC sp_executesql N'SELECT @a', N'@a int', @a = 1", 1, &[]),
    (
        "SELECT name FROM sys.databases; SELECT * FROM INFORMATION_SCHEMA.TABLES",
        8,
        &[],
    ),
    ("SET FMTONLY ON SELECT * FROM orders SET FMTONLY OFF", 0, &[]),
    ("TRUNCATE TABLE p; DROP TABLE p", 0, &[]),
];

#[tokio::test]
async fn texts_and_their_rows_and_errors() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let setup = "CREATE TABLE p (id int IDENTITY(1,1) PRIMARY KEY, name nvarchar(20) NOT NULL UNIQUE, d decimal(10,2) NULL)";
    assert_eq!(client.batch(setup).await.errors(), NONE);
    for (text, rows, errors) in CASES {
        let response = client.batch(text).await;
        assert_eq!(
            (response.rows, response.errors().as_slice()),
            (*rows, *errors),
            "{text}\n{:?}",
            response.events
        );
    }
    running.stop().await;
}

/// Text that prints one line per value that is exact, in order, or known to the catalogue.
const EXACT: &[(&str, &[&str])] = &[
    (
        "INSERT INTO e SELECT N'b', CAST(N'9999999999999999999.999999999' AS decimal(28,9)) \
         WHERE NOT EXISTS (SELECT 1 FROM e WITH (UPDLOCK, HOLDLOCK) WHERE id = N'b')",
        &[],
    ),
    (
        "INSERT INTO e VALUES (N'B', CAST(N'-0.000000001' AS decimal(28,9))), (N'a', 1.5)",
        &[],
    ),
    ("INSERT INTO e VALUES (N'b', 0)", &["2627"]),
    (
        "DECLARE @s nvarchar(200) = N'' SELECT @s = STRING_AGG(id + N'=' + CONVERT(nvarchar(40), amount), N' ') \
         FROM (SELECT TOP (10) id, amount FROM e WHERE id > N'A' ORDER BY id) t PRINT @s",
        &["B=-0.000000001 a=1.5 b=9999999999999999999.999999999"],
    ),
    (
        "DECLARE @s nvarchar(200) SELECT @s = collation_name FROM sys.columns \
         WHERE object_id = OBJECT_ID(N'dbo.e', N'U') AND name = N'id' PRINT @s",
        &["Latin1_General_BIN2"],
    ),
    (
        "DECLARE @s nvarchar(200) SELECT @s = CONVERT(nvarchar(9), precision) + N',' + CONVERT(nvarchar(9), scale) \
         FROM sys.columns WHERE object_id = OBJECT_ID(N'dbo.e') AND name = N'amount' PRINT @s",
        &["28,9"],
    ),
    (
        "DECLARE @s nvarchar(200) = CONVERT(nvarchar(60), DATABASEPROPERTYEX(DB_NAME(), N'Updateability')) PRINT @s",
        &["READ_WRITE"],
    ),
];

#[tokio::test]
async fn decimals_are_exact_and_binary_collations_are_kept() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let setup = "IF OBJECT_ID(N'dbo.e', N'U') IS NULL CREATE TABLE dbo.e (id nvarchar(20) COLLATE Latin1_General_BIN2 NOT NULL \
                 CONSTRAINT pk_e PRIMARY KEY, amount decimal(28,9) NOT NULL)";
    for _ in 0..2 {
        assert_eq!(client.batch(setup).await.errors(), NONE);
    }
    for (text, expected) in EXACT {
        let response = client.batch(text).await;
        let told: Vec<String> = response
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Info(_, text) => Some(text.clone()),
                Event::Error(number, ..) => Some(number.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(told, *expected, "{text}\n{:?}", response.events);
    }
    running.stop().await;
}

#[tokio::test]
async fn connect_batches_of_drivers() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let freetds = "SET ARITHABORT ON;SET CONCAT_NULL_YIELDS_NULL ON;SET ANSI_NULLS ON;SET ANSI_NULL_DFLT_ON ON;SET ANSI_PADDING ON;\
                   SET ANSI_WARNINGS ON;SET ANSI_NULL_DFLT_ON ON;SET CURSOR_CLOSE_ON_COMMIT ON;SET QUOTED_IDENTIFIER ON;SET TEXTSIZE 2147483647";
    let tedious = "set ansi_nulls on\nset ansi_null_dflt_on on\nset ansi_padding on\nset ansi_warnings on\nset arithabort on\n\
                   set concat_null_yields_null on\nset cursor_close_on_commit off\nset datefirst 7\nset dateformat mdy\n\
                   set implicit_transactions off\nset language us_english\nset numeric_roundabort off\nset quoted_identifier on\n\
                   set textsize 2147483647\nset transaction isolation level read committed\nset xact_abort off";
    let jdbc = "set implicit_transactions off IF @@TRANCOUNT > 0 COMMIT TRAN ";
    let r2dbc = "SET IMPLICIT_TRANSACTIONS OFF; IF @@TRANCOUNT = 0 BEGIN BEGIN TRAN IF @@TRANCOUNT = 2 COMMIT TRAN END; SET LOCK_TIMEOUT -1";
    for text in [
        freetds,
        tedious,
        jdbc,
        r2dbc,
        "COMMIT TRAN",
        "BEGIN TRAN",
        "ROLLBACK TRAN",
        "SET NO_BROWSETABLE ON",
    ] {
        let response = client.batch(text).await;
        assert_eq!(
            (response.rows, response.errors()),
            (0, vec![]),
            "{text}: {:?}",
            response.events
        );
    }
    let used = client.batch("use [demo]").await;
    assert_eq!(used.envs(), [1]);
    assert!(used.events.iter().any(|e| matches!(e, Event::Info(5701, _))));
    running.stop().await;
}

#[tokio::test]
async fn implicit_transactions_as_jdbc_uses_them() {
    let running = sandbox().await;
    let (mut a, mut b) = (
        Client::connect(running.addr).await,
        Client::connect(running.addr).await,
    );
    a.batch("CREATE TABLE i (x int)").await;
    assert_eq!(
        a.batch("set implicit_transactions on ").await.envs(),
        Vec::<u8>::new()
    );
    assert_eq!(a.batch("INSERT INTO i VALUES (1)").await.envs(), [8]);
    assert_eq!(
        b.batch("SET LOCK_TIMEOUT 20 INSERT INTO i VALUES (2)")
            .await
            .errors(),
        [1222]
    );
    assert_eq!(a.batch("IF @@TRANCOUNT > 0 ROLLBACK TRAN").await.envs(), [10]);
    assert_eq!(b.batch("INSERT INTO i VALUES (2) SELECT * FROM i").await.rows, 1);
    running.stop().await;
}

#[tokio::test]
async fn stored_procedures_return_rows_status_and_outputs() {
    let running = sandbox().await;
    let mut client = Client::connect(running.addr).await;
    let create = "CREATE PROCEDURE dbo.twice @n int, @out int OUTPUT AS BEGIN SET NOCOUNT ON; SET @out = @n * 2; SELECT @out; RETURN 7 END";
    assert_eq!(client.batch(create).await.errors(), NONE);
    let response = client
        .batch("DECLARE @r int, @o int EXEC @r = twice 21, @o OUTPUT SELECT @r, @o")
        .await;
    assert_eq!(response.rows, 2, "{:?}", response.events);
    assert!(response.events.contains(&Event::Status(7)));
    assert_eq!(
        client
            .batch("DROP PROCEDURE twice; EXEC twice 1, 2")
            .await
            .errors(),
        [2812]
    );
    running.stop().await;
}
