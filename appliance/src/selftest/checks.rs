//! What is asked of a server: read-only statements and temporary tables, each with what a right answer holds.

use weir_tds::{
    build::{BuildError, ColumnDef, ColumnType, RpcBuf, TokenBuf, Value},
    packet::{PacketStatus, PacketType},
    request::{
        RequestOptions,
        rpc::ProcId,
        sql_batch,
        transaction::{Begin, TransactionRequest},
    },
    token::env,
};

use super::client::{Answer, Client, ClientError};

/// Name of the first check, which every server must pass.
pub(crate) const FIRST: &str = "one row";

/// Rows of the long result.
pub(crate) const LONG_ROWS: u64 = 100_000;

/// Ten rows, as every server since 2005 gives them without a table.
const TEN: &str = "(SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                   UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";

/// The long result's statement: 100 000 rows of a number and a text.
pub(crate) fn long_statement() -> String {
    format!(
        "SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n AS n, 'weir' AS t \
         FROM {TEN} AS a CROSS JOIN {TEN} AS b CROSS JOIN {TEN} AS c CROSS JOIN {TEN} AS d CROSS JOIN {TEN} AS e"
    )
}

/// The first rows of the long result.
pub(crate) fn first_rows(rows: u64) -> String {
    format!(
        "SELECT TOP ({rows}){}",
        long_statement().trim_start_matches("SELECT")
    )
}

/// One row, and nothing else.
pub(crate) fn one_row() -> Vec<(Ask, Expect)> {
    vec![batch("SELECT 1 AS one", gives(1, 1))]
}

/// One request of a check.
pub(crate) enum Ask {
    /// A SQL batch.
    Batch(String),
    /// A batch whose first packet says that the session is to be reset.
    Reset(String),
    /// A batch that is cancelled once its answer has begun.
    Cancelled(String),
    /// `sp_executesql` with one integer parameter.
    Parameter { text: &'static str, value: i32 },
    /// Transaction manager: begin, commit, roll back.
    Begin,
    /// As above.
    Commit,
    /// As above.
    RollBack,
    /// Rows for the bulk load that the batch before announced, one INT each.
    Rows(u32),
}

/// What a right answer holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expect {
    /// Rows; `None` where a cancellation leaves them open.
    pub(crate) rows: Option<u64>,
    /// Result sets; `None` likewise.
    pub(crate) result_sets: Option<u64>,
    /// Numbers of the errors, in order.
    pub(crate) errors: Vec<i32>,
    /// A kind of ENVCHANGE that must be there.
    pub(crate) change: Option<u8>,
}

/// A named row of requests on one connection.
pub(crate) struct Check {
    /// As the report says it.
    pub(crate) name: &'static str,
    /// In order.
    pub(crate) steps: Vec<(Ask, Expect)>,
}

fn gives(rows: u64, result_sets: u64) -> Expect {
    Expect {
        rows: Some(rows),
        result_sets: Some(result_sets),
        ..Expect::default()
    }
}

fn nothing() -> Expect {
    gives(0, 0)
}

fn fails(rows: u64, result_sets: u64, errors: &[i32]) -> Expect {
    Expect {
        errors: errors.to_vec(),
        ..gives(rows, result_sets)
    }
}

fn batch(text: impl Into<String>, expect: Expect) -> (Ask, Expect) {
    (Ask::Batch(text.into()), expect)
}

fn changes(change: u8) -> Expect {
    Expect {
        change: Some(change),
        ..nothing()
    }
}

/// Everything that is asked, in order. Nothing outlives its connection: only temporary tables are made.
pub(crate) fn all() -> Vec<Check> {
    let check = |name, steps| Check { name, steps };
    vec![
        check(FIRST, one_row()),
        check(
            "types",
            vec![batch(TYPES, gives(1, 1)), batch(NULLS, gives(1, 1))],
        ),
        check("big values", big_values()),
        check("several result sets", vec![batch(THREE_SETS, gives(2, 3))]),
        check("errors", errors()),
        check("parameters", vec![(PARAMETER, gives(1, 1))]),
        check("transactions", transactions()),
        check("bulk load", bulk_load()),
        check(
            "a long result",
            vec![batch(long_statement(), gives(LONG_ROWS, 1))],
        ),
        check("cancellation", cancellation()),
        check("session reset", session_reset()),
    ]
}

