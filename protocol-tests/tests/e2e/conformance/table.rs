//! Writes `docs/drivers.md`: driver × scenario × encryption as a run found them. The same run gives the same text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use weir_protocol_tests::drivers;

use super::cells::MAIN;
use super::encryption::Encryption;
use super::programs::Program;
use super::scenarios::{Scenario, Script};
use super::verdict::{Expectation, Verdict, known};

/// Set to write the table before it is compared.
const WRITE: &str = "WEIR_WRITE_TABLES";

/// What stands above the tables.
const HEAD: &str = include_str!("table_head.md");

/// What one driver showed: by scenario and client's encryption, a verdict for each leg behind the gate.
pub(super) type Shown = BTreeMap<(String, Encryption), Vec<Verdict>>;

/// One driver's part of the table; scenarios in the order given.
pub(super) fn section(
    program: &Program,
    scenarios: &[Scenario],
    shown: &Shown,
    lines: &[Expectation],
) -> String {
    let mut text = format!(
        "\n## {} {}\n\n{}.\n\n| scenario |",
        program.driver,
        version(program),
        program.what
    );
    for client in Encryption::ALL {
        let _ = write!(text, " {} |", client.name());
    }
    text.push_str("\n|---|---|---|---|---|---|\n");
    let mut notes: Vec<String> = Vec::new();
    let scripted = |scenario: &&Scenario| {
        Script::ALL
            .iter()
            .any(|script| scenario.upstreams == [script.upstream()])
    };
    for scenario in scenarios
        .iter()
        .filter(|scenario| !scripted(scenario))
        .map(|scenario| &scenario.name)
    {
        let _ = write!(text, "| {scenario} |");
        for client in Encryption::ALL {
            let verdicts = shown
                .get(&(scenario.clone(), client))
                .map(Vec::as_slice)
                .unwrap_or_default();
            let note = known(lines, program.driver, scenario, client).map(|line| line.reason.clone());
            let _ = write!(text, " {} |", entry(verdicts, note, &mut notes));
        }
        text.push('\n');
    }
    for script in Script::ALL {
        let answers = scenarios
            .iter()
            .filter(|scenario| scenario.upstreams == [script.upstream()]);
        let (mut same, mut all) = (0, 0);
        for verdict in answers
            .filter_map(|answer| shown.get(&(answer.name.clone(), MAIN)))
            .flatten()
        {
            all += 1;
            same += u32::from(*verdict == Verdict::Same);
        }
        let _ = writeln!(text, "| {} | | | {same} of {all} | | |", script.label());
    }
    for (at, note) in notes.iter().enumerate() {
        let _ = write!(text, "\n{}. {note}", at + 1);
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    text
}

/// What stands in one field: how many legs behind the gate gave the same, or the note that says why not.
fn entry(verdicts: &[Verdict], note: Option<String>, notes: &mut Vec<String>) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let Some(note) = note else {
        let same = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Same)
            .count();
        return same.to_string();
    };
    let at = notes.iter().position(|known| *known == note).unwrap_or_else(|| {
        notes.push(note);
        notes.len() - 1
    });
    let mark = match &verdicts[0] {
        Verdict::Unsupported(_) => "–",
        Verdict::Same | Verdict::Astray(_) | Verdict::Differs(_) => "✗",
    };
    format!("{mark} ({})", at + 1)
}

/// The version that the driver is pinned to.
fn version(program: &Program) -> String {
    let (file, before) = program.pinned;
    let path = drivers::directory().join("..").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rest = text.split_once(before).map(|(_, rest)| rest);
    let rest = rest.unwrap_or_else(|| panic!("no {before} in {}", path.display()));
    rest.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || ".-+".contains(*c))
        .collect()
}

/// Writes the table when that is wanted, whatever is in it.
pub(super) fn write(sections: &str) {
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path(), format!("{HEAD}{sections}")).expect("docs/drivers.md is written");
    }
}

/// Compares the table with the committed one.
pub(super) fn check(sections: &str) {
    let found = format!("{HEAD}{sections}");
    let path = path();
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((at, (is, should))) = committed
        .lines()
        .chain(std::iter::repeat(""))
        .zip(found.lines())
        .enumerate()
        .find(|(_, (is, should))| is != should)
    {
        panic!(
            "docs/drivers.md, line {}: {is:?}, but found {should:?}; {WRITE}=1 writes it",
            at + 1
        );
    }
    assert_eq!(
        committed.lines().count(),
        found.lines().count(),
        "docs/drivers.md is longer than what was found"
    );
}

fn path() -> PathBuf {
    drivers::directory().join("../../docs/drivers.md")
}
