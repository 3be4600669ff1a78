//! `weir selftest`: does a store, or a SQL Server behind Weir, do what Weir promises? Exit code 1 when it does not.

use serde_json::{Value, json};

use super::{Outcome, print, print_json, text};
use crate::{
    cli::ServerArgs,
    client::Client,
    error::CliError,
    selftest,
    table::{Column, Table},
};

/// Runs `weir selftest --items`. The suite runs in billing, which has the store's address and login.
pub(super) fn of_items(client: &Client, json: bool) -> Result<Outcome, CliError> {
    let answer: Value = client.post_waiting("/api/selftest/items", &json!({}))?;
    report(&answer, json)
}

/// Runs `weir selftest --upstream`, in this process.
pub(super) fn of_server(address: &str, args: &ServerArgs, json: bool) -> Result<Outcome, CliError> {
    report(&selftest::run(address, args)?, json)
}

fn report(answer: &Value, json: bool) -> Result<Outcome, CliError> {
    if json {
        print_json(answer)?;
    } else {
        print(&readable(answer))?;
    }
    let ok = answer.get("ok").and_then(Value::as_bool).unwrap_or(false);
    Ok(if ok { Outcome::Done } else { Outcome::NotOk })
}

fn readable(answer: &Value) -> String {
    let mut table = Table::new([Column::Text("check"), Column::Text(""), Column::Text("seen")]);
    let checks = answer.get("checks").and_then(Value::as_array);
    let (mut held, mut left_out, mut failed) = (0, 0, 0);
    for check in checks.into_iter().flatten() {
        let is = |what: &str| check.get(what).and_then(Value::as_bool).unwrap_or(false);
        let (verdict, count) = match (is("ok"), is("left_out")) {
            (true, false) => ("ok", &mut held),
            (true, true) => ("left out", &mut left_out),
            (false, _) => ("FAILED", &mut failed),
        };
        *count += 1;
        table.push([text(check, "check"), verdict.to_owned(), text(check, "detail")]);
    }
    let place = text(answer, "place");
    let besides = match left_out {
        0 => String::new(),
        _ => format!("; {left_out} were left out"),
    };
    let verdict = match failed {
        0 => format!("ok: {held} checks hold on {place}{besides}\n"),
        _ => {
            let all = held + failed;
            format!("NOT OK: {failed} of {all} checks fail on {place}{besides}\n")
        }
    };
    format!("{table}\n{verdict}")
}