/// A megabyte each.
fn big_values() -> Vec<(Ask, Expect)> {
    vec![
        batch(
            "SELECT REPLICATE(CAST('w' AS varchar(max)), 1048576) AS v",
            gives(1, 1),
        ),
        batch(
            "SELECT REPLICATE(CAST(N'w' AS nvarchar(max)), 524288) AS v",
            gives(1, 1),
        ),
    ]
}

fn errors() -> Vec<(Ask, Expect)> {
    vec![
        batch("SELECT * FROM weir_selftest_no_such_table", fails(0, 0, &[208])),
        batch("RAISERROR('weir selftest', 16, 7)", fails(0, 0, &[50000])),
        batch("SELECT 1 AS still", gives(1, 1)),
    ]
}

fn transactions() -> Vec<(Ask, Expect)> {
    vec![
        batch("CREATE TABLE #weir_selftest (id int NOT NULL)", nothing()),
        (Ask::Begin, changes(env::BEGIN_TRANSACTION)),
        batch("INSERT INTO #weir_selftest (id) VALUES (1)", nothing()),
        (Ask::RollBack, changes(env::ROLLBACK_TRANSACTION)),
        batch("SELECT id FROM #weir_selftest", gives(0, 1)),
        (Ask::Begin, changes(env::BEGIN_TRANSACTION)),
        batch("INSERT INTO #weir_selftest (id) VALUES (2)", nothing()),
        (Ask::Commit, changes(env::COMMIT_TRANSACTION)),
        batch("SELECT id FROM #weir_selftest", gives(1, 1)),
    ]
}

fn bulk_load() -> Vec<(Ask, Expect)> {
    vec![
        batch("CREATE TABLE #weir_selftest (id int NULL)", nothing()),
        batch("INSERT BULK #weir_selftest (id int)", nothing()),
        (Ask::Rows(1000), nothing()),
        batch("SELECT id FROM #weir_selftest", gives(1000, 1)),
    ]
}

fn cancellation() -> Vec<(Ask, Expect)> {
    vec![
        (Ask::Cancelled(long_statement()), Expect::default()),
        batch("SELECT 1 AS still", gives(1, 1)),
    ]
}

fn session_reset() -> Vec<(Ask, Expect)> {
    let reset = Expect {
        change: Some(env::RESET_ACK),
        ..gives(1, 1)
    };
    vec![
        batch("CREATE TABLE #weir_selftest (id int NOT NULL)", nothing()),
        (Ask::Reset("SELECT 1 AS one".to_owned()), reset),
        batch("SELECT * FROM #weir_selftest", fails(0, 0, &[208])),
    ]
}

const THREE_SETS: &str = "SELECT 1 AS a; SELECT 2 AS b, 3 AS c; SELECT 4 AS d WHERE 1 = 0";

const PARAMETER: Ask = Ask::Parameter {
    text: "SELECT @p AS p",
    value: 42,
};

const TYPES: &str = "SELECT CAST(1 AS bit) AS c1, CAST(200 AS tinyint) AS c2, CAST(-32768 AS smallint) AS c3, \
    CAST(2147483647 AS int) AS c4, CAST(9223372036854775807 AS bigint) AS c5, CAST(12345.6789 AS decimal(18, 4)) AS c6, \
    CAST(1.5 AS float) AS c7, CAST(0.25 AS real) AS c8, CAST('weir' AS varchar(20)) AS c9, \
    CAST(N'\u{17f}\u{20ac}\u{1f30a}' AS nvarchar(20)) AS c10, CAST('w' AS char(4)) AS c11, CAST(0x010203 AS varbinary(8)) AS c12, \
    CAST('2026-11-21' AS date) AS c13, CAST('2026-11-21T10:11:12.123' AS datetime2(3)) AS c14, \
    CAST('6F9619FF-8B86-D011-B42D-00C04FC964FF' AS uniqueidentifier) AS c15";

const NULLS: &str = "SELECT CAST(NULL AS bit) AS c1, CAST(NULL AS int) AS c2, CAST(NULL AS bigint) AS c3, \
    CAST(NULL AS decimal(18, 4)) AS c4, CAST(NULL AS float) AS c5, CAST(NULL AS varchar(20)) AS c6, \
    CAST(NULL AS nvarchar(max)) AS c7, CAST(NULL AS varbinary(max)) AS c8, CAST(NULL AS date) AS c9, \
    CAST(NULL AS uniqueidentifier) AS c10";

