//! The scenarios as `drivers/scenarios.json` lists them, and whether a driver's answer is the known truth.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_protocol_tests::drivers;

/// A scenario: its name, which upstreams can answer it, its steps.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) upstreams: Vec<String>,
    pub(super) steps: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct List {
    scenarios: Vec<Scenario>,
}

/// The scenarios for the drivers' programs, in the file's order.
pub(super) fn all() -> Vec<Scenario> {
    let path = drivers::directory().join("scenarios.json");
    let text = std::fs::read_to_string(path).expect("drivers/scenarios.json");
    let list: List = serde_json::from_str(&text).expect("drivers/scenarios.json is of its form");
    list.scenarios
}

/// A script of the sandbox's `scenario` backend whose every answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Script {
    Types,
    Tokens,
}

impl Script {
    pub(super) const ALL: [Self; 2] = [Self::Types, Self::Tokens];

    /// How the table names its answers.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Types => "every type, scripted",
            Self::Tokens => "every token, scripted",
        }
    }

    /// The word under which its scenarios name their upstream.
    pub(super) fn upstream(self) -> &'static str {
        match self {
            Self::Types => "script of types",
            Self::Tokens => "script of tokens",
        }
    }

    pub(super) fn path(self) -> PathBuf {
        let name = match self {
            Self::Types => "types.json",
            Self::Tokens => "tokens.json",
        };
        drivers::directory().join("../scenarios").join(name)
    }

    /// One scenario per answer that a batch asks for. Their names stand in a list, so they have no commas.
    pub(super) fn scenarios(self) -> Vec<Scenario> {
        let text = std::fs::read_to_string(self.path()).expect("a script");
        let script: Value = serde_json::from_str(&text).expect("a script is JSON");
        let rules = script["rules"].as_array().expect("a script has rules");
        let texts = rules.iter().filter_map(|rule| rule["when"]["text_is"].as_str());
        texts
            .map(|text| Scenario {
                name: text.replace(',', " "),
                upstreams: vec![self.upstream().to_owned()],
                steps: vec![json!({"do": "batch", "sql": text})],
            })
            .collect()
    }
}

/// Writes the list that the programs are given.
pub(super) fn write(path: &Path, scenarios: Vec<Scenario>) -> Vec<Scenario> {
    let list = List { scenarios };
    let text = serde_json::to_string(&list).expect("scenarios are JSON");
    std::fs::write(path, text).expect("the list is written");
    list.scenarios
}

impl Scenario {
    /// What is wrong with `result`, by the steps' `expect`; none if nothing is. `bought` stands for the rows that
    /// the credit paid for.
    pub(super) fn wrong(&self, result: &Value, bought: u64) -> Option<String> {
        let replies = result.as_array().map(Vec::as_slice).unwrap_or_default();
        if replies.len() != self.steps.len() {
            return Some(format!("{} replies to {} steps", replies.len(), self.steps.len()));
        }
        let mut steps = self.steps.iter().zip(replies).enumerate();
        steps.find_map(|(at, (step, reply))| {
            let wrong = not_as_expected(&step["expect"], reply, bought)?;
            Some(format!("step {}, {}: {wrong}; got {reply}", at + 1, step["do"]))
        })
    }
}

fn not_as_expected(expect: &Value, reply: &Value, bought: u64) -> Option<String> {
    let fields = expect.as_object()?;
    fields.iter().find_map(|(field, wanted)| {
        let holds = match field.as_str() {
            "rows" => rows(reply) == numbers(wanted, bought),
            "errors" => same_errors(reply, wanted),
            "first" if wanted.is_array() => first_row(reply, wanted),
            "nulls" => all_null(reply),
            "sha256" => first_value(reply).ends_with(wanted.as_str().unwrap_or("?")),
            "cancelled" => reply["cancelled"] == *wanted,
            "runs" => each_run(reply, wanted, bought),
            "first" | "second" => rows(&reply[field]) == numbers(&Value::from(vec![wanted.clone()]), bought),
            other => panic!("scenarios.json expects {other}, which nothing checks"),
        };
        (!holds).then(|| format!("{field} should be {wanted}"))
    })
}

fn rows(reply: &Value) -> Vec<u64> {
    let sets = reply["sets"].as_array().map(Vec::as_slice).unwrap_or_default();
    sets.iter()
        .map(|set| set["rows"].as_u64().unwrap_or(u64::MAX))
        .collect()
}

fn numbers(wanted: &Value, bought: u64) -> Vec<u64> {
    let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    wanted
        .iter()
        .map(|number| number.as_u64().unwrap_or(bought))
        .collect()
}

/// The numbers of the errors; a driver that tells no numbers tells 0.
fn same_errors(reply: &Value, wanted: &Value) -> bool {
    let told = reply["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    told.len() == wanted.len()
        && told
            .iter()
            .zip(wanted)
            .all(|(told, wanted)| told["number"] == *wanted || told["number"] == 0)
}

/// Whether the first row is this one; the letters of the types are the driver's choice.
fn first_row(reply: &Value, wanted: &Value) -> bool {
    let row = reply["sets"][0]["values"][0]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let wanted = wanted.as_array().cloned().unwrap_or_default();
    let bare = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        text.split_once(':').map_or(text, |(_, bare)| bare).to_owned()
    };
    row.len() == wanted.len()
        && row
            .iter()
            .zip(&wanted)
            .all(|(told, wanted)| bare(told) == bare(wanted))
}

fn all_null(reply: &Value) -> bool {
    let row = reply["sets"][0]["values"][0].as_array();
    row.is_some_and(|row| !row.is_empty() && row.iter().all(Value::is_null))
}

fn first_value(reply: &Value) -> &str {
    reply["sets"][0]["values"][0][0].as_str().unwrap_or_default()
}

fn each_run(reply: &Value, wanted: &Value, bought: u64) -> bool {
    let runs = reply["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    runs.len() == wanted.len()
        && runs
            .iter()
            .zip(wanted)
            .all(|(run, rows_of)| rows(run) == numbers(rows_of, bought))
}
