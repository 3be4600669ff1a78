//! `weir top-up ACCOUNT AMOUNT`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Outcome, account};
use crate::{
    cli::TopUpArgs,
    client::{Client, ClientError},
    error::CliError,
};

/// Adds credit once: the key makes asking again harmless, so a call that got no answer is repeated once under the same key.
pub(super) fn run(client: &Client, args: &TopUpArgs, json: bool) -> Result<Outcome, CliError> {
    let key = args
        .key
        .clone()
        .unwrap_or_else(|| format!("cli-{}", Uuid::new_v4()));
    let path = format!("/api/accounts/{}/top-up", args.account);
    let body = json!({ "amount": args.amount, "key": key });
    let answer = client.post::<Value>(&path, &body).or_else(|error| match error {
        ClientError::Unreachable { .. } => client.post(&path, &body),
        other => Err(other),
    });
    let answer = answer.inspect_err(|error| {
        if matches!(error, ClientError::Unreachable { .. }) {
            eprintln!(
                "weir: whether it was added is not known; `--key {key}` asks again without adding twice"
            );
        }
    })?;
    account::show(&answer, json)
}
