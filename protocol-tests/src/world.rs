//! A whole Weir under test, however it was started: its tenant, and the operator's commands against it.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::deadline::wait_for;
use crate::demo::binary;
use crate::drivers::Target;
use crate::money;

/// A running Weir with the demo's tenant, tariff and tables.
pub trait World {
    /// The demo tenant at the gate.
    fn tenant(&self) -> Target;

    /// Names this Weir to an operator's command.
    fn aim(&self, command: &mut Command);

    /// How long the books may take to be at rest once nobody asks for anything. Zero: the command's own wait must do.
    fn rest_within(&self) -> Duration {
        Duration::ZERO
    }

    /// Runs an operator's command.
    ///
    /// # Panics
    /// When it does not start.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("weir"));
        self.aim(command.args(arguments).stdin(Stdio::null()));
        command
            .output()
            .unwrap_or_else(|error| panic!("weir {arguments:?}: {error}"))
    }

    /// Runs an operator's command with `--json`; what it printed, or why there is none.
    ///
    /// # Errors
    /// Its exit code and what it said.
    fn try_json(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self.run(&[arguments, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("weir {arguments:?}: {} {text}{errors}", output.status));
        }
        serde_json::from_str(&text).map_err(|error| format!("weir {arguments:?}: {error}: {text}"))
    }

    /// The same for a command that must succeed.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        self.try_json(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The account's balance in nano-units once all that had ended is settled.
    ///
    /// # Panics
    /// When it does not settle in time.
    fn settled_balance(&self) -> i64 {
        let mut last = String::new();
        let account = wait_for(self.rest_within(), || {
            let account = self.try_json(&["account", "show", "demo", "--wait-settled"]);
            account.map_err(|error| last = error).ok()
        });
        let account = account.unwrap_or_else(|| panic!("{last}"));
        let balance = account["balance"].as_str();
        money::nanos(balance.unwrap_or_else(|| panic!("no balance: {account}")))
    }

    /// Adds credit, in nano-units.
    fn top_up(&self, nanos: i64) {
        let _ = self.json(&["top-up", "demo", &money::decimal(nanos)]);
    }

    /// The account's requests, oldest first.
    ///
    /// # Panics
    /// When it prints no array.
    fn usage(&self) -> Vec<Value> {
        let usage = self.json(&["usage", "--account", "demo"]);
        usage
            .as_array()
            .unwrap_or_else(|| panic!("no array: {usage}"))
            .clone()
    }

    /// Asserts that every sum of the books agrees, and gives the sums.
    ///
    /// # Panics
    /// When one does not; with what `weir reconcile` says.
    fn reconcile(&self) -> Value {
        let output = self.run(&["reconcile", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let equal = answer["ok"] == true && answer["first_difference"].is_null();
        assert!(equal && output.status.success(), "reconcile: {text}{errors}");
        answer["sums"].clone()
    }
}
