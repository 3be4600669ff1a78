//! The gate's judgement of a request: what passes free, what needs credit.

use weir_proxy::gate::request::{Judged, Verdict, judge};
use weir_tds::build::{Collation, ColumnType, RpcBuf, Value};
use weir_tds::packet::PacketType;
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::ProcId;
use weir_tds::request::sql_batch;
use weir_tds::version::TdsVersion;

use super::Work;
use crate::failure::{Failure, Trying};

/// Requests of a turn.
const REQUESTS: u64 = 200;
/// What a driver sends when it takes a connection from its pool.
const EXEMPT: &str = "SET QUOTED_IDENTIFIER ON;SET ARITHABORT OFF;SET NUMERIC_ROUNDABORT OFF;SET ANSI_WARNINGS ON;\
    SET ANSI_PADDING ON;SET ANSI_NULLS ON;SET CONCAT_NULL_YIELDS_NULL ON;SET CURSOR_CLOSE_ON_COMMIT OFF;\
    SET IMPLICIT_TRANSACTIONS OFF;SET LANGUAGE us_english;SET DATEFORMAT mdy;SET DATEFIRST 7;\
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED";
/// What an application asks.
const QUERY: &str = "SELECT o.id, o.placed, c.name, SUM(l.price * l.amount) AS total FROM dbo.orders AS o \
    JOIN dbo.customers AS c ON c.id = o.customer JOIN dbo.lines AS l ON l.[order] = o.id \
    WHERE o.placed >= '2026-01-01' AND c.country = N'PT' GROUP BY o.id, o.placed, c.name ORDER BY total DESC";

pub(super) fn exempt() -> Result<Work, Failure> {
    Ok(judged(PacketType::SqlBatch, batch(EXEMPT), Verdict::Exempt))
}

pub(super) fn query() -> Result<Work, Failure> {
    Ok(judged(PacketType::SqlBatch, batch(QUERY), Verdict::Normal))
}

/// The query, as most drivers send it.
pub(super) fn execute_sql() -> Result<Work, Failure> {
    let mut rpc = RpcBuf::new(RequestOptions::new(TdsVersion::V7_4), 0);
    let text = ColumnType::NVarChar(8000, Collation::LATIN1);
    rpc.call(ProcId::ExecuteSql, 0)
        .parameter("", 0, &text, &Value::Str(QUERY))
        .and_then(|rpc| rpc.parameter("", 0, &text, &Value::Str("@P1 int")))
        .and_then(|rpc| rpc.parameter("@P1", 0, &ColumnType::IntN(4), &Value::Int(42)))
        .trying("sp_executesql")?;
    Ok(judged(PacketType::Rpc, rpc.finish().to_vec(), Verdict::Normal))
}

fn batch(text: &str) -> Vec<u8> {
    sql_batch::encode(text, 0, RequestOptions::new(TdsVersion::V7_4))
}

fn judged(kind: PacketType, body: Vec<u8>, expected: Verdict) -> Work {
    Box::new(move || {
        for _ in 0..REQUESTS {
            let Judged { verdict, .. } = judge(kind, &body, TdsVersion::V7_4);
            if verdict != expected {
                return Err(Failure(format!("the gate says {verdict:?}, not {expected:?}")));
            }
        }
        Ok(REQUESTS)
    })
}
