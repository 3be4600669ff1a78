//! `weir usage --account A`: one line per request, oldest first and complete; the API gives it in pages.

use serde_json::Value;
use weir_contracts::ids::AccountId;

use super::{Outcome, count, print, print_json, text};
use crate::{
    client::{Client, ClientError},
    error::CliError,
    table::{Column, Table, bytes, grouped},
};

/// Requests asked for at a time.
const PAGE: usize = 1_000;

/// Runs `weir usage`.
pub(super) fn run(client: &Client, account: &AccountId, json: bool) -> Result<Outcome, CliError> {
    let requests = all_pages(client, account.as_str())?;
    if json {
        print_json(&Value::Array(requests))?;
    } else {
        print(&readable(&requests))?;
    }
    Ok(Outcome::Done)
}

/// Reads until an empty page. An answer that ignores `after` would never end: a page that begins where one before began is refused.
pub(crate) fn all_pages(client: &Client, account: &str) -> Result<Vec<Value>, ClientError> {
    let mut requests: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/accounts/{account}/usage?limit={PAGE}{after}");
        let page: Vec<Value> = client.get(&path)?;
        let Some(last) = page.last() else {
            return Ok(requests);
        };
        let next = format!("&after={}", text(last, "id"));
        if next == after || page.first() == requests.first() {
            return Err(ClientError::Answer {
                url: path,
                status: 200,
                cause: "the pages of usage do not move on".to_owned(),
            });
        }
        after = next;
        requests.extend(page);
    }
}

fn readable(requests: &[Value]) -> String {
    let mut table = Table::new([
        Column::Text("started"),
        Column::Text("id"),
        Column::Text("kind"),
        Column::Number("rows"),
        Column::Number("bytes"),
        Column::Number("cost"),
        Column::Text("outcome"),
    ]);
    for request in requests {
        table.push([
            text(request, "started"),
            text(request, "id"),
            text(request, "kind"),
            grouped(count(request, "rows")),
            bytes(count(request, "bytes")),
            text(request, "cost"),
            text(request, "outcome"),
        ]);
    }
    table.to_string()
}
