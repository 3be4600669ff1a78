//! Runs the scenarios of the conformance suite through tiberius or mssql-tds; the contract is in `../README.md`.

mod by_mssql_tds;
mod by_tiberius;
mod reply;
mod values;

use std::collections::HashMap;
use std::io::Write as _;

use serde_json::{Value, json};

use reply::Failure;

/// The command line.
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    /// A value that must be there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("--{name} is missing"))
    }

    fn read(words: impl Iterator<Item = String>) -> Self {
        let words: Vec<String> = words.collect();
        let pairs = words.chunks_exact(2);
        Self(
            pairs
                .map(|pair| (pair[0].trim_start_matches('-').to_owned(), pair[1].clone()))
                .collect(),
        )
    }
}

/// A connection through one of the drivers.
pub(crate) trait Session: Sized {
    /// Logs in.
    async fn open(options: &Options) -> Result<Self, Failure>;

    /// One step, `await` excepted.
    async fn step(&mut self, step: &Value) -> Result<Value, Failure>;

    /// Ends it.
    async fn close(self);
}

fn main() {
    let mut words = std::env::args().skip(1);
    let driver = words.next().unwrap_or_default();
    let options = Options::read(words);
    let text = std::fs::read_to_string(options.get("file")).unwrap_or_else(|error| panic!("--file: {error}"));
    let listed: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("--file: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"));
    for name in options.get("scenarios").split(',') {
        let all = listed["scenarios"].as_array().into_iter().flatten();
        let scenario = all.into_iter().find(|scenario| scenario["name"] == name);
        let scenario = scenario.unwrap_or_else(|| panic!("no scenario {name}"));
        let told = runtime.block_on(async {
            match driver.as_str() {
                "tiberius" => play::<by_tiberius::Connection>(&options, scenario).await,
                "mssql-tds" => play::<by_mssql_tds::Connection>(&options, scenario).await,
                other => panic!("no driver {other}"),
            }
        });
        tell(&told);
    }
}

fn tell(line: &Value) {
    let mut output = std::io::stdout().lock();
    let told = writeln!(output, "{line}").and_then(|()| output.flush());
    told.unwrap_or_else(|error| panic!("nobody listens: {error}"));
}

async fn play<S: Session>(options: &Options, scenario: &Value) -> Value {
    let mut replies = Vec::new();
    let ended = steps::<S>(options, scenario, &mut replies).await;
    let name = &scenario["name"];
    match ended {
        Ok(()) => json!({"scenario": name, "ok": true, "result": replies, "error": null}),
        Err(Failure::Unsupported(why)) => {
            json!({"scenario": name, "ok": false, "result": null, "error": null, "unsupported": why})
        }
        Err(Failure::Error(error)) => {
            json!({"scenario": name, "ok": false, "result": replies, "error": error})
        }
    }
}

async fn steps<S: Session>(
    options: &Options,
    scenario: &Value,
    replies: &mut Vec<Value>,
) -> Result<(), Failure> {
    let mut session = S::open(options).await?;
    for step in scenario["steps"].as_array().into_iter().flatten() {
        if step["do"] == "await" {
            tell(&json!({"await": step["what"]}));
            let mut line = String::new();
            let _ = std::io::stdin().read_line(&mut line);
            replies.push(json!({}));
            continue;
        }
        let filled = step.to_string().replace("{tag}", options.get("tag"));
        let step = serde_json::from_str(&filled).unwrap_or_else(|error| panic!("{filled}: {error}"));
        replies.push(session.step(&step).await?);
    }
    session.close().await;
    Ok(())
}
