//! `weir reconcile`: do usage, charges, captures, read model and financial items add up? Exit code 1 when they do not.

use serde_json::Value;

use super::{Outcome, print, print_json, text};
use crate::{
    client::Client,
    error::CliError,
    table::{Column, Table},
};

/// Runs `weir reconcile`.
pub(super) fn run(client: &Client, json: bool) -> Result<Outcome, CliError> {
    let answer: Value = client.get_waiting("/api/reconcile")?;
    if json {
        print_json(&answer)?;
    } else {
        print(&readable(&answer))?;
    }
    let ok = answer.get("ok").and_then(Value::as_bool).unwrap_or(false);
    Ok(if ok { Outcome::Done } else { Outcome::NotOk })
}

fn readable(answer: &Value) -> String {
    let mut table = Table::new([Column::Text("sum of"), Column::Number("amount")]);
    let sums = answer.get("sums").and_then(Value::as_object);
    for (name, sum) in sums.into_iter().flatten() {
        let shown = sum.as_str().map_or_else(|| sum.to_string(), str::to_owned);
        table.push([name.replace('_', " "), shown]);
    }
    let verdict = match answer.get("ok").and_then(Value::as_bool) {
        Some(true) => "ok: every sum agrees\n".to_owned(),
        _ => format!("NOT OK, first difference: {}\n", text(answer, "first_difference")),
    };
    format!("{table}\n{verdict}")
}
