//! `weir selftest --items`: does the store that billing is configured with keep its promises? Exit code 1 when it does not.

use serde_json::{Value, json};

use super::{Outcome, print, print_json, text};
use crate::{
    client::Client,
    error::CliError,
    table::{Column, Table},
};

/// Runs `weir selftest --items`. The suite runs in billing, which has the store's address and login.
pub(super) fn run(client: &Client, json: bool) -> Result<Outcome, CliError> {
    let answer: Value = client.post_waiting("/api/selftest/items", &json!({}))?;
    if json {
        print_json(&answer)?;
    } else {
        print(&readable(&answer))?;
    }
    let ok = answer.get("ok").and_then(Value::as_bool).unwrap_or(false);
    Ok(if ok { Outcome::Done } else { Outcome::NotOk })
}

fn readable(answer: &Value) -> String {
    let mut table = Table::new([Column::Text("check"), Column::Text(""), Column::Text("seen")]);
    let checks = answer.get("checks").and_then(Value::as_array);
    let (mut all, mut failed) = (0, 0);
    for check in checks.into_iter().flatten() {
        let ok = check.get("ok").and_then(Value::as_bool).unwrap_or(false);
        let verdict = if ok { "ok" } else { "FAILED" };
        all += 1;
        failed += usize::from(!ok);
        table.push([text(check, "check"), verdict.to_owned(), text(check, "detail")]);
    }
    let place = text(answer, "place");
    let verdict = match failed {
        0 => format!("ok: {all} checks hold on {place}\n"),
        _ => format!("NOT OK: {failed} of {all} checks fail on {place}\n"),
    };
    format!("{table}\n{verdict}")
}
