//! The demo tenant, made through billing's REST API as an operator would.

use serde_json::{Value, json};
use weir_contracts::money::Amount;

use crate::client::{Client, ClientError};

/// Name of the tenant's account and of its login.
pub(crate) const TENANT: &str = "demo";
/// The tenant's tariff: 0.000010 USD per row delivered and nothing else.
const TARIFF: &str = "demo@1";

/// The account as billing shows it; made with this credit when the directory is new.
pub(crate) fn ensure(client: &Client, credit: Amount) -> Result<Value, ClientError> {
    let path = format!("/api/accounts/{TENANT}");
    match client.get(&path) {
        Ok(account) => return Ok(account),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let prices = json!({ "currency": "USD", "per_row": "0.000010" });
    let _: Value = client.put(&format!("/api/tariffs/{TARIFF}"), &prices)?;
    let account = json!({
        "account": TENANT,
        "login": TENANT,
        "currency": "USD",
        "initial_credit": credit,
        "tariff": TARIFF,
        "mode": "enforce",
    });
    client.post("/api/accounts", &account)
}
