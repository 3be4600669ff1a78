//! `weir account …`: show, list, create, freeze, unfreeze.

use serde_json::{Value, json};
use weir_contracts::ids::AccountId;

use super::{Outcome, print, print_json, text};
use crate::{
    cli::{AccountCommand, CreateArgs},
    client::Client,
    error::CliError,
    table::{Column, Table},
};

/// Runs `weir account …`.
pub(super) fn run(client: &Client, command: &AccountCommand, json: bool) -> Result<Outcome, CliError> {
    let answer: Value = match command {
        AccountCommand::List => {
            let accounts: Vec<Value> = client.get("/api/accounts")?;
            return list(accounts, json);
        }
        AccountCommand::Show {
            account,
            wait_settled: false,
        } => client.get(&format!("/api/accounts/{account}"))?,
        AccountCommand::Show {
            account,
            wait_settled: true,
        } => client.get_waiting(&format!("/api/accounts/{account}?wait_settled=1"))?,
        AccountCommand::Create(args) => client.post("/api/accounts", &creation(args))?,
        AccountCommand::Freeze { account } => set_status(client, account, "FROZEN")?,
        AccountCommand::Unfreeze { account } => set_status(client, account, "ACTIVE")?,
    };
    show(&answer, json)
}

fn creation(args: &CreateArgs) -> Value {
    json!({
        "account": args.account,
        "login": args.login.as_deref().unwrap_or(args.account.as_str()),
        "currency": args.currency,
        "initial_credit": args.credit,
        "tariff": args.tariff,
        "mode": args.mode,
    })
}

fn set_status(client: &Client, account: &AccountId, status: &str) -> Result<Value, CliError> {
    Ok(client.put(
        &format!("/api/accounts/{account}/status"),
        &json!({ "status": status }),
    )?)
}

/// One account, a line per field.
pub(super) fn show(account: &Value, json: bool) -> Result<Outcome, CliError> {
    if json {
        print_json(account)?;
        return Ok(Outcome::Done);
    }
    let currency = text(account, "currency");
    let mut table = Table::new([Column::Text("account"), Column::Number(""), Column::Text("")]);
    table.push([text(account, "account"), String::new(), String::new()]);
    for (field, label) in [
        ("balance", "balance"),
        ("held", "held"),
        ("available", "available"),
        ("receivable", "owed"),
    ] {
        if account.get(field).is_some() {
            table.push([format!("  {label}"), text(account, field), currency.clone()]);
        }
    }
    let mut lines = table
        .to_string()
        .split_once('\n')
        .map(|(_, rows)| rows.to_owned())
        .unwrap_or_default();
    for field in ["status", "mode", "tariff", "login"] {
        if account.get(field).is_some() {
            lines.push_str(&format!("  {field:<11}{}\n", text(account, field)));
        }
    }
    print(&lines)?;
    Ok(Outcome::Done)
}

fn list(accounts: Vec<Value>, json: bool) -> Result<Outcome, CliError> {
    if json {
        print_json(&Value::Array(accounts))?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new([
        Column::Text("account"),
        Column::Text("login"),
        Column::Number("balance"),
        Column::Number("held"),
        Column::Number("available"),
        Column::Text("currency"),
        Column::Text("status"),
        Column::Text("mode"),
        Column::Text("tariff"),
    ]);
    for account in &accounts {
        table.push(
            [
                "account",
                "login",
                "balance",
                "held",
                "available",
                "currency",
                "status",
                "mode",
                "tariff",
            ]
            .map(|field| text(account, field)),
        );
    }
    print(&table.to_string())?;
    Ok(Outcome::Done)
}