/// Carries out one step.
pub(crate) fn ask(client: &mut Client, ask: &Ask) -> Result<Answer, ClientError> {
    let options = RequestOptions::new(client.version());
    let text = |text: &str, client: &Client| sql_batch::encode(text, client.transaction(), options);
    let normal = PacketStatus::NORMAL;
    match ask {
        Ask::Batch(sql) => {
            let body = text(sql, client);
            client.ask(PacketType::SqlBatch, normal, &body)
        }
        Ask::Reset(sql) => {
            let body = text(sql, client);
            client.ask(PacketType::SqlBatch, PacketStatus::RESET, &body)
        }
        Ask::Cancelled(sql) => {
            let body = text(sql, client);
            client.ask_and_cancel(PacketType::SqlBatch, &body)
        }
        Ask::Parameter { text, value } => {
            let body = parameter(client, text, *value)?;
            client.ask(PacketType::Rpc, normal, &body)
        }
        Ask::Begin => {
            let begin = TransactionRequest::Begin(Begin {
                isolation: 0,
                name: String::new(),
            });
            transaction(client, &begin)
        }
        Ask::Commit => transaction(
            client,
            &TransactionRequest::Commit {
                name: String::new(),
                then: None,
            },
        ),
        Ask::RollBack => transaction(
            client,
            &TransactionRequest::Rollback {
                name: String::new(),
                then: None,
            },
        ),
        Ask::Rows(rows) => {
            let body = bulk(client, *rows)?;
            client.ask(PacketType::BulkLoad, normal, &body)
        }
    }
}

fn transaction(client: &mut Client, request: &TransactionRequest<'_>) -> Result<Answer, ClientError> {
    let body = request.encode(client.transaction());
    client.ask(PacketType::TransactionManager, PacketStatus::NORMAL, &body)
}

/// `sp_executesql` with `@p int`.
fn parameter(client: &Client, text: &str, value: i32) -> Result<Vec<u8>, BuildError> {
    let options = RequestOptions::new(client.version());
    let words = ColumnType::nvarchar(4000);
    let mut call = RpcBuf::new(options, client.transaction());
    call.call(ProcId::ExecuteSql, 0)
        .parameter("", 0, &words, &Value::Str(text))?
        .parameter("", 0, &words, &Value::Str("@p int"))?
        .parameter("@p", 0, &ColumnType::IntN(4), &Value::Int(i64::from(value)))?;
    Ok(call.finish().to_vec())
}

/// The rows of a bulk load: COLMETADATA, ROW tokens and a DONE, as a client sends them [MS-TDS 2.2.6.1].
fn bulk(client: &Client, rows: u32) -> Result<Vec<u8>, BuildError> {
    let columns = [ColumnDef::new("id", ColumnType::IntN(4))];
    let mut out = TokenBuf::new(client.version());
    out.bulk_metadata(&columns)?;
    for id in 0..rows {
        out.row(&columns, &[Value::Int(i64::from(id))])?;
    }
    out.done(0, 0, 0);
    Ok(out.as_bytes().to_vec())
}

/// What is wrong with an answer; nothing if it is right.
pub(crate) fn judge(answer: &Answer, expect: &Expect) -> Option<String> {
    let numbers: Vec<i32> = answer.errors.iter().map(|(number, ..)| *number).collect();
    if numbers != expect.errors {
        let texts: Vec<String> = answer
            .errors
            .iter()
            .map(|(n, _, _, text)| format!("{n}: {text}"))
            .collect();
        return Some(format!(
            "errors [{}], expected {:?}",
            texts.join("; "),
            expect.errors
        ));
    }
    if let Some(rows) = expect.rows
        && rows != answer.rows
    {
        return Some(format!("{} rows, expected {rows}", answer.rows));
    }
    if let Some(sets) = expect.result_sets
        && sets != answer.result_sets
    {
        return Some(format!("{} result sets, expected {sets}", answer.result_sets));
    }
    match expect.change {
        Some(change) if !answer.changes.contains(&change) => Some(format!("no ENVCHANGE {change}")),
        _ => None,
    }
}
