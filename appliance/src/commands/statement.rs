//! `weir statement ACCOUNT`: opening, lines, closing; and the usage behind the charges, summed up.

use serde_json::Value;
use weir_contracts::ids::AccountId;

use super::{Outcome, count, print, print_json, text};
use crate::{
    client::Client,
    error::CliError,
    table::{Column, Table, bytes, grouped},
};

/// Runs `weir statement`.
pub(super) fn run(client: &Client, account: &AccountId, json: bool) -> Result<Outcome, CliError> {
    let statement: Value = client.get(&format!("/api/accounts/{account}/statement"))?;
    if json {
        print_json(&statement)?;
    } else {
        print(&readable(&statement))?;
    }
    Ok(Outcome::Done)
}

fn readable(statement: &Value) -> String {
    let currency = text(statement, "currency");
    let mut table = Table::new([
        Column::Text("at"),
        Column::Text("type"),
        Column::Number("amount"),
        Column::Number("balance after"),
        Column::Text("description"),
        Column::Text("reference"),
    ]);
    for line in statement
        .get("lines")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        table.push(
            [
                "at",
                "type",
                "amount",
                "balance_after",
                "description",
                "reference",
            ]
            .map(|field| text(line, field)),
        );
    }
    let usage = statement.get("usage").unwrap_or(&Value::Null);
    format!(
        "Statement of {} in {currency}\n\n{table}\nopening  {}\nclosing  {}\nusage    {} requests, {} rows, {}, {} {currency}\n",
        text(statement, "account"),
        text(statement, "opening"),
        text(statement, "closing"),
        grouped(count(usage, "requests")),
        grouped(count(usage, "rows")),
        bytes(count(usage, "bytes")),
        text(usage, "cost"),
    )
}
