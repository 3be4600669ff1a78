//! What became of a scenario in a cell, and whether that is what the table of expectations says.

use serde::Deserialize;
use weir_protocol_tests::drivers;

use super::encryption::Encryption;
use super::run::Told;
use super::scenarios::Scenario;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Through Weir the driver told what it told directly, and that is the known truth.
    Same,
    /// The driver has no such thing; why, in its program's words.
    Unsupported(String),
    /// The driver told something else directly than is true: not Weir's doing. What.
    Astray(String),
    /// Through Weir it told something else than directly. What.
    Differs(String),
}

impl Verdict {
    /// The word that the table of expectations has for it.
    fn word(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Unsupported(_) => "unsupported",
            Self::Astray(_) => "astray",
            Self::Differs(_) => "differs",
        }
    }

    /// Compares what was told directly with what was told through Weir.
    pub(super) fn of(scenario: &Scenario, direct: &Told, through: &Told) -> Self {
        if let (Some(why), Some(_)) = (&direct.unsupported, &through.unsupported) {
            return Self::Unsupported(why.clone());
        }
        if (direct.ok, &direct.result) != (through.ok, &through.result) {
            return Self::Differs(format!(
                "through Weir {}, directly {}",
                summed_up(through),
                summed_up(direct)
            ));
        }
        Self::alone(scenario, through, 0)
    }

    /// Of a scripted answer: no server sends it, so what a driver makes of it is its own affair, a refusal included.
    pub(super) fn alike(direct: &Told, through: &Told) -> Self {
        let parts = |told: &Told| {
            (
                told.ok,
                told.result.clone(),
                told.error.clone(),
                told.unsupported.clone(),
            )
        };
        if parts(direct) == parts(through) {
            return Self::Same;
        }
        Self::Differs(format!(
            "through Weir {}, directly {}",
            summed_up(through),
            summed_up(direct)
        ))
    }

    /// Of a scenario that runs through Weir only.
    pub(super) fn alone(scenario: &Scenario, told: &Told, bought: u64) -> Self {
        if let Some(why) = &told.unsupported {
            return Self::Unsupported(why.clone());
        }
        if !told.ok {
            return Self::Astray(told.error.to_string());
        }
        scenario
            .wrong(&told.result, bought)
            .map_or(Self::Same, Self::Astray)
    }
}

fn summed_up(told: &Told) -> String {
    let text = match (&told.unsupported, told.ok) {
        (Some(why), _) => format!("unsupported: {why}"),
        (None, true) => told.result.to_string(),
        (None, false) => format!("failed with {} after {}", told.error, told.result),
    };
    text.chars().take(1500).collect()
}

/// A line of `drivers/expectations.json`: cells of which something else than `same` is known, with the reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    driver: String,
    /// A scenario, or `*`.
    scenario: String,
    /// The client's encryption, or `*`.
    encryption: String,
    expect: String,
    /// For the reader of the table.
    pub(super) reason: String,
}

impl Expectation {
    /// Whether this driver waits for ever for the rest of this answer, which ends its process: it is not asked for.
    pub(super) fn hangs(&self, driver: &str, scenario: &str) -> bool {
        self.expect == "hangs" && self.driver == driver && self.scenario == scenario
    }
}

/// The committed table.
pub(super) fn expectations() -> Vec<Expectation> {
    let path = drivers::directory().join("expectations.json");
    let text = std::fs::read_to_string(path).expect("drivers/expectations.json");
    serde_json::from_str(&text).expect("drivers/expectations.json is of its form")
}

/// The first line that speaks of this cell.
pub(super) fn known<'a>(
    expectations: &'a [Expectation],
    driver: &str,
    scenario: &str,
    client: Encryption,
) -> Option<&'a Expectation> {
    let speaks = |pattern: &str, word: &str| pattern == "*" || pattern == word;
    expectations.iter().find(|line| {
        line.driver == driver && speaks(&line.scenario, scenario) && speaks(&line.encryption, client.name())
    })
}

/// What is unexpected about a verdict; none if it is as the table says.
pub(super) fn unexpected(verdict: &Verdict, known: Option<&Expectation>) -> Option<String> {
    let wanted = known.map_or("same", |line| line.expect.as_str());
    // What a driver cannot do it says itself, and in the table's words.
    let reason = match (verdict, known) {
        (Verdict::Unsupported(why), Some(line)) => *why == line.reason,
        _ => true,
    };
    (verdict.word() != wanted || !reason).then(|| format!("expected {wanted}, found {verdict:?}"))
}
