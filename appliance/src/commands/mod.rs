//! The commands: each asks billing's REST API (or starts the demo) and prints a table, or with `--json` what the API said.

mod account;
mod reconcile;
mod selftest;
mod statement;
mod top_up;
mod usage;

use std::{io::Write, process::ExitCode};

use serde_json::Value;

pub(crate) use usage::all_pages as usage_of;

use crate::{
    cli::{Command, Invocation, SelftestArgs},
    demo, endpoint,
    error::CliError,
};

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Done,
    /// Exit code 1: the answer itself is bad news (the books do not add up).
    NotOk,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::NotOk => Self::FAILURE,
        }
    }
}

/// Runs the command.
pub(crate) fn run(invocation: &Invocation) -> Result<Outcome, CliError> {
    let json = invocation.cli.global.json;
    if let Command::Demo(args) = &invocation.cli.command {
        demo::run(args, invocation.cli.global.data_dir.clone())?;
        return Ok(Outcome::Done);
    }
    if let Command::Selftest(SelftestArgs {
        upstream: Some(address),
        server,
        ..
    }) = &invocation.cli.command
    {
        return selftest::of_server(address, server, json);
    }
    let client = endpoint::client(invocation)?;
    match &invocation.cli.command {
        Command::Demo(_) => Ok(Outcome::Done),
        Command::Account(command) => account::run(&client, command, json),
        Command::TopUp(args) => top_up::run(&client, args, json),
        Command::Statement(args) => statement::run(&client, &args.account, json),
        Command::Usage(args) => usage::run(&client, &args.account, json),
        Command::Reconcile => reconcile::run(&client, json),
        Command::Selftest(_) => selftest::of_items(&client, json),
    }
}

/// Prints and flushes; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints JSON as the API gave it, indented.
fn print_json(value: &Value) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    print(&format!("{text}\n"))
}

/// A field as people read it: strings without quotes, what is absent as a dash.
fn text(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A counter; what is absent counts as zero.
fn count(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}
